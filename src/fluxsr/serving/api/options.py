"""What a client may ask for: the options of ``fluxsr upscale`` that make sense over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from fluxsr.imaging.formats import WRITTEN
from fluxsr.processing.inputs import stripped
from fluxsr.processing.upscale_file import Options
from fluxsr.serving.api.problems import Problem


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)  # JSON has one kind of number: 95.0 is 95


class Wanted(BaseModel):
    """Options of one image; defaults and meanings are those of the command line."""

    model_config = ConfigDict(extra="forbid")

    scale: float = Field(4, ge=1, le=8, allow_inf_nan=False, description="Enlargement; trained at 4.")
    strength: float | None = Field(
        None, ge=0, le=2, allow_inf_nan=False, description="Share of the step: 0 none, 1 full; else the model's."
    )
    tile_size: Annotated[int, Field(ge=64, le=1024), _WHOLE] | None = Field(
        None, description="Largest tile, output pixels; else the model's."
    )
    tile_overlap: Annotated[int, Field(ge=0, le=512), _WHOLE] = Field(
        32, description="Least overlap of tiles, output pixels."
    )
    color_fix: Literal["wavelet", "adain", "none"] = Field(
        "wavelet", description="How the output gets the input's colours."
    )
    format: Literal["png", "jpg", "webp", "tif", "avif", "bmp"] | None = Field(
        None, description="Of the result; else the input's, or PNG where that is not written."
    )
    quality: Annotated[int, Field(ge=1, le=100), _WHOLE] | None = Field(
        None, description="Of JPEG, WebP and AVIF; else 95."
    )
    lossless: bool | None = Field(None, description="Of WebP; else as a WebP input is, or lossy.")
    profile: Literal["keep", "srgb"] = Field("keep", description="Back to the input's colours, or sRGB.")
    strip_metadata: bool = Field(False, description="Write no metadata: EXIF, XMP, IPTC, texts, comments, dpi.")
    strip_gps: bool = Field(False, description="Leave out where a picture was taken.")

    @model_validator(mode="after")
    def _overlap_fits(self) -> Wanted:
        if self.tile_size is not None and self.tile_overlap > self.tile_size // 2:
            raise ValueError(f"tile_overlap is {self.tile_overlap}, more than half of tile_size {self.tile_size}")
        return self

    def options(self) -> Options:
        """As the batch of the command line takes them."""
        shaping = self.model_dump(exclude={"format", "strip_metadata", "strip_gps"})
        return Options(**shaping, strip=stripped(self.strip_metadata, self.strip_gps))

    def ending(self, found: str) -> str:
        """The result's, with its dot.

        Args:
            found: Pillow's name of the input's format.
        """
        if self.format is not None:
            return f".{self.format}"
        written = {form.name: form.endings[0] for form in WRITTEN}
        return written.get(found, ".jpg" if found == "HEIF" else ".png")


def checked(values: dict[str, Any], *, strict: bool) -> Wanted:
    """Options of a request.

    Args:
        values: as they came.
        strict: whether types must be right already, as in JSON; fields of a form are all text.

    Raises:
        Problem: invalid_option, which names the first of them.
    """
    try:
        return Wanted.model_validate(values, strict=strict)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            message = f"{place} is no option; there are {', '.join(Wanted.model_fields)}"
        else:
            message = f"{place}: {first['msg']}".removeprefix(": Value error, ")
        raise Problem("invalid_option", message) from None

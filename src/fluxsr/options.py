"""Every option of upscaling an image and of loading a model, declared once: name, default, range and help.

The command line, HTTP, the web page, ComfyUI, Ray jobs and the keywords of Python are made from these two classes.
The module imports neither torch nor any other part of the package but its errors.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import PurePath
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from fluxsr.errors import InputError

ColorFix = Literal["wavelet", "adain", "none"]
Dtype = Literal["auto", "bf16", "fp16", "fp32"]
Format = Literal["png", "jpg", "webp", "tif", "avif", "bmp", "gif"]
Memory = Literal["auto", "8gb", "12gb", "16gb", "24gb", "max"]
Profile = Literal["keep", "srgb"]
Strip = Literal["none", "gps", "all"]

MAX_STRENGTH = 2.0  # results of larger values no longer look like photographs; also the limit for model folders
MAX_PIXELS = 100_000_000
REPAIRED = "has tiles that the model got wrong"
"""Beginning of the note on an image whose tiles the output guard has repaired."""
MAX_SCALE = 8
SIZES = ("scale", "width", "height", "longest", "megapixels")
"""Options that give the size of the output; one of them holds at a time."""

Kind = TypeVar("Kind", bound="_Options")


_UNCHANGED = {"format", "suffix", "max_pixels"}  # every other option of UpscaleOptions changes the result
_LOCAL = {"suffix", "max_pixels"}  # only for users who read and write their own files; a server decides these itself
_SCALE = "Upscaling factor. Defaults to 4, at which the bundled model was trained."
_WIDTH = "Width of the output in pixels, instead of a scale. The aspect ratio is kept."
_HEIGHT = "Height of the output in pixels, instead of a scale. The aspect ratio is kept."
_LONGEST = "Longer side of the output in pixels, instead of a scale. The aspect ratio is kept."
_MEGAPIXELS = "Size of the output in million pixels, instead of a scale. The aspect ratio is kept."
_STRENGTH = "Strength of the model's step: 0 skips it, 1 is the full step. Defaults to the model's own."
_TILE_SIZE = "Largest tile side in output pixels. Smaller tiles need less memory. Defaults to the model's own."
_OVERLAP = "Minimum overlap of neighbouring tiles in output pixels, at most half a tile."
_COLORS = "Method that matches the colours of the output to the input."
_WRAP = "Join opposite edges, for seamless textures. The result is held in memory as a whole."
_GUARD = "Check every tile of the output against the input, and repair the broken ones."
_FIRST_FRAME = "Upscale only the first frame of an animation, or the first page of a TIFF."
_PROVENANCE = "Write into the output which program, model and settings made it."
_LOSSLESS = "Lossless WebP. Defaults to lossless if the input is lossless WebP."
_PROFILE = "Colour profile of the output: the input's ('keep') or sRGB ('srgb')."
_STRIP = "Write no metadata of the input: no EXIF, XMP, IPTC, texts, comments or resolution."
_MODEL = "Model: 'bundled', a folder in diffusers layout, a Hub id, or a .gguf or .safetensors file."
_CONFIG = (
    "For a model in one file: folder with transformer/config.json and vae/. Defaults to FLUX.1-dev's configuration, "
    "with ae.safetensors beside the file."
)
_VAE = (
    "Autoencoder that replaces the model's, for speed: folder or Hub id, such as madebyollin/taef1 for FLUX.1, "
    "madebyollin/taef2 or black-forest-labs/FLUX.2-small-decoder for FLUX.2."
)
_ADAPTER = "Adapter folder or Hub id. Defaults to the adapter in the model folder."
_DTYPE = "Number format of the model. 'auto' chooses the fastest one for the device."
_MEMORY = "GPU memory budget: 'auto' (free memory), a card size such as '12gb', or 'max'."
_COMPILE = "Compile FLUX for a CUDA GPU. Images are faster, but the first one takes a minute more."


class _Options(BaseModel):
    """Options that are checked on construction, with an InputError for the first one that cannot be used."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    if not TYPE_CHECKING:  # otherwise type checkers would not know the keywords

        def __init__(self, /, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise _input_error(type(self), error) from None

    @classmethod
    def from_text(cls: type[Kind], values: Mapping[str, str]) -> Kind:
        """Return the options of a form, in which all values are text."""
        options = declared(cls)
        return cls(**{name: _typed(options[name], text) if name in options else text for name, text in values.items()})

    @field_validator("*", mode="before")
    @classmethod
    def _builtin_numbers(cls, value: Any) -> Any:
        """Accept NumPy's numbers, and 95.0 as a whole number, because JSON has only one kind of number."""
        if isinstance(value, bool) or not isinstance(value, Real):
            return value
        if isinstance(value, Integral):
            return int(value)
        number = float(value)
        return int(number) if number.is_integer() else number


class _SizeOptions(_Options):
    scale: float | None = Field(default=None, ge=1, le=MAX_SCALE, description=_SCALE)
    width: int | None = Field(default=None, ge=16, le=800_000, description=_WIDTH)
    height: int | None = Field(default=None, ge=16, le=800_000, description=_HEIGHT)
    longest: int | None = Field(default=None, ge=16, le=800_000, description=_LONGEST)
    megapixels: float | None = Field(default=None, ge=0.001, le=10_000, description=_MEGAPIXELS)

    @model_validator(mode="before")
    @classmethod
    def _one_size(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = [name for name in SIZES if values.get(name) is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(reversed(given))} are given; choose one of {', '.join(SIZES)}")
        return values if given else {**values, "scale": 4.0}


class PixelOptions(_Options):
    """How the pixels of a result are computed, besides its size."""

    strength: float | None = Field(default=None, ge=0, le=MAX_STRENGTH, description=_STRENGTH)
    tile_size: int | None = Field(default=None, ge=64, le=4096, description=_TILE_SIZE)
    tile_overlap: int = Field(default=32, ge=0, le=2048, description=_OVERLAP)
    color_fix: ColorFix = Field(default="wavelet", description=_COLORS)
    guard: bool = Field(default=True, description=_GUARD)

    @model_validator(mode="after")
    def _overlap_fits_tile(self) -> PixelOptions:
        if self.tile_size is not None and self.tile_overlap > self.tile_size // 2:
            raise InputError(
                f"tile_overlap is {self.tile_overlap}, more than half of tile_size {self.tile_size}; "
                f"choose {self.tile_size // 2} or less"
            )
        return self


class UpscaleOptions(PixelOptions, _SizeOptions):  # in this order the size comes first
    """How one image is upscaled and written."""

    wrap: bool = Field(default=False, description=_WRAP)
    first_frame: bool = Field(default=False, description=_FIRST_FRAME)
    format: Format | None = Field(default=None, description="Output format. Defaults to the input's format.")
    suffix: str = Field(default="", description="Text appended to output names, such as _x4.")
    quality: int | None = Field(
        default=None, ge=1, le=100, description="Quality of JPEG, WebP and AVIF. Defaults to 95."
    )
    lossless: bool | None = Field(default=None, description=_LOSSLESS)
    profile: Profile = Field(default="keep", description=_PROFILE)
    strip_metadata: bool = Field(default=False, description=_STRIP)
    strip_gps: bool = Field(default=False, description="Remove the GPS position.")
    provenance: bool = Field(default=True, description=_PROVENANCE)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, description="Refuse inputs with more pixels.")

    @field_validator("suffix")
    @classmethod
    def _suffix_stays_in_its_folder(cls, suffix: str) -> str:
        return checked_suffix(suffix)

    @property
    def strip(self) -> Strip:
        """Which metadata is left out of the output."""
        return "all" if self.strip_metadata else "gps" if self.strip_gps else "none"

    @property
    def size(self) -> tuple[str, float]:
        """Return the one option of ``SIZES`` that is set, and its value."""
        return next((name, value) for name in SIZES if (value := getattr(self, name)) is not None)

    @property
    def size_in_name(self) -> str:
        """Return the end of a result's name, such as _x4 or _width3840."""
        name, value = self.size
        return f"_{'x' if name == 'scale' else name}{value:g}"

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of the result for an image of this size, rounded to whole pixels.

        Raises:
            InputError: the image would become smaller, or more than ``MAX_SCALE`` times as large.
        """
        name, value = self.size
        power, steps = (2, 1000) if name == "megapixels" else (1, 1)
        sides = {"width": width, "height": height, "longest": max(height, width), "megapixels": height * width / 1e6}
        now = sides.get(name, 1)
        factor, most = (value / now) ** (1 / power), now * MAX_SCALE**power
        if not now <= value <= most:
            fits = f"{math.ceil(now * steps) / steps:g} to {math.floor(most * steps) / steps:g}"
            raise InputError(
                f"{name} is {value:g}, which would enlarge {width}x{height} pixels {factor:.4g} times; "
                f"choose {fits}, which is 1 to {MAX_SCALE} times"
            )
        return round(height * factor), round(width * factor)

    def result_settings(self) -> dict[str, Any]:
        """Return the options that change the result, by name."""
        return self.model_dump(include={name for name, option in declared(type(self)).items() if option.changes_result})


class ModelOptions(_Options):
    """Which model is loaded, and how."""

    model: str = Field(default="bundled", description=_MODEL)
    config: str | None = Field(default=None, description=_CONFIG)
    adapter: str | None = Field(default=None, description=_ADAPTER)
    vae: str | None = Field(default=None, description=_VAE)
    dtype: Dtype = Field(default="auto", description=_DTYPE)
    device: str = Field(default="auto", description="Device: auto, cpu, cuda, mps or xpu.")
    memory: Memory = Field(default="auto", description=_MEMORY)
    compile: bool = Field(default=False, description=_COMPILE)


@dataclass(frozen=True)
class Option:
    """One declared option, as front ends need it."""

    name: str
    type: type  # float, int, bool or str
    optional: bool  # whether None is allowed
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]  # empty for other types
    changes_result: bool  # whether an output that was made with another value is made again
    local: bool  # whether only users who read and write their own files may set it


@cache
def declared(kind: type[_Options]) -> dict[str, Option]:
    """Return the options of a class by name, in the order of their declaration."""
    found = {}
    for name, field in kind.model_fields.items():
        inner, optional = _without_none(field.annotation)
        bounds = {key: getattr(one, key) for one in field.metadata for key in ("ge", "le") if hasattr(one, key)}
        choices = get_args(inner) if get_origin(inner) is Literal else ()
        found[name] = Option(
            name,
            str if choices else inner,
            optional,
            field.default,
            field.description or "",
            bounds.get("ge"),
            bounds.get("le"),
            choices,
            name not in _UNCHANGED,
            name in _LOCAL,
        )
    return found


def checked_suffix(suffix: str) -> str:
    """Return a suffix for file names.

    Raises:
        InputError: it leads into another folder.
    """
    if PurePath(suffix).name != suffix:
        raise InputError(f"suffix is '{suffix}'; it must not contain a folder")
    return suffix


def unknown_option(name: str, offered: Iterable[str]) -> InputError:
    """Return the error for an unknown name, which is shortened if it is long."""
    return InputError(f"{reprlib.repr(name)[1:-1]} is not an option; the options are {', '.join(offered)}")


def _typed(option: Option, text: str) -> Any:
    """Return a text as the option's type, or the text itself if it cannot be converted."""
    try:
        return TypeAdapter(option.type).validate_python(text)
    except ValidationError:
        return text


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, UnionType):
        (inner,) = (one for one in get_args(annotation) if one is not type(None))
        return inner, True
    return annotation, False


def _input_error(kind: type[_Options], error: ValidationError) -> InputError:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    options = declared(kind)
    if name not in options:
        return unknown_option(name, options)
    option, value = options[name], reprlib.repr(first["input"])
    if option.minimum is None:
        return InputError(f"{name} is {value}; it {first['msg'].removeprefix('Input ')}")
    what = "a whole number" if option.type is int else "a number"
    bounds = f"of {option.minimum:g} or more"
    if option.maximum is not None:
        bounds = f"from {option.minimum:g} to {option.maximum:g}"
    return InputError(f"{name} is {value}; choose {what} {bounds}")

"""Arguments that commands share. Light to import."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from fluxsr.imaging.formats import ENDINGS
from fluxsr.processing.inputs import Plan, plan, stripped

if TYPE_CHECKING:
    from fluxsr.processing.upscale_file import Options


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer, in which each field of a dataclass among the parameters is an option of its own.

    Args:
        command: its parameters, and the dataclass's fields, are annotated as typer wants them.
    """
    own = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)}
    options: list[inspect.Parameter] = []
    for name, one in own.items():
        if name in groups:
            hints = get_type_hints(groups[name], include_extras=True)
            found = inspect.signature(groups[name]).parameters.values()
            options += [field.replace(annotation=hints[field.name]) for field in found]
        else:
            options.append(one)

    @wraps(command)
    def typed(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    typed.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    typed.__annotations__ = {option.name: option.annotation for option in options}
    return typed


class Format(str, Enum):
    png = "png"
    jpg = "jpg"
    webp = "webp"
    tif = "tif"
    avif = "avif"
    bmp = "bmp"


class Dtype(str, Enum):
    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


class Profile(str, Enum):
    keep = "keep"
    srgb = "srgb"


class ColorFix(str, Enum):
    wavelet = "wavelet"
    adain = "adain"
    none = "none"


class Memory(str, Enum):
    auto = "auto"
    gb8 = "8gb"
    gb12 = "12gb"
    gb16 = "16gb"
    gb24 = "24gb"
    max = "max"


def checked_suffix(suffix: str) -> str:
    """Refuse what would lead into another folder.

    Raises:
        typer.BadParameter: it would.
    """
    if Path(suffix).name != suffix:
        raise typer.BadParameter(f"'{suffix}' is no part of a file name")
    return suffix


Inputs = Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders, globs.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder; for one input also a file name.")]
Suffix = Annotated[str, typer.Option(callback=checked_suffix, help="Added to output names, such as _x4.")]
Overwrite = Annotated[bool, typer.Option("--overwrite/--skip-existing", help="Redo outputs that exist, or not.")]
Model = Annotated[
    str, typer.Option(help="'bundled', a folder in diffusers layout, a Hub id, or a .gguf or .safetensors file.")
]
Config = Annotated[
    str | None,
    typer.Option(
        help="For a file: folder with transformer/config.json and vae/; else FLUX.1-dev's, ae.safetensors beside."
    ),
]
Adapter = Annotated[str | None, typer.Option(help="Adapter folder or Hub id; by default what the model has.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps or xpu.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Number format of the model; auto: what the device computes in.")]
MemoryOption = Annotated[
    Memory, typer.Option(help="What a GPU may be filled with: what is free, a card's size, or all that it takes.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="FLUX on a CUDA GPU: faster; the first image takes most of a minute more.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Stop at the first error, with its trace.")]


@dataclass(frozen=True)
class Upscaling:
    """How images are upscaled and written, as typed; in the order of the help.

    Raises:
        typer.BadParameter: tiles that overlap by more than half.
    """

    model: Model = "bundled"
    config: Config = None
    adapter: Adapter = None
    scale: Annotated[float, typer.Option(min=1, max=8, help="Enlargement; trained at 4.")] = 4
    strength: Annotated[
        float | None, typer.Option(min=0, max=2, help="Share of the step: 0 none, 1 full; else the model's.")
    ] = None
    tile_size: Annotated[
        int | None,
        typer.Option(min=64, help="Largest tile, output pixels; smaller takes less memory; else the model's."),
    ] = None
    tile_overlap: Annotated[int, typer.Option(min=0, help="Least overlap of tiles, output pixels.")] = 32
    color_fix: Annotated[ColorFix, typer.Option(help="How the output gets the input's colours.")] = ColorFix.wavelet
    seed: Annotated[
        int, typer.Option(help="Of random numbers; the one step draws none today, scripts keep their meaning.")
    ] = 0
    dtype: DtypeOption = Dtype.auto
    device: Device = "auto"
    memory: MemoryOption = Memory.auto
    compile: Compile = False
    format: Annotated[Format | None, typer.Option(help="Of the outputs in a folder; else that of each input.")] = None
    suffix: Suffix = ""
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of JPEG, WebP and AVIF; else 95.")] = None
    lossless: Annotated[
        bool | None, typer.Option("--lossless/--lossy", help="Of WebP; else as a WebP input is, or lossy.")
    ] = None
    profile: Annotated[
        Profile, typer.Option(help="Back to the input's colours, its ICC profile embedded, or sRGB.")
    ] = Profile.keep
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Write no metadata: EXIF, XMP, IPTC, texts, comments, dpi.")
    ] = False
    strip_gps: Annotated[bool, typer.Option("--strip-gps", help="Leave out where a picture was taken.")] = False
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger inputs.")] = 100_000_000
    overwrite: Overwrite = False
    debug: Debug = False

    def __post_init__(self) -> None:
        if self.tile_size is not None and self.tile_overlap > self.tile_size // 2:
            raise typer.BadParameter(
                f"{self.tile_overlap} is more than half of --tile-size {self.tile_size}", param_hint="--tile-overlap"
            )

    def options(self) -> Options:
        """As the work takes them: words for enums, and no more than ``Options`` has."""
        from fluxsr.processing.upscale_file import Options  # brings torch, which takes seconds

        values = {field.name: getattr(self, field.name) for field in fields(Options) if hasattr(self, field.name)}
        plain = {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}
        return Options(**plain, strip=stripped(self.strip_metadata, self.strip_gps))


def planned(inputs: list[str], output: Path, format: Format | None, suffix: str, default: Format | None = None) -> Plan:
    """The plan of a command line.

    Args:
        inputs, output, format, suffix: as typed.
        default: format where none was asked for; None follows each input.

    Raises:
        typer.BadParameter: options that contradict each other.
    """
    ending = format.value if format else ""
    as_file = output.suffix.lower() in ENDINGS and not output.is_dir()
    if as_file and ending and ENDINGS[f".{ending}"] != ENDINGS[output.suffix.lower()]:
        raise typer.BadParameter(f"'{ending}', but -o is {output.name}; leave one of them out", param_hint="--format")
    wanted = format or default
    work = plan(inputs, output, as_file=as_file, ending=f".{wanted.value}" if wanted else None, suffix=suffix)
    if as_file and len(work.jobs) + len(work.bad) > 1:
        raise typer.BadParameter(
            f"{output} is a file name, but there are {len(work.jobs) + len(work.bad)} inputs; name a folder",
            param_hint="-o",
        )
    return work

"""Arguments that commands share. Light to import."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fluxsr.apps.jobs import Plan, plan
from fluxsr.imaging.formats import ENDINGS


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


Inputs = Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders, globs.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder; for one input also a file name.")]
FormatOption = Annotated[Format | None, typer.Option(help="Of the outputs in a folder; else that of each input.")]
Suffix = Annotated[str, typer.Option(help="Added to output names, such as _x4.")]
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
Scale = Annotated[float, typer.Option(min=1, max=8, help="Enlargement; trained at 4.")]
Strength = Annotated[
    float | None, typer.Option(min=0, max=2, help="Share of the step: 0 none, 1 full; else the model's.")
]
TileSize = Annotated[
    int | None, typer.Option(min=64, help="Largest tile, output pixels; smaller takes less memory; else the model's.")
]
TileOverlap = Annotated[int, typer.Option(min=0, help="Least overlap of tiles, output pixels.")]
ColorFixOption = Annotated[ColorFix, typer.Option(help="How the output gets the input's colours.")]
Seed = Annotated[
    int, typer.Option(help="Of random numbers; the one step draws none today, scripts keep their meaning.")
]
DtypeOption = Annotated[Dtype, typer.Option(help="Number format of the model; auto: what the device computes in.")]
MemoryOption = Annotated[
    Memory, typer.Option(help="What a GPU may be filled with: what is free, a card's size, or all that it takes.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="FLUX on a CUDA GPU: faster; the first image of a size takes a minute more.")
]
Quality = Annotated[int | None, typer.Option(min=1, max=100, help="Of JPEG, WebP and AVIF; else 95.")]
Lossless = Annotated[
    bool | None, typer.Option("--lossless/--lossy", help="Of WebP; else as a WebP input is, or lossy.")
]
ProfileOption = Annotated[Profile, typer.Option(help="Back to the input's colours, its ICC profile embedded, or sRGB.")]
StripMetadata = Annotated[bool, typer.Option("--strip-metadata", help="Write no EXIF, XMP, IPTC, dpi.")]
StripGps = Annotated[bool, typer.Option("--strip-gps", help="Leave out where a picture was taken.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="Refuse larger inputs.")]
Debug = Annotated[bool, typer.Option("--debug", help="Stop at the first error, with its trace.")]


def planned(inputs: list[str], output: Path, format: Format | None, suffix: str, default: Format | None = None) -> Plan:
    """The plan of a command line.

    Args:
        inputs, output, format, suffix: as typed.
        default: format where none was asked for; None follows each input.

    Raises:
        typer.BadParameter: options that contradict each other.
    """
    check_suffix(suffix)
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


def check_suffix(suffix: str) -> None:
    """Refuse what would lead into another folder.

    Raises:
        typer.BadParameter: it would.
    """
    if Path(suffix).name != suffix:
        raise typer.BadParameter(f"'{suffix}' is no part of a file name", param_hint="--suffix")


def check_tiles(tile_size: int | None, tile_overlap: int) -> None:
    """Refuse tiles that overlap by more than half.

    Raises:
        typer.BadParameter: they do.
    """
    if tile_size is not None and tile_overlap > tile_size // 2:
        raise typer.BadParameter(
            f"{tile_overlap} is more than half of --tile-size {tile_size}", param_hint="--tile-overlap"
        )


def stripped(metadata: bool, gps: bool) -> str:
    """What of the metadata is left out, as ``Delivery`` calls it."""
    return "all" if metadata else "gps" if gps else "none"

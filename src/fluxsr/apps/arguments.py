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
DtypeOption = Annotated[Dtype, typer.Option(help="Number format of the model; auto: what the device computes in.")]
Debug = Annotated[bool, typer.Option("--debug", help="Stop at the first error, with its trace.")]


def planned(inputs: list[str], output: Path, format: Format | None, suffix: str, default: Format | None = None) -> Plan:
    """The plan of a command line.

    Args:
        inputs, output, format, suffix: as typed.
        default: format where none was asked for; None follows each input.

    Raises:
        typer.BadParameter: options that contradict each other.
    """
    if Path(suffix).name != suffix:
        raise typer.BadParameter(f"'{suffix}' is no part of a file name", param_hint="--suffix")
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

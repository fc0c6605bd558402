"""``fluxsr``: the command line.

torch and diffusers are imported inside the commands, so that ``fluxsr --help`` is instant.
Exit codes: 0 all done, 1 something failed (each failure is one line), 2 wrong usage, 130 stopped.
"""

from __future__ import annotations

import logging
import os
import sys
from enum import Enum
from typing import Annotated

import typer

from fluxsr import __version__
from fluxsr.apps import pairs_cli, train_cli
from fluxsr.apps.about import lines, reported
from fluxsr.apps.arguments import (
    Adapter,
    Config,
    Debug,
    Device,
    FormatOption,
    Inputs,
    Model,
    Output,
    Overwrite,
    Profile,
    Suffix,
    planned,
)
from fluxsr.apps.degrade import degrade
from fluxsr.apps.evaluate import evaluate
from fluxsr.apps.export import export
from fluxsr.apps.fit_niqe import fit_niqe
from fluxsr.apps.prompt import prompt
from fluxsr.apps.web.command import web

app = typer.Typer(
    help="One-step super-resolution of photographs (FluxSR).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a bug's trace as Python prints it can be pasted
)
app.add_typer(train_cli.train, name="train")
app.add_typer(pairs_cli.pairs, name="pairs")


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


class Dtype(str, Enum):
    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


DtypeOption = Annotated[Dtype, typer.Option(help="Number format of the model.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"fluxsr {__version__}")
        raise typer.Exit()


@app.command()
def upscale(
    inputs: Inputs,
    output: Output,
    model: Model = "bundled",
    config: Config = None,
    adapter: Adapter = None,
    scale: Annotated[float, typer.Option(min=1, max=8, help="Enlargement; trained at 4.")] = 4,
    strength: Annotated[
        float | None,
        typer.Option(min=0, max=2, help="Share of the step: 0 none, 1 full; else the model's."),
    ] = None,
    tile_size: Annotated[
        int | None,
        typer.Option(min=64, help="Largest tile, output pixels; smaller takes less memory; else the model's."),
    ] = None,
    tile_overlap: Annotated[int, typer.Option(min=0, help="Least overlap of tiles, output pixels.")] = 32,
    color_fix: Annotated[ColorFix, typer.Option(help="How the output gets the input's colours.")] = ColorFix.wavelet,
    seed: Annotated[
        int, typer.Option(help="Of random numbers; the one step draws none today, scripts keep their meaning.")
    ] = 0,
    dtype: DtypeOption = Dtype.auto,
    device: Device = "auto",
    memory: Annotated[
        Memory, typer.Option(help="What a GPU may be filled with: what is free, a card's size, or all that it takes.")
    ] = Memory.auto,
    format: FormatOption = None,
    suffix: Suffix = "",
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of JPEG, WebP and AVIF; else 95.")] = None,
    lossless: Annotated[
        bool | None, typer.Option("--lossless/--lossy", help="Of WebP; else as a WebP input is, or lossy.")
    ] = None,
    profile: Annotated[
        Profile, typer.Option(help="Back to the input's colours, its ICC profile embedded, or sRGB.")
    ] = Profile.keep,
    strip_metadata: Annotated[bool, typer.Option("--strip-metadata", help="Write no EXIF, XMP, IPTC, dpi.")] = False,
    strip_gps: Annotated[bool, typer.Option("--strip-gps", help="Leave out where a picture was taken.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger inputs.")] = 100_000_000,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Upscale images. Finished outputs are skipped; a bad file does not stop the others."""
    if tile_size is not None and tile_overlap > tile_size // 2:
        raise typer.BadParameter(
            f"{tile_overlap} is more than half of --tile-size {tile_size}",
            param_hint="--tile-overlap",
        )
    work = planned(inputs, output, format, suffix)
    with reported(debug):
        from fluxsr.apps.batch import Options, run

        options = Options(
            model=model,
            config=config,
            adapter=adapter,
            device=device,
            dtype=dtype.value,
            memory=memory.value,
            scale=scale,
            strength=strength,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
            color_fix=color_fix.value,
            seed=seed,
            quality=quality,
            lossless=lossless,
            profile=profile.value,
            strip="all" if strip_metadata else "gps" if strip_gps else "none",
            max_pixels=max_pixels,
        )
        report = run(work, options, overwrite=overwrite, debug=debug)
    raise typer.Exit(1 if report.bad else 0)


app.command()(degrade)
app.command()(evaluate)
app.command("fit-niqe")(fit_niqe)
app.command()(export)
app.command()(prompt)
app.command()(web)


@app.command()
def info(
    model: Model = "bundled",
    config: Config = None,
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
    debug: Debug = False,
) -> None:
    """Print model, device and versions; paste it into a bug report."""
    with reported(debug):
        for line in lines(model, adapter, device, dtype.value, config):
            typer.echo(line)


def main() -> None:
    """The console script; whatever command it is, errors of ours are one line."""
    # transformers warns of image processors that nothing here uses, diffusers of parts of torchao, and torch of how
    # torchao registers itself; set before anything imports them
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    with reported("--debug" in sys.argv):
        app(prog_name="fluxsr")

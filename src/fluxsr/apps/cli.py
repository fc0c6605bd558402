"""``fluxsr``: the command line.

torch and diffusers are imported inside the commands, so that ``fluxsr --help`` is instant.
Exit codes: 0 all done, 1 something failed (each failure is one line), 2 wrong usage, 130 stopped.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from fluxsr import __version__
from fluxsr.apps import pairs_cli, train_cli
from fluxsr.apps.about import lines, reported
from fluxsr.apps.api.command import serve
from fluxsr.apps.archive.cli import batch
from fluxsr.apps.arguments import (
    Adapter,
    ColorFix,
    ColorFixOption,
    Compile,
    Config,
    Debug,
    Device,
    Dtype,
    DtypeOption,
    FormatOption,
    Inputs,
    Lossless,
    MaxPixels,
    Memory,
    MemoryOption,
    Model,
    Output,
    Overwrite,
    Profile,
    ProfileOption,
    Quality,
    Scale,
    Seed,
    Strength,
    StripGps,
    StripMetadata,
    Suffix,
    TileOverlap,
    TileSize,
    check_tiles,
    planned,
    stripped,
)
from fluxsr.apps.comfyui.install import comfyui
from fluxsr.apps.degrade import degrade
from fluxsr.apps.evaluate import evaluate
from fluxsr.apps.export import export
from fluxsr.apps.fit_niqe import fit_niqe
from fluxsr.apps.prompt import prompt
from fluxsr.apps.push import push
from fluxsr.apps.web.command import web

app = typer.Typer(
    help="One-step super-resolution of photographs (FluxSR).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a bug's trace as Python prints it can be pasted
)
app.add_typer(train_cli.train, name="train")
app.add_typer(pairs_cli.pairs, name="pairs")


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
    scale: Scale = 4,
    strength: Strength = None,
    tile_size: TileSize = None,
    tile_overlap: TileOverlap = 32,
    color_fix: ColorFixOption = ColorFix.wavelet,
    seed: Seed = 0,
    dtype: DtypeOption = Dtype.auto,
    device: Device = "auto",
    memory: MemoryOption = Memory.auto,
    compile: Compile = False,
    format: FormatOption = None,
    suffix: Suffix = "",
    quality: Quality = None,
    lossless: Lossless = None,
    profile: ProfileOption = Profile.keep,
    strip_metadata: StripMetadata = False,
    strip_gps: StripGps = False,
    max_pixels: MaxPixels = 100_000_000,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Upscale images. Finished outputs are skipped; a bad file does not stop the others."""
    check_tiles(tile_size, tile_overlap)
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
            compile=compile,
            scale=scale,
            strength=strength,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
            color_fix=color_fix.value,
            seed=seed,
            quality=quality,
            lossless=lossless,
            profile=profile.value,
            strip=stripped(strip_metadata, strip_gps),
            max_pixels=max_pixels,
        )
        report = run(work, options, overwrite=overwrite, debug=debug)
    raise typer.Exit(1 if report.bad else 0)


app.command()(batch)
app.command()(comfyui)
app.command()(degrade)
app.command()(evaluate)
app.command("fit-niqe")(fit_niqe)
app.command()(export)
app.command()(prompt)
app.command()(push)
app.command()(serve)
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
    if hasattr(sys.stdout, "reconfigure"):  # a pipe on Windows has a code page without the arrows of our tables
        sys.stdout.reconfigure(errors="backslashreplace")
    with reported("--debug" in sys.argv):
        app(prog_name="fluxsr")

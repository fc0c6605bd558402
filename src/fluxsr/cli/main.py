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
from fluxsr.cli import pairs as pairs_cli
from fluxsr.cli import train as train_cli
from fluxsr.cli.arguments import (
    Adapter,
    Config,
    Debug,
    Device,
    Dtype,
    DtypeOption,
    Inputs,
    Model,
    Output,
    Upscaling,
    planned,
    spread,
)
from fluxsr.cli.batch import batch
from fluxsr.cli.cli_errors import lines, reported
from fluxsr.cli.comfyui import comfyui
from fluxsr.cli.degrade import degrade
from fluxsr.cli.evaluate import evaluate
from fluxsr.cli.export import export
from fluxsr.cli.fit_niqe import fit_niqe
from fluxsr.cli.prompt import prompt
from fluxsr.cli.push import push
from fluxsr.cli.serve import serve
from fluxsr.cli.web import web
from fluxsr.names import printable

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
@spread
def upscale(inputs: Inputs, output: Output, typed: Upscaling) -> None:
    """Upscale images. Finished outputs are skipped; a bad file does not stop the others."""
    work = planned(inputs, output, typed.format, typed.suffix)
    with reported(typed.debug):
        from fluxsr.processing.upscale_file import run

        report = run(work, typed.options(), overwrite=typed.overwrite, debug=typed.debug)
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
            typer.echo(printable(line))


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

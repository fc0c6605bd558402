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
from fluxsr.cli.arguments import Debug, Inputs, Output, Overwrite, expand_dataclass_options, planned
from fluxsr.cli.batch import batch
from fluxsr.cli.cli_errors import lines, report_errors
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
from fluxsr.options import ModelOptions, UpscaleOptions

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
@expand_dataclass_options
def upscale(
    *,
    inputs: Inputs,
    output: Output,
    model: ModelOptions,
    options: UpscaleOptions,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Upscale images. Finished outputs are skipped; a bad file does not stop the others."""
    work = planned(inputs, output, options.format, options.suffix)
    with report_errors(debug):
        from fluxsr.processing.upscale_file import run

        report = run(work, model, options, overwrite=overwrite, debug=debug)
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
@expand_dataclass_options
def info(*, model: ModelOptions, debug: Debug = False) -> None:
    """Print model, device and versions; paste it into a bug report."""
    with report_errors(debug):
        for line in lines(model):
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
    with report_errors("--debug" in sys.argv):
        app(prog_name="fluxsr")

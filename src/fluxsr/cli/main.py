"""``fluxsr``: the command line.

torch and diffusers are imported inside the commands, so that ``fluxsr --help`` is fast.
Exit codes: 0 success, 1 a failure (one line each), 2 wrong usage, 130 stopped by a signal.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fluxsr import __version__
from fluxsr.cli import adapter as adapter_cli
from fluxsr.cli import pairs as pairs_cli
from fluxsr.cli import train as train_cli
from fluxsr.cli.arguments import Debug, Mask, Overwrite, expand_dataclass_options
from fluxsr.cli.batch import batch
from fluxsr.cli.cli_errors import report_errors
from fluxsr.cli.comfyui import comfyui
from fluxsr.cli.degrade import degrade
from fluxsr.cli.evaluate import evaluate
from fluxsr.cli.export import export
from fluxsr.cli.fit_niqe import fit_niqe
from fluxsr.cli.info import info
from fluxsr.cli.models import models
from fluxsr.cli.pipes import plan_for, print_json
from fluxsr.cli.prompt import prompt
from fluxsr.cli.push import push
from fluxsr.cli.serve import serve
from fluxsr.cli.web import web
from fluxsr.options import ModelOptions, UpscaleOptions

app = typer.Typer(
    help="One-step super-resolution of photographs (FluxSR).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # Python's own traceback is easier to paste into a report
)
app.add_typer(train_cli.train, name="train")
app.add_typer(pairs_cli.pairs, name="pairs")
app.add_typer(adapter_cli.adapter, name="adapter")


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
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders or glob patterns, or - for standard input.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Output folder, a file name for a single input, or - for standard output. "
            "Defaults to the input's name with its size, such as _x4, beside the input.",
        ),
    ] = None,
    model: ModelOptions,
    options: UpscaleOptions,
    mask: Mask = None,
    overwrite: Overwrite = False,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per file, and one at the end.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Upscale images.

    Existing outputs are skipped, and a bad file does not stop the others.
    """
    with report_errors(debug), plan_for(inputs, output, options, json_lines, mask) as work:
        from fluxsr.processing.upscale_file import run

        listener = print_json if json_lines else None
        report = run(work, model, options, overwrite=overwrite, debug=debug, listener=listener)
    raise typer.Exit(1 if report.bad else 0)


for _command in (batch, comfyui, degrade, evaluate, fit_niqe, export, models, prompt, push, serve, web, info):
    app.command()(_command)


def main() -> None:
    """Run the console script."""
    # Silence warnings of transformers, diffusers and torch that do not concern us; set before they are imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    if hasattr(sys.stdout, "reconfigure"):  # a code page on Windows may lack the arrows of our tables
        sys.stdout.reconfigure(errors="backslashreplace")
    with report_errors("--debug" in sys.argv):
        app(prog_name="fluxsr")

"""``-`` for standard input and output. Light to import."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import typer

from fluxsr.cli.arguments import planned
from fluxsr.errors import InputError, OutputError
from fluxsr.imaging.formats import ENDINGS, following, result_ending
from fluxsr.options import UpscaleOptions
from fluxsr.processing.inputs import Job, Plan

STREAM = "-"


@contextmanager
def plan_for(
    inputs: list[str], output: Path | None, options: UpscaleOptions, json_lines: bool, mask: Path | None = None
) -> Iterator[Plan]:
    """Yield the plan of a command line. Without ``output``, outputs are beside their inputs.

    Standard input and output are temporary files meanwhile, because images are not read and written in order.

    Raises:
        typer.BadParameter: options contradict each other.
        InputError, OutputError: standard input or output cannot be used.
    """
    if output is None and STREAM in inputs:
        output = Path(STREAM)
    if STREAM not in (*inputs, str(output)):
        suffix = options.suffix or ("" if output else options.size_in_name)
        yield planned(inputs, output, options.format, suffix, mask=mask)
        return
    to_stream, stdout = output == Path(STREAM), sys.stdout
    if len(inputs) > 1:
        raise typer.BadParameter(f"'-' stands for one image, but there are {len(inputs)} inputs", param_hint="INPUT")
    if mask and mask.is_dir():
        raise typer.BadParameter(f"{mask} is a folder; name the mask of the one image", param_hint="--mask")
    if to_stream and json_lines:
        raise typer.BadParameter("standard output cannot hold both the image and JSON; leave one out", param_hint="-o")
    if to_stream and sys.stdout.isatty():
        raise InputError("the image would be written to the terminal; redirect it, or name a file with -o")
    with TemporaryDirectory(prefix="fluxsr-") as folder, redirect_stdout(sys.stderr):
        source, ending, label = Path(inputs[0]), following(Path(inputs[0])), ""
        if inputs == [STREAM]:
            source, label = Path(folder, "input"), "standard input"
            ending = _received(source)
        ending = f".{options.format}" if options.format else ending
        if output is None or to_stream:
            target = Path(folder, f"output{ending}")
            yield Plan([Job(source, target, mask, label=label)])
            if target.exists():
                _send(target, stdout)
        elif output.suffix.lower() not in ENDINGS:
            raise typer.BadParameter(f"{output} must be a file name such as photo.png", param_hint="-o")
        else:
            work = planned([str(source)], output, options.format, "", mask=mask)
            work.jobs = [replace(job, label=label) for job in work.jobs]
            yield work


def _received(target: Path) -> str:
    """Save standard input as a file, and return the ending of a result of its format."""
    from fluxsr.imaging.decode import kind_of

    if sys.stdin.isatty():
        raise InputError("standard input is a terminal; redirect an image to it, as in: fluxsr upscale - < photo.jpg")
    with target.open("w+b") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        return result_ending(None, kind_of(file))


def _send(source: Path, stdout: TextIO) -> None:
    try:
        with source.open("rb") as file:
            shutil.copyfileobj(file, stdout.buffer)
        stdout.buffer.flush()
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def print_json(record: dict[str, Any]) -> None:
    """Print a record as one line of JSON."""
    typer.echo(json.dumps(record))

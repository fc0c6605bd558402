"""``fluxsr fit-niqe``: fit NIQE's model of pristine photographs to your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxsr.cli.arguments import Debug
from fluxsr.cli.cli_errors import report_errors


def fit_niqe(
    photographs: Annotated[
        list[str],
        typer.Argument(metavar="PHOTOGRAPHS...", help="Good photographs: folders, files or tar shards."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.npz), for --niqe-params.")],
    limit: Annotated[int, typer.Option(min=0, help="Use only the first N photographs; 0 means all.")] = 0,
    debug: Debug = False,
) -> None:
    """Fit NIQE's model of high-quality photographs.

    Scores with one model are not comparable with scores with another.
    """
    if output.suffix.lower() != ".npz":
        raise typer.BadParameter(f"'{output}' must end in .npz", param_hint="-o")
    with report_errors(debug):
        from fluxsr.evaluation import niqe
        from fluxsr.imaging.atomic import check_writable
        from fluxsr.imaging.photographs import list_photographs
        from fluxsr.progress import progress

        check_writable(output)
        found = list_photographs(photographs, limit)
        with progress(transient=True) as bar:
            read = (photo.read()[None].double() / 255 for photo in bar.track(found, description="fit"))
            model = niqe.fit(read)
        niqe.save_model(model, output)
        typer.echo(f"{output}: NIQE's model of {len(found)} photographs", err=True)

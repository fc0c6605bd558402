"""``fluxsr models``: what runs, under which licence, on which GPU."""

from __future__ import annotations

from typing import Annotated

import typer


def models(
    gpus: Annotated[bool, typer.Option("--gpus", help="List GPUs and what runs on them instead.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
) -> None:
    """List the models that run, with their licence, GPU memory and source.

    The memory is computed from the models' configurations for tiles of 1024 pixels, one at a time. Nothing is loaded.
    """
    from fluxsr.backbones.catalogue import cards_table, models_table
    from fluxsr.cli.report_format import drawn
    from fluxsr.evaluation.tables import TEXTS, Table

    table = Table(*(cards_table() if gpus else models_table()))
    typer.echo(TEXTS["markdown"](table) if markdown else drawn(table, "left"), nl=False)

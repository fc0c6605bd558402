"""The one progress bar: on stderr, so that what a command prints can be piped."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress(console: Console | None = None, disable: bool = False, transient: bool = False) -> Progress:
    """How many are done of how many, a bar, the time gone and left, and what is at work.

    Args:
        console: where lines are printed while the bar stands; by default stderr.
        transient: the bar goes when it is done.
    """
    return Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),  # last, and bare: names differ in length and may hold brackets
        console=console or Console(stderr=True),
        disable=disable,
        transient=transient,
    )

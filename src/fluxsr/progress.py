"""Progress bar of all commands. It is written to stderr, so that a command's output can be piped."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress(console: Console | None = None, disable: bool = False, transient: bool = False) -> Progress:
    """Return a progress bar with counts, elapsed time, remaining time and a description of the current item.

    Lines that are printed on ``console`` appear above the bar. ``transient`` removes it when it is finished.
    """
    return Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),  # last because lengths vary; no markup because of brackets
        console=console or Console(stderr=True),
        disable=disable,
        transient=transient,
    )

"""Progress bar of all commands. It is written to stderr, so that a command's output can be piped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def with_bar(new_bar: Callable[..., Any], progress: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
    """Return a progress callback that also moves a tqdm bar, one bar for each image.

    Args:
        new_bar: function from the keyword ``total`` to a bar.
        progress: called with (tiles done, tiles in all).
    """
    bar: Any = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        bar = new_bar(total=total) if bar is None else bar
        bar.total = total  # more tiles, where memory ran out
        bar.update(done - bar.n)
        if done == total:
            bar.close()
            bar = None
        if progress is not None:
            progress(done, total)

    return report

"""The progress bar: on stderr, names as they are, parts of a file count."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from fluxsr.progress import progress


def shown(completed: float, name: str = "[a].png", disable: bool = False, transient: bool = False) -> str:
    screen = StringIO()
    with progress(Console(file=screen, width=100), disable=disable, transient=transient) as bar:
        bar.update(bar.add_task(name, total=3), completed=completed)
    return screen.getvalue()


def test_counts_what_is_done_and_names_what_is_at_work() -> None:
    assert shown(1).lstrip().startswith("1/3 ") and shown(1).rstrip().endswith("[a].png")
    assert shown(1.9).lstrip().startswith("1/3 ")  # the second file has not been finished


def test_is_silent_on_demand_and_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(1, disable=True) == "" and shown(1, transient=True).strip() == ""
    with progress() as bar:
        bar.add_task("work", total=1)
    captured = capsys.readouterr()
    assert captured.out == "" and "work" in captured.err

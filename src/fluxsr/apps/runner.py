"""Work a plan off, file after file: finished outputs are skipped, no bad file stops the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from fluxsr.apps.jobs import Job, Plan
from fluxsr.errors import FluxSRError
from fluxsr.progress import progress

Share = Callable[[float], None]
"""Tells how much of a file is done, 0 to 1."""

Step = Callable[[Job, Share], None]
"""Does one file: reads the source and writes the target, or raises."""


@dataclass
class Report:
    """What became of a plan: outputs written, outputs that were there, inputs that failed."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Words:
    """How a command speaks of its work.

    Attributes:
        task: of the progress bar.
        past: of the summary.
        memory: what to try where memory runs out.
    """

    task: str
    past: str
    memory: str = "try a smaller image"


def run_jobs(
    work: Plan, start: Callable[[Console], Step], words: Words, *, overwrite: bool = False, debug: bool = False
) -> Report:
    """Do all of a plan; every failure is one line on stderr.

    Args:
        work: of ``jobs.plan``.
        start: loads what the step needs, and gives the step; not called where nothing is to do.
        overwrite: redo outputs that exist.
        debug: raise the first error instead of reporting it.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    report = Report()
    for note in work.notes:
        console.print(f"note: {note}")
    for name, reason in work.bad:
        console.print(f"error: {name}: {reason}")
        report.bad.append(name)
    todo: list[Job] = []
    for job in work.jobs:
        if job.target.exists() and not overwrite:
            report.skipped.append(job.target)
        else:
            todo.append(job)
    if todo:
        _do(todo, start(console), words, console, report, debug)
    _summary(console, report, words)
    return report


def _do(todo: list[Job], step: Step, words: Words, console: Console, report: Report, debug: bool) -> None:
    with progress(console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(words.task, total=len(todo))
        for number, job in enumerate(todo):
            bar.update(task, description=job.source.name)

            def share(part: float, number: int = number) -> None:
                bar.update(task, completed=number + part)

            try:
                step(job, share)
                report.done.append(job.target)
            except Exception as error:
                if debug:
                    raise
                console.print(f"error: {reason_of(error, job.source, words.memory)}")
                report.bad.append(str(job.source))
            bar.update(task, completed=number + 1)


def reason_of(error: Exception, source: Path, memory: str) -> str:
    """An error in one line that names the file."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    if not isinstance(error, FluxSRError):
        if isinstance(error, MemoryError) or "memory" in text:
            text = f"out of memory; {memory} ({text})"
        else:
            text = f"unexpected {type(error).__name__}: {text} (--debug shows where)"
    return text if text.startswith(str(source)) else f"{source}: {text}"


def _summary(console: Console, report: Report, words: Words) -> None:
    parts = [f"{len(report.done)} {words.past}"]
    if report.skipped:
        parts.append(f"{len(report.skipped)} finished before (--overwrite redoes them)")
    if report.bad:
        parts.append(f"{len(report.bad)} failed")
    console.print(", ".join(parts))
    for name in report.bad:
        console.print(f"failed: {name}")

"""Process jobs with read-ahead and background writes, so the model never waits for the disk.

Finished outputs are skipped, and a bad file does not stop the others.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

from rich.console import Console

from fluxsr.errors import AcceleratorLost, OutputError, lost_accelerator
from fluxsr.imaging.atomic import remove_orphans
from fluxsr.names import printable
from fluxsr.options import REPAIRED
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.reporting import CommandLabels, Report, print_summary, reason_of, terminal
from fluxsr.processing.resume import Ledger
from fluxsr.progress import progress
from fluxsr.training.stopping import stop_flag

AHEAD = 2  # inputs read ahead, and outputs being written; more would only fill the memory
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors after which no other output could be written either."""

Read = TypeVar("Read")
Write = Callable[[], Sequence[str] | None]
"""Writes a result and may return notes on it."""


class ProgressCallback(Protocol):
    """Called with the finished fraction of a file, 0 to 1, and with the part that is at work, such as a frame."""

    def __call__(self, progress: float, label: str = "", /) -> None: ...


Ledgers = dict[Path | None, Ledger]
Writing = tuple[Job, Future[tuple[Sequence[str], float]]]


@dataclass(frozen=True)
class Stages(Generic[Read]):
    """The two stages of a job.

    Attributes:
        read: checks that the output can be written, and reads the input; called in a thread.
        work: processes the input, and returns the function that writes the result, which is called in a thread.
    """

    read: Callable[[Job], Read]
    work: Callable[[Job, Read, ProgressCallback], Write]


def run_jobs(
    work: Plan,
    start: Callable[[Console], Stages[Any]],
    labels: CommandLabels,
    *,
    settings: dict[str, Any] | None = None,
    overwrite: bool = False,
    debug: bool = False,
    listener: Callable[[dict[str, Any]], None] | None = None,
) -> Report:
    """Run all jobs of a plan. Every failure is one line on stderr.

    The first SIGINT or SIGTERM finishes the current file and then stops. The second one stops at once.

    Args:
        work: the plan.
        start: loads what the work needs and returns its stages; not called if nothing is to do.
        labels: words for messages.
        settings: settings that change the results, for the ledger; outputs made with others are made again.
        overwrite, debug: as on the command line.
        listener: see ``Report``.

    Raises:
        KeyboardInterrupt: a signal stopped the run.
        AcceleratorLost: the device failed; the remaining jobs were not started.
    """
    console = terminal()
    report = Report(passed=work.passed, listener=listener)
    for note in work.notes:
        console.print(f"note: {printable(note)}")
    for name, reason in work.bad:
        console.print(printable(f"error: {name}: {reason}"))
        report.finish("failed", name, error=reason)
    folders = set() if settings is None else {job.record for job in work.jobs}
    ledgers: Ledgers = {folder: Ledger(folder, settings or {}) for folder in folders if folder}
    todo = _todo(work, ledgers, overwrite, report, console)
    with stop_flag() as stop:
        if todo:
            remove_orphans({job.target.parent for job in todo})
            stages = start(console)
            began = perf_counter()
            _Run(stages, ledgers, labels, console, report, debug, stop).run(todo)
            report.seconds = perf_counter() - began
        print_summary(console, report, labels)
        report.end()
        if report.lost:
            raise AcceleratorLost(report.lost)
        if stop.is_set() and not report.full:
            raise KeyboardInterrupt
    return report


def _todo(work: Plan, ledgers: Ledgers, overwrite: bool, report: Report, console: Console) -> list[Job]:
    todo: list[Job] = []
    outdated = 0
    inside: dict[Path, bool] = {}  # output folder -> whether it lies in the folder of its ledger, links resolved
    for job in work.jobs:
        folder = job.target.parent
        if folder not in inside:
            inside[folder] = job.record is None or folder.resolve().is_relative_to(job.record.resolve())
        old = job.target.exists() and not overwrite
        again = old and job.record in ledgers and ledgers[job.record].outdated(job)
        if not inside[folder]:
            reason = f"its output folder {folder} is a link out of {job.record}; remove it"
            console.print(printable(f"error: {job.name}: {reason}"))
            report.finish("failed", job.name, error=reason)
        elif old and not again:
            report.finish("skipped", job.name, job.target)
        else:
            todo.append(job)
            outdated += again
    if outdated:
        console.print(f"note: {outdated} outputs have changed settings or inputs and are made again")
    return todo


@dataclass
class _Run:
    stages: Stages[Any]
    ledgers: Ledgers
    labels: CommandLabels
    console: Console
    report: Report
    debug: bool
    stop: threading.Event
    stop_shown: bool = False
    total: int = 0
    failed: int = 0
    begun: float = field(default_factory=time.monotonic)

    def run(self, todo: list[Job]) -> None:
        self.total = len(todo)
        writing: deque[Writing] = deque()
        with (
            ThreadPoolExecutor(AHEAD, "read") as readers,
            ThreadPoolExecutor(AHEAD, "write") as writers,
            progress(self.console, disable=not self.console.is_terminal, transient=True) as bar,
        ):
            task = bar.add_task(self.labels.task, total=len(todo))
            try:
                for number, (job, stamp, reading) in enumerate(self._read_ahead(todo, readers)):
                    name = printable(job.source.name)
                    bar.update(task, completed=number, description=name)

                    def advance(done: float, part: str = "", /, number: int = number, name: str = name) -> None:
                        bar.update(task, completed=number + done, description=f"{name} {part}".rstrip())
                        self._show_stop()

                    started = time.monotonic()
                    try:
                        write = self.stages.work(job, reading.result(), advance)
                        while len(writing) >= AHEAD:
                            self._written(*writing.popleft())
                        writing.append((job, writers.submit(self._write, job, stamp, write, started)))
                    except Exception as error:
                        self._failed(job, error)
                    while writing and writing[0][1].done():
                        self._written(*writing.popleft())
                while writing:
                    self._written(*writing.popleft())
            finally:
                readers.shutdown(wait=False, cancel_futures=True)

    def _read_ahead(self, todo: list[Job], readers: ThreadPoolExecutor) -> Iterator[tuple[Job, str, Future[Any]]]:
        """Yield the jobs in order, with some inputs read ahead; end once a stop is requested."""
        waiting, reading = deque(todo), deque[tuple[Job, str, Future[Any]]]()
        while (waiting or reading) and not self.stop.is_set():
            while waiting and len(reading) <= AHEAD:
                job = waiting.popleft()
                stamp = self.ledgers[job.record].stamp(job) if job.record in self.ledgers else ""
                reading.append((job, stamp, readers.submit(self.stages.read, job)))
            yield reading.popleft()
        self.report.left += len(waiting) + len(reading)

    def _show_stop(self) -> None:
        if self.stop.is_set() and not self.stop_shown:
            self.console.print("stopping after this image; once more stops now")
            self.stop_shown = True

    def _write(self, job: Job, stamp: str, write: Write, started: float) -> tuple[Sequence[str], float]:
        """Write a result; return notes on it, and the seconds since the work on it started."""
        notes = write() or ()
        if ledger := self.ledgers.get(job.record):
            try:
                ledger.note(job, stamp, notes)
            except OSError as error:
                raise OutputError(f"{ledger.path} cannot be written: {error.strerror}") from error
        return notes, time.monotonic() - started

    def _written(self, job: Job, future: Future[tuple[Sequence[str], float]]) -> None:
        try:
            notes, seconds = future.result()
        except Exception as error:
            self._failed(job, error)
            return
        self.report.finish("done", job.name, job.target, seconds=seconds, notes=notes)
        self.report.repaired += any(note.startswith(REPAIRED) for note in notes)
        if not self.console.is_terminal and not self.report.listener:  # instead of the progress bar
            self.console.print(printable(self._line(job, seconds)))
        for note in notes:
            self.console.print(printable(f"note: {job.name} {note}"))

    def _line(self, job: Job, seconds: float) -> str:
        finished = len(self.report.done) + self.failed
        left = (time.monotonic() - self.begun) / finished * (self.total - finished)
        estimate = f", about {timedelta(seconds=round(left))} left" if finished < self.total else ""
        return f"{finished}/{self.total} {job.name}: {seconds:.1f} s{estimate}"

    def _failed(self, job: Job, error: Exception) -> None:
        if self.debug:
            raise error
        reason = reason_of(error, job.source, self.labels.memory, job.label)
        self.console.print(f"error: {reason}")
        self.failed += 1
        self.report.finish("failed", job.name, error=reason)
        if no_room(error) and not self.stop.is_set():
            self.console.print("error: nothing more can be written there; make room and run the same command again")
            self.report.full = True
            self.stop.set()
        if lost := lost_accelerator(error):  # every other job would fail too
            self.report.lost = lost
            self.stop.set()


def no_room(error: Exception) -> bool:
    """Return whether an output failed because its disk is full or read-only."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM

"""Process jobs with read-ahead and background writes, so the model never waits for the disk.

Finished outputs are skipped, and a bad file does not stop the others.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, TypeVar

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
ProgressCallback = Callable[[float], None]
"""Called with the finished fraction of a file, 0 to 1."""

Write = Callable[[], Sequence[str] | None]
"""Writes a result and may return notes on it."""


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
) -> Report:
    """Run all jobs of a plan. Every failure is one line on stderr.

    The first SIGINT or SIGTERM finishes the current file and then stops. The second one stops at once.

    Args:
        work: the plan.
        start: loads what the work needs and returns its stages; not called if nothing is to do.
        labels: words for messages.
        settings: settings that change the results, for the ledger; outputs made with others are made again.
        overwrite, debug: as on the command line.

    Raises:
        KeyboardInterrupt: a signal stopped the run.
        AcceleratorLost: the device failed; the remaining jobs were not started.
    """
    console = terminal()
    report = Report(passed=work.passed)
    for note in work.notes:
        console.print(f"note: {printable(note)}")
    for name, reason in work.bad:
        console.print(printable(f"error: {name}: {reason}"))
        report.bad.append(name)
    ledger = None if settings is None or work.record is None else Ledger(work.record, settings)
    todo = _todo(work, ledger, overwrite, report, console)
    with stop_flag() as stop:
        if todo:
            remove_orphans({job.target.parent for job in todo})
            stages = start(console)
            began = perf_counter()
            _Run(stages, ledger, labels, console, report, debug, stop).run(todo)
            report.seconds = perf_counter() - began
        print_summary(console, report, labels)
        if report.lost:
            raise AcceleratorLost(report.lost)
        if stop.is_set() and not report.full:
            raise KeyboardInterrupt
    return report


def _todo(work: Plan, ledger: Ledger | None, overwrite: bool, report: Report, console: Console) -> list[Job]:
    todo: list[Job] = []
    outdated = 0
    inside: dict[Path, bool] = {}  # output folder -> whether it lies in -o, links resolved
    for job in work.jobs:
        folder = job.target.parent
        if folder not in inside:
            inside[folder] = work.root is None or folder.resolve().is_relative_to(work.root.resolve())
        old = job.target.exists() and not overwrite
        again = old and ledger is not None and ledger.outdated(job)
        if not inside[folder]:
            console.print(printable(f"error: {job.source}: its output folder {folder} is a link out of -o; remove it"))
            report.bad.append(str(job.source))
        elif old and not again:
            report.skipped.append(job.target)
        else:
            todo.append(job)
            outdated += again
    if outdated:
        console.print(f"note: {outdated} outputs have changed settings or inputs and are made again")
    return todo


@dataclass
class _Run:
    stages: Stages[Any]
    ledger: Ledger | None
    labels: CommandLabels
    console: Console
    report: Report
    debug: bool
    stop: threading.Event
    stop_shown: bool = False

    def run(self, todo: list[Job]) -> None:
        writing: deque[tuple[Job, Future[Sequence[str]]]] = deque()
        with (
            ThreadPoolExecutor(AHEAD, "read") as readers,
            ThreadPoolExecutor(AHEAD, "write") as writers,
            progress(self.console, disable=not self.console.is_terminal, transient=True) as bar,
        ):
            task = bar.add_task(self.labels.task, total=len(todo))
            try:
                for number, (job, stamp, reading) in enumerate(self._read_ahead(todo, readers)):
                    bar.update(task, completed=number, description=printable(job.source.name))

                    def advance(part: float, number: int = number) -> None:
                        bar.update(task, completed=number + part)
                        self._show_stop()

                    try:
                        write = self.stages.work(job, reading.result(), advance)
                        while len(writing) >= AHEAD:
                            self._written(*writing.popleft())
                        writing.append((job, writers.submit(self._write, job, stamp, write)))
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
                stamp = self.ledger.stamp(job) if self.ledger else ""
                reading.append((job, stamp, readers.submit(self.stages.read, job)))
            yield reading.popleft()
        self.report.left += len(waiting) + len(reading)

    def _show_stop(self) -> None:
        if self.stop.is_set() and not self.stop_shown:
            self.console.print("stopping after this image; once more stops now")
            self.stop_shown = True

    def _write(self, job: Job, stamp: str, write: Write) -> Sequence[str]:
        notes = write() or ()
        if self.ledger is not None:
            try:
                self.ledger.note(job, stamp, notes)
            except OSError as error:
                raise OutputError(f"{self.ledger.path} cannot be written: {error.strerror}") from error
        return notes

    def _written(self, job: Job, future: Future[Sequence[str]]) -> None:
        try:
            notes = future.result()
        except Exception as error:
            self._failed(job, error)
            return
        self.report.done.append(job.target)
        self.report.repaired += any(note.startswith(REPAIRED) for note in notes)
        for note in notes:
            self.console.print(printable(f"note: {job.source} {note}"))

    def _failed(self, job: Job, error: Exception) -> None:
        if self.debug:
            raise error
        self.console.print(f"error: {reason_of(error, job.source, self.labels.memory)}")
        self.report.bad.append(str(job.source))
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

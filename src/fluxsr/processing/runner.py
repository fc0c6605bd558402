"""Work a plan off: finished outputs are skipped, no bad file stops the others, and the model waits for no disk.

Inputs are read ahead and outputs written behind in threads; the work itself is done one after the other.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console

from fluxsr.errors import AcceleratorLost, OutputError, lost_accelerator
from fluxsr.imaging.atomic import remove_orphans
from fluxsr.names import printable
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.reporting import CommandLabels, Report, print_summary, reason_of
from fluxsr.processing.resume import Ledger
from fluxsr.progress import progress
from fluxsr.training.stopping import stop_flag

AHEAD = 2  # inputs read while another is worked on, and outputs being written: more would only fill the memory
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""After these no other output could be written either."""

Read = TypeVar("Read")
ProgressCallback = Callable[[float], None]
"""Called with the part of a file that is done, 0 to 1."""

Write = Callable[[], Sequence[str]]
"""Writes a result; gives notes on it."""


@dataclass(frozen=True)
class Stages(Generic[Read]):
    """What is done with one file.

    Attributes:
        read: makes sure that the output can be written, and reads the input; in a thread.
        work: does the work, and gives what writes the result; what that does is done in a thread.
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
    """Do all of a plan; every failure is one line on stderr.

    SIGINT or SIGTERM once: the file at work is finished and the rest left. Twice: now.

    Args:
        work: of ``processing.inputs.plan``.
        start: loads what the work needs, and gives the stages; not called where nothing is to do.
        labels: how the command calls its work in messages.
        settings: what decides on the results; outputs made with others are done again. A mark of them is kept in the
            record of the plan; None keeps none.
        overwrite: redo outputs that exist.
        debug: raise the first error instead of reporting it.

    Raises:
        KeyboardInterrupt: after the file at work, where a signal asked to stop.
        AcceleratorLost: the device failed; what is left was not begun.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
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
            _Run(start(console), ledger, labels, console, report, debug, stop).all(todo)
        print_summary(console, report, labels)
        if report.lost:
            raise AcceleratorLost(report.lost)
        if stop.is_set() and not report.full:
            raise KeyboardInterrupt
    return report


def _todo(work: Plan, ledger: Ledger | None, overwrite: bool, report: Report, console: Console) -> list[Job]:
    todo: list[Job] = []
    outdated = 0
    within: dict[Path, bool] = {}
    for job in work.jobs:
        folder = job.target.parent
        if work.root is not None and folder not in within:
            within[folder] = folder.resolve().is_relative_to(work.root.resolve())
        if not within.get(folder, True):
            line = f"error: {job.source}: its output folder {folder} is a link out of -o; remove it"
            console.print(printable(line))
            report.bad.append(str(job.source))
            continue
        old = job.target.exists() and not overwrite
        again = old and ledger is not None and ledger.outdated(job)
        outdated += again
        if old and not again:
            report.skipped.append(job.target)
        else:
            todo.append(job)
    if outdated:
        console.print(f"note: made with other settings or of other inputs, and done again: {outdated}")
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
    told: bool = False

    def all(self, todo: list[Job]) -> None:
        writing: deque[tuple[Job, Future[Sequence[str]]]] = deque()
        console = self.console
        with (
            ThreadPoolExecutor(AHEAD, "read") as readers,
            ThreadPoolExecutor(AHEAD, "write") as writers,
            progress(console, disable=not console.is_terminal, transient=True) as bar,
        ):
            task = bar.add_task(self.labels.task, total=len(todo))
            try:
                for number, (job, stamp, reading) in enumerate(self._ahead(todo, readers)):
                    bar.update(task, description=printable(job.source.name))

                    def advance(part: float, number: int = number) -> None:
                        bar.update(task, completed=number + part)
                        self._tell_stop()

                    try:
                        write = self.stages.work(job, reading.result(), advance)
                        while len(writing) >= AHEAD:
                            self._written(*writing.popleft())
                        writing.append((job, writers.submit(self._write, job, stamp, write)))
                    except Exception as error:
                        self._failed(job, error)
                    while writing and writing[0][1].done():
                        self._written(*writing.popleft())
                    bar.update(task, completed=number + 1)
                while writing:
                    self._written(*writing.popleft())
            finally:
                readers.shutdown(wait=False, cancel_futures=True)

    def _ahead(self, todo: list[Job], readers: ThreadPoolExecutor) -> Iterator[tuple[Job, str, Future[Any]]]:
        """Jobs in their order, some of them read ahead; none once a stop is asked for."""
        waiting, reading = deque(todo), deque[tuple[Job, str, Future[Any]]]()
        while (waiting or reading) and not self.stop.is_set():
            while waiting and len(reading) <= AHEAD:
                job = waiting.popleft()
                stamp = self.ledger.stamp(job) if self.ledger else ""
                reading.append((job, stamp, readers.submit(self.stages.read, job)))
            yield reading.popleft()
        self.report.left += len(waiting) + len(reading)

    def _tell_stop(self) -> None:
        if self.stop.is_set() and not self.told:
            self.console.print("stopping after this image; once more stops now")
            self.told = True

    def _write(self, job: Job, stamp: str, write: Write) -> Sequence[str]:
        notes = write()
        if self.ledger is not None:
            try:
                self.ledger.note(job, stamp)
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
        for note in notes:
            self.console.print(printable(f"note: {job.source} {note}"))

    def _failed(self, job: Job, error: Exception) -> None:
        if self.debug:
            raise error
        self.console.print(f"error: {reason_of(error, job.source, self.labels.memory)}")
        self.report.bad.append(str(job.source))
        if no_room(error) and not self.stop.is_set():
            self.console.print("error: nothing more can be written there; make room, and the same command goes on")
            self.report.full = True
            self.stop.set()
        if lost := lost_accelerator(error):  # whatever else is tried fails too
            self.report.lost = lost
            self.stop.set()


def no_room(error: Exception) -> bool:
    """Whether an output failed because its disk is full or cannot be written."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM

"""Who is at work: one job at a time, which can be stopped, ends in time, and whose folder goes with its visitor."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluxsr.errors import AcceleratorLost, FluxSRError, lost_accelerator

KEEP = 3600  # seconds that results outlive their job, should nobody notice that the visitor has left


class Stopped(Exception):
    """The visitor asked to stop, or has left."""


class TimeUp(FluxSRError):
    """A job took longer than the page allows."""


@dataclass
class Job:
    """The work behind one click.

    Attributes:
        folder: for what it makes; its name cannot be guessed, because whoever knows it may fetch what is in it.
        seconds: how long it may take.
        result: what there was of it when it ended.
    """

    folder: Path
    seconds: float
    result: Any = None
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """To be called wherever the work can be left.

        Raises:
            Stopped: it is not wanted any more.
            TimeUp: it took too long.
        """
        if self.stop.is_set():
            raise Stopped
        if time.monotonic() - self.began > self.seconds:
            raise TimeUp(
                f"this page works up to {self.seconds:g} seconds on one click; choose a smaller scale, or less at once"
            )


class Desk:
    """Jobs by visitor and kind ("one", "many"); a visitor's next job of a kind replaces what the last one left.

    Args:
        root: folder for results.
        seconds: that a job may take.
    """

    def __init__(self, root: Path, seconds: float) -> None:
        self.root, self.seconds = root, seconds
        self.lost = ""  # what the accelerator said when it failed: nothing more can be done here
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # the queue lets one in; this holds while one that was stopped ends its tile
        self._closed = False

    @contextmanager
    def job(self, visitor: str, kind: str) -> Iterator[Job]:
        """A job, once it is its turn; its time starts then.

        Raises:
            Stopped: stopped while it waited, or the server ends.
            AcceleratorLost: an earlier job met the device's failure.
        """
        job = Job(self.root / secrets.token_hex(16), self.seconds)
        with self._lock:
            if self._closed:
                job.stop.set()
            old = self._jobs.get((visitor, kind))
            self._jobs[visitor, kind] = job
        self._forget([] if old is None else [old])
        self._sweep()
        try:
            with self._turn:
                job.began = time.monotonic()
                if job.stop.is_set():
                    raise Stopped
                if self.lost:
                    raise AcceleratorLost(self.lost)
                job.folder.mkdir(parents=True)
                yield job
        except Exception as error:
            self.lost = self.lost or lost_accelerator(error)
            raise
        finally:
            job.ended.set()
            if self._jobs.get((visitor, kind)) is not job:  # left, or another took its place, in the meantime
                self._forget([job])

    def stop(self, visitor: str, kind: str) -> Job | None:
        """Stop a job and wait for its end, a tile at most; None where none was at work."""
        job = self._jobs.get((visitor, kind))
        if job is None or job.ended.is_set():
            return None
        job.stop.set()
        job.ended.wait()
        return job

    def leave(self, visitor: str) -> None:
        """Stop a visitor's jobs and delete what they made."""
        with self._lock:
            jobs = [self._jobs.pop(key) for key in list(self._jobs) if key[0] == visitor]
        self._forget(jobs)

    def close(self) -> None:
        """Stop all that is at work, and whatever comes."""
        with self._lock:
            self._closed = True
            for job in self._jobs.values():
                job.stop.set()

    def _sweep(self) -> None:
        with self._lock:
            old = [
                key
                for key, job in self._jobs.items()
                if job.ended.is_set() and time.monotonic() - job.began > job.seconds + KEEP
            ]
            jobs = [self._jobs.pop(key) for key in old]
        self._forget(jobs)

    def _forget(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.stop.set()
            shutil.rmtree(job.folder, ignore_errors=True)

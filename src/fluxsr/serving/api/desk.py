"""The desk: takes jobs on while there is room, has them worked on in threads, keeps their results for a while."""

from __future__ import annotations

import math
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from fluxsr.errors import lost_accelerator
from fluxsr.serving.api.jobs import Cancelled, Job, State
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.problems import Problem, accelerator_lost, problem_of, shutting_down

_RECORDS = 1000  # of finished jobs; a failure takes no disk, but a little memory


class Desk:
    """Takes jobs on, and knows what became of them; safe to call from any thread.

    Args:
        work: makes a job's result, in a thread; gives the file and notes; raises Cancelled where ``stop`` is set.
        limits: how many at a time, how long and how much is kept.
        folder: for the jobs' folders.
        told: of every job that was worked on: its state and its seconds.
    """

    def __init__(
        self,
        work: Callable[[Job], tuple[Path, list[str]]],
        limits: Limits,
        folder: Path,
        told: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        self._work, self._limits, self._folder, self._told = work, limits, folder, told
        self._jobs: dict[str, Job] = {}
        self._open = 0  # places taken
        self._mean = 1.0  # seconds a job
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(limits.workers, "job")
        self.draining = False
        self.lost = ""  # what the accelerator said when it failed: nothing more can be done here

    def check_ready(self) -> None:
        """Raise a Problem, accelerator_lost or shutting_down, where no more work is taken on."""
        if self.lost:
            raise accelerator_lost()
        if self.draining:
            raise shutting_down()

    def admit(self) -> Job:
        """A place for a job whose body is yet to be read.

        Raises:
            Problem: busy, storage_full, no_room, accelerator_lost or shutting_down.
        """
        self.sweep()
        with self._lock:
            self.check_ready()
            if self._open >= self._limits.places:
                seconds = self._mean * self._open / self._limits.workers
                raise _later("busy", f"{self._open} jobs are taken on already", seconds)
            if self.kept_bytes() > self._limits.keep_bytes:
                seconds = min(self._left(job) for job in self._jobs.values() if job.bytes)
                raise _later("storage_full", "results wait to be fetched and fill the disk", seconds)
            id = secrets.token_urlsafe(16)  # who knows it may fetch the result
            job = Job(id, self._folder / id)
            try:
                job.folder.mkdir()
            except OSError as error:
                raise problem_of(error, job.folder) from None
            self._jobs[job.id] = job
            self._open += 1
            return job

    def begin(self, job: Job) -> Future[None]:
        """Queue a job whose body is there.

        Raises:
            Problem: accelerator_lost or shutting_down.
        """
        with self._lock:
            self.check_ready()
            job.state = "queued"
            job.future = self._pool.submit(self._run, job)
        job.future.add_done_callback(lambda _: self._release())
        return job.future

    def drop(self, job: Job) -> None:
        """Give up a job that was not begun."""
        self._release()
        self.forget(job)

    def find(self, id: str) -> Job:
        """A job that clients know.

        Raises:
            Problem: not_found.
        """
        self.sweep()
        with self._lock:
            job = self._jobs.get(id)
        if job is None or not job.kept:
            raise self._unknown()
        return job

    def cancel(self, job: Job) -> None:
        """A waiting job at once, a running one before its next tile; one that has ended is forgotten."""
        with self._lock:
            if job.ended is not None:
                self.forget(job)
                return
            job.stop.set()
            self._end(job, "cancelled", Problem("cancelled", "the job was cancelled"))
        self._unqueue(job)

    def forget(self, job: Job) -> None:
        """Its record and its files; a result that is going out goes when it is out."""
        with self._lock:
            self._jobs.pop(job.id, None)
            if job.lent:
                return
        shutil.rmtree(job.folder, ignore_errors=True)

    @contextmanager
    def lending(self, job: Job) -> Iterator[None]:
        """Around the sending of a result; one that came to its end was fetched.

        Raises:
            Problem: not_found, of a job that was forgotten since it was found.
        """
        with self._lock:
            if job.id not in self._jobs:
                raise self._unknown()
            job.lent += 1
        try:
            yield
            job.fetched = True
        finally:
            with self._lock:
                job.lent -= 1
            if not job.kept or job.id not in self._jobs:
                self.forget(job)

    def sweep(self) -> None:
        """Forget what has expired; of too many results, those that were fetched already."""
        with self._lock:
            ended = sorted((job for job in self._jobs.values() if job.ended), key=lambda job: job.ended or 0)
            surplus = len(ended) - _RECORDS
            gone = [job for place, job in enumerate(ended) if place < surplus or self._left(job) <= 0]
            over = self.kept_bytes() - sum(job.bytes for job in gone) - self._limits.keep_bytes
            for job in ended:
                if over > 0 and job.fetched and job not in gone:
                    gone.append(job)
                    over -= job.bytes
        for job in gone:
            self.forget(job)

    def count(self, state: State) -> int:
        """How many jobs are in a state."""
        with self._lock:
            return sum(job.state == state for job in self._jobs.values())

    def kept_bytes(self) -> int:
        """Of all results on the disk."""
        with self._lock:
            return sum(job.bytes for job in self._jobs.values())

    def expires_in(self, job: Job) -> float | None:
        """Seconds until a job that has ended is forgotten."""
        return None if job.ended is None else max(0.0, self._left(job))

    def drain(self) -> list[Job]:
        """Take on no more and hand back what waits; gives the jobs that are running."""
        with self._lock:
            self.draining = True
            for job in list(self._jobs.values()):
                if job.state == "queued" and job.future is not None:
                    self._end(job, "failed", shutting_down())  # before the future tells whoever waits for it
                    self._unqueue(job)
            return [job for job in self._jobs.values() if job.state == "running"]

    def close(self, wait: bool = True) -> None:
        """End all that runs, before its next tile, and with ``wait`` be there until it has."""
        for job in self.drain():
            with self._lock:
                job.stop.set()
                self._end(job, "failed", shutting_down())
        self._pool.shutdown(wait=wait)

    def _unqueue(self, job: Job) -> None:
        """Take a job's upload away, unless a thread works on it, which will do so itself."""
        if job.future is not None and job.future.cancel():
            shutil.rmtree(job.folder, ignore_errors=True)

    def _run(self, job: Job) -> None:
        with self._lock:
            if job.ended is None:
                job.state = "running"
        if job.state == "running":
            self._make(job)
        (job.folder / "image").unlink(missing_ok=True)
        if job.state != "done" or job.id not in self._jobs:  # cancelled or forgotten meanwhile: writing makes folders
            shutil.rmtree(job.folder, ignore_errors=True)

    def _make(self, job: Job) -> None:
        start = time.monotonic()
        try:
            result, notes = self._work(job)
            with self._lock:
                if job.stop.is_set():
                    raise Cancelled
                job.result, job.notes, job.bytes = result, tuple(notes), result.stat().st_size
                self._end(job, "done")
        except Cancelled:
            pass  # whoever asked for it said what the job's state is
        except Exception as error:
            with self._lock:
                self.lost = self.lost or lost_accelerator(error)  # before a client that waits can ask again
                self._end(job, "failed", problem_of(error, job.folder))
        seconds = time.monotonic() - start
        self._mean += 0.2 * (seconds - self._mean)
        self._told(job.state, seconds)

    def _unknown(self) -> Problem:
        return Problem("not_found", f"there is no such job; results are kept for {self._limits.keep_seconds:g} s")

    def _end(self, job: Job, state: State, problem: Problem | None = None) -> None:
        if job.ended is None:
            job.state, job.problem, job.ended = state, problem, time.monotonic()

    def _left(self, job: Job) -> float:
        return (job.ended or time.monotonic()) + self._limits.keep_seconds - time.monotonic()

    def _release(self) -> None:
        with self._lock:
            self._open -= 1


def _later(code: str, why: str, seconds: float) -> Problem:
    wait = max(1, min(120, math.ceil(seconds)))
    return Problem(code, f"{why}; try again in {wait} s", Retry_After=str(wait))

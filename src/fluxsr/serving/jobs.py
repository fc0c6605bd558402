"""The job store of both servers: it queues jobs, runs them in threads and keeps their results for a while."""

from __future__ import annotations

import math
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fluxsr.errors import lost_accelerator
from fluxsr.serving.errors import ServiceError, service_error
from fluxsr.serving.job import STATES, Cancelled, Job, State, TimeLimitExceeded

__all__ = ["STATES", "Cancelled", "Job", "JobStore", "State", "TimeLimitExceeded"]
_MAX_RECORDS = 1000  # a failed job takes no disk, but a little memory


class JobStore:
    """Accept jobs while there is room, run them and keep their results; safe to call from any thread.

    Args:
        folder: temporary folder that holds a folder for each job.
        workers: jobs that run at the same time.
        places: jobs that are accepted at the same time.
        keep_seconds: how long a result is kept after its job has ended.
        keep_bytes: size of all kept results above which no job is accepted.
        time_limit: longest run of a job in seconds.
        observe: called with the state and the seconds of every job that has run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        places: float = math.inf,
        keep_seconds: float = 3600,
        keep_bytes: float = math.inf,
        time_limit: float = math.inf,
        observe: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        self.folder, self.keep_seconds = folder, keep_seconds
        self._workers, self._places, self._keep_bytes, self._time_limit = workers, places, keep_bytes, time_limit
        self._observe = observe
        self._jobs: dict[str, Job] = {}
        self._open = 0  # places in use
        self._mean = 1.0  # running mean of the seconds of a job
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(workers, "job")
        self.draining = False
        self.lost = ""  # the message of a failed accelerator, after which no job can run

    def check_ready(self) -> None:
        """Raise a ServiceError, accelerator_lost or shutting_down, if no job is accepted any more."""
        if self.lost:
            raise ServiceError("accelerator_lost")
        if self.draining:
            raise ServiceError("shutting_down")

    def admit(self, owner: tuple[str, ...] = ()) -> Job:
        """Return a new job. An earlier job of the same owner is cancelled and forgotten.

        Raises:
            ServiceError: busy, storage_full, no_room, accelerator_lost or shutting_down.
        """
        self.sweep()
        for earlier in self.owned(*owner):
            self.forget(earlier)
        with self._lock:
            self.check_ready()
            if self._open >= self._places:
                seconds = self._mean * self._open / self._workers
                raise _try_later("busy", f"the server already has {self._open} jobs", seconds)
            if self.kept_bytes() > self._keep_bytes:
                seconds = min(self._seconds_left(job) for job in self._jobs.values() if job.size)
                raise _try_later("storage_full", "the results that wait to be fetched fill the disk", seconds)
            id = secrets.token_urlsafe(16)
            job = Job(id, self.folder / id, self._time_limit, owner)
            try:
                job.folder.mkdir(parents=True)
            except OSError as error:
                raise service_error(error, job.folder) from None
            self._jobs[id] = job
            self._open += 1
            return job

    def start(self, job: Job, work: Callable[[Job], Any]) -> None:
        """Queue an admitted job.

        Args:
            job: a job that may have been cancelled since it was admitted.
            work: runs in a thread, calls ``job.report`` and returns the result.

        Raises:
            ServiceError: accelerator_lost or shutting_down.
        """
        with self._lock:
            self.check_ready()
            if job.ended is None:
                job.state = "queued"
                job.task = self._pool.submit(self._run, job, work)

    def find(self, id: str) -> Job:
        """Return a kept job.

        Raises:
            ServiceError: not_found.
        """
        self.sweep()
        with self._lock:
            job = self._jobs.get(id)
        if job is None or not job.kept:
            raise self._not_found()
        return job

    def owned(self, *owner: str) -> list[Job]:
        """Return the jobs of a visitor, or those of one kind."""
        with self._lock:
            return [job for job in self._jobs.values() if owner and job.owner[: len(owner)] == owner]

    def cancel(self, job: Job) -> bool:
        """Cancel a waiting job at once and a running one before its next tile; return False if it has ended."""
        return self._stop(job, "cancelled", ServiceError("cancelled"))

    def forget(self, job: Job) -> None:
        """Cancel a job and delete its files. A result that is being sent is deleted afterwards."""
        with self._lock:
            self._jobs.pop(job.id, None)
        self.cancel(job)
        if not job.readers:
            shutil.rmtree(job.folder, ignore_errors=True)

    @contextmanager
    def sending(self, job: Job) -> Iterator[None]:
        """Keep a result while it is sent; it counts as fetched once it was sent to its end.

        Raises:
            ServiceError: not_found if the job was forgotten in the meantime.
        """
        with self._lock:
            if job.id not in self._jobs:
                raise self._not_found()
            job.readers += 1
        try:
            yield
            job.fetched = True
        finally:
            with self._lock:
                job.readers -= 1
            if not job.kept or job.id not in self._jobs:
                self.forget(job)

    def sweep(self) -> None:
        """Forget expired jobs and, if the results take too much room, those that were fetched already."""
        with self._lock:
            ended = sorted((job for job in self._jobs.values() if job.ended), key=lambda job: job.ended or 0)
            surplus = len(ended) - _MAX_RECORDS
            gone = [job for place, job in enumerate(ended) if place < surplus or self._seconds_left(job) <= 0]
            excess = self.kept_bytes() - sum(job.size for job in gone) - self._keep_bytes
            for job in ended:
                if excess > 0 and job.fetched and job not in gone:
                    gone.append(job)
                    excess -= job.size
        for job in gone:
            self.forget(job)

    def count(self, state: State) -> int:
        """Return the number of jobs in a state."""
        with self._lock:
            return sum(job.state == state for job in self._jobs.values())

    def kept_bytes(self) -> int:
        """Return the size of all results on disk."""
        with self._lock:
            return sum(job.size for job in self._jobs.values())

    def expires_in(self, job: Job) -> float | None:
        """Return the seconds until a job that has ended is forgotten."""
        return None if job.ended is None else max(0.0, self._seconds_left(job))

    def drain(self) -> list[Job]:
        """Accept no more jobs, fail those that wait, and return those that are running."""
        with self._lock:
            self.draining = True
            jobs = list(self._jobs.values())
        for job in jobs:
            if job.state == "queued":
                self._stop(job, "failed", ServiceError("shutting_down"))
        return [job for job in jobs if job.state == "running"]

    def close(self, wait: bool = True) -> None:
        """End all jobs before their next tile and, with ``wait``, return once they have ended."""
        for job in self.drain():
            self._stop(job, "failed", ServiceError("shutting_down"))
        self._pool.shutdown(wait=wait)

    def _stop(self, job: Job, state: State, error: ServiceError) -> bool:
        with self._lock:
            if job.ended is not None:
                return False
            job.cancel_requested.set()
            self._end(job, state, error)
            waiting = job.task is None or job.task.cancel()
        if waiting:
            self._finish(job)
        return True

    def _run(self, job: Job, work: Callable[[Job], Any]) -> None:
        job.started = time.monotonic()
        try:
            self._work(job, work)
            seconds = time.monotonic() - job.started
            self._mean += 0.2 * (seconds - self._mean)
            self._observe(job.state, seconds)
        finally:
            self._finish(job)

    def _work(self, job: Job, work: Callable[[Job], Any]) -> None:
        with self._lock:
            if job.ended is None:
                job.state = "running"
        try:
            job.report(0)
            result = work(job)
            with self._lock:
                job.result = result
                if job.id in self._jobs:  # else its files are deleted
                    job.size = sum(path.stat().st_size for path in job.folder.iterdir())
                self._end(job, "done")
        except Cancelled:
            pass  # `_stop` has set the state
        except Exception as error:
            with self._lock:
                self.lost = self.lost or lost_accelerator(error)  # before a waiting client can ask again
                self._end(job, "failed", service_error(error, job.folder))

    def _finish(self, job: Job) -> None:
        if job.result is None or job.id not in self._jobs:  # writing creates the folder of a forgotten job again
            shutil.rmtree(job.folder, ignore_errors=True)
        with self._lock:
            self._open -= 1
        job.finished.set_result(None)

    def _end(self, job: Job, state: State, error: ServiceError | None = None) -> None:
        if job.ended is None:
            job.state, job.error, job.ended = state, error, time.monotonic()

    def _not_found(self) -> ServiceError:
        return ServiceError("not_found", f"there is no such job; results are kept for {self.keep_seconds:g} s")

    def _seconds_left(self, job: Job) -> float:
        return (job.ended or time.monotonic()) + self.keep_seconds - time.monotonic()


def _try_later(code: str, reason: str, seconds: float) -> ServiceError:
    wait = str(max(1, min(120, math.ceil(seconds))))
    return ServiceError(code, f"{reason}; try again in {wait} s", {"Retry-After": wait})

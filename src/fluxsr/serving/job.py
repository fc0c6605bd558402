"""One job of a server, as its work and its clients see it."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from fluxsr.errors import FluxSRError
from fluxsr.serving.errors import ServiceError

State = Literal["receiving", "queued", "running", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)


class Cancelled(Exception):
    """Raised inside a job whose result is no longer wanted."""


class TimeLimitExceeded(FluxSRError):
    """Error raised inside a job that runs for too long."""


@dataclass(eq=False)
class Job:
    """One piece of work and its result; times are those of the monotonic clock."""

    id: str  # random, because whoever knows it may fetch the result
    folder: Path  # temporary, for the input and the result
    time_limit: float = math.inf  # longest run in seconds
    owner: tuple[str, ...] = ()  # visitor and kind of a job of the web page; empty for a job of the HTTP API
    state: State = "receiving"
    progress: float = 0  # finished part, from 0 to 1
    label: str = ""  # what is at work
    name: str = "result"  # of the result, without its ending
    kept: bool = False  # whether the client fetches the result later instead of waiting for it
    fetched: bool = False  # whether the result was sent, to its end or until the client left
    readers: int = 0  # answers that are sending the result
    result: Any = None  # what the work returned; a cancelled job may have a partial one
    error: ServiceError | None = None
    size: int = 0  # bytes of the result on disk
    started: float = 0
    ended: float | None = None
    task: Future[None] | None = None  # the run in the thread pool, once the job is queued
    finished: Future[None] = field(default_factory=Future)  # completes when no thread works on the job any more
    cancel_requested: threading.Event = field(default_factory=threading.Event)

    def report(self, progress: float, label: str = "") -> None:
        """Note the progress. The work calls this wherever it can be ended.

        Raises:
            Cancelled: the result is no longer wanted.
            TimeLimitExceeded: the job runs for too long.
        """
        self.progress, self.label = progress, label
        if self.cancel_requested.is_set():
            raise Cancelled
        if time.monotonic() - self.started > self.time_limit:
            raise TimeLimitExceeded(
                f"the time limit of {self.time_limit:g} seconds is reached; choose a smaller scale or fewer images"
            )

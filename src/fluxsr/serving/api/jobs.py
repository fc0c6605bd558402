"""A job: what is known of one image from its body to its result."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from fluxsr.options import UpscaleOptions
from fluxsr.serving.api.problems import Problem

State = Literal["receiving", "queued", "running", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)


class Cancelled(Exception):
    """Nobody wants the result any more."""


@dataclass(eq=False)
class Job:
    """One image.

    Attributes:
        id: of its address.
        folder: its own; holds "image" and then the result.
        state: of ``STATES``.
        options: its options, once its body is there.
        progress: share of its tiles that are done.
        kept: whether its client comes back for the result, or waits.
        fetched: whether the result went out, to its end or until its client left.
        lent: how many times it is going out just now.
        result: the file.
        notes: on what the result could not hold.
        problem: why it failed.
        stop: set where nobody wants the result any more.
        future: of its work.
        ended: when, by the monotonic clock.
        bytes: of the result.
    """

    id: str
    folder: Path
    state: State = "receiving"
    options: UpscaleOptions = UpscaleOptions()
    progress: float = 0
    kept: bool = False
    fetched: bool = False
    lent: int = 0
    result: Path | None = None
    notes: tuple[str, ...] = ()
    problem: Problem | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    future: Future[None] | None = None
    ended: float | None = None
    bytes: int = 0

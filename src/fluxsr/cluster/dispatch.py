"""Dispatch images to workers, replace lost workers, and retry images whose worker was lost.

When a worker dies, any of its images may be the cause. Each is retried alone on a worker, so that only the image that
kills workers fails and the others succeed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluxsr.cluster.cluster import Cluster
from fluxsr.cluster.items import Item
from fluxsr.cluster.report import FAILED, Row, blank
from fluxsr.cluster.storage import Full
from fluxsr.errors import FluxSRError, ModelError

_POLL = 0.5  # seconds between checks of the stop flag and the timeouts


@dataclass
class _ActiveWorker:
    """A worker and its current images."""

    actor: Any
    loading: Any
    items: dict[Any, Item] = field(default_factory=dict)  # reference of a result -> image
    ready: bool = False
    alone: bool = False
    since: float = 0.0  # time of the last result or assignment
    killed: str = ""  # reason, if this dispatcher killed it


class Dispatch:
    """Dispatcher of one run.

    Args:
        cluster: cluster of the workers.
        start_worker: starts an actor of ``Worker`` and returns its handle.
        fingerprint: ``Report.fingerprint``.
        attempts, timeout: see ``BatchOptions``.
        tell: called with messages for the user.
    """

    def __init__(
        self,
        cluster: Cluster,
        start_worker: Callable[[], Any],
        fingerprint: Callable[[Item], str],
        *,
        attempts: int = 3,
        timeout: float = 0,
        tell: Callable[[str], None],
    ) -> None:
        self.cluster, self.ray, self.start_worker, self.fingerprint = cluster, cluster.ray, start_worker, fingerprint
        self.attempts, self.timeout, self.tell = attempts, timeout, tell
        self._waiting: deque[Item] = deque()
        self._suspects: deque[Item] = deque()
        self._tried: dict[str, int] = {}
        self._active: list[_ActiveWorker] = []
        self._failed_loads = 0  # consecutive workers that were lost while they loaded the model
        self._model_shown = False

    def results(self, items: Sequence[Item], stop: threading.Event) -> Iterator[Row]:
        """Yield the row of every image as it completes. After a stop, only images in progress are completed.

        Raises:
            FluxSRError: the model cannot be loaded, or nothing can be written.
        """
        self._waiting.extend(items)
        try:
            while True:
                if not stop.is_set():
                    self._start_workers()
                    self._assign_images()
                at_work = any(worker.items for worker in self._active)
                if not at_work and (stop.is_set() or not self.left):
                    return  # even if a worker is still loading or waiting for resources
                references = [r for w in self._active for r in (w.items if w.ready else [w.loading])]
                for reference in self.ray.wait(references, num_returns=1, timeout=_POLL)[0]:
                    worker = next(w for w in self._active if reference in w.items or reference is w.loading)
                    yield from self._receive(worker, reference)
                self._check_timeouts()
        finally:
            for worker in self._active:
                self._dismiss(worker)

    @property
    def left(self) -> int:
        """Number of images that have not been started."""
        return len(self._waiting) + len(self._suspects)

    def _start_workers(self) -> None:
        busy = sum(len(worker.items) for worker in self._active)
        while len(self._active) < min(self.cluster.workers, self.left + busy):
            actor = self.start_worker()
            self._active.append(_ActiveWorker(actor, actor.load.remote()))

    def _assign_images(self) -> None:
        for worker in self._active:
            while worker.ready and not worker.alone and (self._waiting or self._suspects):
                if self._suspects and not worker.items:
                    worker.alone = True
                    self._assign(worker, self._suspects.popleft())
                elif self._waiting and len(worker.items) < self.cluster.ahead:
                    self._assign(worker, self._waiting.popleft())
                else:
                    break

    def _assign(self, worker: _ActiveWorker, item: Item) -> None:
        attempt = self._tried.get(item.name, 0) + 1
        worker.items[worker.actor.upscale.remote(item, self.fingerprint(item), attempt)] = item
        worker.since = time.monotonic()

    def _receive(self, worker: _ActiveWorker, reference: Any) -> Iterator[Row]:
        try:
            result = self.ray.get(reference)
        except self.ray.exceptions.RayActorError as error:
            yield from self._lost(worker, worker.killed or _reason(error))
            return
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause
            if not worker.ready or isinstance(cause, Full):
                raise cause if isinstance(cause, FluxSRError) else error from None
            item = worker.items.pop(reference)
            text = (str(cause) or "no reason given").splitlines()[0]
            known = isinstance(cause, FluxSRError)
            yield from self._retry(item, text if known else f"unexpected {type(cause).__name__}: {text}")
            worker.alone = False
            return
        worker.since = time.monotonic()
        if reference is worker.loading and not worker.ready:
            worker.ready, self._failed_loads = True, 0
            if not self._model_shown:
                self.tell(f"model: {result[0]}")
                self.tell(f"plan: {result[1]}")
                self._model_shown = True
            return
        worker.items.pop(reference)
        worker.alone = False
        yield result

    def _lost(self, worker: _ActiveWorker, reason: str) -> Iterator[Row]:
        self._active.remove(worker)
        self._dismiss(worker)
        if not worker.ready:
            self._failed_loads += 1
            if self._failed_loads >= self.attempts:
                raise ModelError(f"{self._failed_loads} workers in a row were lost while loading the model: {reason}")
        for item in worker.items.values():
            yield from self._retry(item, f"its worker was lost: {reason}")

    def _dismiss(self, worker: _ActiveWorker) -> None:
        with contextlib.suppress(Exception):  # usually it is already gone; one that is only unreachable must stop too
            self.ray.kill(worker.actor)

    def _retry(self, item: Item, reason: str) -> Iterator[Row]:
        tried = self._tried[item.name] = self._tried.get(item.name, 0) + 1
        if tried >= self.attempts:
            error = f"{item.label}: given up after {tried} attempts; {reason}"
            yield {**blank(item, self.fingerprint(item)), "status": FAILED, "error": error, "attempts": tried}
            return
        self.tell(f"{item.label} is retried: {reason}")
        self._suspects.append(item)

    def _check_timeouts(self) -> None:
        for worker in self._active:
            if self.timeout and worker.items and not worker.killed and time.monotonic() - worker.since > self.timeout:
                worker.killed = f"no result after {self.timeout:g} seconds (--timeout)"
                self.ray.kill(worker.actor)


def _reason(error: Exception) -> str:
    """Return the reason for a worker's end from Ray's long message."""
    text = str(error)
    for known, said in (("OUT_OF_MEMORY", "out of memory"), ("NODE", "its machine is gone")):
        if known in text:
            return said
    return "its process ended (killed, crashed, or out of memory)"

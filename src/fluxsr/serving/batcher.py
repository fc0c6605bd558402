"""Run the model in one thread, on tiles of equal shape from all jobs together."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fluxsr.imaging.settings import Step


@dataclass(eq=False)  # compare requests by identity, not by their tensors
class _Request:
    tiles: Tensor  # (b,3,h,w)
    strength: float
    exact: bool
    result: Future[Tensor] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[int, int, float, bool]:
        return (*self.tiles.shape[-2:], self.strength, self.exact)


class Batcher:
    """Gather the tiles of several jobs into one forward pass.

    A batch runs when it is full, when no active job could add to it any more, or after a short wait.

    Args:
        run: the model, ``FluxSRPipeline.one_step``; only one thread calls it.
        batch_size: tiles per call; a single request of more tiles is not split.
        wait: seconds that the oldest tile waits for others.
        observe: called with the numbers of tiles and of requests of every batch.
    """

    def __init__(
        self, run: Step, batch_size: int, wait: float, observe: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        self._run, self._batch_size, self._wait, self._observe = run, batch_size, wait, observe
        self._requests: list[_Request] = []
        self._active_jobs = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @contextmanager
    def active_job(self) -> Iterator[None]:
        """Count a job that will bring tiles. Once every active job is waiting, a batch runs without further delay."""
        with self._changed:
            self._active_jobs += 1
        try:
            yield
        finally:
            with self._changed:
                self._active_jobs -= 1
                self._changed.notify_all()

    def step(self, lr_up: Tensor, strength: float, *, exact: bool = False) -> Tensor:
        """Run the model on tiles (b,3,h,w) when it is their turn; raise what ``run`` raises for them."""
        request = _Request(lr_up, strength, exact)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._requests.append(request)
            self._changed.notify_all()
        try:
            return request.result.result()
        finally:
            del request  # the traceback of an error would keep its tiles in memory

    def close(self) -> None:
        """Run what waits and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._observe(sum(len(request.tiles) for request in batch), len(batch))
            self._answer(batch)
            del batch  # else its tiles stay in memory until the next batch

    def _next_batch(self) -> list[_Request]:
        """Return the oldest request and those that fit it; an empty list once the batcher is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._closed)
            if not self._requests:
                return []
            end = time.monotonic() + self._wait
            while True:
                batch = self._matching(self._requests[0])
                tiles = sum(len(request.tiles) for request in batch)
                left = end - time.monotonic()
                all_wait = len(self._requests) >= self._active_jobs
                if tiles >= self._batch_size or all_wait or left <= 0 or self._closed:
                    break
                self._changed.wait(left)
            self._requests = [request for request in self._requests if request not in batch]
            return batch

    def _matching(self, first: _Request) -> list[_Request]:
        batch, tiles = [first], len(first.tiles)
        for request in self._requests:
            if request is not first and request.kind == first.kind and tiles + len(request.tiles) <= self._batch_size:
                batch.append(request)
                tiles += len(request.tiles)
        return batch

    def _answer(self, batch: list[_Request]) -> None:
        try:
            hr = self._run(torch.cat([request.tiles for request in batch]), batch[0].strength, exact=batch[0].exact)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold the tensors that did not fit
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
        else:
            for request, tiles in zip(batch, hr.split([len(request.tiles) for request in batch]), strict=True):
                request.result.set_result(tiles)
            return
        for request in batch:  # out of memory together, or one request is bad: each gets its own answer
            self._answer([request])

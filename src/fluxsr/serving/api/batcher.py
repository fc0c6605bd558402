"""One thread runs the model; tiles of one shape that wait at the same time go through it together."""

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


@dataclass(eq=False)  # an order is itself, not its tensors
class _Order:
    tiles: Tensor  # (b,3,h,w)
    strength: float
    result: Future[Tensor] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[int, int, float]:
        return (*self.tiles.shape[-2:], self.strength)


class Batcher:
    """Gathers tiles of several jobs into one forward pass.

    A batch is run when it is full, when nobody at work could add to it any more, or after a short wait.

    Args:
        run: the model, ``FluxSRPipeline.one_step``; only ever called by one thread.
        most: tiles per call; a single order of more stays whole.
        wait: seconds that the oldest tile waits for others.
        seen: told of every batch: how many tiles, of how many jobs.
    """

    def __init__(self, run: Step, most: int, wait: float, seen: Callable[[int, int], None] = lambda *_: None) -> None:
        self._run, self._most, self._wait, self._seen = run, most, wait, seen
        self._orders: list[_Order] = []
        self._riders = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @contextmanager
    def riding(self) -> Iterator[None]:
        """Around a job that will bring tiles: while all of them wait, there is nobody to wait for."""
        with self._changed:
            self._riders += 1
        try:
            yield
        finally:
            with self._changed:
                self._riders -= 1
                self._changed.notify_all()

    def step(self, lr_up: Tensor, strength: float) -> Tensor:
        """Tiles (b,3,h,w) through the model, whenever it is their turn; what ``run`` raises for them is raised here."""
        order = _Order(lr_up, strength)
        with self._changed:
            if self._closed:
                raise RuntimeError("the model is stopped")
            self._orders.append(order)
            self._changed.notify_all()
        try:
            return order.result.result()
        finally:
            del order  # an error's trace would hold it

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._gathered():
            self._seen(sum(len(order.tiles) for order in batch), len(batch))
            self._answer(batch)
            del batch  # or its tiles stay until there are others

    def _gathered(self) -> list[_Order]:
        """The oldest order and those like it; none once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._orders or self._closed)
            if not self._orders:
                return []
            end = time.monotonic() + self._wait
            while True:
                batch = self._like(self._orders[0])
                tiles = sum(len(order.tiles) for order in batch)
                left = end - time.monotonic()
                if tiles >= self._most or len(self._orders) >= self._riders or left <= 0 or self._closed:
                    break
                self._changed.wait(left)
            self._orders = [order for order in self._orders if order not in batch]
            return batch

    def _like(self, first: _Order) -> list[_Order]:
        batch, tiles = [first], len(first.tiles)
        for order in self._orders:
            if order is not first and order.kind == first.kind and tiles + len(order.tiles) <= self._most:
                batch.append(order)
                tiles += len(order.tiles)
        return batch

    def _answer(self, batch: list[_Order]) -> None:
        try:
            hr = self._run(torch.cat([order.tiles for order in batch]), strength=batch[0].strength)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold the tensors of what did not fit
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
        else:
            for order, tiles in zip(batch, hr.split([len(order.tiles) for order in batch]), strict=True):
                order.result.set_result(tiles)
            return
        for order in batch:  # out of memory together, or one of them is bad: each gets its own answer
            self._answer([order])

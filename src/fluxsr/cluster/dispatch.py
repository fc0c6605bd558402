"""Who works on what: images are handed out, lost workers replaced, and what loses them is tried a few times.

A worker that dies takes down what it had in its hands. Each of those is under suspicion and is tried again alone, with
no other image in that worker's hands, so that one that kills is found out and the others come through.
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
from fluxsr.cluster.storage import Full
from fluxsr.errors import FluxSRError, ModelError

_LOOK = 0.5  # seconds between looks at the stop flag and the clock


@dataclass(frozen=True)
class Lost:
    """An image without a row: its worker was lost, or could not write, as often as is allowed."""

    item: Item
    reason: str
    attempts: int


@dataclass
class _Hand:
    """A worker, and what it has."""

    actor: Any
    loading: Any
    items: dict[Any, Item] = field(default_factory=dict)  # reference of a result -> image
    ready: bool = False
    alone: bool = False
    since: float = 0.0  # when it last gave or got something
    killed: str = ""


class Dispatch:
    """One run over a cluster.

    Args:
        cluster: where the workers are.
        hire: starts one, with ``load()`` and ``upscale(item, made, attempt)`` as ``Worker`` has them.
        made: of the report.
        attempts: how often an image may lose its worker.
        timeout: seconds that an image may take before its worker counts as lost; 0 for any.
        tell: called with lines for the user.
    """

    def __init__(
        self,
        cluster: Cluster,
        hire: Callable[[], Any],
        fingerprint: Callable[[Item], str],
        *,
        attempts: int = 3,
        timeout: float = 0,
        tell: Callable[[str], None],
    ) -> None:
        self.cluster, self.ray, self.hire, self.fingerprint = cluster, cluster.ray, hire, fingerprint
        self.attempts, self.timeout, self.tell = attempts, timeout, tell
        self._waiting: deque[Item] = deque()
        self._suspects: deque[Item] = deque()
        self._tried: dict[str, int] = {}
        self._hands: list[_Hand] = []
        self._stillborn = 0  # workers lost one after the other before they had a model
        self._model_shown = False

    def results(self, items: Sequence[Item], stop: threading.Event) -> Iterator[dict[str, Any] | Lost]:
        """Rows as they come, one for each image, until all are done or what was begun before a stop is.

        Raises:
            FluxSRError: nothing can be done: the model cannot be loaded, or nothing can be written.
        """
        self._waiting.extend(items)
        try:
            while True:
                if not stop.is_set():
                    self._staff()
                    self._hand_out()
                at_work = any(hand.items for hand in self._hands)
                if not at_work and (stop.is_set() or not self.left):
                    return  # even while a worker loads, or waits for room that a lost machine took with it
                references = [one for hand in self._hands for one in (hand.items if hand.ready else [hand.loading])]
                for reference in self.ray.wait(references, num_returns=1, timeout=_LOOK)[0]:
                    hand = next(hand for hand in self._hands if reference in hand.items or reference is hand.loading)
                    yield from self._came(hand, reference)
                self._look_at_clock()
        finally:
            for hand in self._hands:
                self._dismiss(hand)

    @property
    def left(self) -> int:
        """How many images were not begun."""
        return len(self._waiting) + len(self._suspects)

    def _staff(self) -> None:
        busy = sum(len(hand.items) for hand in self._hands)
        while len(self._hands) < min(self.cluster.workers, self.left + busy):
            actor = self.hire()
            self._hands.append(_Hand(actor, actor.load.remote()))

    def _hand_out(self) -> None:
        for hand in self._hands:
            while hand.ready and not hand.alone and (self._waiting or self._suspects):
                if self._suspects and not hand.items:
                    hand.alone = True
                    self._give(hand, self._suspects.popleft())
                elif self._waiting and len(hand.items) < self.cluster.ahead:
                    self._give(hand, self._waiting.popleft())
                else:
                    break

    def _give(self, hand: _Hand, item: Item) -> None:
        attempt = self._tried.get(item.name, 0) + 1
        hand.items[hand.actor.upscale.remote(item, self.fingerprint(item), attempt)] = item
        hand.since = time.monotonic()

    def _came(self, hand: _Hand, reference: Any) -> Iterator[dict[str, Any] | Lost]:
        try:
            result = self.ray.get(reference)
        except self.ray.exceptions.RayActorError as error:
            yield from self._lost(hand, hand.killed or _line(error))
            return
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause
            if not hand.ready or isinstance(cause, Full):
                raise cause if isinstance(cause, FluxSRError) else error from None
            item = hand.items.pop(reference)
            text = (str(cause) or "no reason given").splitlines()[0]
            known = isinstance(cause, FluxSRError)
            yield from self._again(item, text if known else f"unexpected {type(cause).__name__}: {text}")
            hand.alone = False
            return
        hand.since = time.monotonic()
        if reference is hand.loading and not hand.ready:
            hand.ready, self._stillborn = True, 0
            if not self._model_shown:
                self.tell(f"model: {result[0]}")
                self.tell(f"plan: {result[1]}")
                self._model_shown = True
            return
        hand.items.pop(reference)
        hand.alone = False
        yield result

    def _lost(self, hand: _Hand, reason: str) -> Iterator[Lost]:
        self._hands.remove(hand)
        self._dismiss(hand)
        if not hand.ready:
            self._stillborn += 1
            if self._stillborn >= self.attempts:
                raise ModelError(f"{self._stillborn} workers were lost while they loaded the model: {reason}")
        for item in hand.items.values():
            yield from self._again(item, f"its worker was lost: {reason}")

    def _dismiss(self, hand: _Hand) -> None:
        with contextlib.suppress(Exception):  # a lost one is gone, as a rule; or it is cut off, and shall not go on
            self.ray.kill(hand.actor)

    def _again(self, item: Item, reason: str) -> Iterator[Lost]:
        tried = self._tried[item.name] = self._tried.get(item.name, 0) + 1
        if tried >= self.attempts:
            yield Lost(item, reason, tried)
            return
        self.tell(f"{item.label} is tried again: {reason}")
        self._suspects.append(item)

    def _look_at_clock(self) -> None:
        for hand in self._hands:
            if self.timeout and hand.items and not hand.killed and time.monotonic() - hand.since > self.timeout:
                hand.killed = f"no result after {self.timeout:g} seconds (--timeout)"
                self.ray.kill(hand.actor)


def _line(error: Exception) -> str:
    """What Ray knows of a worker's end, without its advice."""
    text = str(error)
    for known, said in (("OUT_OF_MEMORY", "out of memory"), ("NODE", "its machine is gone")):
        if known in text:
            return said
    return "its process ended (killed, crashed, or out of memory)"

"""Prepare the batches of the next steps while the current step trains."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")


class Ahead(Generic[T]):
    """Prepare the batch of the next step in a thread while the current step trains.

    A batch depends only on its step and samples, so reading ahead does not change it.
    """

    def __init__(self, batches: Callable[[int, Sequence[int]], T]):
        self.batches, self.pool = batches, ThreadPoolExecutor(1)
        self.coming: dict[tuple[int, tuple[int, ...]], Future[T]] = {}

    def __call__(self, step: int, samples: Sequence[int]) -> T:
        share = tuple(samples)
        this = self.coming.pop((step, share), None)
        self.coming = {key: batch for key, batch in self.coming.items() if key[0] >= step}
        batch = self.batches(step, share) if this is None else this.result()
        self.coming[step + 1, share] = self.pool.submit(self.batches, step + 1, share)
        return batch


class _Steps(Dataset[T]):
    """Batches of one micro-batch's samples for every step, starting at step ``first``."""

    def __init__(self, batches: Callable[[int, Sequence[int]], T], share: tuple[int, ...], first: int):
        self.batches, self.share, self.first = batches, share, first

    def __len__(self) -> int:
        return sys.maxsize  # endless, but the sampler needs a number

    def __getitem__(self, index: int) -> T:
        return self.batches(self.first + index, self.share)


class AheadInProcesses(Generic[T]):
    """Prepare batches in ``workers`` single-threaded processes, for a device that is faster than its host.

    The processes are spawned, because forking a process that runs PyTorch threads may hang. ``batches`` must
    therefore be picklable and keep large tensors in files, as ``targets.Mapped`` does. Every micro-batch of a step has
    its own ``workers`` processes.
    """

    def __init__(self, batches: Callable[[int, Sequence[int]], T], workers: int, pin_memory: bool = False):
        self.batches, self.workers, self.pin_memory = batches, workers, pin_memory
        self.coming: dict[tuple[int, ...], tuple[int, Iterator[T]]] = {}

    def __call__(self, step: int, samples: Sequence[int]) -> T:
        share = tuple(samples)
        following, coming = self.coming.get(share, (None, None))
        if coming is None or following != step:
            steps = _Steps(self.batches, share, step)
            loader = DataLoader(
                steps, None, num_workers=self.workers, multiprocessing_context="spawn", pin_memory=self.pin_memory
            )
            coming = iter(loader)
        batch = next(coming)
        self.coming[share] = (step + 1, coming)
        return batch

"""Tiles of several images share batches, and no result depends on it."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from fluxsr.imaging.settings import Settings
from fluxsr.options import UpscaleOptions
from fluxsr.serving.batcher import Batcher

HOUR = 3600.0  # a wait that ends a test only by hanging


class Model:
    """Doubles tiles and adds the strength; remembers its batches and its threads."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.threads: set[str] = set()

    def __call__(self, lr_up: Tensor, strength: float, exact: bool = False) -> Tensor:
        self.batches.append(tuple(lr_up.shape))
        self.threads.add(threading.current_thread().name)
        if lr_up.max() > 1 and len(lr_up) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if lr_up.min() < 0:
            raise ValueError("a bad tile")
        return 2 * lr_up + strength


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def batcher_of(model: Model) -> Iterator[Callable[..., Batcher]]:
    """Return a batcher of some size and wait, by default of the model above; it is closed after the test."""
    made: list[Batcher] = []

    def batcher_of(size: int, wait: float, run: Any = model, *observe: Any) -> Batcher:
        made.append(Batcher(run, size, wait, *observe))
        return made[-1]

    yield batcher_of
    for batcher in made:
        batcher.close()


def tile(value: float, side: int = 16, count: int = 1) -> Tensor:
    return torch.full((count, 3, side, side), value)


def together(batcher: Batcher, pool: ThreadPoolExecutor, requests: list[tuple[Tensor, float]]) -> list[Any]:
    """Run each request in another job, all active before the first request; return results or errors."""
    ready = threading.Barrier(len(requests))

    def job(request: tuple[Tensor, float]) -> Any:
        with batcher.active_job():
            ready.wait(60)
            try:
                return batcher.step(*request)
            except Exception as error:
                return error

    return list(pool.map(job, requests))


@pytest.mark.parametrize(
    ("size", "requests", "batches"),
    [
        (4, [(tile(k / 4), 1.0) for k in range(4)], [4]),
        (8, [(tile(0), 1.0), (tile(0), 1.0), (tile(0, 32), 1.0), (tile(0), 0.5)], [1, 1, 2]),  # shapes and strengths
        (3, [(tile(0, count=2), 1.0)] * 2 + [(tile(0, count=5), 1.0)], [2, 2, 5]),  # full; a request is not split
        (4, [(tile(2), 0.0)] * 2, [1, 1, 2]),  # too large together: tried again one by one
    ],
)
def test_matching_tiles_share_a_batch_and_come_back_to_their_jobs(
    batcher_of: Any, model: Model, pool: ThreadPoolExecutor, size: int, requests: list[Any], batches: list[int]
) -> None:
    for (tiles, strength), result in zip(requests, together(batcher_of(size, HOUR), pool, requests), strict=True):
        assert torch.equal(result, 2 * tiles + strength)
    assert sorted(shape[0] for shape in model.batches) == batches and model.threads == {"model"}


def test_a_bad_tile_fails_its_own_job_alone(batcher_of: Any, model: Model, pool: ThreadPoolExecutor) -> None:
    requests = [(tile(0.5), 0.0), (tile(-1), 0.0), (tile(0.25), 0.0)]
    good, bad, other = together(batcher_of(4, HOUR), pool, requests)
    assert isinstance(bad, ValueError) and good.mean() == 1 and other.mean() == 0.5
    assert sorted(shape[0] for shape in model.batches) == [1, 1, 1, 3]


def test_a_batch_waits_for_active_jobs_alone_and_not_for_long(batcher_of: Any, pool: ThreadPoolExecutor) -> None:
    batcher = batcher_of(8, HOUR)
    with batcher.active_job():  # no other job is active
        assert torch.equal(batcher.step(tile(0.5), 0.0), tile(1.0))
    with batcher.active_job(), batcher.active_job():  # one of them ends without a tile
        waiting = pool.submit(batcher.step, tile(0), 1.0)
        assert not waiting.done()
    assert waiting.result(60).mean() == 1
    batcher = batcher_of(8, 0.01)
    with batcher.active_job(), batcher.active_job():  # the wait is over
        assert batcher.step(tile(0), 1.0).mean() == 1


def test_tiles_that_did_not_fit_are_freed_before_the_next_try(batcher_of: Any, until: Any) -> None:
    """Without the collector's help, and while the error is still in hand."""
    seen: list[weakref.ref[Tensor]] = []

    def run(lr_up: Tensor, strength: float, exact: bool) -> Tensor:
        inside = lr_up + strength
        seen.extend((weakref.ref(inside), weakref.ref(lr_up)))
        raise torch.OutOfMemoryError("CUDA out of memory")

    batcher = batcher_of(4, HOUR, run)
    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError) as caught, batcher.active_job():
            batcher.step(tile(0), 1.0)
        assert len(seen) == 2 and caught.value is not None
        until(lambda: all(tensor() is None for tensor in seen), 10)
    finally:
        gc.enable()


def test_answered_tiles_are_freed(batcher_of: Any, until: Any) -> None:
    batcher = batcher_of(4, HOUR)
    given = tile(0)
    seen = weakref.ref(given)
    with batcher.active_job():
        batcher.step(given, 1.0)
    del given
    until(lambda: seen() is None, 10)


def test_a_closed_batcher_takes_nothing(batcher_of: Any) -> None:
    batcher = batcher_of(4, HOUR)
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.step(tile(0), 1.0)


def test_images_that_share_batches_have_the_results_they_have_alone(
    batcher_of: Any, pipeline: Any, pool: ThreadPoolExecutor
) -> None:
    """Two images of many tiles at once; float32 kernels round by the batch's size, as they do within one image."""
    images = [torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    shared: list[tuple[int, int]] = []
    batcher = batcher_of(4, HOUR, pipeline.one_step, lambda *what: shared.append(what))
    ready = threading.Barrier(2)

    def job(lr: Tensor) -> Tensor:
        with batcher.active_job():
            ready.wait(60)
            return pipeline.upscale_tensor(
                lr, Settings(UpscaleOptions(tile_size=64, tile_overlap=16), step=batcher.step)
            )

    found = list(pool.map(job, images))
    assert shared == [(2, 2)] * 9, "a tile of each in every batch"
    for lr, hr in zip(images, found, strict=True):
        alone = pipeline.upscale_tensor(lr, Settings(UpscaleOptions(tile_size=64, tile_overlap=16)))
        torch.testing.assert_close(hr, alone, rtol=0, atol=1e-4)

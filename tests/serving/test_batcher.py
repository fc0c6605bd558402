"""Tiles of several images share batches, and no result depends on it."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
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

    def __call__(self, lr_up: Tensor, strength: float) -> Tensor:
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


def tile(value: float, side: int = 16, count: int = 1) -> Tensor:
    return torch.full((count, 3, side, side), value)


def together(batcher: Batcher, pool: ThreadPoolExecutor, requests: list[tuple[Tensor, float]]) -> list[Any]:
    """Run every request in a job of its own, all active before the first request; return results or errors."""
    ready = threading.Barrier(len(requests))

    def job(request: tuple[Tensor, float]) -> Any:
        with batcher.active_job():
            ready.wait(60)
            try:
                return batcher.step(*request)
            except Exception as error:
                return error

    return list(pool.map(job, requests))


def test_equal_tiles_share_a_batch_and_come_back_to_their_owners(model: Model, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(model, 4, HOUR)
    found = together(batcher, pool, [(tile(k / 4), 1.0) for k in range(4)])
    assert [float(result.mean()) for result in found] == [1, 1.5, 2, 2.5]
    assert model.batches == [(4, 3, 16, 16)] and model.threads == {"model"}
    batcher.close()


def test_other_shapes_and_strengths_do_not_share_a_batch(model: Model, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(model, 8, HOUR)
    requests = [(tile(0), 1.0), (tile(0), 1.0), (tile(0, 32), 1.0), (tile(0), 0.5)]
    assert [result.shape for result in together(batcher, pool, requests)] == [request[0].shape for request in requests]
    assert sorted(shape[0] for shape in model.batches) == [1, 1, 2]
    batcher.close()


def test_a_full_batch_is_not_exceeded_and_a_request_is_not_split(model: Model, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(model, 3, HOUR)
    together(batcher, pool, [(tile(0, count=2), 1.0)] * 2 + [(tile(0, count=5), 1.0)])
    assert sorted(shape[0] for shape in model.batches) == [2, 2, 5]
    batcher.close()


def test_a_single_job_waits_for_nothing(model: Model) -> None:
    """With an hour to wait, this ends because no other job is at work."""
    batcher = Batcher(model, 8, HOUR)
    with batcher.active_job():
        assert torch.equal(batcher.step(tile(0.5), 0.0), tile(1.0))
    batcher.close()


def test_a_job_that_ends_is_waited_for_no_longer(model: Model, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(model, 8, HOUR)
    with batcher.active_job(), batcher.active_job():  # one of them will bring nothing
        waiting = pool.submit(batcher.step, tile(0), 1.0)
        assert not waiting.done()
    assert waiting.result(60).mean() == 1
    batcher.close()


def test_after_the_wait_a_batch_runs_without_the_others(model: Model) -> None:
    batcher = Batcher(model, 8, 0.01)
    with batcher.active_job(), batcher.active_job():
        assert batcher.step(tile(0), 1.0).mean() == 1
    batcher.close()


def test_a_bad_tile_fails_its_own_job_alone(model: Model, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(model, 4, HOUR)
    good, bad, other = together(batcher, pool, [(tile(0.5), 0.0), (tile(-1), 0.0), (tile(0.25), 0.0)])
    assert isinstance(bad, ValueError) and good.mean() == 1 and other.mean() == 0.5
    assert sorted(shape[0] for shape in model.batches) == [1, 1, 1, 3]
    batcher.close()


def test_tiles_that_do_not_fit_together_run_one_by_one(model: Model, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(model, 4, HOUR)
    found = together(batcher, pool, [(tile(2), 0.0), (tile(2), 0.0)])
    assert all(result.mean() == 4 for result in found)
    batcher.close()


def test_tiles_that_did_not_fit_are_freed_before_the_next_try(until: Any) -> None:
    """Without the collector's help, and while the error is still in hand."""
    seen: list[weakref.ref[Tensor]] = []

    def run(lr_up: Tensor, strength: float) -> Tensor:
        inside = lr_up + strength
        seen.extend((weakref.ref(inside), weakref.ref(lr_up)))
        raise torch.OutOfMemoryError("CUDA out of memory")

    batcher = Batcher(run, 4, HOUR)
    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError) as caught, batcher.active_job():
            batcher.step(tile(0), 1.0)
        assert len(seen) == 2 and caught.value is not None
        until(lambda: all(tensor() is None for tensor in seen), 10)
    finally:
        gc.enable()
    batcher.close()


def test_answered_tiles_are_freed(model: Model, until: Any) -> None:
    batcher = Batcher(model, 4, HOUR)
    given = tile(0)
    seen = weakref.ref(given)
    with batcher.active_job():
        batcher.step(given, 1.0)
    del given
    until(lambda: seen() is None, 10)
    batcher.close()


def test_a_closed_batcher_takes_nothing(model: Model) -> None:
    batcher = Batcher(model, 4, HOUR)
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.step(tile(0), 1.0)


def test_images_that_share_batches_have_the_results_they_have_alone(pipeline: Any, pool: ThreadPoolExecutor) -> None:
    """Two images of many tiles at once; float32 kernels round by the batch's size, as they do within one image."""
    images = [torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    shared: list[tuple[int, int]] = []
    batcher = Batcher(pipeline.one_step, 4, HOUR, lambda *what: shared.append(what))
    ready = threading.Barrier(2)

    def job(lr: Tensor) -> Tensor:
        with batcher.active_job():
            ready.wait(60)
            return pipeline.upscale_tensor(
                lr, Settings(UpscaleOptions(tile_size=64, tile_overlap=16), step=batcher.step)
            )

    found = list(pool.map(job, images))
    batcher.close()
    assert shared == [(2, 2)] * 9, "a tile of each in every batch"
    for lr, hr in zip(images, found, strict=True):
        alone = pipeline.upscale_tensor(lr, Settings(UpscaleOptions(tile_size=64, tile_overlap=16)))
        torch.testing.assert_close(hr, alone, rtol=0, atol=1e-4)

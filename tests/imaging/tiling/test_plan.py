"""A device that runs out of memory gets smaller pieces, and the image is whole all the same."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch

from fluxsr.imaging.resize import bicubic
from fluxsr.imaging.tiling import bands, tiles
from fluxsr.imaging.tiling.plan import LEAST_TILE, TilingPlan, rows_with_fallback, stream_with_fallback

IMAGE = torch.rand(1, 3, 500, 700, generator=torch.Generator().manual_seed(0))


def holding(pixels: int, seen: list[tuple[int, ...]]):  # type: ignore[no-untyped-def]
    """A model that doubles what it gets, and runs out of memory above so many pixels at a time."""

    def double(tiles: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(tiles.shape))
        if tiles.shape[0] * tiles.shape[2] * tiles.shape[3] > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
        return 2 * tiles

    return double


def test_what_fits_is_not_changed(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[int, ...]] = []
    result, fit = stream_with_fallback(IMAGE, holding(10**9, seen), TilingPlan(256, 4, 32, 16))
    torch.testing.assert_close(result, 2 * IMAGE)
    assert fit == TilingPlan(256, 4, 32, 16) and seen[0][0] == 4 and not caplog.records


def test_first_the_batch_shrinks_and_then_the_tile(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[int, ...]] = []
    with caplog.at_level(logging.WARNING):
        result, fit = stream_with_fallback(IMAGE, holding(260 * 260, seen), TilingPlan(512, 4, 32, 16))
    torch.testing.assert_close(result, 2 * IMAGE)
    assert fit.batch_size == 1 and fit.tile_size <= 256 and max(max(shape[2:]) for shape in seen[-3:]) <= 256
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "out of memory; going on with one tile of 512 pixels at a time" and len(lines) == 2
    assert [shape[0] for shape in seen[:2]] == [2, 1]  # two tiles cover it, as a batch and then one by one


def test_an_image_smaller_than_a_tile_is_cut_below_its_own_size() -> None:
    result, fit = stream_with_fallback(IMAGE[..., :300, :300], holding(200 * 200, []), TilingPlan(1024, 1, 64, 16))
    torch.testing.assert_close(result, 2 * IMAGE[..., :300, :300])
    assert fit.tile_size == 144  # half of 304, on the lattice


def test_the_overlap_follows_a_tile_that_gets_too_small_for_it() -> None:
    result, fit = stream_with_fallback(IMAGE, holding(200 * 200, []), TilingPlan(512, 1, 250, 16))
    torch.testing.assert_close(result, 2 * IMAGE)
    assert fit.tile_size < 250


def test_there_is_an_end() -> None:
    seen: list[tuple[int, ...]] = []
    with pytest.raises(torch.OutOfMemoryError):
        stream_with_fallback(IMAGE, holding(0, seen), TilingPlan(512, 2, 32, 16))
    assert min(seen[-1][2:]) >= LEAST_TILE


def test_other_errors_pass() -> None:
    def broken(_tiles: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        stream_with_fallback(IMAGE, broken, TilingPlan(512, 2, 32, 16))


def test_rows_begin_again_before_the_first_is_out_and_not_later(caplog: pytest.LogCaptureFixture) -> None:
    """Once rows of one grid are out, those of another would not fit them: memory that runs out then is an error."""
    image, size, wanted = IMAGE[..., :200, :100], (400, 200), TilingPlan(256, 2, 32, 16)
    kept: list[TilingPlan] = []
    for first in (True, False):
        seen: list[tuple[int, ...]] = []

        def model(batch: torch.Tensor, seen: list[tuple[int, ...]] = seen, first: bool = first) -> torch.Tensor:
            seen.append(tuple(batch.shape))
            if len(seen) == (1 if first else 2):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return 2 * batch

        rows = rows_with_fallback(
            partial(bands.enlarged, image, size, model, color_fix="none"), size, wanted, kept.append
        )
        if first:
            found = torch.cat(list(rows), -2)
            whole = tiles.stream(bicubic(image, size), lambda batch: 2 * batch, TilingPlan(256, 1, 32, 16).grid(*size))
            assert kept == [TilingPlan(256, 1, 32, 16)]
            torch.testing.assert_close(found, whole)
        else:
            next(rows)
            with pytest.raises(torch.OutOfMemoryError):
                next(rows)

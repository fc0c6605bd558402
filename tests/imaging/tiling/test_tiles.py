"""Tiles cover every image, their windows add up to one, and they are equal."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxsr.errors import InputError
from fluxsr.imaging.tiling import tiles

sides = st.integers(1, 700)
tile_sizes = st.integers(32, 300)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 5000), tile=st.integers(32, 600), overlap=st.integers(0, 300), fixed=st.booleans())
def test_windows_add_up_to_one_at_every_pixel(length: int, tile: int, overlap: int, fixed: bool) -> None:
    line = tiles.axis(length, tile, min(overlap, tile // 16 // 2 * 16), fixed=fixed)
    total = torch.zeros(line.starts[-1] + line.tile)
    for start, window in zip(line.starts, line.windows(), strict=True):
        assert (window > 0).all()
        total[start : start + line.tile] += window
    assert len(total) >= length
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=3e-7)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 5000), tile=st.integers(32, 600), overlap=st.integers(0, 300))
def test_tiles_are_on_the_lattice_within_size_and_overlap(length: int, tile: int, overlap: int) -> None:
    overlap = min(overlap, tile // 16 // 2 * 16)
    line = tiles.axis(length, tile, overlap)
    assert line.tile % 16 == 0 and line.tile <= tile
    assert all(start % 16 == 0 for start in line.starts)
    steps = [b - a for a, b in zip(line.starts[:-1], line.starts[1:], strict=True)]
    assert all(0 < step <= line.tile - overlap for step in steps)
    assert line.starts[0] == 0 and 0 <= line.starts[-1] + line.tile - length < 16


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 5000), tile=st.integers(32, 600), overlap=st.integers(0, 300))
def test_fixed_tiles_have_one_size_whatever_the_image_and_are_no_more(length: int, tile: int, overlap: int) -> None:
    overlap = min(overlap, tile // 16 // 2 * 16)
    line, balanced = tiles.axis(length, tile, overlap, fixed=True), tiles.axis(length, tile, overlap)
    assert line.tile == tile // 16 * 16 and len(line.starts) == len(balanced.starts)
    steps = [b - a for a, b in zip(line.starts[:-1], line.starts[1:], strict=True)]
    assert line.starts[0] == 0 and all(0 < step <= line.tile - overlap for step in steps)
    assert line.starts[-1] + line.tile >= length


@settings(max_examples=25, deadline=None)
@given(height=sides, width=sides, tile=tile_sizes, batch_size=st.integers(1, 5), fixed=st.booleans())
def test_identity_through_tiles_is_the_image(height: int, width: int, tile: int, batch_size: int, fixed: bool) -> None:
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
    grid = tiles.grid(height, width, tile, 16, fixed=fixed)
    seen = []

    def identity(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch.shape)
        return batch

    merged = tiles.stream(image, identity, grid, batch_size=batch_size)
    torch.testing.assert_close(merged, image, rtol=0, atol=1e-6)
    assert {shape[2:] for shape in seen} == {(grid.rows.tile, grid.columns.tile)}
    assert max(shape[0] for shape in seen) <= batch_size
    assert sum(shape[0] for shape in seen) == len(grid)


def test_a_slightly_larger_image_is_split_evenly() -> None:
    line = tiles.axis(528, 512, 64)
    assert (line.tile, line.starts) == (304, (0, 224))


def test_past_the_end_pixels_are_mirrored() -> None:
    image = torch.arange(20.0)[None, None, None].expand(1, 3, 16, 20)
    tile = tiles.grid(16, 20, 512, 64).cut(image, 0, 0)
    assert tile.shape == (1, 3, 16, 32)
    assert tile[0, 0, 0, 18:24].tolist() == [18, 19, 18, 17, 16, 15]


def test_seam_of_two_disagreeing_tiles_is_a_smooth_ramp() -> None:
    image = torch.zeros(1, 1, 16, 96)
    values = iter([0.0, 1.0])
    merged = tiles.stream(image, lambda batch: torch.full_like(batch, next(values)), tiles.grid(16, 96, 64, 32))
    row = merged[0, 0, 0]
    assert row[0] == 0 and row[-1] == 1
    assert (row.diff() >= 0).all() and row.diff().max() < 0.06


def test_progress_counts_tiles() -> None:
    seen = []
    tiles.stream(
        torch.zeros(1, 3, 64, 64),
        lambda batch: batch,
        tiles.grid(64, 64, 32, 0),
        batch_size=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(3, 4), (4, 4)]


@pytest.mark.parametrize(("tile", "overlap"), [(15, 0), (64, 48), (64, -16)])
def test_impossible_tiles_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(InputError, match="tile_(size|overlap) is"):
        tiles.grid(500, 500, tile, overlap)
    with pytest.raises(InputError, match="batch_size is 0"):
        tiles.stream(torch.zeros(1, 3, 16, 16), lambda batch: batch, tiles.grid(16, 16, 16, 0), batch_size=0)

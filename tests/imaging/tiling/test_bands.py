"""Rows that come one after the other are those of the whole, and need no other rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.color.fix import REACH, fix_colors_
from fluxsr.imaging.resize import bicubic
from fluxsr.imaging.tiling import bands, tiles


def sharper(batch: Tensor) -> Tensor:
    """Something that looks at a tile's pixels and shifts its colours, as a model does."""
    return 1.3 * batch - 0.3 * batch.mean((2, 3), keepdim=True) + 0.05


@settings(max_examples=25, deadline=None)
@given(
    st.integers(16, 90),
    st.integers(16, 60),
    st.sampled_from([1, 1.7, 3]),
    st.sampled_from(["wavelet", "none"]),
    st.integers(1, 3),
    st.booleans(),
)
def test_rows_are_those_of_the_whole(
    height: int, width: int, scale: float, color_fix: str, batch_size: int, fixed: bool
) -> None:
    # In double precision: bicubic rows round otherwise than the whole, by 1.2e-5 in float32.
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height), dtype=torch.float64)
    size = (round(height * scale), round(width * scale))
    tiling = tiles.grid(*size, 64, 32, fixed=fixed)
    seen: list[tuple[int, int]] = []
    found = list(
        bands.enlarged(
            image, size, sharper, tiling, batch_size=batch_size, color_fix=color_fix, progress=lambda *n: seen.append(n)
        )
    )
    lr_up = bicubic(image, size)
    whole = fix_colors_(tiles.stream(lr_up, sharper, tiling), lr_up, color_fix)
    assert torch.allclose(torch.cat(found, -2).double(), whole.double(), atol=1e-5)
    assert seen[-1] == (len(tiling), len(tiling)) and all(band.shape[-2] <= 64 + 2 * REACH for band in found)


def test_no_row_is_worked_out_before_it_is_wanted() -> None:
    calls = 0

    def counted(batch: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return batch

    tiling = tiles.grid(1000, 64, 64, 32)
    rows = bands.enlarged(torch.rand(1, 3, 500, 32), (1000, 64), counted, tiling, color_fix="none")
    next(rows)
    assert calls == len(tiling.columns.starts) < len(tiling)


def test_a_fix_that_needs_the_whole_is_refused() -> None:
    with pytest.raises(InputError, match="color_fix is 'adain', which needs the whole image"):
        bands.enlarged(torch.rand(1, 3, 16, 16), (16, 16), sharper, tiles.grid(16, 16, 64, 32), color_fix="adain")


@pytest.mark.parametrize("height", [60, 200])
def test_neutral_rows_are_exactly_neutral(height: int) -> None:
    grey = torch.rand(1, 1, height, 40, generator=torch.Generator().manual_seed(0)).repeat(1, 3, 1, 1)
    half = grey.clone()
    half[:, 0, : height // 2] *= 0.5

    def tinting(batch: Tensor) -> Tensor:
        return batch + 0.1 * torch.rand(batch.shape, generator=torch.Generator().manual_seed(1))

    size = (2 * height, 80)
    tiling = tiles.grid(*size, 64, 32)
    rows = torch.cat(list(bands.enlarged(grey, size, tinting, tiling)), -2)
    assert torch.equal(rows, rows[:, :1].expand_as(rows)) and rows.std() > 0.1
    found = torch.cat(list(bands.enlarged(half, size, tinting, tiling)), -2)
    whole = fix_colors_(tiles.stream(bicubic(half, size), tinting, tiling), bicubic(half, size))
    assert torch.allclose(found, whole, atol=1e-4)
    neutral = found[..., height + 24 :, :]
    assert torch.equal(neutral, neutral[:, :1].expand_as(neutral))

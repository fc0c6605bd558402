"""Upscale from top to bottom, holding only one row of tiles of the enlarged input and of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.color.fix import REACH, fix_colors_
from fluxsr.imaging.resize import bicubic_rows
from fluxsr.imaging.tiling.tiles import Grid

if TYPE_CHECKING:
    from fluxsr.imaging.mask import Mask

STREAMABLE = ("wavelet", "none")  # adain needs statistics of the whole image


def enlarged(
    image: Tensor,
    size: tuple[int, int],
    function: Callable[[Tensor], Tensor],
    tiling: Grid,
    *,
    batch_size: int = 1,
    color_fix: str = "wavelet",
    progress: Callable[[int, int], None] | None = None,
    mask: Mask | None = None,
) -> Iterator[Tensor]:
    """Apply ``tiles.stream`` and ``fix_colors_`` to the bicubic enlargement, one row of tiles at a time.

    Args:
        image: (1,3,h,w), RGB in [0,1].
        size: (height, width) of the result, at least those of the image. ``tiling`` is its grid.
        function, batch_size, progress: see ``tiles.stream``.
        color_fix: one of ``STREAMABLE``; others raise an InputError.
        mask: blends the result with the enlargement at the end.

    Yields:
        (1,3,rows,W), float32, about [0,1], from top to bottom.
    """
    if color_fix not in STREAMABLE:
        raise InputError(f"color_fix is '{color_fix}', which needs the whole image; choose one of {STREAMABLE}")
    pairs = _blended(image, size, function, tiling, batch_size, progress, mask)
    pairs = pairs if color_fix == "none" else _fixed(pairs)
    return (hr for hr, _ in pairs) if mask is None else mask.blended(pairs)


def _blended(
    image: Tensor,
    size: tuple[int, int],
    function: Callable[[Tensor], Tensor],
    tiling: Grid,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
    mask: Mask | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield blended rows of the result, with the same rows of the bicubic enlargement."""
    starts = tiling.rows.starts
    row_windows, column_windows = tiling.rows.windows(), tiling.columns.windows()
    columns, total = range(len(tiling.columns.starts)), len(tiling)
    begun = image.new_zeros((1, 3, 0, size[1]))  # rows that overlap the tiles above
    for row, start in enumerate(starts):
        lr_up = _rows(image, size, tiling.rows.indices(start))  # (1,3,tile,W)
        hr = torch.zeros_like(lr_up)
        hr[..., : begun.shape[-2], :] = begun
        for first in range(0, len(columns), batch_size):
            batch = columns[first : first + batch_size]
            tiles = torch.cat([lr_up.index_select(-1, tiling.columns.indices(tiling.columns.starts[k])) for k in batch])
            if mask is None or mask.touches(tiling, [(row, column) for column in batch]):
                tiles = function(tiles)
            for blended, column in zip(tiles.float(), batch, strict=True):
                weight = (row_windows[row][:, None] * column_windows[column]).to(blended.device)
                place = hr[0, ..., tiling.columns.starts[column] :][..., : tiling.columns.tile]
                place += (blended * weight)[..., : place.shape[-1]].to(hr.device)
            if progress is not None:
                progress(row * len(columns) + first + len(batch), total)
        end = starts[row + 1] - start if row + 1 < len(starts) else size[0] - start
        begun = hr[..., end:, :].clone()
        yield hr[..., :end, :], lr_up[..., :end, :]


def _rows(image: Tensor, size: tuple[int, int], rows: Tensor) -> Tensor:
    """Return rows of the bicubic enlargement, in [0,1]."""
    low, high = int(rows.min()), int(rows.max()) + 1
    return bicubic_rows(image, size, low, high).clamp_(0, 1).index_select(-2, rows - low)


def _fixed(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Fix colours. A row is yielded once all rows within reach of the wavelet blur are known."""
    hr: Tensor | None = None
    lr_up: Tensor | None = None
    above = 0  # rows already yielded, kept for the blur of the rows below
    for pair in pairs:
        hr, lr_up = (
            pair if hr is None or lr_up is None else (torch.cat(two, -2) for two in zip((hr, lr_up), pair, strict=True))
        )
        ready = hr.shape[-2] - REACH
        if ready > above:
            yield fix_colors_(hr.clone(), lr_up)[..., above:ready, :], lr_up[..., above:ready, :]
            cut = max(ready - REACH, 0)
            hr, lr_up, above = hr[..., cut:, :].clone(), lr_up[..., cut:, :].clone(), ready - cut
    if hr is not None and lr_up is not None:
        yield fix_colors_(hr, lr_up)[..., above:, :], lr_up[..., above:, :]

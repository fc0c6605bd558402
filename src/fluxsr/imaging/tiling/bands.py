"""Enlargement from top to bottom: of input and result only the rows at hand are held in full size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.color.fix import REACH, fix_colors_
from fluxsr.imaging.resize import bicubic_rows
from fluxsr.imaging.tiling.tiles import Grid

STREAMABLE = ("wavelet", "none")  # adain wants the statistics of the whole


def enlarged(
    image: Tensor,
    size: tuple[int, int],
    function: Callable[[Tensor], Tensor],
    tiling: Grid,
    *,
    batch_size: int = 1,
    color_fix: str = "wavelet",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """What ``tiles.stream`` and ``fix_colors_`` make of the bicubic enlargement, row of tiles by row of tiles.

    Args:
        image: (1,3,h,w), RGB in [0,1].
        size: (height, width) of the result, neither smaller than the image's.
        function: tiles (B,3,y,x) to tiles of the same size, on any device.
        tiling: of ``tiles.grid``, for that size.
        batch_size: tiles per call.
        color_fix: "wavelet" or "none".
        progress: called with (tiles done, tiles in all) after every batch.

    Yields:
        (1,3,rows,W), float32, about [0,1], from top to bottom.

    Raises:
        InputError: another colour fix.
    """
    if color_fix not in STREAMABLE:
        raise InputError(f"color_fix is '{color_fix}', which needs the whole picture; choose one of {STREAMABLE}")
    pairs = _blended(image, size, function, tiling, batch_size, progress)
    return (hr for hr, _ in pairs) if color_fix == "none" else _fixed(pairs)


def _blended(
    image: Tensor,
    size: tuple[int, int],
    function: Callable[[Tensor], Tensor],
    tiling: Grid,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of the result and of the bicubic enlargement; no later tile reaches them."""
    starts = tiling.rows.starts
    row_windows, column_windows = tiling.rows.windows(), tiling.columns.windows()
    columns, total = range(len(tiling.columns.starts)), len(tiling)
    begun = image.new_zeros((1, 3, 0, size[1]))  # rows that the tiles above have part in
    for row, start in enumerate(starts):
        lr_up = _rows(image, size, tiling.rows.indices(start))  # (1,3,tile,W)
        hr = torch.zeros_like(lr_up)
        hr[..., : begun.shape[-2], :] = begun
        for first in range(0, len(columns), batch_size):
            batch = columns[first : first + batch_size]
            cut = [lr_up.index_select(-1, tiling.columns.indices(tiling.columns.starts[k])) for k in batch]
            for blended, column in zip(function(torch.cat(cut)).float(), batch, strict=True):
                weight = (row_windows[row][:, None] * column_windows[column]).to(blended.device)
                place = hr[0, ..., tiling.columns.starts[column] :][..., : tiling.columns.tile]
                place += (blended * weight)[..., : place.shape[-1]].to(hr.device)
            if progress is not None:
                progress(row * len(columns) + first + len(batch), total)
        end = starts[row + 1] - start if row + 1 < len(starts) else size[0] - start
        begun = hr[..., end:, :].clone()
        yield hr[..., :end, :], lr_up[..., :end, :]


def _rows(image: Tensor, size: tuple[int, int], wanted: Tensor) -> Tensor:
    """Those rows of the bicubic enlargement, in [0,1]."""
    low, high = int(wanted.min()), int(wanted.max()) + 1
    return bicubic_rows(image, size, low, high).clamp_(0, 1).index_select(-2, wanted - low)


def _fixed(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
    """Colours from the enlargement: each row once all rows that the wavelet's blur sees are there."""
    hr: Tensor | None = None
    lr_up: Tensor | None = None
    above = 0  # rows that are out already and held for the blur of those below
    for pair in pairs:
        hr, lr_up = (
            pair if hr is None or lr_up is None else (torch.cat(two, -2) for two in zip((hr, lr_up), pair, strict=True))
        )
        ready = hr.shape[-2] - REACH
        if ready > above:
            yield fix_colors_(hr.clone(), lr_up)[..., above:ready, :]
            cut = max(ready - REACH, 0)
            hr, lr_up, above = hr[..., cut:, :].clone(), lr_up[..., cut:, :].clone(), ready - cut
    if hr is not None and lr_up is not None:
        yield fix_colors_(hr, lr_up)[..., above:, :]

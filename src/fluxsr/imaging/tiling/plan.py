"""Tiles in smaller pieces where the memory of a device runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fluxsr.imaging.tiling import tiles

LEAST_TILE = 128  # where memory runs out with less, something else is wrong

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TilingPlan:
    """How an image is cut.

    Attributes:
        tile_size, tile_overlap, multiple, fixed: of ``tiles.grid``.
        batch_size: tiles per call.
    """

    tile_size: int
    batch_size: int
    tile_overlap: int
    multiple: int
    fixed: bool = False

    def grid(self, height: int, width: int) -> tiles.Grid:
        """The tiles of an image of that size.

        Raises:
            InputError: a tile or an overlap that cannot be.
        """
        return tiles.grid(height, width, self.tile_size, self.tile_overlap, self.multiple, self.fixed)

    def smaller(self, height: int, width: int) -> TilingPlan | None:
        """One tile at a time, then tiles of half the side; None below ``LEAST_TILE``."""
        grid = self.grid(height, width)
        if self.batch_size > 1 and len(grid) > 1:
            return replace(self, batch_size=1)
        half = max(grid.rows.tile, grid.columns.tile) // 2 // self.multiple * self.multiple
        if half < LEAST_TILE:
            return None
        return replace(self, tile_size=half, batch_size=1, tile_overlap=min(self.tile_overlap, half // 2))


def stream_with_fallback(
    image: Tensor,
    function: Callable[[Tensor], Tensor],
    fit: TilingPlan,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, TilingPlan]:
    """``tiles.stream``, from the start again where it ends out of memory: one tile at a time, then half the side.

    Args:
        image, function, progress: of ``tiles.stream``.
        fit: to begin with; the overlap shrinks with tiles that get too small for it.

    Returns:
        (1,C',H,W), and what fitted; each change is a warning in the log.

    Raises:
        torch.OutOfMemoryError: the smallest tile does not fit.
    """
    height, width = image.shape[-2:]
    while True:
        grid = fit.grid(height, width)
        try:
            return tiles.stream(image, function, grid, batch_size=fit.batch_size, progress=progress), fit
        except torch.OutOfMemoryError:
            if (less := fit.smaller(height, width)) is None:
                raise
        fit = _told(less)  # outside of the except clause, whose error holds the tensors of what failed


def rows_with_fallback(
    start: Callable[..., Iterator[Tensor]], size: tuple[int, int], fit: TilingPlan, kept: Callable[[TilingPlan], None]
) -> Iterator[Tensor]:
    """Rows that come one after the other, from the start again where memory runs out before the first are there.

    Later it is not tried: all tiles are equal, so if memory runs out then, others took it; and the rows that are
    out already were of other tiles.

    Args:
        start: ``bands.enlarged`` of an image, which wants a grid and ``batch_size`` yet; works nothing out before
            the first row is asked for.
        size: (height, width) of the result.
        fit: to begin with.
        kept: told what fitted.

    Raises:
        InputError: at once, where ``start`` or the grid refuses.
        torch.OutOfMemoryError: while rows come, the smallest tile does not fit.
    """
    return _fitted_rows(start(fit.grid(*size), batch_size=fit.batch_size), start, size, fit, kept)


def _fitted_rows(
    coming: Iterator[Tensor],
    start: Callable[..., Iterator[Tensor]],
    size: tuple[int, int],
    fit: TilingPlan,
    kept: Callable[[TilingPlan], None],
) -> Iterator[Tensor]:
    while True:
        try:
            first = next(coming)
            break
        except torch.OutOfMemoryError:
            if (less := fit.smaller(*size)) is None:
                raise
        fit = _told(less)
        coming = start(fit.grid(*size), batch_size=fit.batch_size)
    kept(fit)
    yield first
    yield from coming


def _told(fit: TilingPlan) -> TilingPlan:
    log.warning("out of memory; going on with one tile of %d pixels at a time", fit.tile_size)
    return fit

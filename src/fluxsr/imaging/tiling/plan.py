"""Tiling plans, and smaller ones when a device runs out of memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fluxsr.imaging.tiling import tiles

LEAST_TILE = 128  # pixels; running out of memory with smaller tiles has another cause

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TilingPlan:
    """How an image is cut into tiles.

    Attributes:
        tile_size, tile_overlap, multiple, fixed: see ``tiles.grid``.
        batch_size: tiles per call.
    """

    tile_size: int
    batch_size: int
    tile_overlap: int
    multiple: int
    fixed: bool = False

    def grid(self, height: int, width: int) -> tiles.Grid:
        """Return the tile grid of an image of that size.

        Raises:
            InputError: the tile size or the overlap is not possible.
        """
        return tiles.grid(height, width, self.tile_size, self.tile_overlap, self.multiple, self.fixed)

    def smaller(self, height: int, width: int) -> TilingPlan | None:
        """Return a plan of one tile at a time, then of half the tile size; None below ``LEAST_TILE``."""
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
    plan: TilingPlan,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, TilingPlan]:
    """Run ``tiles.stream``, and restart it with smaller plans when the device runs out of memory.

    Args:
        image, function, progress: see ``tiles.stream``.
        plan: first plan. Where tiles become too small for its overlap, the overlap shrinks with them.

    Returns:
        (1,C',H,W), and the plan that fitted. Each smaller plan is logged as a warning.

    Raises:
        torch.OutOfMemoryError: the smallest tile does not fit.
    """
    height, width = image.shape[-2:]
    while True:
        grid = plan.grid(height, width)
        try:
            return tiles.stream(image, function, grid, batch_size=plan.batch_size, progress=progress), plan
        except torch.OutOfMemoryError:
            if (smaller := plan.smaller(height, width)) is None:
                raise
        plan = _logged(smaller)  # outside the except clause, whose error keeps the failed tensors alive


def rows_with_fallback(
    start: Callable[..., Iterator[Tensor]], size: tuple[int, int], plan: TilingPlan, kept: Callable[[TilingPlan], None]
) -> Iterator[Tensor]:
    """Yield rows of a result, and restart with smaller plans when memory runs out before the first rows.

    Later there is no restart: all tiles are equal, so other programs took the memory, and the rows that were
    already yielded came from other tiles.

    Args:
        start: ``bands.enlarged`` with everything but the grid and ``batch_size``. It computes nothing before the
            first row is requested.
        size: (height, width) of the result.
        plan: first plan.
        kept: called with the plan that fitted.

    Raises:
        InputError: immediately, if ``start`` or the grid refuses.
        torch.OutOfMemoryError: during iteration, if the smallest tile does not fit.
    """
    return _rows_that_fit(start(plan.grid(*size), batch_size=plan.batch_size), start, size, plan, kept)


def _rows_that_fit(
    rows: Iterator[Tensor],
    start: Callable[..., Iterator[Tensor]],
    size: tuple[int, int],
    plan: TilingPlan,
    kept: Callable[[TilingPlan], None],
) -> Iterator[Tensor]:
    while True:
        try:
            first = next(rows)
            break
        except torch.OutOfMemoryError:
            if (smaller := plan.smaller(*size)) is None:
                raise
        plan = _logged(smaller)
        rows = start(plan.grid(*size), batch_size=plan.batch_size)
    kept(plan)
    yield first
    yield from rows


def _logged(plan: TilingPlan) -> TilingPlan:
    log.warning("out of memory; going on with one tile of %d pixels at a time", plan.tile_size)
    return plan

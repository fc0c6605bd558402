"""Tiling plans, and smaller ones when a device runs out of memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from fluxsr.imaging.tiling import tiles

if TYPE_CHECKING:
    from fluxsr.imaging.mask import Mask

LEAST_TILE = 128  # pixels; running out of memory with smaller tiles has another cause
Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TilingPlan:
    """How an image is cut into tiles (see ``tiles.grid``), of which ``batch_size`` are in one call."""

    tile_size: int
    batch_size: int
    tile_overlap: int
    multiple: int
    fixed: bool = False

    def grid(self, height: int, width: int) -> tiles.Grid:
        """Return the tile grid of an image of that size; raise an InputError if there is none."""
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
    mask: Mask | None = None,
) -> tuple[Tensor, TilingPlan]:
    """Run ``tiles.stream``, and restart it with smaller plans when the device runs out of memory.

    Return the result and the plan that fitted. Each smaller plan is logged as a warning.
    """
    height, width = image.shape[-2:]

    def attempt(plan: TilingPlan) -> Tensor:
        options: Any = {"batch_size": plan.batch_size, "progress": progress, "mask": mask}
        return tiles.stream(image, function, plan.grid(height, width), **options)

    return _first_that_fits(attempt, (height, width), plan)


def rows_with_fallback(
    start: Callable[..., Iterator[Tensor]], size: tuple[int, int], plan: TilingPlan, kept: Callable[[TilingPlan], None]
) -> Iterator[Tensor]:
    """Yield rows of a result, and restart with smaller plans when memory runs out before the first rows.

    Later there is no restart: all tiles are equal, so other programs took the memory, and the rows that were
    already yielded came from other tiles.

    Args:
        start: ``bands.enlarged`` with everything but the grid and ``batch_size``. It computes nothing before the
            first row is requested, but refuses wrong arguments, as this function does.
        size: (height, width) of the result.
        kept: called with the plan that fitted.
    """

    def attempt(plan: TilingPlan) -> tuple[Tensor, Iterator[Tensor]]:
        rows = start(plan.grid(*size), batch_size=plan.batch_size)
        return next(rows), rows

    def iterate() -> Iterator[Tensor]:
        (first, rows), fitted = _first_that_fits(attempt, size, plan)
        kept(fitted)
        yield first
        yield from rows

    start(plan.grid(*size), batch_size=plan.batch_size)  # refuses now what cannot work
    return iterate()


def _first_that_fits(
    attempt: Callable[[TilingPlan], Result], size: tuple[int, int], plan: TilingPlan
) -> tuple[Result, TilingPlan]:
    while True:
        try:
            return attempt(plan), plan
        except torch.OutOfMemoryError:
            if (smaller := plan.smaller(*size)) is None:
                raise
        plan = smaller  # outside the except clause, whose error keeps the failed tensors alive
        log.warning("out of memory; going on with one tile of %d pixels at a time", plan.tile_size)

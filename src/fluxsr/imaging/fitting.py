"""Tiles in smaller pieces where the memory of a device runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from fluxsr.imaging import tiles

LEAST_TILE = 128  # where memory runs out with less, something else is wrong

log = logging.getLogger(__name__)


def stream(
    image: Tensor,
    function: Callable[[Tensor], Tensor],
    tile_size: int,
    batch_size: int,
    tile_overlap: int,
    multiple: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, int, int]:
    """``tiles.stream``, from the start again where it ends out of memory: one tile at a time, then half the side.

    Args:
        image, function, progress: of ``tiles.stream``.
        tile_size, tile_overlap, multiple: of ``tiles.grid``; the overlap shrinks with tiles that get too small for it.
        batch_size: tiles per call.

    Returns:
        (1,C',H,W), and the tile size and batch size that fitted; each change is a warning in the log.

    Raises:
        torch.OutOfMemoryError: the smallest tile does not fit.
    """
    height, width = image.shape[-2:]
    while True:
        grid = tiles.grid(height, width, tile_size, tile_overlap, multiple)
        try:
            return tiles.stream(image, function, grid, batch_size=batch_size, progress=progress), tile_size, batch_size
        except torch.OutOfMemoryError:
            one = batch_size == 1 or len(grid) == 1
            half = max(grid.rows.tile, grid.columns.tile) // 2 // multiple * multiple
            if one and half < LEAST_TILE:
                raise
        # outside of the except clause, whose error holds the tensors of what failed
        tile_size, batch_size = (half if one else tile_size), 1
        tile_overlap = min(tile_overlap, tile_size // 2)
        log.warning("out of memory; going on with one tile of %d pixels at a time", tile_size)

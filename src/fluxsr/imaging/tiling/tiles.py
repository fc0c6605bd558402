"""Equal tiles that cover an image of any size, a smooth window, and their merger.

Tiles stand on a lattice of ``multiple`` pixels and have one size per image ("balanced": an image
a little larger than a tile becomes two tiles of about half of it, not a full one and a sliver), so
they can be batched. Code that is compiled for one size wants that one of every image ("fixed").
The window of a tile is the product of one window per axis, and the windows of an axis add up to 1
at every pixel; merging is then plain addition, with no image of weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from fluxsr.errors import InputError


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis.

    Attributes:
        length: pixels of the image.
        tile: pixels of every tile, a multiple of the lattice.
        starts: first pixel of each tile; the last one may reach past the image, a fixed one far (``indices``).
    """

    length: int
    tile: int
    starts: tuple[int, ...]

    def indices(self, start: int) -> Tensor:
        """Source pixels of a tile, (tile,): past the image's end they come back as in a mirror."""
        index = torch.arange(start, start + self.tile)
        period = max(2 * (self.length - 1), 1)
        index = index % period
        return torch.minimum(index, period - index).clamp_(max=self.length - 1)

    def windows(self) -> Tensor:
        """One blend window per tile, (tiles, tile), float32, positive.

        A raised cosine over each overlap, 1 elsewhere; at every pixel of the axis they add up to 1.
        """
        windows = torch.ones(len(self.starts), self.tile, dtype=torch.float64)
        for first, (start, following) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            overlap = self.tile - (following - start)
            if overlap > 0:
                phase = (torch.arange(overlap, dtype=torch.float64) + 0.5) / overlap
                ramp = 0.5 - 0.5 * torch.cos(math.pi * phase)
                windows[first, self.tile - overlap :] *= ramp.flip(0)
                windows[first + 1, :overlap] *= ramp
        total = torch.zeros(self.starts[-1] + self.tile, dtype=torch.float64)
        for start, window in zip(self.starts, windows, strict=True):
            total[start : start + self.tile] += window
        for start, window in zip(self.starts, windows, strict=True):
            window /= total[start : start + self.tile]  # more than two tiles may meet at a pixel
        return windows.float()


def axis(length: int, tile_size: int, tile_overlap: int, multiple: int = 16, fixed: bool = False) -> Axis:
    """Cover ``length`` pixels with the fewest equal tiles that are no larger than ``tile_size``.

    Args:
        length: pixels to cover.
        tile_size: largest tile, in pixels; rounded down to the lattice.
        tile_overlap: least overlap of neighbours, in pixels; rounded up to the lattice.
        multiple: pixels of the lattice on which tiles begin and end.
        fixed: tiles are no smaller, either: they overlap more, and one reaches past an image that is smaller.

    Raises:
        InputError: a tile below the lattice, or an overlap above half a tile.
    """
    units, tile = math.ceil(length / multiple), tile_size // multiple
    overlap = math.ceil(tile_overlap / multiple)
    if tile < 1:
        raise InputError(f"tile_size is {tile_size}; it must be {multiple} pixels or more")
    if tile_overlap < 0 or (overlap > tile // 2 and units > tile):
        raise InputError(
            f"tile_overlap is {tile_overlap} with tile_size {tile_size}; choose one from 0 to {tile // 2 * multiple}"
        )
    if units <= tile:
        return Axis(length, (tile if fixed else units) * multiple, (0,))
    count = math.ceil((units - overlap) / (tile - overlap))
    if not fixed:
        tile = math.ceil((units + (count - 1) * overlap) / count)
    starts = tuple(i * (units - tile) // (count - 1) * multiple for i in range(count))
    return Axis(length, tile * multiple, starts)


@dataclass(frozen=True)
class Grid:
    """Tiles of an image: every row of tiles with every column."""

    rows: Axis
    columns: Axis

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def places(self) -> list[tuple[int, int]]:
        """(row, column) of every tile, row by row."""
        return list(product(range(len(self.rows.starts)), range(len(self.columns.starts))))

    def cut(self, image: Tensor, row: int, column: int) -> Tensor:
        """One tile of an image (1,C,H,W): (1,C,rows.tile,columns.tile), mirrored past its ends."""
        y = self.rows.indices(self.rows.starts[row]).to(image.device)
        x = self.columns.indices(self.columns.starts[column]).to(image.device)
        top, left = int(y.min()), int(x.min())
        part = image[..., top : int(y.max()) + 1, left : int(x.max()) + 1]
        return part.index_select(-2, y - top).index_select(-1, x - left)


def grid(height: int, width: int, tile_size: int, tile_overlap: int, multiple: int = 16, fixed: bool = False) -> Grid:
    """Tiles that cover an image of this size; see ``axis``."""
    return Grid(
        axis(height, tile_size, tile_overlap, multiple, fixed),
        axis(width, tile_size, tile_overlap, multiple, fixed),
    )


def stream(
    image: Tensor,
    function: Callable[[Tensor], Tensor],
    tiling: Grid,
    *,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Send an image through a function tile by tile and blend what comes back.

    Beyond the image and the result only one batch of tiles exists at a time.

    Args:
        image: (1,C,H,W).
        function: tiles (B,C,h,w) to tiles (B,C',h,w), on any device.
        tiling: of ``grid``, for the image's size.
        batch_size: tiles per call, at least 1.
        progress: called with (tiles done, tiles in all) after every batch.

    Returns:
        (1,C',H,W), float32, on the image's device.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be 1 or more")
    places = tiling.places()
    row_windows, column_windows = tiling.rows.windows(), tiling.columns.windows()
    result: Tensor | None = None
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        tiles = function(torch.cat([tiling.cut(image, *place) for place in batch]))
        if result is None:
            result = image.new_zeros((1, tiles.shape[1], *image.shape[-2:]), dtype=torch.float32)
        for tile, (row, column) in zip(tiles, batch, strict=True):
            weight = row_windows[row][:, None] * column_windows[column]
            y, x = tiling.rows.starts[row], tiling.columns.starts[column]
            place = result[0, :, y : y + tiling.rows.tile, x : x + tiling.columns.tile]
            blended = tile.float() * weight.to(tile.device)
            place += blended[:, : place.shape[1], : place.shape[2]].to(image.device)
        if progress is not None:
            progress(first + len(batch), len(places))
    assert result is not None  # a grid has at least one tile
    return result

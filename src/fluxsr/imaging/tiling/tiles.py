"""Equal tiles that cover an image of any size, their blend windows, and the merged result.

Tiles start at multiples of ``multiple`` pixels. All tiles of an image have the same size, so they can be batched. An
image a little larger than a tile becomes two tiles of about half of it. Compiled code needs the same size for every
image ("fixed"). The window of a tile is the product of one window per axis. The windows of an axis add up to 1 at every
pixel, so merging is plain addition and needs no image of weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fluxsr.errors import InputError

if TYPE_CHECKING:
    from fluxsr.imaging.mask import Mask


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis.

    Attributes:
        length: pixels of the image.
        tile: pixels of every tile.
        starts: first pixel of each tile. The last tile may extend past the image; see ``indices``.
    """

    length: int
    tile: int
    starts: tuple[int, ...]

    def indices(self, start: int) -> Tensor:
        """Return the source pixels of a tile, (tile,); past the end of the image they are mirrored."""
        index = torch.arange(start, start + self.tile)
        period = max(2 * (self.length - 1), 1)
        index = index % period
        return torch.minimum(index, period - index).clamp_(max=self.length - 1)

    def windows(self) -> Tensor:
        """Return one blend window per tile, (tiles, tile), float32, positive.

        A window is a raised cosine over each overlap and 1 elsewhere. The windows add up to 1 at every pixel.
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
        tile_size: largest tile, in pixels; rounded down to a multiple.
        tile_overlap: least overlap of neighbours, in pixels; rounded up to a multiple.
        multiple: pixels; tiles begin and end at its multiples.
        fixed: whether tiles have exactly this size. They overlap more, and extend past a smaller image.
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
    """Tile grid of an image: every row of tiles combined with every column."""

    rows: Axis
    columns: Axis

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def places(self) -> list[tuple[int, int]]:
        """Return (row, column) of every tile, row by row."""
        return list(product(range(len(self.rows.starts)), range(len(self.columns.starts))))

    def cut(self, image: Tensor, row: int, column: int) -> Tensor:
        """Cut one tile (1,C,rows.tile,columns.tile) from an image (1,C,H,W), mirrored past its ends."""
        y = self.rows.indices(self.rows.starts[row]).to(image.device)
        x = self.columns.indices(self.columns.starts[column]).to(image.device)
        top, left = int(y.min()), int(x.min())
        part = image[..., top : int(y.max()) + 1, left : int(x.max()) + 1]
        return part.index_select(-2, y - top).index_select(-1, x - left)


def grid(height: int, width: int, tile_size: int, tile_overlap: int, multiple: int = 16, fixed: bool = False) -> Grid:
    """Return the tile grid that covers an image of this size; see ``axis``."""
    return Grid(*(axis(side, tile_size, tile_overlap, multiple, fixed) for side in (height, width)))


def stream(
    image: Tensor,
    function: Callable[[Tensor], Tensor],
    tiling: Grid,
    *,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
    mask: Mask | None = None,
) -> Tensor:
    """Apply a function to an image (1,C,H,W) tile by tile, and blend the results to (1,C',H,W), float32.

    Besides the image and the result, only one batch of tiles exists at a time.

    Args:
        function: maps tiles (B,C,h,w) to tiles (B,C',h,w), on any device.
        tiling: the tile grid for the size of the image.
        batch_size: tiles per call, at least 1.
        progress: called with (tiles done, total tiles) after every batch.
        mask: batches of tiles that it does not touch remain as they are.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be 1 or more")
    places = tiling.places()
    row_windows, column_windows = tiling.rows.windows(), tiling.columns.windows()
    result: Tensor | None = None
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        tiles = torch.cat([tiling.cut(image, *place) for place in batch])
        if mask is None or mask.touches(tiling, batch):
            tiles = function(tiles)
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

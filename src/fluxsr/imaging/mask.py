"""Masks: where, and how strongly, the model's result replaces the plain bicubic enlargement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.color.fix import REACH
from fluxsr.imaging.decode import decode
from fluxsr.imaging.picture import Picture
from fluxsr.imaging.resize import bicubic, bicubic_rows
from fluxsr.imaging.tiling.tiles import Grid
from fluxsr.options import MAX_PIXELS

LEVELS = 255  # weights are rounded to as many steps, so that white is exactly 1 after any scaling
ROWS = 256  # that are blended at once


@dataclass(frozen=True)
class Mask:
    """A mask at the size of a result.

    Attributes:
        values: (1,1,h,w) in [0,1], at most as large as the result.
        size: (height, width) of the result.
        reach: pixels beyond the mask that influence the result inside, through the colour fix.
    """

    values: Tensor
    size: tuple[int, int]
    reach: int

    @classmethod
    def of(cls, values: Tensor | None, size: tuple[int, int], color_fix: str) -> Mask | None:
        """Return the mask for a result, or None without a mask. Its own size does not matter."""
        if values is None:
            return None
        if values.shape[-2] > size[0] or values.shape[-1] > size[1]:
            values = bicubic(values, size)
        return cls(values, size, {"none": 0, "wavelet": REACH}.get(color_fix, max(size)))  # adain sees the whole image

    def touches(self, tiling: Grid, places: Iterable[tuple[int, int]]) -> bool:
        """Return whether the mask is above 0 in or near one of these tiles, so that the model must run on them."""
        return any(
            self.values[..., self._span(tiling.rows, row, 0), self._span(tiling.columns, column, 1)].any()
            for row, column in places
        )

    def _span(self, axis: Any, number: int, side: int) -> slice:
        """Return the part of the mask that a tile depends on along one axis; the kernel reaches 2 pixels further."""
        ratio = self.values.shape[side - 2] / self.size[side]
        start, end = axis.starts[number] - self.reach, axis.starts[number] + axis.tile + self.reach
        return slice(max(int(start * ratio) - 3, 0), int(end * ratio) + 3)

    def blend_(self, hr: Tensor, lr_up: Tensor, first: int = 0) -> Tensor:
        """Blend rows of a result, from row ``first``, with those of the bicubic enlargement, in place; return them."""
        for top in range(0, hr.shape[-2], ROWS):
            rows = slice(top, min(top + ROWS, hr.shape[-2]))
            weight = bicubic_rows(self.values, self.size, first + rows.start, first + rows.stop)
            weight = weight.clamp_(0, 1).mul_(LEVELS).round_().div_(LEVELS)
            # lerp is exact at both ends. Clamped first, bytes of the result are linear in the weight.
            hr[..., rows, :] = torch.lerp(lr_up[..., rows, :], hr[..., rows, :].clamp(0, 1), weight)
        return hr

    def blended(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Blend consecutive rows, each with those of the bicubic enlargement."""
        first = 0
        for hr, lr_up in pairs:
            yield self.blend_(hr, lr_up, first)
            first += hr.shape[-2]


def masked(picture: Picture, mask: Tensor | str | Path | None, max_pixels: int = MAX_PIXELS) -> Picture:
    """Return a picture with a mask, given as a tensor or a file; a note says if its shape is another one."""
    if mask is None:
        return picture
    values = mask if isinstance(mask, Tensor) else _from_pixels(decode(mask, max_pixels).pixels)
    (height, width), (rows, columns) = picture.lr.shape[-2:], values.shape[-2:]
    notes = picture.notes
    if abs(width * rows - height * columns) > max(width, height, rows, columns):  # more than rounding to whole pixels
        notes = (*notes, f"has {width}x{height} pixels, but its mask {columns}x{rows}, which is stretched")
    return replace(picture, mask=values, notes=notes)


def as_masks(mask: Any, count: int) -> list[Tensor] | list[None]:
    """Return a mask (1,1,h,w) for each of ``count`` images.

    Args:
        mask: path, PIL image, array (H,W) or (H,W,C), tensor (..,H,W) of one or more grey masks, a list of these, or
            None. Floats are in [0,1]. Colours are averaged, and transparent pixels are 0.
        count: number of images. A single mask serves all of them.

    Raises:
        InputError: the mask cannot be used.
    """
    if mask is None:
        return [None] * count
    masks = _each(mask)
    if len(masks) not in (1, count):
        raise InputError(f"mask holds {len(masks)} masks for {count} images; pass one, or one for each image")
    return masks * count if len(masks) == 1 else masks


def _each(mask: Any) -> list[Tensor]:
    if isinstance(mask, Sequence) and not isinstance(mask, str):
        return [one for entry in mask for one in _each(entry)]
    if isinstance(mask, Tensor):
        return [_from_pixels(one.detach().cpu().float().numpy()) for one in mask.reshape(-1, *mask.shape[-2:])]
    if isinstance(mask, (str, Path)):
        return [_from_pixels(decode(mask).pixels)]
    if isinstance(mask, Image.Image):
        known = mask.mode in ("L", "LA", "RGB", "RGBA", "I;16") and "transparency" not in mask.info
        mask = np.asarray(mask if known else mask.convert("RGBA"))
    if not isinstance(mask, np.ndarray):
        raise InputError(f"mask is a {type(mask).__name__}; pass a path, a PIL image, an array, a tensor or a list")
    return [_from_pixels(mask)]


def _from_pixels(pixels: np.ndarray) -> Tensor:
    """Return pixels (H,W) or (H,W,C), C from 1 to 4, as a mask (1,1,H,W)."""
    values = pixels[..., None] if pixels.ndim == 2 else pixels
    if values.ndim != 3 or values.shape[-1] not in (1, 2, 3, 4) or not values.size or values.dtype.kind not in "buf":
        raise InputError(f"mask has shape {pixels.shape} and type {pixels.dtype}; expected (H,W), grey")
    values = values.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1)
    if not (values.min() >= 0 and values.max() <= 1):
        raise InputError(f"mask has values from {values.min():g} to {values.max():g}; expected [0,1]")
    if values.shape[-1] in (2, 4):
        values = values[..., :-1] * values[..., -1:]
    return torch.from_numpy(np.ascontiguousarray(values.mean(-1)))[None, None]

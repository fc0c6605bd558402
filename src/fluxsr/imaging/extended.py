"""Images that are extended before they are enlarged: textures by repetition, small images by reflection."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST_SIDE = 16  # pixels of one token
_CONTEXT = 32  # outer pixels of a margin that only serve the colour fix, which has this reach


class Extended:
    """An image (1,C,h,w) with margins, and the way back to a result without them.

    Margins have a whole number of pixels in the image and in the result, so that the enlargement is exactly the same.

    Args:
        image: the image.
        size: (height, width) of the result without margins.
        wrap: whether opposite edges of the image continue each other. Otherwise only sides below ``LEAST_SIDE`` grow.
        overlap: least pixels of the result over which the ends of a wrapped image are blended.

    Attributes:
        image, size: the image with margins, and the (height, width) of its result.
        margins: pixels of the result above and left of the image.
    """

    def __init__(self, image: Tensor, size: tuple[int, int], wrap: bool = False, overlap: int = 16) -> None:
        self.image, self._wrap, self._inner = image, wrap, size
        sizes, margins = list(size), [0, 0]
        for axis, (length, result) in enumerate(zip(image.shape[-2:], size, strict=True)):
            steps = math.gcd(length, result)
            step, result_step = length // steps, result // steps
            before = math.ceil((_CONTEXT + max(overlap, 16) / 2) / result_step) if wrap else 0
            after = before if wrap else math.ceil(max(LEAST_SIDE - length, 0) / step)
            if before or after:
                index = torch.arange(-before * step, length + after * step)
                self.image = self.image.index_select(axis - 2, _inside(index, length, wrap).to(image.device))
                sizes[axis], margins[axis] = result + (before + after) * result_step, before * result_step
        self.size, self.margins = (sizes[0], sizes[1]), (margins[0], margins[1])

    def cut(self, hr: Tensor) -> Tensor:
        """Return the result (1,C,H,W) without margins. Where an image is wrapped, both ends are blended."""
        for axis, (margin, length) in enumerate(zip(self.margins, self._inner, strict=True)):
            if not self._wrap:
                hr = hr.narrow(axis - 2, 0, length)
                continue
            index = torch.arange(hr.shape[axis - 2]) - margin
            ends = torch.minimum(index + margin, length + margin - 1 - index)  # distance from the nearer end
            ramp = ((ends - _CONTEXT + 0.5) / (2 * (margin - _CONTEXT))).clamp(0, 1)
            window = torch.sin(ramp * (math.pi / 2)) ** 2
            place = index % length
            window /= torch.zeros(length).index_add_(0, place, window)[place]  # margins may exceed a small image
            shape = (-1, 1) if axis == 0 else (-1,)
            blended = hr.new_zeros((*hr.shape[: axis + 2], length, *hr.shape[axis + 3 :]))
            hr = blended.index_add_(axis - 2, place, hr * window.view(shape))
        return hr


def _inside(index: Tensor, length: int, wrap: bool) -> Tensor:
    """Return the pixels of the image that stand for pixels outside."""
    if wrap:
        return index % length
    index = index % max(2 * (length - 1), 1)
    return torch.minimum(index, 2 * (length - 1) - index) if length > 1 else index * 0

"""Images that explain numbers: difference maps, edge maps, and where methods differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.errors import InputError
from fluxsr.evaluation.metrics import luma

_SPAN = 219  # of luma, 16..235


def difference_map(sr: Tensor, hr: Tensor, gain: float = 4) -> Tensor:
    """Return a map of `sr` luma minus `hr` luma, (B, 3, H, W) in [0, 1]: white is equal, red brighter, blue darker.

    Args:
        sr, hr: (B, 3, H, W), RGB in [0, 1].
        gain: differences are enlarged so often; 1 / gain of the range is full colour.
    """
    offset = (gain * (luma(sr) - luma(hr)) / _SPAN).clamp(-1, 1)
    brighter, darker = offset.clamp(min=0), (-offset).clamp(min=0)
    return torch.stack([1 - darker, 1 - brighter - darker, 1 - brighter], 1)


def edge_map(images: Tensor, gain: float = 2) -> Tensor:
    """Return the magnitude of the luma gradient, dark on white; (B, 3, H, W) -> (B, 3, H, W) in [0, 1].

    Args:
        images: (B, 3, H, W), RGB in [0, 1].
        gain: gradients are enlarged so often; a step of 1 / gain of the range is black.
    """
    plane = F.pad(luma(images)[:, None] / _SPAN, (1, 1, 1, 1), mode="replicate")
    right = (plane[..., 1:-1, 2:] - plane[..., 1:-1, :-2]) / 2
    down = (plane[..., 2:, 1:-1] - plane[..., :-2, 1:-1]) / 2
    return (1 - gain * torch.hypot(right, down)).clamp(0, 1).expand(-1, 3, -1, -1)


@dataclass(frozen=True, order=True)
class Window:
    """A square of an image, in pixels; squares are ordered by how much methods differ in them."""

    spread: float
    """Standard deviation of luma between methods, averaged over the square, in 8-bit steps."""
    stem: str
    top: int
    left: int
    side: int

    def of(self, image: Tensor) -> Tensor:
        """Return this square of (B, 3, H, W)."""
        return image[..., self.top : self.top + self.side, self.left : self.left + self.side]


def where_methods_differ(stem: str, images: Sequence[Tensor], side: int) -> Window:
    """Return the square of an image in which the results of several methods differ most.

    Args:
        stem: name of the image.
        images: (1, 3, H, W) each, RGB in [0, 1], of one size; two or more.
        side: of the square; the image's shorter side if that is less.

    Raises:
        InputError: fewer than two versions, or sizes that differ.
    """
    shapes = {tuple(image.shape) for image in images}
    if len(images) < 2 or len(shapes) != 1:
        raise InputError(f"{stem}: {len(images)} versions of the sizes {sorted(shapes)}; give two or more of one size")
    spread = torch.stack([luma(image) for image in images]).std(0)  # (1, H, W)
    side = min(side, *spread.shape[1:])
    stride = max(1, side // 4)
    means = F.avg_pool2d(spread[None], side, stride)[0, 0]
    best = int(means.argmax())
    row, column = divmod(best, means.shape[1])
    return Window(float(means[row, column]), stem, row * stride, column * stride, side)

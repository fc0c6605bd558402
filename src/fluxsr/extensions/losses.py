"""The scales at which TV-LPIPS may compare; the paper compares at one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_SIDE = 16  # pixels that LPIPS needs
MOST_CUT = 15  # pixels: all phases of SqueezeNet's total stride of 16


def at_scale(x: Tensor, y: Tensor, scales: Sequence[float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return two batches at one of several scales, the same for both.

    Unless scales is (1,), scale 1 cuts off up to 15 pixels at the top and at the left. A perceptual network with
    strides would otherwise see every token of the transformer at the same phase, and teach it a pattern of that period.
    A scale n above 1 cuts a random part of 1/n of the sides and repeats its pixels n times, so that a perceptual
    network whose first layer has a stride still sees every pixel. A scale 1/n averages blocks of n x n pixels.

    Args:
        x, y: (B,C,H,W), sides multiples of every n.
        scales: 1, whole numbers n, or fractions 1/n; one is drawn.
        generator: draws the scale and the place of the part.

    Returns:
        Two batches of the same shape.
    """
    if tuple(scales) == (1,):
        return x, y
    scale = scales[int(torch.randint(len(scales), (), generator=generator))]
    if scale == 1:
        most = (min(MOST_CUT, max(side - LEAST_SIDE, 0)) for side in x.shape[-2:])
        top, left = (int(torch.randint(cut + 1, (), generator=generator)) for cut in most)
        return x[..., top:, left:], y[..., top:, left:]
    if scale < 1:
        size = round(1 / scale)
        return F.avg_pool2d(x, size), F.avg_pool2d(y, size)
    factor = round(scale)
    height, width = (side // factor for side in x.shape[-2:])
    top, left = (
        int(torch.randint(whole - part + 1, (), generator=generator))
        for whole, part in zip(x.shape[-2:], (height, width), strict=True)
    )
    parts = (image[..., top : top + height, left : left + width] for image in (x, y))
    enlarged_x, enlarged_y = (F.interpolate(part, scale_factor=factor, mode="nearest") for part in parts)
    return enlarged_x, enlarged_y

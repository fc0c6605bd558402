"""TV-LPIPS (FluxSR, section 3.3): a perceptual distance on images and on their total-variation maps.

The paper leaves some details open. This implementation chooses:

- Range: images are in [-1,1], as perceptual networks expect. x_hat may overshoot, because nothing is clamped.
- Channels: R, G and B have separate maps, so that edges between colours of equal luma count.
- Borders: differences are forward, to the right and down. They are 0 in the last column and row, so a map has the size
  of its image.
- Normalisation: |dx| + |dy| in [0,4] is mapped to [-1,1] by constants, with -1 for flat areas. Images of a batch do not
  affect each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Distance = Callable[[Tensor, Tensor], Tensor]


def tv_map(images: Tensor) -> Tensor:
    """Return the per-pixel total variation |dx| + |dy| of each channel.

    Args:
        images: (B,3,H,W) in [-1,1].

    Returns:
        (B,3,H,W) in [-1,1]: (|dx| + |dy|) / 2 - 1.
    """
    dx = F.pad(images.diff(dim=3).abs(), (0, 1))
    dy = F.pad(images.diff(dim=2).abs(), (0, 0, 0, 1))
    return (dx + dy) / 2 - 1


def tv_lpips(x: Tensor, y: Tensor, distance: Distance, gamma: float = 1.0) -> Tensor:
    """Return distance(x, y) + gamma * distance(TV(x), TV(y)), averaged over the batch.

    Decoding whole images takes much memory. `backbones.latents.random_crop`, `decode_crop` and `crop_pixels` give
    matching crops of x and y instead.

    Args:
        x, y: (B,3,H,W) in [-1,1].
        distance: perceptual distance of two batches in [-1,1] that returns a number per image, such as
            ``lpips.LPIPS()`` or `losses.features.feature_distance`.
        gamma: weight of the total-variation term (open in the paper).

    Returns:
        Scalar, computed in float32 even under autocast, because bfloat16 loses small differences.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float(), y.float()
        total = distance(x, y).mean()
        return total + gamma * distance(tv_map(x), tv_map(y)).mean() if gamma else total


def at_scale(x: Tensor, y: Tensor, scales: Sequence[float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return two batches at one of several scales, the same for both; ours, not the paper's.

    A scale n above 1 cuts a random part of 1/n of the sides and repeats its pixels n times, so that a perceptual
    network whose first layer has a stride still sees every pixel. A scale 1/n averages blocks of n x n pixels.

    Args:
        x, y: (B,C,H,W), sides multiples of every n.
        scales: 1, whole numbers n, or fractions 1/n; one is drawn.
        generator: draws the scale and the place of the part.

    Returns:
        Two batches of the same shape.
    """
    scale = scales[int(torch.randint(len(scales), (), generator=generator))]
    if scale == 1:
        return x, y
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

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

from collections.abc import Callable

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
        distance: perceptual distance of two batches in [-1,1] that returns a number per image: LPIPS.
        gamma: weight of the total-variation term (open in the paper).

    Returns:
        Scalar, computed in float32 even under autocast, because bfloat16 loses small differences.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float(), y.float()
        total = distance(x, y).mean()
        return total + gamma * distance(tv_map(x), tv_map(y)).mean() if gamma else total

"""Bicubic resizing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B,3,H,W) with the antialiased bicubic kernel of Pillow and Matlab (a = -0.5), clamped to [0,1].

    An image that already has the target ``size`` (height, width) is returned itself.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return interpolate(image, size=size, mode="bicubic", antialias=True).clamp_(0, 1)


def bicubic_rows(image: Tensor, size: tuple[int, int], first: int, last: int) -> Tensor:
    """Return rows ``first`` to ``last - 1`` of an enlargement by ``bicubic``, not clamped, from the rows around them.

    Args:
        image: (B,C,h,w), float.
        size: (height, width) of the whole enlargement, at least those of the image.
    """
    height, width = size
    centres = (torch.arange(first, last, dtype=torch.float64) + 0.5) * (image.shape[-2] / height) - 0.5
    low = max(int(centres[0]) - 2, 0)
    high = min(int(centres[-1]) + 4, image.shape[-2])
    near = (torch.arange(low, high) - centres[:, None]).abs()  # (rows, rows of the image)
    kernel = torch.where(near < 1, (1.5 * near - 2.5) * near**2 + 1, ((-0.5 * near + 2.5) * near - 4) * near + 2)
    weights = torch.where(near < 2, kernel, 0)
    weights /= weights.sum(1, keepdim=True)  # fewer rows contribute at the border
    wide = interpolate(image[..., low:high, :], size=(high - low, width), mode="bicubic", antialias=True)
    return weights.to(image.dtype) @ wide

"""Bicubic resizing."""

from __future__ import annotations

from numbers import Real

from torch import Tensor
from torch.nn.functional import interpolate

from fluxsr.errors import InputError


def bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bicubic resize, the kernel of Pillow and Matlab (a = -0.5), clamped to [0,1].

    Args:
        image: (B,3,H,W), float, RGB in [0,1].
        size: target (height, width) in pixels, larger or smaller.

    Returns:
        (B,3,*size), same dtype. A size that does not change gives the image itself.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return interpolate(image, size=size, mode="bicubic", antialias=True).clamp_(0, 1)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Target (height, width) of an enlargement, each side rounded to whole pixels.

    Raises:
        InputError: scale is no number in [1,8].
    """
    if not isinstance(scale, Real) or not 1 <= scale <= 8:
        raise InputError(f"scale is {scale!r}; choose a number from 1 to 8")
    return round(height * scale), round(width * scale)

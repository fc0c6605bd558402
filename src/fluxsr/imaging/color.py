"""Colour fixes: give an output the colours of the image it was made from.

Both are those of StableSR (Wang et al., 2023, section "color correction"), computed one channel at
a time so that a large image needs little memory beside itself.
"""

from __future__ import annotations

from itertools import product
from typing import Literal, get_args

import torch
from torch import Tensor

from fluxsr.errors import InputError

ColorFix = Literal["wavelet", "adain", "none"]
METHODS: tuple[str, ...] = get_args(ColorFix)

LEVELS = 5  # StableSR's
REACH = 2**LEVELS - 1  # pixels over which that many levels blur
BLOCK = 512


def fix_(sr: Tensor, lr_up: Tensor, method: str = "wavelet") -> Tensor:
    """Correct the colours of ``sr`` in place.

    Args:
        sr: output, (B,3,H,W), float32, about [0,1]. Overwritten.
        lr_up: the input at the same size.
        method: ``wavelet`` takes the coarse scales from lr_up and the fine ones from sr; ``adain``
            gives each channel the mean and the deviation it has in lr_up; ``none`` does nothing.

    Returns:
        sr, not clamped.

    Raises:
        InputError: another method.
    """
    if method not in METHODS:
        raise InputError(f"color_fix is '{method}'; choose one of {', '.join(METHODS)}")
    if method == "none":
        return sr
    correct = _wavelet_ if method == "wavelet" else _adain_
    for image, reference in zip(sr, lr_up, strict=True):
        for channel, target in zip(image, reference, strict=True):
            correct(channel, target)
    return sr


def low_band(image: Tensor, levels: int = LEVELS) -> Tensor:
    """What remains of (H,W) after ``levels`` of the a-trous wavelet transform (Shensa, 1992).

    Level k blurs with [1 2 1]/4 along both axes, its taps 2^k pixels apart; borders are replicated.
    """
    for level in range(levels):
        image = _blur(_blur(image, 2**level, 0), 2**level, 1)
    return image


def _blur(image: Tensor, step: int, dim: int) -> Tensor:
    """[1 2 1]/4 with taps ``step`` apart along one axis of (H,W)."""
    length = image.shape[dim]
    border, inner = min(step, length), max(length - step, 0)
    blurred = image * 0.5
    blurred.narrow(dim, 0, inner).add_(image.narrow(dim, length - inner, inner), alpha=0.25)
    blurred.narrow(dim, length - inner, inner).add_(image.narrow(dim, 0, inner), alpha=0.25)
    blurred.narrow(dim, inner, border).add_(image.narrow(dim, length - 1, 1), alpha=0.25)
    blurred.narrow(dim, 0, border).add_(image.narrow(dim, 0, 1), alpha=0.25)
    return blurred


def _wavelet_(channel: Tensor, target: Tensor) -> None:
    # high(sr) + low(lr_up) = sr + low(lr_up - sr): the transform is linear, one blur is enough.
    # Block by block with the blur's whole reach around it, which is exact and stays in the cache.
    height, width = channel.shape
    difference = target - channel
    for y, x in product(range(0, height, BLOCK), range(0, width, BLOCK)):
        top, left = max(y - REACH, 0), max(x - REACH, 0)
        around = difference[top : y + BLOCK + REACH, left : x + BLOCK + REACH]
        low = low_band(around)[y - top : y - top + BLOCK, x - left : x - left + BLOCK]
        channel[y : y + BLOCK, x : x + BLOCK] += low


def _adain_(channel: Tensor, target: Tensor) -> None:
    deviation, mean = torch.std_mean(channel)
    target_deviation, target_mean = torch.std_mean(target)
    # an even area has no deviation to stretch
    gain = target_deviation / deviation if deviation > 1e-5 else torch.ones_like(deviation)
    channel.sub_(mean).mul_(gain).add_(target_mean)

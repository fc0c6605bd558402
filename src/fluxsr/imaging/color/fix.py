"""Colour fixes: give an output the colours of its input.

Both methods are those of StableSR (Wang et al., 2023, section "color correction"). They are computed one channel at a
time, so that a large image needs little extra memory. Both keep neutral areas neutral: where the input has no chroma,
the output has none, although a model would tint fine detail.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.errors import InputError
from fluxsr.options import ColorFix

METHODS: tuple[str, ...] = get_args(ColorFix)

LEVELS = 5  # StableSR's
REACH = 2**LEVELS - 1  # blur radius of that many levels, in pixels
BLOCK = 512

_NEUTRAL, _COLOURED = 1.5 / 255, 3 / 255  # largest channel difference of rounding, and of a visible colour
_MARGIN = 8  # pixels; neutral areas fade in over twice as many, starting at the edge of a colour


def fix_colors_(sr: Tensor, lr_up: Tensor, method: str = "wavelet") -> Tensor:
    """Correct the colours of ``sr`` in place, and return it, not clamped.

    Args:
        sr: output, (B,3,H,W), float32, about [0,1].
        lr_up: the input at the same size.
        method: ``wavelet`` takes the coarse scales from lr_up and the fine ones from sr. ``adain`` gives each
            channel the mean and the standard deviation it has in lr_up. ``none`` does nothing. The first two make
            pixels in neutral areas of lr_up exactly neutral.
    """
    if method not in METHODS:
        raise InputError(f"color_fix is '{method}'; choose one of {', '.join(METHODS)}")
    if method == "none":
        return sr
    correct = _wavelet_ if method == "wavelet" else _adain_
    for image, reference in zip(sr, lr_up, strict=True):
        for channel, target in zip(image, reference, strict=True):
            correct(channel, target)
        _keep_neutral_(image, reference)
    return sr


def neutral_weight(image: Tensor) -> Tensor:
    """Return where (3,H,W) has no chroma: 1 well inside neutral areas, 0 near colours, (H,W).

    Single pixels without chroma, which noise produces, do not count.
    """
    chroma = image.amax(0) - image.amin(0)
    if F.max_pool2d(chroma[None, None], _MARGIN, ceil_mode=True).min() >= _COLOURED:
        return torch.zeros_like(chroma)  # as in most photographs: every window below holds one of these squares
    nearby = _windows(F.max_pool2d, chroma)
    neutral = ((_COLOURED - nearby) / (_COLOURED - _NEUTRAL)).clamp_(0, 1)
    return _windows(partial(F.avg_pool2d, count_include_pad=False), neutral)


def _windows(pool: Callable[..., Tensor], image: Tensor) -> Tensor:
    """Pool (H,W) over the square window of _MARGIN around every pixel."""
    side = 2 * _MARGIN + 1
    rows = pool(image[None, None], (side, 1), stride=1, padding=(_MARGIN, 0))
    return pool(rows, (1, side), stride=1, padding=(0, _MARGIN))[0, 0]


def _keep_neutral_(image: Tensor, reference: Tensor) -> None:
    """Remove the chroma of (3,H,W) where the reference has none, block by block."""
    height, width = image.shape[-2:]
    reach = 2 * _MARGIN
    for y, x in product(range(0, height, BLOCK), range(0, width, BLOCK)):
        top, left = max(y - reach, 0), max(x - reach, 0)
        around = reference[:, top : y + BLOCK + reach, left : x + BLOCK + reach]
        weight = neutral_weight(around)[y - top : y - top + BLOCK, x - left : x - left + BLOCK]
        if weight.any():
            block = image[:, y : y + BLOCK, x : x + BLOCK]
            grey = block.mean(0, keepdim=True)
            block.copy_(torch.where(weight > 0, grey + (block - grey) * (1 - weight), block))


def low_band(image: Tensor, levels: int = LEVELS) -> Tensor:
    """Return the low band of (H,W) after ``levels`` of the a-trous wavelet transform (Shensa, 1992).

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
    # high(sr) + low(lr_up) = sr + low(lr_up - sr): the transform is linear, so one blur is enough.
    # Working block by block, with the full blur radius around each, is exact and stays in the cache.
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
    # a constant area has no deviation to scale
    gain = target_deviation / deviation if deviation > 1e-5 else torch.ones_like(deviation)
    channel.sub_(mean).mul_(gain).add_(target_mean)

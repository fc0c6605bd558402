"""Colour against ground truth: CIEDE2000 of the low band, chroma added to grey, and texture added to flat areas.

Images are (B, 3, H, W), RGB in [0, 1] and sRGB; every metric returns one value per image, (B,). It is NaN for an image
of which less than 1 % is grey, or flat.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.evaluation.metrics import luma

BAND = 4  # side of the squares whose means are the low band: an LR pixel
GREY = 3.0  # largest chroma C*ab of grey, about one just noticeable difference
FLAT = 16  # side of flat squares, a patch of the transformer
ENOUGH = 0.01  # smallest share of an image that is grey, or flat
STILL = 2.0  # largest standard deviation of luma in a flat square, in 8-bit steps
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_DEGREES = math.pi / 180


def lab(images: Tensor) -> Tensor:
    """Return CIE L*a*b* of sRGB images, relative to the white of sRGB (D65); float64 (B, 3, H, W)."""
    rgb = images.double()
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(_XYZ, dtype=torch.float64)
    relative = torch.einsum("ij,bjhw->bihw", matrix / matrix.sum(1, keepdim=True), linear)
    cube = torch.where(relative > 216 / 24389, relative.clamp(min=0) ** (1 / 3), (24389 / 27 * relative + 16) / 116)
    x, y, z = cube.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """Return the colour difference CIEDE2000 (CIE 142-2001) of L*a*b* colours, (B, 3, ...) -> (B, ...).

    The steps are those of Sharma, Wu and Dalal (2005).
    """
    (l_1, a_1, b_1), (l_2, a_2, b_2) = first.double().unbind(1), second.double().unbind(1)
    mean = (torch.hypot(a_1, b_1) + torch.hypot(a_2, b_2)) / 2
    stretch = 1.5 - 0.5 * (mean**7 / (mean**7 + 25**7)).sqrt()
    c_1, c_2 = torch.hypot(stretch * a_1, b_1), torch.hypot(stretch * a_2, b_2)
    h_1, h_2 = (torch.atan2(b, stretch * a) % (2 * math.pi) for a, b in ((a_1, b_1), (a_2, b_2)))
    coloured = c_1 * c_2 > 0
    turn = h_2 - h_1
    far = turn.abs() > math.pi
    middle = torch.where(coloured, (h_1 + h_2) / 2 + math.pi * far, h_1 + h_2) % (2 * math.pi)
    turn = torch.where(far, turn - 2 * math.pi * turn.sign(), turn)
    lightness, chroma = (l_1 + l_2) / 2 - 50, (c_1 + c_2) / 2
    hues = ((-0.17, 1, 30), (0.24, 2, 0), (0.32, 3, -6), (-0.20, 4, 63))
    tilt = 1 + sum(weight * torch.cos(times * middle - shift * _DEGREES) for weight, times, shift in hues)
    d_l = (l_2 - l_1) / (1 + 0.015 * lightness**2 / (20 + lightness**2).sqrt())
    d_c = (c_2 - c_1) / (1 + 0.045 * chroma)
    d_h = 2 * (c_1 * c_2).sqrt() * torch.sin(turn / 2) / (1 + 0.015 * chroma * tilt)
    blue = 60 * _DEGREES * torch.exp(-(((middle / _DEGREES - 275) / 25) ** 2))
    rotation = -2 * (chroma**7 / (chroma**7 + 25**7)).sqrt() * torch.sin(blue)
    return (d_l**2 + d_c**2 + d_h**2 + rotation * d_c * d_h).clamp(min=0).sqrt()


def low_band(images: Tensor) -> Tensor:
    """Return the L*a*b* colours of the means over squares of 4 pixels, (B, 3, H // 4, W // 4)."""
    return lab(F.avg_pool2d(images.double(), BAND))


def colour_difference(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean CIEDE2000 between the low bands of two images."""
    return ciede2000(low_band(sr), low_band(hr)).mean((1, 2))


def added_tint(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean chroma C*ab that `sr` adds in the low band where `hr` is grey."""
    ours, true = (low_band(images)[:, 1:].norm(dim=1) for images in (sr, hr))
    return _mean_where((ours - true).clamp(min=0), true <= GREY)


def added_texture(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean standard deviation of luma that `sr` adds to flat squares of `hr`, in 8-bit steps."""
    squares = (luma(images).unfold(1, FLAT, FLAT).unfold(2, FLAT, FLAT) for images in (sr, hr))
    ours, true = (square.std((-2, -1), correction=0) for square in squares)
    return _mean_where((ours - true).clamp(min=0), true <= STILL)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    mean = (values * mask).sum((1, 2)) / mask.sum((1, 2))
    return torch.where(mask.double().mean((1, 2)) >= ENOUGH, mean, torch.nan)

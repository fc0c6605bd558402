"""Shared by NIQE and PIQE: grey values, and local contrast normalisation as in human vision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_GREY = (0.299, 0.587, 0.114)
_WINDOW = 7
_SIGMA = 7 / 6


def grey(images: Tensor) -> Tensor:
    """Return BT.601 grey in [0, 1] (MATLAB's rgb2gray), not rounded, float64; (B, 3, H, W) -> (B, H, W)."""
    red, green, blue = images.double().unbind(1)
    return red * _GREY[0] + green * _GREY[1] + blue * _GREY[2]


def normalised(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean-subtracted, contrast-normalised planes, and the local deviation; each (B, H, W).

    (x - mu) / (sigma + 1) under a Gaussian window of 7x7 pixels (sigma 7/6), borders replicated.

    Args:
        planes: grey in 8-bit steps (0..255), float64.
    """
    mean = _blurred(planes)
    deviation = (_blurred(planes * planes) - mean * mean).abs().sqrt()
    return (planes - mean) / (deviation + 1), deviation


def _blurred(planes: Tensor) -> Tensor:
    offset = torch.arange(_WINDOW, dtype=torch.float64, device=planes.device) - _WINDOW // 2
    weight = torch.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / _SIGMA**2)
    # Rounded as in pyiqa: where an image is flat, NIQE depends only on the sign of this rounding error.
    weight = (weight / weight.sum()).float().to(planes.dtype)
    padded = F.pad(planes[:, None], [_WINDOW // 2] * 4, mode="replicate")
    return F.conv2d(padded, weight[None, None])[:, 0]


def blocks(planes: Tensor, side: int) -> Tensor:
    """Return whole blocks, row by row, without the remainder at the border; (B, H, W) -> (B, N, side, side)."""
    cut = planes.unfold(1, side, side).unfold(2, side, side)  # (B, rows, columns, side, side)
    return cut.flatten(1, 2)

"""PIQE: a quality score of an image alone.

PIQE (Venkatanath et al., 2015) is the fraction of an image's active blocks that look blurred, blocky or noisy. Two
details follow the published code, on which tables rest: the columns around a block's centre omit the 8th and the
10th, and an image is mirrored by the remainder of its side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.evaluation.niqe import blocks, grey, normalise

PIQE_BLOCK = 16
_SEGMENT = 6
_ACTIVE = 0.1
_IMPAIRED = 0.1


def piqe(images: Tensor) -> Tensor:
    """Return the PIQE of each image, (B,), about 0..100; lower is better.

    Args:
        images: (B, 3, H, W), RGB in [0, 1], sides of 16 pixels or more.

    Raises:
        InputError: an image is smaller.
    """
    if min(images.shape[-2:]) < PIQE_BLOCK:
        raise InputError(f"PIQE needs sides of {PIQE_BLOCK} pixels or more, got {tuple(images.shape[-2:])}")
    plane = grey(images).float()  # thresholds decide, and published scores were taken in float32
    brightest = plane.amax((1, 2), keepdim=True).clamp(min=1e-6)  # a black image stays black
    plane = (255 * plane / brightest).round()
    normal, _ = normalise(_mirror(plane))
    cut = blocks(normal, PIQE_BLOCK)  # (B, N, 16, 16)
    variance = cut.var((2, 3))
    active = variance > _ACTIVE
    distorted = _impaired(cut) * (1 - variance) + _noisy(cut, variance.sqrt()) * variance
    return 100 * ((active * distorted).sum(1) + 1) / (active.sum(1) + 1)


def _mirror(plane: Tensor) -> Tensor:
    rows, columns = (side % PIQE_BLOCK for side in plane.shape[1:])
    plane = torch.cat([plane, plane[:, plane.shape[1] - rows :].flip(1)], 1)
    return torch.cat([plane, plane[..., plane.shape[2] - columns :].flip(2)], 2)


def _impaired(cut: Tensor) -> Tensor:
    """Return whether a run of 6 pixels along an edge of a block is flat, (B, N)."""
    edges = torch.stack([cut[..., 0, :], cut[..., -1, :], cut[..., :, 0], cut[..., :, -1]], 2)  # (B, N, 4, 16)
    return (edges.unfold(-1, _SEGMENT, 1).std(-1) < _IMPAIRED).any(-1).any(-1)


def _noisy(cut: Tensor, deviation: Tensor) -> Tensor:
    """Return whether the centre of a block differs from its surroundings as little as noise does, (B, N)."""
    around = [column for column in range(PIQE_BLOCK) if column not in (7, 9)]
    ratio = cut[..., 7:9].std((2, 3)) / cut[..., around].std((2, 3))
    ratio = ratio.nan_to_num()
    difference = (deviation - ratio).abs() / torch.maximum(deviation, ratio)
    return deviation > 2 * difference

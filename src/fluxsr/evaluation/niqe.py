"""NIQE: a quality score of an image alone.

NIQE (Mittal, Soundararajan, Bovik, 2013) is the distance between the statistics of an image and of good photographs.
The photographs' statistics, the pristine model, are a file that the user names or one that `fit` makes, because the
licence of the published file does not clearly allow shipping it. Values under different models cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.errors import InputError, needed

BLOCK = 96  # side of NIQE's blocks
FEATURES = 36
_SHARP = 0.75
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # horizontal, vertical, both diagonals

# The shape of a generalised Gaussian is found by looking up its moment ratio in a table of shapes.
_SHAPES = torch.arange(200, 10001, dtype=torch.float64) / 1000
_RATIOS = (2 * torch.lgamma(2 / _SHAPES) - torch.lgamma(1 / _SHAPES) - torch.lgamma(3 / _SHAPES)).exp()

_WINDOW = 7  # of the local contrast normalisation
_SIGMA = 7 / 6


def grey(images: Tensor) -> Tensor:
    """Return BT.601 grey in [0, 1] (MATLAB's rgb2gray), not rounded, float64; (B, 3, H, W) -> (B, H, W)."""
    red, green, blue = images.double().unbind(1)
    return red * 0.299 + green * 0.587 + blue * 0.114


def normalise(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean-subtracted, contrast-normalised planes, and the local deviation; each (B, H, W).

    (x - mu) / (sigma + 1) under a Gaussian window of 7x7 pixels (sigma 7/6), borders replicated.

    Args:
        planes: grey in 8-bit steps (0..255), float64.
    """
    mean = _blur(planes)
    deviation = (_blur(planes * planes) - mean * mean).abs().sqrt()
    return (planes - mean) / (deviation + 1), deviation


def _blur(planes: Tensor) -> Tensor:
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


@dataclass(frozen=True)
class PristineModel:
    """Statistics of good photographs: mean (36,) and covariance (36, 36) of the features, float64."""

    mean: Tensor
    covariance: Tensor


def niqe(images: Tensor, model: PristineModel) -> Tensor:
    """Return the NIQE of each image, (B,), 0 or more; lower is more like a good photograph.

    Args:
        images: (B, 3, H, W), RGB in [0, 1]. Only whole blocks of 96 pixels are used.
        model: the pristine model, from `read_model` or `fit`.

    Raises:
        InputError: an image has fewer than two blocks, which have no covariance.
    """
    return torch.stack([_distance(features(image[None])[0], model) for image in images])


def _distance(found: Tensor, model: PristineModel) -> Tensor:
    # Flat blocks have no statistics. The mean ignores them per feature, the covariance ignores the whole block.
    whole = found[found.isfinite().all(1)]
    if len(whole) < 2:
        return torch.tensor(math.nan, dtype=torch.float64)
    offset = model.mean - found.nanmean(0)
    pooled = torch.linalg.pinv((model.covariance + torch.cov(whole.T)) / 2)
    return (offset @ pooled @ offset).sqrt()


def features(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return 36 features of every block, (N, 36), with NaN where a block is flat, and its sharpness, (N,).

    Args:
        image: (1, 3, H, W), RGB in [0, 1].

    Raises:
        InputError: fewer than two blocks of 96x96 pixels.
    """
    height, width = (side // BLOCK * BLOCK for side in image.shape[-2:])
    if height * width < 2 * BLOCK * BLOCK:
        size = f"{image.shape[-1]}x{image.shape[-2]}"
        raise InputError(f"NIQE needs two blocks of {BLOCK}x{BLOCK} pixels or more, got {size}")
    plane = (grey(image) * 255).round()[:, :height, :width]
    fine, deviation = normalise(plane)
    coarse, _ = normalise(_halve(plane))
    both = [_block_features(blocks(fine, BLOCK)[0]), _block_features(blocks(coarse, BLOCK // 2)[0])]
    return torch.cat(both, 1), blocks(deviation, BLOCK)[0].mean((1, 2))


def _block_features(cut: Tensor) -> Tensor:
    """Return 18 features of blocks, (N, side, side) -> (N, 18)."""
    shape, left, right = _fit_gaussian(cut)
    columns = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _fit_gaussian(cut * torch.roll(cut, shift, (1, 2)))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        columns += [shape, mean, left, right]
    return torch.stack(columns, 1)


def _fit_gaussian(cut: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit an asymmetric generalised Gaussian to each block: shape, left and right scale, each (N,)."""
    values = cut.flatten(1)
    power = values.square()
    left = (power * (values < 0)).sum(1) / (values < 0).sum(1)
    right = (power * (values > 0)).sum(1) / (values > 0).sum(1)
    left, right = left.sqrt(), right.sqrt()
    skew = left / right
    ratio = values.abs().mean(1).square() / power.mean(1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    above = torch.searchsorted(_RATIOS, ratio.nan_to_num()).clamp(1, len(_RATIOS) - 1)
    nearest = torch.where(ratio - _RATIOS[above - 1] <= _RATIOS[above] - ratio, above - 1, above)
    shape = torch.where(ratio.isfinite(), _SHAPES[nearest], math.nan)
    width = (torch.lgamma(1 / shape) - torch.lgamma(3 / shape)).exp().sqrt()
    return shape, left * width, right * width


def _halve(plane: Tensor) -> Tensor:
    """Resize even sides by 1/2 as MATLAB's imresize: cubic kernel (a = -1/2) over 8 pixels, mirrored borders."""
    distance = (torch.arange(8, dtype=plane.dtype) - 3.5).abs() / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weight = torch.where(distance <= 1, near, far)
    weight = weight / weight.sum()
    mirrored = torch.cat([plane[:, :3].flip(1), plane, plane[:, -3:].flip(1)], 1)
    mirrored = torch.cat([mirrored[..., :3].flip(2), mirrored, mirrored[..., -3:].flip(2)], 2)
    rows = F.conv2d(mirrored[:, None], weight.view(1, 1, -1, 1), stride=(2, 1))
    return F.conv2d(rows, weight.view(1, 1, 1, -1), stride=(1, 2))[:, 0]


def fit(images: Iterable[Tensor]) -> PristineModel:
    """Fit the pristine model of good photographs to their sharp blocks (3/4 of the sharpest or more).

    Args:
        images: (1, 3, H, W) each, RGB in [0, 1]; sharp, without visible noise or compression. The paper used 125.

    Raises:
        InputError: an image has fewer than two blocks, or all images together have too few.
    """
    kept = []
    for image in images:
        found, sharpness = features(image)
        chosen = found[sharpness > _SHARP * sharpness.max()]
        kept.append(chosen[chosen.isfinite().all(1)])
    count = sum(map(len, kept))
    if count <= FEATURES:
        raise InputError(f"{count} sharp blocks are too few for {FEATURES} features; give more or larger photographs")
    together = torch.cat(kept)
    return PristineModel(together.mean(0), torch.cov(together.T))


def save_model(model: PristineModel, path: Path) -> None:
    """Write a model as .npz, with array names that other tools read too."""
    np.savez(path, mu_pris_param=model.mean.numpy()[None], cov_pris_param=model.covariance.numpy())


def read_model(path: Path) -> PristineModel:
    """Read a pristine model from .npz (ours, or BasicSR's niqe_pris_params.npz) or MATLAB's .mat, which needs scipy.

    Raises:
        InputError: the file is missing, cannot be read, or lacks the two arrays in either spelling.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such NIQE parameter file: {path}; fluxsr fit-niqe makes one")
    arrays = _arrays(path)
    for stem in ("pris_param", "prisparam"):
        if f"mu_{stem}" in arrays and f"cov_{stem}" in arrays:
            mean = torch.from_numpy(np.asarray(arrays[f"mu_{stem}"], dtype=np.float64)).flatten()
            covariance = torch.from_numpy(np.asarray(arrays[f"cov_{stem}"], dtype=np.float64))
            if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
                raise InputError(f"{path} holds {tuple(mean.shape)} and {tuple(covariance.shape)}, not NIQE's 36")
            return PristineModel(mean, covariance)
    raise InputError(f"{path} lacks mu_pris_param and cov_pris_param (or the _prisparam spelling)")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    failures: tuple[type[Exception], ...] = (OSError, ValueError, BadZipFile, EOFError)
    try:
        if path.suffix == ".npz":
            with np.load(path) as opened:
                return dict(opened)
        needed(f"{path}: a .mat file", "eval", "scipy")
        import scipy.io

        failures += (scipy.io.matlab.MatReadError,)
        return scipy.io.loadmat(path)
    except failures as error:
        raise InputError(f"{path} is no .npz or .mat file of NIQE parameters: {error}") from error

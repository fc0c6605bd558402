"""Blur kernels of the Real-ESRGAN degradation, one per sample, and their application.

Shapes and draws follow Real-ESRGAN (arXiv 2107.10833, sections 3.1 and 3.3). Generalised and plateau kernels are from
Liu et al., "Estimating generalized Gaussian blur kernels for out-of-focus image deblurring" (2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxsr.degradation.draws import Range, choose, happens, uniform

KERNEL_SIZE = 21
SHAPES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
_HALF = KERNEL_SIZE // 2


def _offsets(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the row and column distances from the centre, each (21, 21)."""
    axis = torch.arange(-_HALF, _HALF + 1, dtype=torch.float32, device=device)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    return rows, columns


def _normalise(kernel: Tensor, half: Tensor) -> Tensor:
    """Crop each kernel to its central (2 half + 1)^2 square and scale it to sum 1."""
    rows, columns = _offsets(kernel.device)
    inside = torch.maximum(rows.abs(), columns.abs()) <= half.view(-1, 1, 1)
    kernel = torch.where(inside, kernel, 0.0)
    return kernel / kernel.sum(dim=(1, 2), keepdim=True)


def gaussian_kernels(
    sigma_x: Tensor,
    sigma_y: Tensor,
    angle: Tensor,
    beta: Tensor,
    plateau: Tensor,
    half: Tensor,
) -> Tensor:
    """Return Gaussian, generalised Gaussian and plateau kernels, (B, 21, 21), each of sum 1.

    With q = p^T Sigma^-1 p the kernel is exp(-q^beta / 2), or 1 / (1 + q^beta) for a plateau. beta = 1 without a
    plateau gives the plain Gaussian.

    Args:
        sigma_x, sigma_y: standard deviations along the two axes, pixels, > 0, (B,).
        angle: rotation of the axes, radians, (B,).
        beta: shape exponent, > 0, (B,).
        plateau: bool (B,).
        half: half-width of the support, whole numbers 0..10, (B,).
    """
    rows, columns = _offsets(sigma_x.device)
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    along = (columns * cos + rows * sin) / sigma_x.view(-1, 1, 1)
    across = (rows * cos - columns * sin) / sigma_y.view(-1, 1, 1)
    power = (along**2 + across**2) ** beta.view(-1, 1, 1)  # (B, 21, 21)
    kernel = torch.where(plateau.view(-1, 1, 1), 1 / (1 + power), torch.exp(-power / 2))
    return _normalise(kernel, half)


def sinc_kernels(cutoff: Tensor, half: Tensor) -> Tensor:
    """Return circular low-pass (sinc) kernels, which cause ringing, (B, 21, 21), each of sum 1.

    k(r) = w J_1(w r) / (2 pi r), k(0) = w^2 / (4 pi).

    Args:
        cutoff: w in radians per pixel, 0 < w <= pi, (B,).
        half: half-width of the support, whole numbers 0..10, (B,).
    """
    rows, columns = _offsets(cutoff.device)
    radius = torch.hypot(rows, columns)
    radius[_HALF, _HALF] = 1.0  # any number except 0, because the centre is set below
    w = cutoff.view(-1, 1, 1)
    kernel = w * torch.special.bessel_j1(w * radius) / (2 * math.pi * radius)
    kernel[:, _HALF, _HALF] = cutoff**2 / (4 * math.pi)
    return _normalise(kernel, half)


def _draw_half(count: int, generator: torch.Generator) -> Tensor:
    """Draw the half-width of a support of 7, 9 ... 21 pixels with equal probability, (B,)."""
    return 3.0 + choose(count, [1.0] * (_HALF - 2), generator)


def _draw_beta(count: int, bounds: Range, generator: torch.Generator) -> Tensor:
    """Draw exponents (B,), half of them below 1 and half above, as the published code does."""
    low, high = bounds
    below = uniform(count, (min(low, 1.0), 1.0), generator)
    above = uniform(count, (1.0, max(high, 1.0)), generator)
    return torch.where(happens(count, 0.5, generator), below, above)


def draw_blur(
    count: int,
    sigma_range: Range,
    shape_weights: Sequence[float],
    sinc_prob: float,
    generalized_beta: Range,
    plateau_beta: Range,
    generator: torch.Generator,
) -> Tensor:
    """Draw one blur kernel per sample, (count, 21, 21), on the generator's device.

    Args:
        count: number of kernels.
        sigma_range: range of standard deviations in pixels.
        shape_weights: weights of `SHAPES`, in that order.
        sinc_prob: fraction of sinc kernels; their cutoff is from [pi/3, pi] (support below 13) or [pi/5, pi].
        generalized_beta, plateau_beta: ranges of the exponents.
        generator: source of randomness.
    """
    half = _draw_half(count, generator)
    shape = choose(count, shape_weights, generator)
    sigma_x = uniform(count, sigma_range, generator)
    sigma_y = uniform(count, sigma_range, generator)
    angle = uniform(count, (-math.pi, math.pi), generator)
    generalized = _draw_beta(count, generalized_beta, generator)
    flat = _draw_beta(count, plateau_beta, generator)
    isotropic, plateau = shape % 2 == 0, shape >= 4
    beta = torch.where(plateau, flat, torch.where(shape >= 2, generalized, 1.0))
    smooth = gaussian_kernels(sigma_x, torch.where(isotropic, sigma_x, sigma_y), angle, beta, plateau, half)
    lowest = torch.where(half < 6, math.pi / 3, math.pi / 5)
    cutoff = lowest + (math.pi - lowest) * uniform(count, (0.0, 1.0), generator)
    ringing = happens(count, sinc_prob, generator).view(-1, 1, 1)
    return torch.where(ringing, sinc_kernels(cutoff, half), smooth)


def draw_sinc(count: int, generator: torch.Generator) -> Tensor:
    """Draw the final sinc kernels, cutoff from [pi/3, pi], (count, 21, 21)."""
    half = _draw_half(count, generator)
    return sinc_kernels(uniform(count, (math.pi / 3, math.pi), generator), half)


def _fast_length(length: int) -> int:
    """Return the smallest 2^a 3^b 5^c >= `length`, because FFTs of other lengths are several times slower."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def filter_images(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate every image with its own kernel, with mirrored borders; the size does not change.

    The FFT is used because a direct 21x21 filter costs 441 products per pixel. Images that are too small to be
    mirrored (a side of 10 pixels or less) have their border pixels repeated instead.

    Args:
        images: (B, C, H, W).
        kernels: (B, k, k), k odd.
    """
    height, width = images.shape[-2:]
    reach = kernels.shape[-1] // 2
    mode = "reflect" if reach < min(height, width) else "replicate"
    padded = F.pad(images, (reach,) * 4, mode=mode)
    size = (_fast_length(height + 2 * reach), _fast_length(width + 2 * reach))
    kernel = kernels.to(images).flip(1, 2).unsqueeze(1)  # (B, 1, k, k); flipped for a correlation
    product = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernel, s=size)
    whole = torch.fft.irfft2(product, s=size)
    # A circular convolution is free of wrap-around from index k - 1 on.
    return whole[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]

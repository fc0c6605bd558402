"""Kernels: unit sum, symmetry, widths, sinc cutoff; filtering equals a direct correlation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fluxsr.degradation.kernels import (
    KERNEL_SIZE,
    _draw_beta,
    draw_blur,
    draw_sinc,
    filter_images,
    gaussian_kernels,
    sinc_kernels,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(sigma_x: float, sigma_y: float, angle: float = 0.0, beta: float = 1.0, plateau=False):
    one = torch.ones(1)
    return gaussian_kernels(one * sigma_x, one * sigma_y, one * angle, one * beta, torch.tensor([plateau]), one * 10)


def variances(kernel: torch.Tensor) -> tuple[float, float]:
    """Second moments of a (1, 21, 21) kernel along columns and rows."""
    axis = torch.arange(-10.0, 11.0)
    return float((kernel.sum(1) * axis**2).sum()), float((kernel.sum(2) * axis**2).sum())


def test_drawn_kernels_sum_to_1():
    weights = (1.0,) * 6
    blur = draw_blur(200, (0.2, 3.0), weights, 0.2, (0.5, 4.0), (1.0, 2.0), seeded())
    for kernels in (blur, draw_sinc(50, seeded())):
        assert kernels.shape[1:] == (KERNEL_SIZE, KERNEL_SIZE)
        torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(len(kernels)))
        assert kernels.isfinite().all()
        torch.testing.assert_close(kernels, kernels.flip(1, 2))  # point symmetry


def test_gaussian_has_the_requested_widths():
    along_columns, along_rows = variances(gaussian(2.0, 1.0))
    assert along_columns == pytest.approx(4.0, rel=0.01)
    assert along_rows == pytest.approx(1.0, rel=0.01)


def test_gaussian_has_the_energy_of_its_closed_form():
    """Sum of squares 1 / (4 pi sigma_x sigma_y): white noise comes out with that variance."""
    for sigma_x, sigma_y in ((1.0, 1.0), (2.0, 1.0), (2.5, 1.5)):
        energy = float(gaussian(sigma_x, sigma_y, 0.4).square().sum())
        assert energy == pytest.approx(1 / (4 * math.pi * sigma_x * sigma_y), rel=0.02)


@pytest.mark.parametrize("shape", range(6))
def test_drawn_smooth_kernels_only_average(shape: int):
    """No negative weight, and the energy between that of the flattest kernel and of none at all."""
    weights = [float(shape == other) for other in range(6)]
    kernels = draw_blur(200, (0.2, 3.0), weights, 0.0, (0.5, 4.0), (1.0, 2.0), seeded())
    energy = kernels.square().sum((1, 2))
    assert kernels.min() >= 0
    assert energy.min() >= 1 / KERNEL_SIZE**2 and energy.max() <= 1 + 1e-5
    isotropic = (kernels - kernels.mT).abs().amax((1, 2)) < 1e-6
    assert isotropic.all() if shape % 2 == 0 else not isotropic.all()


def test_exponents_are_drawn_below_and_above_1_alike():
    drawn = _draw_beta(4000, (0.5, 4.0), seeded())
    assert drawn.min() >= 0.5 and drawn.max() <= 4.0
    assert float((drawn < 1).float().mean()) == pytest.approx(0.5, abs=0.03)


def test_rotation_by_a_quarter_turn_swaps_the_axes():
    torch.testing.assert_close(gaussian(2.0, 1.0, math.pi / 2), gaussian(1.0, 2.0))


def test_shape_exponent_and_plateau_have_their_closed_forms():
    peak = gaussian(2.0, 2.0, beta=2.0)[0]
    assert float(peak[10, 12] / peak[10, 10]) == pytest.approx(math.exp(-0.5))  # q = 1
    assert float(peak[10, 14] / peak[10, 10]) == pytest.approx(math.exp(-8), rel=1e-4)  # q = 4
    flat = gaussian(2.0, 2.0, beta=2.0, plateau=True)[0]
    assert float(flat[10, 12] / flat[10, 10]) == pytest.approx(1 / 2)
    assert float(flat[10, 14] / flat[10, 10]) == pytest.approx(1 / 17)


def test_support_is_cut_to_the_requested_half_width():
    kernel = sinc_kernels(torch.tensor([1.0]), torch.tensor([3.0]))[0]
    assert kernel[:7].abs().sum() == 0 and kernel[:, 14:].abs().sum() == 0
    assert kernel[7, 7] != 0


def test_draw_supports_are_odd_from_7_to_21():
    kernels = draw_sinc(300, seeded())
    widths = (kernels.abs().sum(1) > 0).sum(1)
    assert widths.unique().tolist() == [7, 9, 11, 13, 15, 17, 19, 21]


@pytest.mark.parametrize("cutoff", [math.pi / 3, math.pi / 2, 2.5])
def test_sinc_passes_below_its_cutoff_and_stops_above(cutoff: float):
    kernel = sinc_kernels(torch.tensor([cutoff]), torch.tensor([10.0]))[0]
    response = torch.fft.rfft(kernel.sum(0), n=512).abs()  # along an axis
    omega = torch.linspace(0, math.pi, 257)
    assert (response[omega < cutoff - 0.5] - 1).abs().max() < 0.15
    above = response[omega > cutoff + 0.5]
    assert above.numel() == 0 or above.max() < 0.15
    assert kernel.min() < 0  # it rings


@pytest.mark.parametrize("size", [(40, 31), (11, 64), (10, 9), (1, 5)])
def test_filtering_equals_direct_correlation(size: tuple[int, int]):
    images = torch.rand(2, 3, *size, generator=seeded())
    kernels = torch.rand(2, 21, 21, generator=seeded(1)) / 441
    mode = "reflect" if min(size) > 10 else "replicate"
    padded = F.pad(images, (10,) * 4, mode=mode)
    expected = [F.conv2d(p[None], k.expand(3, 1, 21, 21), groups=3) for p, k in zip(padded, kernels, strict=True)]
    torch.testing.assert_close(filter_images(images, kernels), torch.cat(expected))

"""PSNR and SSIM: closed forms, and values recorded from an independent NumPy and SciPy script."""

from __future__ import annotations

import math

import pytest
import torch

from fluxsr.errors import InputError
from fluxsr.evaluation.metrics import crop_border, luma, psnr_rgb, psnr_y, ssim_y


@pytest.mark.parametrize(
    ("seed", "height", "width", "psnr", "ssim", "rgb"),
    [(0, 176, 192, 30.54653, 0.731189, 25.772074), (1, 181, 203, 30.497017, 0.72776, 25.774356)],
)
def test_recorded_values(pair, seed, height, width, psnr, ssim, rgb):
    sr, hr = (crop_border(image, 4) for image in pair(seed, height, width))
    assert float(psnr_y(sr, hr)) == pytest.approx(psnr, abs=1e-5)
    assert float(psnr_rgb(sr, hr)) == pytest.approx(rgb, abs=1e-5)
    # Luma exactly halfway between two steps may round either way.
    assert float(ssim_y(sr, hr)) == pytest.approx(ssim, abs=1e-5)


def test_luma_of_black_white_and_green():
    colours = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 1, 0]]).T[None, :, None]
    expected = torch.tensor([[[16, 235, 16 + 128.553]]], dtype=torch.float64)
    torch.testing.assert_close(luma(colours), expected)


def test_psnr_of_a_known_error():
    hr = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64)
    assert float(psnr_rgb(hr + 0.1, hr)) == pytest.approx(20)
    # Luma spans 219 of 255 steps.
    assert float(psnr_y(hr + 0.1, hr)) == pytest.approx(20 + 20 * math.log10(255 / 219), abs=1e-3)


def test_equal_images_score_best():
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert psnr_y(image, image).tolist() == [100, 100]
    torch.testing.assert_close(ssim_y(image, image), torch.ones(2, dtype=torch.float64))


def test_what_is_wrong_is_said():
    with pytest.raises(InputError, match="crop 4"):
        crop_border(torch.zeros(1, 3, 8, 20), 4)
    with pytest.raises(InputError, match="11 pixels"):
        ssim_y(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))

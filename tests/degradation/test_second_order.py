"""The whole degradation: shapes, range, reproducibility, presets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fluxsr.degradation import PRESETS, degrade
from fluxsr.errors import InputError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int, height: int, width: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=seeded())
    size = (height, width)
    return F.interpolate(coarse, size=size, mode="bicubic", align_corners=False).clamp(0, 1)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(64, 64), (52, 76), (36, 4)])
def test_shape_range_and_8_bit_grid(name: str, size: tuple[int, int]):
    lr = degrade(smooth(5, *size), PRESETS[name], seeded())
    assert lr.shape == (5, 3, size[0] // 4, size[1] // 4)
    assert lr.dtype == torch.float32
    assert lr.min() >= 0 and lr.max() <= 1
    torch.testing.assert_close(lr * 255, (lr * 255).round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_same_seed_same_bytes(name: str):
    hr = smooth(5, 48, 48)
    first = degrade(hr, PRESETS[name], seeded(7))
    assert torch.equal(degrade(hr, PRESETS[name], seeded(7)), first)


def test_another_seed_gives_another_image():
    hr = smooth(2, 48, 48)
    one, other = (degrade(hr, PRESETS["realesrgan"], seeded(seed)) for seed in (1, 2))
    assert not torch.equal(one, other)


def test_samples_of_a_batch_differ():
    lr = degrade(smooth(1, 48, 48).expand(4, -1, -1, -1), PRESETS["realesrgan"], seeded())
    assert all(not torch.equal(lr[0], lr[i]) for i in (1, 2, 3))


def test_input_is_left_alone():
    hr = smooth(2, 48, 48)
    before = hr.clone()
    degrade(hr, PRESETS["realesrgan"], seeded())
    assert torch.equal(hr, before)


def test_bicubic_is_antialiased_bicubic():
    hr = smooth(2, 64, 48)
    small = F.interpolate(hr, size=(16, 12), mode="bicubic", antialias=True, align_corners=False)
    expected = (small.clamp(0, 1) * 255).round() / 255
    torch.testing.assert_close(degrade(hr, PRESETS["bicubic"], seeded()), expected)


def test_mild_stays_closer_to_the_image_than_realesrgan():
    hr = smooth(16, 64, 64)
    clean = degrade(hr, PRESETS["bicubic"], seeded())
    error = {n: (degrade(hr, PRESETS[n], seeded()) - clean).square().mean() for n in PRESETS}
    assert 0 == error["bicubic"] < error["mild"] < error["realesrgan"]


@pytest.mark.parametrize("sinc_first", [0.0, 1.0])
def test_both_orders_of_the_last_steps(sinc_first: float):
    settings = replace(PRESETS["realesrgan"], sinc_before_jpeg_prob=sinc_first, resize_groups=1)
    assert degrade(smooth(3, 48, 48), settings, seeded()).shape == (3, 3, 12, 12)


def test_other_scales():
    settings = replace(PRESETS["realesrgan"], scale=2)
    assert degrade(smooth(1, 50, 46), settings, seeded()).shape == (1, 3, 25, 23)


@pytest.mark.parametrize(
    ("shape", "text"),
    [((3, 64, 64), "B, 3, H, W"), ((1, 3, 66, 64), "66x64"), ((1, 1, 8, 8), "1, 1")],
)
def test_what_is_wrong_is_said(shape: tuple[int, ...], text: str):
    with pytest.raises(InputError, match=text):
        degrade(torch.zeros(shape), PRESETS["mild"], seeded())

"""The whole degradation: shapes, range, reproducibility, presets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fluxsr.degradation import PRESETS, DegradationSettings, degrade, degrade_samples
from fluxsr.degradation.second_order import _resize, _resize_factor
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
    assert torch.equal(degrade(hr, PRESETS[name], seeded(7)), first) and torch.equal(hr, smooth(5, 48, 48))
    if name != "bicubic":  # which draws nothing
        assert not torch.equal(degrade(hr, PRESETS[name], seeded(8)), first)


def test_bicubic_is_antialiased_bicubic():
    hr = smooth(2, 64, 48)
    small = F.interpolate(hr, size=(16, 12), mode="bicubic", antialias=True, align_corners=False)
    expected = (small.clamp(0, 1) * 255).round() / 255
    torch.testing.assert_close(degrade(hr, PRESETS["bicubic"], seeded()), expected)


def test_presets_are_ordered_by_what_they_lose():
    hr = smooth(32, 64, 64)
    clean = degrade(hr, PRESETS["bicubic"], seeded())
    error = {n: (degrade(hr, PRESETS[n], seeded()) - clean).square().mean() for n in PRESETS}
    assert 0 == error["bicubic"] < error["mild"] < error["stablesr"] < error["realesrgan"]


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


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(30, 50), (64, 64), (90, 75)])
def test_resize_keeps_the_mean(mode: str, size: tuple[int, int]):
    settings = DegradationSettings(resize_modes=(mode,))
    images = smooth(3, 64, 64)
    resized = _resize(images, size, settings, seeded())
    assert resized.shape == (3, 3, *size)
    torch.testing.assert_close(resized.mean((2, 3)), images.mean((2, 3)), rtol=0, atol=0.01)
    grey = torch.full((1, 3, 64, 64), 0.3)
    torch.testing.assert_close(_resize(grey, size, settings, seeded()), torch.full((1, 3, *size), 0.3))


def test_resize_factors_have_the_requested_shares_and_range():
    stage, generator = PRESETS["realesrgan"].first, seeded()
    drawn = torch.tensor([_resize_factor(stage, generator) for _ in range(2000)])
    assert drawn.min() >= 0.15 and drawn.max() <= 1.5
    shares = [float(part.float().mean()) for part in (drawn > 1, drawn < 1, drawn == 1)]
    assert shares == pytest.approx(stage.resize_prob, abs=0.04)


@pytest.mark.parametrize("name", ["realesrgan", "stablesr", "mild"])
def test_processes_make_the_batch_that_one_would(name: str):
    """Groups of 2 keyed by their number in the whole batch: all at once, or two processes of two groups each."""
    hr, settings = smooth(8, 48, 48), PRESETS[name]
    whole = degrade_samples(hr, settings, [seeded(group) for group in range(4)])
    halves = [
        degrade_samples(hr[:4], settings, [seeded(0), seeded(1)]),
        degrade_samples(hr[4:], settings, [seeded(2), seeded(3)]),
    ]
    assert whole.shape == (8, 3, 12, 12)
    assert torch.equal(whole, torch.cat(halves))


def test_one_generator_for_each_sample_makes_them_independent():
    hr, settings = smooth(4, 48, 48), PRESETS["realesrgan"]
    together = degrade_samples(hr, settings, [seeded(k) for k in range(4)])
    alone = [degrade(hr[k : k + 1], settings, seeded(k)) for k in range(4)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("seed", range(2))
def test_no_group_sees_the_pixels_of_another(seed: int):
    """Shot noise takes more draws for some images than for others; the next group must not notice."""
    hr, settings = smooth(8, 48, 48), PRESETS["realesrgan"]  # 4 groups of 2
    other = torch.cat([hr[:2], 1 - hr[2:4] / 2, hr[4:]])
    before, after = (degrade(images, settings, seeded(seed)) for images in (hr, other))
    assert torch.equal(before[:2], after[:2]) and torch.equal(before[4:], after[4:])
    assert not torch.equal(before[2:4], after[2:4])


def test_groups_differ_in_their_resize():
    """Without noise, blur and JPEG, equal images come out equal within a group and not across groups."""
    stage = replace(PRESETS["bicubic"].first, resize_prob=(0.5, 0.5, 0.0))
    settings = replace(PRESETS["bicubic"], first=stage, resize_groups=2)
    lr = degrade(smooth(1, 48, 48).expand(4, -1, -1, -1), settings, seeded())
    assert torch.equal(lr[0], lr[1]) and torch.equal(lr[2], lr[3])
    assert not torch.equal(lr[0], lr[2])


@pytest.mark.parametrize("count", [0, 3])
def test_unequal_groups_are_refused(count: int):
    with pytest.raises(InputError, match=f"4 images and {count} generators"):
        degrade_samples(smooth(4, 48, 48), PRESETS["mild"], [seeded() for _ in range(count)])

"""Whole folders: spectra and windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.evaluation.comparison import FREQUENCIES, diagnose, difference_map, where_methods_differ


@pytest.fixture
def noise(tmp_path):
    """hr: noise; blur: smoother; comb: with a pattern of 16 px, strong in image b alone."""
    draw = np.random.default_rng(0)
    comb = np.where(np.arange(144) % 16 == 0, 40, 0)
    for stem, gain in (("a", 0.25), ("b", 1)):
        hr = draw.normal(120, 20, (128, 144))
        blur = (hr + np.roll(hr, 1, 0) + np.roll(hr, 1, 1)) / 3
        for name, plane in {"hr": hr, "blur": blur, "comb": hr + gain * comb}.items():
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = plane.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).convert("RGB").save(tmp_path / name / f"{stem}.png")
    return {name: tmp_path / name for name in ("blur", "comb", "hr")}


def test_spectra_and_harmonics_tell_blur_and_comb(noise):
    found = diagnose(noise, ["a", "b"], side=64)
    assert {len(row) for row in found.radial.values()} == {len(FREQUENCIES)} == {64}
    assert np.mean(found.radial["blur"][32:]) < np.mean(found.radial["hr"][32:]) - 3
    assert {len(row) for row in found.harmonics.values()} == {8}
    assert found.harmonics["comb"][0] > found.harmonics["hr"][0] + 5
    assert [window.stem for window in found.windows] == ["b", "a"]


def test_one_folder_has_spectra_and_no_windows(noise):
    told = []
    found = diagnose({"hr": noise["hr"]}, ["a"], progress=lambda *counts: told.append(counts))
    assert list(found.radial) == ["hr"] and found.windows == [] and told == [(1, 1)]


def test_windows_are_where_methods_differ_not_where_the_truth_does(noise):
    with Image.open(noise["hr"] / "a.png") as image:
        pixels = np.array(image)
    pixels[:64, :64] = 255 - pixels[:64, :64] // 2  # the truth alone is bright here
    Image.fromarray(pixels).save(noise["hr"] / "a.png")
    with Image.open(noise["blur"] / "a.png") as image:
        pixels = np.array(image)
    pixels[64:, 80:] = 255  # and one method here
    Image.fromarray(pixels).save(noise["blur"] / "a.png")
    (window,) = diagnose(noise, ["a"], truth="hr", side=64).windows
    assert (window.top, window.left) == (64, 80)
    pair = {name: noise[name] for name in ("comb", "hr")}
    (window,) = diagnose(pair, ["a"], truth="hr", side=64).windows
    assert (window.top, window.left) == (0, 0), "one method is compared with the truth"


def test_what_is_missing_or_small_is_said(noise):
    with pytest.raises(InputError, match="not in .*blur: c"):
        diagnose(noise, ["c"])
    Image.new("RGB", (100, 144)).save(noise["blur"] / "a.png")
    with pytest.raises(InputError, match=r"a\.png: .*128"):
        diagnose(noise, ["a"])
    Image.new("RGB", (128, 128)).save(noise["blur"] / "a.png")
    with pytest.raises(InputError, match="a: blur is 128x128, comb is 144x128, hr is 144x128"):
        diagnose(noise, ["a"])


def test_equal_is_white_brighter_red_darker_blue():
    hr = torch.full((1, 3, 1, 3), 0.5)
    sr = hr + torch.tensor([0.0, 0.5, -0.5])
    found = difference_map(sr, hr)[0, :, 0].T
    torch.testing.assert_close(found, torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 1]], dtype=torch.float64))


def test_the_window_is_where_the_versions_differ():
    one = torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    two = one.clone()
    two[..., 40:70, 100:130] = 1 - two[..., 40:70, 100:130]
    window = where_methods_differ("a", [one, two, two], 32)
    assert 32 <= window.top <= 48 and 92 <= window.left <= 108 and window.side == 32
    assert window.spread > 10
    assert window.of(two).shape == (1, 3, 32, 32)
    assert where_methods_differ("b", [one, one], 32).spread == 0
    assert where_methods_differ("b", [one, two], 500).side == 96

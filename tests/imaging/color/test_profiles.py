"""Colours by ICC profile: to sRGB, what lies outside it, and back."""

from __future__ import annotations

import struct
from itertools import product
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from fluxsr.imaging import io
from fluxsr.imaging.color import colorimetry, profiles


def photograph(width: int = 24, height: int = 18) -> Image.Image:
    pixels = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0))
    return Image.fromarray((pixels * 255).byte().numpy())


def profile(grey: bool = False) -> bytes:
    """sRGB's primaries, or grey, with a gamma of 2."""
    return colorimetry.profile_from_primaries(colorimetry.SRGB_PRIMARIES, (2, 1, 0, 0, 0), grey)


def cmyk_profile() -> bytes:
    """A press that prints grey where cyan is asked for, and black only from black. No library writes such a profile."""
    straight = bytes(range(256))
    lightness = [0 if k else 128 if c else 255 for c, _, _, k in product((0, 1), repeat=4)]
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + straight * 4
    table += bytes(value for light in lightness for value in (light, 128, 128)) + straight * 3
    white = b"XYZ " + struct.pack(">I3i", 0, *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))
    tags = struct.pack(">I4sII4sII", 2, b"A2B0", 156, len(table), b"wtpt", 156 + len(table), len(white))
    size = 156 + len(table) + len(white)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    return (head + bytes(28) + white[8:]).ljust(128, b"\0") + tags + table + white


def srgb_of(value: int, gamma: float = 2) -> float:
    """What 8 bits of that gamma are in sRGB (IEC 61966-2-1)."""
    light = (value / 255) ** gamma
    return 255 * (1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(("mode", "grey"), [("RGB", False), ("L", True), ("L", False), ("P", False)])
def test_an_icc_profile_is_converted_to_srgb(tmp_path: Path, mode: str, grey: bool) -> None:
    Image.new("L", (16, 16), 80).convert(mode).save(tmp_path / "a.png", icc_profile=profile(grey))
    found = io.read(tmp_path / "a.png").image
    assert found.mode == "RGB"
    assert np.abs(np.asarray(found) - srgb_of(80)).max() <= 1 and srgb_of(80) > 87


@pytest.mark.parametrize(("mode", "grey"), [("RGBA", False), ("LA", True)])
def test_transparency_survives_the_conversion(tmp_path: Path, mode: str, grey: bool) -> None:
    image = Image.new("L", (16, 16), 80).convert(mode)
    image.putalpha(Image.linear_gradient("L").resize((16, 16)).point(lambda alpha: 255 if alpha > 127 else 0))
    image.save(tmp_path / "a.png", icc_profile=profile(grey))
    found = np.asarray(io.read(tmp_path / "a.png").image)
    assert (found[0] == 255).all() and np.abs(found[-1] - srgb_of(80)).max() <= 1


def test_cmyk_with_a_profile(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "a.jpg", icc_profile=cmyk_profile())
    found = np.asarray(io.read(tmp_path / "a.jpg").image)
    assert np.abs(found - 119.0).max() <= 2, "L* = 50 is 119 in sRGB; without the profile it would be cyan"


@pytest.mark.parametrize(
    ("mode", "data"),
    [("RGB", b"no profile"), ("RGB", profile()[:150]), ("RGB", profile(grey=True)), ("CMYK", profile())],
    ids=["none", "cut", "grey", "cmyk"],
)
def test_a_profile_that_does_not_fit_is_ignored(tmp_path: Path, mode: str, data: bytes) -> None:
    image = photograph().convert(mode)
    image.save(tmp_path / "a.tif", icc_profile=data)
    assert np.array_equal(np.asarray(io.read(tmp_path / "a.tif").image), np.asarray(image.convert("RGB")))


P3 = [0.68, 0.32, 1, 0.265, 0.69, 1, 0.15, 0.06, 1]


@pytest.mark.parametrize("name", ["adobergb", "p3"])
def test_wide_colours_come_back(name: str) -> None:
    p3 = {"whitepoint": [0.3127, 0.329, 1], "primaries": P3, "gamma": 2.2}
    wide = bytes(imagecodecs.cms_profile("rgb", **p3) if name == "p3" else imagecodecs.cms_profile(name))
    ramp = np.linspace(0, 1, 9, dtype=np.float32)
    colours = np.array(list(product(ramp, repeat=3)), np.float32)[None]
    there = profiles.to_srgb(colours, wide)
    assert there is not None and (there < -0.01).any(), "nothing is clipped on the way"
    back = profiles.from_srgb(there, wide)
    assert back is not None
    off = np.abs(back - colours)
    assert off[colours > 0].max() < 1 / 65535, "to the bit of sixteen"
    assert off.max() < 0.2 / 255, "next to 0 a gamma is so steep that rounding shows"


def test_grey_comes_back_too() -> None:
    values = np.linspace(0, 1, 65536, dtype=np.float32).reshape(256, 256, 1)
    there = profiles.to_srgb(values, profile(grey=True))
    assert there is not None and there.shape == values.shape
    back = profiles.from_srgb(there, profile(grey=True))
    assert back is not None and np.abs(back - values).max() < 1e-3


def test_which_profile_is_srgb_and_which_can_be_gone_back_to() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert profiles.is_srgb(srgb) and profiles.usable(srgb, 3)
    assert not profiles.is_srgb(profile()) and profiles.usable(profile(), 3)
    for broken in (b"", b"no profile", profile()[:150], cmyk_profile()):
        assert not profiles.is_srgb(broken) and not profiles.usable(broken, 3)

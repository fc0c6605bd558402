"""A picture on its way to the model and back: depth, grey, alpha and colours outside sRGB survive."""

from __future__ import annotations

import os
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from fluxsr.imaging import io
from fluxsr.imaging.color import colorimetry
from fluxsr.imaging.color.fix import fix_colors_
from fluxsr.imaging.decode import decode
from fluxsr.imaging.picture import Picture, bleed_alpha, over_white
from fluxsr.imaging.resize import bicubic
from fluxsr.options import UpscaleOptions

ADOBE = bytes(imagecodecs.cms_profile("adobergb"))


def doubled(picture: Picture, target: Path, **options: object) -> list[str]:
    """Written at twice the size by repeating pixels: what the model would do to colours is none of these tests'."""
    hr = interpolate(picture.lr, scale_factor=2, mode="nearest")
    size = (hr.shape[-2], hr.shape[-1])
    return io.write_enlarged(picture, hr.split(7, dim=-2), size, target, UpscaleOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_to_the_bit(tmp_path: Path, ending: str, channels: int) -> None:
    pixels = np.arange(32 * 24 * channels, dtype=np.uint16).reshape(24, 32, channels) * 85
    tifffile.imwrite(tmp_path / "a.tif", pixels.squeeze(), photometric="rgb" if channels == 3 else "minisblack")
    assert not doubled(io.read(tmp_path / "a.tif"), tmp_path / f"b{ending}")
    found = decode(tmp_path / f"b{ending}").pixels
    assert found.dtype == np.uint16 and len(np.unique(found)) > 256
    assert np.array_equal(found, pixels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_wide_colours_are_not_clipped_and_keep_their_profile(tmp_path: Path, ending: str) -> None:
    green = np.zeros((16, 16, 3), np.uint16)
    green[:, :8, 1] = 65535  # sRGB has no such green
    tifffile.imwrite(tmp_path / "a.tif", green, photometric="rgb", iccprofile=ADOBE)
    picture = io.read(tmp_path / "a.tif")
    assert picture.out_of_gamut is not None and picture.lr.min() >= 0 and picture.lr.max() <= 1
    assert not doubled(picture, tmp_path / f"b{ending}")
    found = decode(tmp_path / f"b{ending}")
    assert found.profile == ADOBE
    flat = found.pixels[:, 2:12].astype(int)
    assert np.abs(flat - [0, 65535, 0]).max() < 60, "less than a quarter of a step of 8 bit"


def test_clipping_to_srgb_is_noted(tmp_path: Path) -> None:
    green = np.zeros((16, 16, 3), np.uint8)
    green[:, :4, 1] = 255
    Image.fromarray(green).save(tmp_path / "a.png", icc_profile=ADOBE)
    (note,) = doubled(io.read(tmp_path / "a.png"), tmp_path / "b.png", profile="srgb")
    assert note == "25.0% of its pixels have colours outside sRGB, which are clipped"
    assert decode(tmp_path / "b.png").profile == b""


def test_alpha_goes_beside_the_model_and_draws_no_fringe(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, :8] = (200, 150, 100, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = io.read(tmp_path / "a.png")
    assert torch.equal(picture.lr, picture.lr[..., :1, :1].expand_as(picture.lr)), "the model sees no edge"
    assert not doubled(picture, tmp_path / "b.png")
    found = decode(tmp_path / "b.png").pixels
    assert (found[..., :3] == [200, 150, 100]).all()
    assert (found[:, :12, 3] == 255).all() and (found[:, 20:, 3] == 0).all() and 0 < found[0, 15, 3] < 255
    (note,) = doubled(picture, tmp_path / "b.jpg")
    assert "laid over white" in note
    assert decode(tmp_path / "b.jpg").pixels[:, 24:].min() > 250


def test_opaque_alpha_stays_opaque(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (9, 8, 7, 255)).save(tmp_path / "a.webp", lossless=True)
    doubled(io.read(tmp_path / "a.webp"), tmp_path / "b.webp")
    with Image.open(tmp_path / "b.webp") as image:
        assert image.getextrema() == ((9, 9), (8, 8), (7, 7), (255, 255)) or image.mode == "RGB"


def test_webp_is_lossless_where_its_input_was(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for lossless, option, expected in [(True, None, True), (False, None, False), (False, True, True)]:
        noise.save(tmp_path / "a.webp", lossless=lossless)
        picture = io.read(tmp_path / "a.webp")
        doubled(picture, tmp_path / "b.webp", lossless=option)
        assert decode(tmp_path / "b.webp").lossless is expected


def test_quality_counts(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "a.png")
    picture = io.read(tmp_path / "a.png")
    for ending in (".jpg", ".webp", ".avif"):
        sizes = []
        for quality in (30, 95):
            doubled(picture, tmp_path / f"b{ending}", quality=quality)
            sizes.append((tmp_path / f"b{ending}").stat().st_size)
        assert sizes[0] < sizes[1] / 1.5, ending


def test_file_times_are_kept_unless_metadata_is_stripped(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    os.utime(tmp_path / "a.png", (1_000_000_000, 1_000_000_000))
    picture = io.read(tmp_path / "a.png")
    doubled(picture, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_mtime == 1_000_000_000
    doubled(picture, tmp_path / "b.png", strip_metadata=True)
    assert (tmp_path / "b.png").stat().st_mtime > 1_000_000_000


@pytest.mark.parametrize("sixteen", [False, True])
@pytest.mark.parametrize(
    "profile", [b"", ADOBE, colorimetry.profile_from_cicp(12, 13)], ids=["sRGB", "Adobe RGB", "Display P3"]
)
def test_neutral_pixels_are_neutral_in_the_file(tmp_path: Path, sixteen: bool, profile: bytes) -> None:
    """A conversion rounds each channel by itself; in the file R = G = B all the same."""
    grey = np.random.default_rng(0).integers(0, 65536, (64, 64, 1), dtype=np.uint16).repeat(3, 2)
    pixels = grey if sixteen else (grey >> 8).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", iccprofile=profile)
    picture = io.read(tmp_path / "a.tif")
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    hr = fix_colors_(picture.lr + 0.1 * noise, picture.lr)
    io.write_enlarged(picture, [hr], (64, 64), tmp_path / "b.tif", UpscaleOptions())
    found = decode(tmp_path / "b.tif").pixels
    assert found.dtype == pixels.dtype and (found == found[..., :1]).all()


def test_an_edge_has_no_dark_fringe() -> None:
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., :16] = 1
    colours = torch.full((1, 3, 32, 32), 0.8) * alpha  # black where nothing is seen
    assert bicubic(colours, (128, 128))[..., 63].min() < 0.75, "as it is, the enlargement mixes the two"
    assert (bleed_alpha(colours, alpha) - 0.8).abs().max() < 1e-6


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 37), st.integers(1, 37), st.integers(0, 1000), st.floats(0.01, 0.99))
def test_visible_pixels_stay_and_the_others_lie_between_them(height: int, width: int, seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand(1, 3, height, width, generator=generator)
    alpha = torch.rand(1, 1, height, width, generator=generator)
    alpha = torch.where(alpha < share, 0, alpha)
    found = bleed_alpha(colours, alpha)
    seen = (alpha > 0).expand_as(colours)
    assert torch.equal(found[seen], colours[seen])
    if seen.any():
        for channel in range(3):
            values = colours[0, channel][alpha[0, 0] > 0]
            hidden = found[0, channel]
            assert hidden.min() >= values.min() - 1e-5 and hidden.max() <= values.max() + 1e-5
    else:
        assert torch.equal(found, colours)


def test_over_white() -> None:
    assert over_white(torch.zeros(1, 3, 1, 1), torch.full((1, 1, 1, 1), 0.25)).unique().tolist() == [0.75]

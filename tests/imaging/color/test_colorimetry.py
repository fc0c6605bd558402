"""ICC profiles made from code points and numbers say what the standards say."""

from __future__ import annotations

import struct
from io import BytesIO
from itertools import product

import imagecodecs
import numpy as np
import pytest
from PIL import ImageCms

from fluxsr.errors import InputError
from fluxsr.imaging.color import colorimetry, profiles

RAMP = np.linspace(0, 1, 9, dtype=np.float32)
CUBE = np.array(list(product(RAMP, repeat=3)), np.float32)[None]


@pytest.mark.parametrize(("primaries", "transfer"), [(1, 13), (2, 2), (0, 13), (1, 2), (200, 3)])
def test_srgb_and_what_is_not_specified_need_no_profile(primaries: int, transfer: int) -> None:
    assert colorimetry.profile_from_cicp(primaries, transfer) == b""


@pytest.mark.parametrize(
    ("primaries", "transfer"), [(12, 13), (1, 1), (9, 14), (9, 1), (5, 5), (6, 6), (7, 7), (11, 13), (4, 4), (22, 8)]
)
def test_colours_go_to_srgb_and_come_back(primaries: int, transfer: int) -> None:
    profile = colorimetry.profile_from_cicp(primaries, transfer)
    imagecodecs.cms_profile_validate(profile)
    there = profiles.to_srgb(CUBE, profile)
    assert there is not None
    assert np.ptp(there[0, -1]) < 1e-3 and abs(there[0, -1].mean() - 1) < 1e-3, "white stays white"
    back = profiles.from_srgb(there, profile)
    assert back is not None and np.abs(back - CUBE).max() < 0.5 / 255
    assert not profiles.is_srgb(profile)


def test_display_p3_has_its_published_primaries() -> None:
    profile = ImageCms.ImageCmsProfile(BytesIO(colorimetry.profile_from_cicp(12, 13)))
    assert ImageCms.getProfileName(profile).strip() == "Display P3"
    found = [getattr(profile.profile, f"{name}_primary")[0] for name in ("red", "green", "blue")]
    expected = [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_adobe_rgb_is_that_of_little_cms() -> None:
    other = profiles.to_srgb(CUBE, bytes(imagecodecs.cms_profile("adobergb")))
    own = profiles.to_srgb(CUBE, colorimetry.adobe_rgb())
    assert own is not None and np.abs(own - other).max() < 0.1 / 255


def test_the_same_colours_are_the_same_bytes() -> None:
    first = colorimetry.profile_from_cicp(9, 1)
    colorimetry._profile.cache_clear()
    assert colorimetry.profile_from_cicp(9, 1) == first, "no date in it: results are compared by their bytes"


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_by_code_point_tag_and_name(transfer: int, name: str) -> None:
    with pytest.raises(InputError, match=rf"is an HDR image \({name}\)"):
        colorimetry.profile_from_cicp(9, transfer)
    tag = b"cicp" + bytes((0, 0, 0, 0, 9, transfer, 0, 1))
    tagged = bytes(128) + struct.pack(">I4sII", 1, b"cicp", 144, 12) + tag
    named = colorimetry.profile_from_primaries(
        colorimetry._PRIMARIES[9], colorimetry._CURVES[4], name=f"Rec. ITU-R BT.2100 {name}"
    )
    for profile in (tagged, named):
        with pytest.raises(InputError, match=rf"is an HDR image \({name}\)"):
            colorimetry.refuse_hdr(profile)
    for harmless in (b"", bytes(140), colorimetry.profile_from_cicp(9, 1)):
        colorimetry.refuse_hdr(harmless)


def test_what_is_not_supported_is_said_so() -> None:
    with pytest.raises(InputError, match="CICP primaries 1, transfer 9"):
        colorimetry.profile_from_cicp(1, 9)


def chunk(kind: bytes, *numbers: float) -> tuple[bytes, bytes]:
    return kind, struct.pack(f">{len(numbers)}I", *(round(number * 100_000) for number in numbers))


SRGB = chunk(b"cHRM", 0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
ADOBE = chunk(b"cHRM", 0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def test_png_chunks_that_mean_srgb() -> None:
    for chunks in [
        (chunk(b"gAMA", 0.45455),),
        (chunk(b"gAMA", 0.45455), SRGB),
        (SRGB,),
        ((b"sRGB", b"\0"), chunk(b"gAMA", 1.0), ADOBE),
        ((b"cICP", bytes((1, 13, 0, 1))), chunk(b"gAMA", 1.0)),
    ]:
        assert colorimetry.profile_from_png(chunks, grey=False) == b"", chunks
    assert colorimetry.profile_from_png((), grey=False) is None
    assert colorimetry.profile_from_png((chunk(b"gAMA", 0.0), (b"cHRM", b"short")), grey=False) is None


def test_png_chunks_with_colours_of_their_own() -> None:
    adobe = colorimetry.profile_from_png((chunk(b"gAMA", 0.45455), ADOBE), grey=False)
    assert adobe is not None
    own, other = profiles.to_srgb(CUBE, adobe), profiles.to_srgb(CUBE, colorimetry.adobe_rgb())
    assert own is not None and other is not None and np.abs(own - other).max() < 0.6 / 255
    linear = colorimetry.profile_from_png((chunk(b"gAMA", 1.0),), grey=True)
    assert linear is not None and linear[16:20] == b"GRAY"
    found = profiles.to_srgb(np.full((1, 1, 1), 0.2140, np.float32), linear)
    assert found is not None and abs(float(found.item()) - 0.5) < 1e-3
    assert colorimetry.profile_from_png(
        ((b"cICP", bytes((12, 13, 0, 1))),), grey=False
    ) == colorimetry.profile_from_cicp(12, 13)
    with pytest.raises(InputError, match="narrow range"):
        colorimetry.profile_from_png(((b"cICP", bytes((12, 13, 0, 0))),), grey=False)
    flat = chunk(b"cHRM", 0.3127, 0.329, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)
    assert colorimetry.profile_from_png((flat,), grey=False) == b"", "primaries that span no colours"


@pytest.mark.parametrize(("code", "name"), [(1, "sRGB"), (12, "Display P3"), (9, "BT.2020")])
def test_linear_light_goes_to_the_smallest_space_that_holds_it(code: int, name: str) -> None:
    linear = colorimetry.profile_from_primaries(colorimetry.SRGB_PRIMARIES, colorimetry._CURVES[8])
    source = colorimetry.profile_from_cicp(code, 13) or profiles._srgb()
    light = imagecodecs.cms_transform(CUBE, source, linear, colorspace="rgb", outcolorspace="rgb", outdtype="float32")
    values, profile, found = colorimetry.encode_linear(np.asarray(light))
    assert found == name and profile == colorimetry.profile_from_cicp(code, 13)
    assert np.abs(values - CUBE).max() < 0.5 / 255

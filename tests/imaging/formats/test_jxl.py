"""Sizes of JPEG XL images by their headers, before the decoder, which decodes all of an image to tell its size."""

from __future__ import annotations

import struct
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from fluxsr.errors import InputError, TooLargeError
from fluxsr.imaging.color import colorimetry, profiles
from fluxsr.imaging.decode import decode, size_of
from fluxsr.imaging.formats import jxl


def bomb(side: int) -> bytes:
    """A JPEG XL codestream of an even picture; a few bytes."""
    return bytes(imagecodecs.jpegxl_encode(np.zeros((side, side, 3), np.uint8), usecontainer=False))


@pytest.mark.parametrize("boxed", [False, True])
def test_a_jpeg_xl_bomb_is_refused_before_a_decoder_sees_it(
    tmp_path: Path, boxed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a container tears its header apart."""
    data = bomb(300)
    if boxed:  # the header torn apart, behind a box without meaning
        parts = [(b"ftyp", b"jxl "), (b"jxlp", bytes(4) + data[:3]), (b"jxlp", bytes(4) + data[3:])]
        boxes = [struct.pack(">I", 8 + len(part)) + kind + part for kind, part in parts]
        data = b"\0\0\0\x0cJXL \r\n\x87\n" + b"".join(boxes)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    (tmp_path / "a.jxl").write_bytes(data)
    assert size_of(BytesIO(data)) == (300, 300)
    with pytest.raises(TooLargeError, match="300x300 are 90000 pixels, the limit is 89999"):
        decode(tmp_path / "a.jxl", max_pixels=89_999)
    for length in range(7, len(data)):
        assert size_of(BytesIO(data[:length])) in (None, (300, 300))
    (tmp_path / "a.jxl").write_bytes(data[:8])
    with pytest.raises(InputError, match="JPEG XL header has no size"):
        decode(tmp_path / "a.jxl")


@pytest.mark.parametrize("size", [(8, 8), (256, 128), (7, 300), (300, 7), (9000, 1), (160, 90), (600, 500), (75, 50)])
def test_sizes_in_every_form_that_jpeg_xl_has(size: tuple[int, int]) -> None:
    data = imagecodecs.jpegxl_encode(np.zeros((size[1], size[0]), np.uint8))
    assert size_of(BytesIO(data)) == size


# Both by cjxl 0.7, lossy, in Adobe RGB by an ICC profile: (40,200,60), (200,30,40), (120,120,120), each 16 x 16 pixels,
# and a grey ramp from 0 to 40 over 48 pixels.
PATCHES = (
    "/woDCkjhrWJATkwEEFZj7qEihJDN9f18leoMneCavjeJppbwhJpdGhwtNTB6anC81scUJrTuEhqByGhsRIb4WjcvomMDQOawOacf4CveU2Wb"
    "owQ4ShJABe6JglaFzORIKOKzGUw6/hCvIPEpLAkl65RISHT4bEKD1KSQWTL5QJwKSPChwEICJalDCRJIxIEPG0IMSDGhQIaFTG6EnUo2g8fi"
    "8EksDufHGJWwYcCDBQc+JFxvJ/fAv+bnMeeKjN91hCfDVzR3AOp1Cc/Jw0ndQIPJsN8VpJ0BgXxovzlgLOcAABOIABgD//+qAgBQoTLKuMHL"
    "uZ4vP3RYTNu4ztBW2xaWJIqMY5N0AocksSJENzxVNQQztkpa+8nWxhjzq56u52O0YZZ0x7DDXDzJ3fhRK/49yirsCLoo0WtntAp6uxWz0gl6"
    "Zk2pd8HPsC1oTDDKTgAAQIUUWMEYgxiDM/PuLo93d3mZmTFFHpMBwCq6TFSUpujwT4fmD9xhd2bp3IyiR7a4Dip4AK7iQSnLil2OOVFXP5jl"
    "x5tR8ctqwY40/K1pbEmXmOXnQR2NXuEC"
)
RAMP = (
    "/woDCkjhrWJATkwEEFZj7qEihJDN9f18leoMneCavjeJppbwhJpdGhwtNTB6anC81scUJrTuEhqByGhsRIb4WjcvomMDQOawOacf4CveU2Wb"
    "owQ4ShJABe6JglaFzORIKOKzGUw6/hCvIPEpLAkl65RISHT4bEKD1KSQWTL5QJwKSPChwEICJalDCRJIxIEPG0IMSDGhQIaFTG6EnUo2g8fi"
    "8EksDufHGJWwYcCDBQc+JFxvJ/fAv+bnMeeKjN91hCfDVzR3AOp1Cc/Jw0ndQIPJsN8VpJ0BgXxovzlgLOcAABKIAEQBv8ooAQBQoTLKuMHL"
    "uZ4vP3RYTNu4ztBW2xaWJIqMY5N0AockkRDB2xz8cjmqmBgOrh+/VHXvBAAAiGHsJQFQSeIMmdv8jaCud6ABCICGHfgF"
)
HDR = {  # BT.2100, grey; cjxl -x color_space=RGB_D65_202_Rel_PeQ and _HLG
    "PQ": "/wpDQEIePQIAEogCAMQAXeUSAAAVKqOMG7yc6/nyQ4fFtI3rDG21bWFJosg4NkkncEgSizSACGTmNAAwtFBJAg==",
    "HLG": "/wpDQEKegQgAEogCAMQAXeUSAAAVKqOMG7yc6/nyQ4fFtI3rDG21bWFJosg4NkkncEgSKzSACGHmAAAYWqgkAQ==",
}


def stored(path: Path, text: str) -> Path:
    path.write_bytes(b64decode(text))
    return path


def test_a_lossy_image_with_a_profile_is_read_in_floating_point(tmp_path: Path) -> None:
    raster = decode(stored(tmp_path / "a.jxl", PATCHES))
    assert raster.pixels.dtype == np.uint8 and raster.profile == colorimetry.profile_from_cicp(9, 13)
    assert any("converted to BT.2020" in note for note in raster.notes), "Adobe RGB's green is outside Display P3"
    found = profiles.to_srgb(raster.pixels[8:9, [4, 20, 40]].astype(np.float32) / 255, raster.profile)
    given = np.array([[(40, 200, 60), (200, 30, 40), (120, 120, 120)]], np.float32) / 255
    expected = profiles.to_srgb(given, colorimetry.adobe_rgb())
    assert found is not None and expected is not None
    off = np.abs(found - expected)
    assert off[0, :, :][expected[0] > 0].max() < 5 / 255, "to the loss of the compression"
    assert found[0, 0, 0] < -1, "a green outside sRGB, which 8 bit of linear light would clip"


def test_dark_shades_stay_apart(tmp_path: Path) -> None:
    raster = decode(stored(tmp_path / "a.jxl", RAMP))
    assert raster.profile == b"" and len(np.unique(raster.pixels[8, :, 1])) >= 20, "in 8 bit of linear light: 5"


@pytest.mark.parametrize("name", HDR)
def test_hdr_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"is an HDR image \({name}\)"):
        decode(stored(tmp_path / "a.jxl", HDR[name]))


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_more_than_8_bit_is_kept(tmp_path: Path, bits: int, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**bits, (16, 24, channels), dtype=np.uint16)
    data = imagecodecs.jpegxl_encode(pixels.squeeze(), lossless=True, bitspersample=bits)
    (tmp_path / "a.jxl").write_bytes(data)
    found = decode(tmp_path / "a.jxl").pixels
    assert found.dtype == np.uint16
    assert np.abs(found - (pixels * (65535 / (2**bits - 1))).round()).max() <= 1


@pytest.mark.parametrize("size", [(8, 8), (256, 128), (7, 300), (8200, 1), (160, 90), (75, 50)])
def test_floats_are_asked_for_in_every_form_of_header(size: tuple[int, int]) -> None:
    """The patched header is a header: the decoder reads the same size, and the same light."""
    data = imagecodecs.jpegxl_encode(np.full((size[1], size[0], 4), 130, np.uint8), distance=1.0, bitspersample=8)
    header = jxl.header_of(data)
    assert header.lossy and header.bits == 8
    patched = jxl.as_float(data, header)
    assert size_of(BytesIO(patched)) == size
    if patched != data:  # else the header is of the short form, which is sRGB
        assert imagecodecs.jpegxl_decode(patched).dtype == np.float32

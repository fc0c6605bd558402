"""PNG files that other programs' readers give back to the bit, whatever the bands."""

from __future__ import annotations

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fluxsr.imaging.formats import png
from fluxsr.imaging.raster import Metadata


def written(pixels: np.ndarray, rows: int, profile: bytes = b"", metadata: Metadata | None = None) -> bytes:
    stream = BytesIO()
    bands = [pixels[y : y + rows] for y in range(0, len(pixels), rows)]
    png.write(stream, (pixels.shape[1], pixels.shape[0]), bands, profile, metadata or Metadata())
    return stream.getvalue()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 150),
    st.integers(1, 20),
    st.integers(1, 4),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(1, 99),
)
def test_to_the_bit(height: int, width: int, channels: int, dtype: type, rows: int) -> None:
    rng = np.random.default_rng(height)
    pixels = rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)
    found = imagecodecs.png_decode(written(pixels, rows)).reshape(pixels.shape)
    assert found.dtype == dtype and np.array_equal(found, pixels)


def test_bands_change_no_byte() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 30, 3), dtype=np.uint8)
    assert written(pixels, 64) == written(pixels, 200)


def test_smooth_pictures_shrink() -> None:
    ramp = np.add.outer(np.arange(256), np.arange(256))[..., None].repeat(3, -1) * 100
    assert len(written(ramp.astype(np.uint16), 256)) < ramp.size * 2 / 20


@pytest.mark.parametrize("dpi", [(300.0, 300.0), (72.0, 144.0)])
def test_what_it_tells_of_the_picture(dpi: tuple[float, float]) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Canon"
    tells = Metadata(exif.tobytes().removeprefix(b"Exif\0\0"), b"<x:xmpmeta/>", b"", dpi)
    with Image.open(BytesIO(written(np.zeros((2, 2, 3), np.uint8), 2, b"a profile", tells))) as image:
        image.load()
        assert image.getexif()[0x010F] == "Canon"
        assert image.info["icc_profile"] == b"a profile" and image.info["xmp"] == b"<x:xmpmeta/>"
        assert image.info["dpi"] == pytest.approx(dpi, abs=0.02)

"""Files whose rows come in bands: the same bytes whatever the bands, readable by others, within the formats' limits."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxsr.imaging.encode import FormatLimitError, encode
from fluxsr.imaging.formats import ENDINGS, WRITTEN, Format
from fluxsr.imaging.raster import ImageSpec


def encoded(form: Format, pixels: np.ndarray, rows: int = 1000) -> bytes:
    stream = BytesIO()
    spec = ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], pixels.dtype == np.uint16)
    encode(stream, form, [(spec, [pixels[y : y + rows] for y in range(0, len(pixels), rows)])])
    return stream.getvalue()


@pytest.mark.parametrize("form", WRITTEN, ids=lambda form: form.name)
def test_bands_change_no_byte(form: Format) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 20, 3), dtype=np.uint8)
    assert encoded(form, pixels, 7) == encoded(form, pixels)


def test_limits_of_a_format_are_errors() -> None:
    with pytest.raises(FormatLimitError, match="WEBP cannot store it: .*16383"):
        encoded(ENDINGS[".webp"], np.zeros((1, 17000, 3), np.uint8))


@pytest.mark.parametrize(("ending", "read"), [(".png", imagecodecs.png_decode), (".tif", imagecodecs.tiff_decode)])
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 150), st.integers(1, 20), st.integers(1, 4), st.booleans(), st.integers(1, 99))
def test_to_the_bit_for_other_readers(
    ending: str, read: Callable[[bytes], np.ndarray], height: int, width: int, channels: int, sixteen: bool, rows: int
) -> None:
    dtype = np.uint16 if sixteen else np.uint8
    rng = np.random.default_rng(height)
    pixels = rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)
    found = read(encoded(ENDINGS[ending], pixels, rows)).reshape(pixels.shape)
    assert found.dtype == dtype and np.array_equal(found, pixels)

"""Files whose rows come in bands: the same bytes whatever the bands, readable by others, within the formats' limits."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from fluxsr.imaging.encode import FormatLimitError, ImageSpec, encode
from fluxsr.imaging.formats import ENDINGS, WRITTEN, Format
from fluxsr.imaging.raster import Metadata


def encoded(form: Format, pixels: np.ndarray, rows: int = 1000, metadata: Metadata | None = None) -> bytes:
    stream = BytesIO()
    spec = ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], pixels.dtype == np.uint16)
    if metadata:
        spec = ImageSpec(spec.width, spec.height, spec.channels, spec.sixteen, metadata=metadata)
    encode(stream, form, spec, [pixels[y : y + rows] for y in range(0, len(pixels), rows)])
    return stream.getvalue()


@pytest.mark.parametrize("form", WRITTEN, ids=lambda form: form.name)
def test_bands_change_no_byte(form: Format) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 20, 3), dtype=np.uint8)
    assert encoded(form, pixels, 7) == encoded(form, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("height", [1, 63, 64, 65, 130])
def test_tiff_to_the_bit(dtype: type, channels: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, 20, channels), dtype=dtype)
    found = tifffile.imread(BytesIO(encoded(ENDINGS[".tif"], pixels)))
    assert found.dtype == dtype and np.array_equal(found.reshape(pixels.shape), pixels)


def test_directories_within_directories_of_a_tiff() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0131] = "Canon", "fluxsr"
    exif.get_ifd(0x8769)[0x829A] = 1 / 250
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 3.0, 30.5)})
    metadata = Metadata(exif.tobytes().removeprefix(b"Exif\0\0"))
    data = encoded(ENDINGS[".tif"], np.zeros((70, 20, 3), np.uint16), metadata=metadata)
    with Image.open(BytesIO(data)) as image:
        found = image.getexif()
        assert found[0x010F] == "Canon" and found.get_ifd(0x8769)[0x829A] == pytest.approx(1 / 250)
        assert found.get_ifd(0x8825) == {1: "N", 2: (47.0, 3.0, 30.5)}
    with tifffile.TiffFile(BytesIO(data)) as tiff:
        codes = [tag.code for tag in tiff.pages.first.tags]
    assert codes == sorted(codes) and {34665, 34853} <= set(codes) and not {34666, 34854} & set(codes)


def test_limits_of_a_format_are_errors() -> None:
    with pytest.raises(FormatLimitError, match="WEBP cannot store it: .*16383"):
        encoded(ENDINGS[".webp"], np.zeros((1, 17000, 3), np.uint8))

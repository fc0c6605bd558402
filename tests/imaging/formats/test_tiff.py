"""TIFF files around an EXIF structure that keeps its place."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import tifffile

from fluxsr.imaging.formats import tiff
from fluxsr.imaging.raster import ImageSpec, Metadata


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("large", [0, 1 << 40])
def test_pixels_to_the_bit_in_both_byte_orders_and_both_sizes_of_offsets(
    files: Any, monkeypatch: pytest.MonkeyPatch, order: str, large: int
) -> None:
    monkeypatch.setattr(tiff, "_LARGE", large)
    pixels = np.random.default_rng(0).integers(0, 65536, (150, 20, 4), dtype=np.uint16)
    stream, told = BytesIO(), Metadata(files.camera(order), b"<x/>", b"iptc", (300.0, 299.5))
    tiff.write(stream, [(ImageSpec(20, 150, 4, True, b"a profile", told), [pixels[:70], pixels[70:]])])
    stream.seek(0)
    with tifffile.TiffFile(stream) as found:
        assert found.byteorder == order and found.is_bigtiff is (large == 0)
        page = found.pages.first
        assert np.array_equal(page.asarray(), pixels)
        assert page.tags[700].value == b"<x/>" and page.iccprofile == b"a profile"
        assert page.tags[282].value == (300, 1) and page.tags[283].value == (2995, 10)
        assert page.tags["Make"].value == "Canon" and page.tags["ExifTag"].value["ExposureTime"] == (1, 250)
        codes = [tag.code for tag in page.tags]
    assert codes == sorted(codes)

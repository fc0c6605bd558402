"""A map position names the same places in the output, or is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

KEYS = (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 2, 1025, 0, 1, 1), True)
POINT = (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 2, 1025, 0, 1, 2), True)
SCALE, TIE = (33550, "d", 3, (30.0, 60.0, 0.0), True), (33922, "d", 6, (4.0, 2.0, 0.0, 500.0, 800.0, 0.0), True)
MATRIX = (34264, "d", 16, (30.0, 0, 0, 500, 0, -60.0, 0, 800, 0, 0, 0, 0, 0, 0, 0, 1), True)
TAGS = {33550, 33922, 34735, 50844}


@pytest.fixture
def geotiff(files: Any, tmp_path: Path) -> Any:
    """geotiff(tag, ...): a TIFF of 20x30 pixels with these tags."""

    def made(*tags: Any) -> Path:
        path = tmp_path / "in.tif"
        tifffile.imwrite(path, np.asarray(files.picture()), photometric="rgb", extratags=tags)
        return path

    return made


def tags_of(path: Path) -> dict[int, Any]:
    with tifffile.TiffFile(path) as tiff:
        return {tag.code: tag.value for tag in tiff.pages.first.tags}


def test_pixel_scale_and_tiepoints_name_the_same_places(files: Any, geotiff: Any) -> None:
    target, notes = files.enlarged(geotiff(KEYS, SCALE, TIE))
    tags = tags_of(target)
    assert tags[33550] == (10.0, 20.0, 0.0) and tags[33922] == (12.0, 6.0, 0.0, 500.0, 800.0, 0.0)
    assert tags[34735] == KEYS[3] and not notes


@pytest.mark.parametrize("keys", [KEYS, POINT])
def test_a_matrix_names_the_same_places(files: Any, geotiff: Any, keys: Any) -> None:
    target, _ = files.enlarged(geotiff(keys, MATRIX))
    new, old = np.reshape(tags_of(target)[34264], (4, 4)), np.reshape(MATRIX[3], (4, 4))
    half = 0.5 if keys is POINT else 0  # whole numbers are centres of pixels
    for x, y in ((0.0, 0.0), (20.0, 30.0), (7.0, 3.0)):
        before, after = old @ [x - half, y - half, 0, 1], new @ [3 * x - half, 3 * y - half, 0, 1]
        assert np.allclose(before, after)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_other_formats_lose_all_of_it_with_a_note(files: Any, geotiff: Any, ending: str) -> None:
    target, notes = files.enlarged(geotiff(KEYS, SCALE, TIE), ending)
    with Image.open(target) as image:
        assert not TAGS & set(image.getexif())
    assert "map position (GeoTIFF)" in notes


def test_what_cannot_be_scaled_goes_as_a_whole_with_a_note(files: Any, geotiff: Any) -> None:
    target, notes = files.enlarged(geotiff(KEYS, SCALE, TIE, (50844, "d", 92, (0.0,) * 92, True)))
    assert not TAGS & set(tags_of(target)) and "map position (GeoTIFF)" in notes


def test_it_is_a_place(files: Any, geotiff: Any) -> None:
    target, notes = files.enlarged(geotiff(KEYS, SCALE, TIE), strip_gps=True)
    assert not TAGS & set(tags_of(target)) and not notes

"""Images in folders."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.evaluation.folders import list_images, load_image


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32768, 65535]] * 2, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png") * 255
    assert image.shape == (1, 3, 2, 4) and image[0, 1, 0].tolist() == pytest.approx([0, 1, 128, 255])


def test_pixels_without_a_known_white_are_refused_by_name(tmp_path):
    Image.fromarray(np.full((4, 4), 300, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"cannot read .*a\.tif: floating-point pixels"):
        load_image(tmp_path / "a.tif")


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        list_images(tmp_path / "absent")
    with pytest.raises(InputError, match="no images in"):
        list_images(tmp_path)
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    with pytest.raises(InputError, match="two images of one stem"):
        list_images(tmp_path)
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot read .*a\.jpg"):
        load_image(list_images(tmp_path)["a"])


def test_hidden_files_are_no_images(tmp_path):
    for name in ("a.png", "._a.png", ".b.png", "c.jpe"):
        (tmp_path / name).touch()
    assert list(list_images(tmp_path)) == ["a", "c"]

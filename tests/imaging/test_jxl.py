"""Sizes of JPEG XL images by their headers, before the decoder, which decodes all of an image to tell its size."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from fluxsr.errors import InputError, TooLargeError
from fluxsr.imaging.decode import decode, size_of


def bomb(side: int) -> bytes:
    """A JPEG XL codestream of an even picture; a few bytes."""
    return bytes(imagecodecs.jpegxl_encode(np.zeros((side, side, 3), np.uint8), usecontainer=False))


@pytest.mark.parametrize("boxed", [False, True])
def test_a_jpeg_xl_bomb_is_refused_before_a_decoder_sees_it(
    tmp_path: Path, boxed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a container tears its header apart."""
    data = bomb(1500)
    if boxed:  # the header torn apart, behind a box without meaning
        parts = [(b"ftyp", b"jxl "), (b"jxlp", bytes(4) + data[:3]), (b"jxlp", bytes(4) + data[3:])]
        boxes = [struct.pack(">I", 8 + len(part)) + kind + part for kind, part in parts]
        data = b"\0\0\0\x0cJXL \r\n\x87\n" + b"".join(boxes)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    (tmp_path / "a.jxl").write_bytes(data)
    assert size_of(BytesIO(data)) == (1500, 1500)
    with pytest.raises(TooLargeError, match="1500x1500 are 2250000 pixels, the limit is 2249999"):
        decode(tmp_path / "a.jxl", max_pixels=2_249_999)
    for length in range(7, len(data)):
        assert size_of(BytesIO(data[:length])) in (None, (1500, 1500))
    (tmp_path / "a.jxl").write_bytes(data[:8])
    with pytest.raises(InputError, match="JPEG XL header tells no size"):
        decode(tmp_path / "a.jxl")


@pytest.mark.parametrize("size", [(8, 8), (256, 128), (7, 300), (300, 7), (9000, 1), (160, 90), (1200, 1000), (75, 50)])
def test_sizes_in_every_form_that_jpeg_xl_has(size: tuple[int, int]) -> None:
    data = imagecodecs.jpegxl_encode(np.zeros((size[1], size[0]), np.uint8))
    assert size_of(BytesIO(data)) == size

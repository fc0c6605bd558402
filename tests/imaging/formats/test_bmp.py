"""BMP files with masks of any kind, and with a profile."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from fluxsr.errors import InputError, TooLargeError
from fluxsr.imaging.decode import decode
from fluxsr.imaging.formats import bmp

WIDTH, HEIGHT = 7, 5  # rows that are padded


def made(
    masks: tuple[int, ...], depth: int, header: int = 108, kind: int = 3, down: bool = False
) -> tuple[bytes, list]:
    """A BMP of random channels below masks, and the channels as they were put in, (H,W)."""
    rng = np.random.default_rng(0)
    words, channels = np.zeros((HEIGHT, WIDTH), np.uint32), []
    for mask in masks:
        if mask:
            shift = (mask & -mask).bit_length() - 1
            channels.append(rng.integers(0, (mask >> shift) + 1, (HEIGHT, WIDTH)).astype(np.uint32))
            words |= channels[-1] << np.uint32(shift)
    stride = (WIDTH * depth + 31) // 32 * 4
    rows = words.astype(f"<u{depth // 8}").view(np.uint8).reshape(HEIGHT, -1)
    data = np.pad(rows, ((0, 0), (0, stride - rows.shape[1])))[:: 1 if down else -1].tobytes()
    tall = -HEIGHT if down else HEIGHT
    dib = struct.pack("<IiiHHIIiiII", header, WIDTH, tall, 1, depth, kind, len(data), 3780, 3780, 0, 0)
    dib = (dib + struct.pack("<4I", *(*masks, 0)[:4])).ljust(header, b"\0")
    if header == 40:
        dib = dib[: 40 + (16 if kind == 6 else 12)]
    return b"BM" + struct.pack("<IHHI", 14 + len(dib) + len(data), 0, 0, 14 + len(dib)) + dib + data, channels


@pytest.mark.parametrize(
    ("masks", "depth", "header"),
    [
        ((0xF800, 0x7E0, 0x1F), 16, 40),
        ((0xF00, 0xF0, 0xF), 16, 40),
        ((0xF00, 0xF0, 0xF, 0xF000), 16, 108),
        ((0xE0, 0x1C, 0x3), 16, 56),
        ((0xFF, 0xFF00, 0xFF0000), 32, 40),
        ((0xFF00, 0xFF, 0xFF0000, 0xFF000000), 32, 124),
        ((0x3FF00000, 0xFFC00, 0x3FF), 32, 108),
    ],
)
@pytest.mark.parametrize("down", [False, True])
def test_every_mask_is_read_to_the_bit(
    tmp_path: Path, masks: tuple[int, ...], depth: int, header: int, down: bool
) -> None:
    data, channels = made(masks, depth, header, down=down)
    (tmp_path / "a.bmp").write_bytes(data)
    raster = decode(tmp_path / "a.bmp")
    deep = max(mask.bit_count() for mask in masks) > 8
    assert raster.format == "BMP" and raster.pixels.dtype == (np.uint16 if deep else np.uint8)
    whole = 65535 if deep else 255
    for k, (mask, channel) in enumerate(zip(masks, channels, strict=True)):
        largest = mask >> ((mask & -mask).bit_length() - 1)
        assert np.array_equal(raster.pixels[..., k], np.round(channel * (whole / largest)))
    assert raster.metadata.dpi == pytest.approx((96.01, 96.01), abs=0.1)


def test_alpha_by_the_older_name_and_alpha_that_nobody_filled(tmp_path: Path) -> None:
    data, _ = made((0xF00, 0xF0, 0xF, 0xF000), 16, 40, kind=6)
    (tmp_path / "a.bmp").write_bytes(data)
    assert decode(tmp_path / "a.bmp").pixels.shape == (HEIGHT, WIDTH, 4)
    data, _ = made((0xFF0000, 0xFF00, 0xFF), 32, 108)
    data = bytearray(data)
    data[66:70] = struct.pack("<I", 0xFF000000)
    (tmp_path / "a.bmp").write_bytes(data)
    assert decode(tmp_path / "a.bmp").pixels.shape == (HEIGHT, WIDTH, 3)


def test_a_bitmap_that_is_cut_off_or_too_large_is_refused(tmp_path: Path) -> None:
    data, _ = made((0xF00, 0xF0, 0xF), 16)
    assert bmp.profile(BytesIO(data[:100])) == b""
    (tmp_path / "a.bmp").write_bytes(data[:-9])
    with pytest.raises(InputError, match="a.bmp is damaged or cut off"):
        decode(tmp_path / "a.bmp")
    bomb = bytearray(data)
    bomb[18:26] = struct.pack("<ii", 60_000, 60_000)
    (tmp_path / "a.bmp").write_bytes(bomb)
    with pytest.raises(TooLargeError, match="60000x60000"):
        decode(tmp_path / "a.bmp")

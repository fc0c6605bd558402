"""Write PNG row by row, and read 16-bit PNG. Pillow writes RGB with 8 bits only and holds the whole image in memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import IO

import numpy as np

from fluxsr.imaging.metadata import png_text
from fluxsr.imaging.raster import Metadata

LEVEL = 4  # level 6 of zlib takes about twice the time and saves about 2 % of the size
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG's colour type
_ROWS = 64  # rows that are filtered at a time
_COLOUR_CHUNKS = (b"cICP", b"sRGB", b"gAMA", b"cHRM")


def color_chunks(file: IO[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return (name, data) of the PNG chunks that describe colours, except iCCP."""
    found = []
    for kind, length in png_text.chunks(file):
        if kind == b"IDAT":
            break
        if kind in _COLOUR_CHUNKS and length <= 32:
            found.append((kind, file.read(length)))
    return tuple(found)


def read_depth(file: IO[bytes]) -> int:
    """Return the bits per channel from the header of a PNG."""
    file.seek(24)  # signature 8, length and name of IHDR 8, width and height 8
    return file.read(1)[0]


def read_sixteen(file: IO[bytes]) -> np.ndarray:
    """Return the pixels of a 16-bit PNG, (H,W,C) uint16, C as in Raster."""
    import imagecodecs

    file.seek(0)
    pixels = imagecodecs.png_decode(file.read())
    return pixels if pixels.ndim == 3 else pixels[..., None]


def write(
    file: IO[bytes],
    width: int,
    height: int,
    bands: Iterable[np.ndarray],
    profile: bytes,
    metadata: Metadata,
    colors: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Write a PNG.

    Args:
        file: output; need not be seekable.
        width, height: in pixels.
        bands: rows from top to bottom, each (rows,W,C), all uint8 or all uint16, C as in Raster.
        profile: ICC profile; empty means sRGB.
        metadata: EXIF, XMP, texts, comments and dpi are written. PNG stores no IPTC and no Photoshop resources.
        colors: chunks that describe the same colours as the profile; see ``color_chunks``.
    """
    file.write(b"\x89PNG\r\n\x1a\n")
    packer, above, started = zlib.compressobj(LEVEL, zlib.DEFLATED, 15, 9), None, False
    for band in bands:
        if not started:
            _head(file, width, height, band, profile, metadata, colors)
            started = True
        for first in range(0, len(band), _ROWS):
            rows = _bytes(band[first : first + _ROWS])  # (R, bytes of a row)
            above = np.zeros_like(rows[:1]) if above is None else above
            _chunk(file, b"IDAT", packer.compress(_filtered(rows, above, band.shape[-1] * band.itemsize)))
            above = rows[-1:]
    _chunk(file, b"IDAT", packer.flush())
    file.write(b"\0\0\0\0IEND\xaeB`\x82")


def _head(
    file: IO[bytes],
    width: int,
    height: int,
    band: np.ndarray,
    profile: bytes,
    metadata: Metadata,
    colors: tuple[tuple[bytes, bytes], ...],
) -> None:
    colours = _COLOURS[band.shape[-1]]
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * band.itemsize, colours, 0, 0, 0))
    for kind, data in colors:
        if kind != b"sRGB" or not profile:  # PNG allows only one of the two
            _chunk(file, kind, data)
    if profile:
        _chunk(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if metadata.dpi:
        _chunk(file, b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in metadata.dpi), 1))
    if metadata.exif:
        _chunk(file, b"eXIf", metadata.exif)
    if metadata.xmp:
        _chunk(file, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp)
    for kind, data in [*metadata.texts, *(png_text.comment("Comment", comment) for comment in metadata.comments)]:
        _chunk(file, kind, data)


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    if data or kind != b"IDAT":
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def _bytes(band: np.ndarray) -> np.ndarray:
    big = np.ascontiguousarray(band, dtype=band.dtype.newbyteorder(">"))
    return big.view(np.uint8).reshape(len(band), -1)


def _filtered(rows: np.ndarray, above: np.ndarray, pixel: int) -> bytes:
    """Filter each row by its left neighbour or by the row above, whichever gives the smaller sum."""
    left = rows.copy()
    left[:, pixel:] -= rows[:, :-pixel]
    up = rows - np.concatenate([above, rows[:-1]])
    size_left, size_up = (np.abs(difference.view(np.int8).astype(np.int16)).sum(1) for difference in (left, up))
    upward = (size_up < size_left)[:, None]
    kinds = np.where(upward, 2, 1).astype(np.uint8)
    return np.concatenate([kinds, np.where(upward, up, left)], axis=1).tobytes()

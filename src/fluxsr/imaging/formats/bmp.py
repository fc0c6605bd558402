"""Read BMP files whose channels have masks of any kind, and the ICC profile of a BMP; Pillow knows a few masks only."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import IO

import numpy as np

from fluxsr.imaging.raster import Metadata, Raster

_BITFIELDS, _ALPHA_BITFIELDS = 3, 6
_INCH = 0.0254
_HEAD = 14  # bytes before the header of the bitmap


def bitfields(file: IO[bytes], check: Callable[[int, int], None]) -> Raster | None:
    """Return the picture of a BMP with channel masks; None for any other file.

    ``check`` is called with width and height before a pixel is read; it raises where they are too large.
    """
    file.seek(0)
    head = file.read(_HEAD + 124)
    size = int.from_bytes(head[14:18], "little")
    if head[:2] != b"BM" or size < 40 or len(head) < _HEAD + 40:
        return None
    start = int.from_bytes(head[10:14], "little")
    width, height, _, depth, kind, _, x, y = struct.unpack("<iiHHIIii", head[18:46])
    masks = struct.unpack("<4I", head[54:70].ljust(16, b"\0"))
    if size < 56 and kind != _ALPHA_BITFIELDS:
        masks = (*masks[:3], 0)
    if kind not in (_BITFIELDS, _ALPHA_BITFIELDS) or depth not in (16, 24, 32) or not all(masks[:3]):
        return None
    check(width, abs(height))
    stride = (width * depth + 31) // 32 * 4
    file.seek(start)
    rows = np.frombuffer(file.read(stride * abs(height)), np.uint8).reshape(abs(height), stride)
    places = rows[:, : width * depth // 8].reshape(abs(height), width, depth // 8).astype(np.uint32)
    words = (places << (8 * np.arange(depth // 8, dtype=np.uint32))).sum(-1, dtype=np.uint32)
    channels = [_channel(words, mask) for mask in masks if mask]
    if len(channels) == 4 and not channels[3].any():
        channels.pop()  # a fourth channel that nobody filled
    deep = any(mask.bit_count() > 8 for mask in masks)
    pixels = np.stack(channels, -1) * np.float32(65535 if deep else 255)
    dpi = (x * _INCH, y * _INCH) if x > 0 and y > 0 else None
    return Raster(
        np.ascontiguousarray((pixels if height < 0 else pixels[::-1]).round().astype(np.uint16 if deep else np.uint8)),
        "BMP",
        profile(file),
        Metadata(dpi=dpi),
    )


def profile(file: IO[bytes]) -> bytes:
    """Return the ICC profile that a BMP of version 5 embeds; empty without one."""
    file.seek(0)
    head = file.read(_HEAD + 124)
    if len(head) < _HEAD + 124 or int.from_bytes(head[14:18], "little") < 124 or head[70:74] != b"DEBM":
        return b""
    start, size = struct.unpack("<II", head[_HEAD + 112 : _HEAD + 120])
    file.seek(_HEAD + start)
    return file.read(min(size, 1 << 24))


def _channel(words: np.ndarray, mask: int) -> np.ndarray:
    """Return what lies under a mask, as float32 in [0,1]."""
    shift = (mask & -mask).bit_length() - 1
    return ((words & np.uint32(mask)) >> np.uint32(shift)).astype(np.float32) / np.float32(mask >> shift)

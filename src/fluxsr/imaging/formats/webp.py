"""Write animated WebP from still ones. libwebp's own writer would merge equal frames and blend lossy ones."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import IO

from fluxsr.imaging.formats import FormatLimitError
from fluxsr.imaging.raster import ImageSpec

_PIXELS = (b"ALPH", b"VP8 ", b"VP8L")
_ANIMATED, _XMP, _EXIF, _ALPHA, _ICC = 2, 4, 8, 16, 32
_REPLACE = 2  # the frame is not blended with the one before


def write(file: IO[bytes], frames: Iterable[tuple[ImageSpec, bytes]]) -> None:
    """Write an animation of frames that replace each other.

    Args:
        file: empty, open for writing and reading.
        frames: each as a still WebP without metadata. All have the size and channels of the first.

    Raises:
        FormatLimitError: the animation is too large.
    """
    exif = xmp = b""
    file.write(b"RIFF\0\0\0\0WEBP")
    for place, (spec, still) in enumerate(frames):
        canvas = _three(spec.width - 1) + _three(spec.height - 1)
        if place == 0:
            exif, xmp = spec.metadata.exif, spec.metadata.xmp
            parts = {_ICC: spec.profile, _ALPHA: spec.channels in (2, 4), _EXIF: exif, _XMP: xmp}
            flags = _ANIMATED | sum(flag for flag, part in parts.items() if part)
            _chunk(file, b"VP8X", bytes([flags, 0, 0, 0]) + canvas)
            _chunk(file, b"ICCP", spec.profile)
            _chunk(file, b"ANIM", struct.pack("<IH", 0, min(spec.frame.plays, 65535)))
        time = _three(min(round(spec.frame.milliseconds), (1 << 24) - 1))
        _chunk(file, b"ANMF", bytes(6) + canvas + time + bytes([_REPLACE]) + _pixels(still))
        _check_size(file)
    _chunk(file, b"EXIF", exif)
    _chunk(file, b"XMP ", xmp)
    _check_size(file)
    size = file.tell() - 8
    file.seek(4)
    file.write(struct.pack("<I", size))
    file.seek(0, 2)


def _check_size(file: IO[bytes]) -> None:
    if file.tell() - 8 >= 1 << 32:
        raise FormatLimitError("WEBP has at most 4 GB")


def _three(number: int) -> bytes:
    return number.to_bytes(3, "little")


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    if data:
        file.write(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2))


def _pixels(still: bytes) -> bytes:
    """Return the chunks of a still WebP that hold its pixels."""
    found, place = b"", 12
    while place < len(still):
        end = place + 8 + int.from_bytes(still[place + 4 : place + 8], "little")
        end += end % 2
        found += still[place:end] if still[place : place + 4] in _PIXELS else b""
        place = end
    return found

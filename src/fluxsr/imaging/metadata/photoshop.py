"""Photoshop image resources of JPEG and TIFF files (8BIM blocks)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

IPTC = 0x0404
_SIGNATURES = (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR")
# Resources that do not hold for the output, or that are stored elsewhere: thumbnails, ICC profile, EXIF, XMP, guides,
# slices, names of channels that are not written.
_OLD = {0x0409, 0x040C, 0x040F, 0x0422, 0x0423, 0x0424, 0x0408, 0x041A, 0x03EE, 0x0415, 0x0413}
_PATHS = range(0x07D0, 0x0BB7)  # in fractions of width and height: valid unless the image is turned
_SEGMENT = 65_533  # largest JPEG segment in bytes, without marker and length
HEAD = b"Photoshop 3.0\0"


def split(data: bytes) -> tuple[bytes, bytes]:
    """Return the IPTC records, and the other resources that still hold for the upscaled image."""
    iptc, others = b"", b""
    for number, content, whole in _resources(data):
        if number == IPTC:
            iptc = iptc or content
        elif number not in _OLD:
            others += whole
    return iptc, others


def without_paths(data: bytes) -> bytes:
    """Return resources without paths, whose coordinates are wrong once an image is turned."""
    return b"".join(whole for number, _, whole in _resources(data) if number not in _PATHS)


def joined(iptc: bytes, others: bytes) -> bytes:
    """Return one block of IPTC records and other resources; empty where there are none."""
    head = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2) if iptc else b""
    return head + others


def blocks(iptc: bytes, others: bytes) -> list[bytes]:
    """Return the contents of the JPEG segments that hold IPTC records and other resources."""
    found, current = list[bytes](), b""
    for _, _, whole in _resources(joined(iptc, others)):
        if current and len(HEAD + current + whole) > _SEGMENT:
            found, current = [*found, HEAD + current], b""
        current += whole
    return [*found, HEAD + current] if current else found


def short_enough(others: bytes) -> bytes:
    """Return the resources that are short enough for a JPEG segment."""
    return b"".join(whole for _, _, whole in _resources(others) if len(HEAD + whole) <= _SEGMENT)


def _resources(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (number, content, whole resource) up to the end or the first damaged resource."""
    place = 0
    while data[place : place + 4] in _SIGNATURES and place + 12 <= len(data):
        number = int.from_bytes(data[place + 4 : place + 6], "big")
        named = 1 + data[place + 6]
        start = place + 6 + named + named % 2
        size = int.from_bytes(data[start : start + 4], "big")
        end = start + 4 + size
        if start + 4 > len(data) or end > len(data):
            return
        whole = data[place:end]
        yield number, data[start + 4 : end], whole + b"\0" * (size % 2)
        place = end + size % 2

"""Data that a file embeds beside its image: Photoshop resources and comments to keep, and names of what is lost."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import IO, Any

from fluxsr.imaging.formats.boxes import outer_boxes
from fluxsr.imaging.metadata.xmp import DEPTH, GAIN_MAP, IMAGE, VIDEO

_MORE = "data behind the image"
_CREDENTIALS = "content credentials (C2PA)"
_C2PA = b"\xd8\xfe\xc3\xd6"  # beginning of the UUID of its box
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
# Beginnings of JPEG segments that are kept, converted, rewritten, or reported elsewhere.
_HANDLED = (
    b"JFIF\0", b"JFXX\0", b"Exif\0", _XMP, b"http://ns.adobe.com/xmp/extension/\0", b"ICC_PROFILE\0", b"MPF\0",
    _PHOTOSHOP, b"Adobe", b"Ducky",
)  # fmt: skip
_MARKS = (
    (GAIN_MAP, re.compile(rb"hdrgm:|HDRGainMap|hdrgainmap|urn:iso:std:iso:ts:21496|\0tmap|jhgm")),
    (VIDEO, re.compile(rb"\0\0\0.ftyp|MotionPhoto_Data", re.DOTALL)),
    (DEPTH, re.compile(rb"DepthMap|ns\.apple\.com/depthData|urn:mpeg:hevc:2015:auxid:2")),
)
_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # the first marker behind entropy-coded data
_MOST_BYTES = 256 << 20
_HEAD = 1 << 20  # bytes in which HEIF and AVIF list everything that they store

_IPTC = 0x0404
_SIGNATURES = (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR")
# Resources that do not hold for the output, or that are stored elsewhere: thumbnails, ICC profile, EXIF, XMP, guides,
# slices, names of channels that are not written.
_OLD = {0x0409, 0x040C, 0x040F, 0x0422, 0x0423, 0x0424, 0x0408, 0x041A, 0x03EE, 0x0415, 0x0413}
_PATHS = range(0x07D0, 0x0BB7)  # in fractions of width and height: valid unless the image is turned
_SEGMENT = 65_533  # largest JPEG segment in bytes, without marker and length


def lost(file: IO[bytes], image: Any) -> list[str]:
    """Name the embedded data of a file, which Pillow opened as ``image``, that no output can store."""
    if image.format in ("JPEG", "MPO"):
        found = [*_segments_lost(image), *_behind(file, image)]
    else:
        found = [*_boxes_lost(file, image)] if image.format in ("HEIF", "AVIF", "JXL") else []
    return list(dict.fromkeys(found))


def comments(image: Any) -> tuple[bytes, ...]:
    """Return the comments of a JPEG or GIF file."""
    if image.format in ("JPEG", "MPO"):
        found = [data for name, data in image.applist if name == "COM"]
    else:
        comment = image.info.get("comment", b"") if image.format == "GIF" else b""
        found = [comment if isinstance(comment, bytes) else b""]
    return tuple(data for data in found if data.strip(b"\0"))


def photoshop(image: Any) -> bytes:
    """Return the Photoshop resources of a JPEG file, joined from all its segments."""
    parts = [data for name, data in image.applist if name == "APP13" and data.startswith(_PHOTOSHOP)]
    return b"".join(data[len(_PHOTOSHOP) :] for data in parts)


def split_photoshop(data: bytes) -> tuple[bytes, bytes]:
    """Return the IPTC records among Photoshop resources, and the others that still hold for the upscaled image."""
    iptc, others = b"", b""
    for number, content, resource in _resources(data):
        if number == _IPTC:
            iptc = iptc or content
        elif number not in _OLD:
            others += resource
    return iptc, others


def without_paths(data: bytes) -> bytes:
    """Return Photoshop resources without paths, whose coordinates are wrong once an image is turned."""
    return b"".join(resource for number, _, resource in _resources(data) if number not in _PATHS)


def join_photoshop(iptc: bytes, others: bytes) -> bytes:
    """Return one block of IPTC records and other Photoshop resources; empty where there are none."""
    head = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2) if iptc else b""
    return head + others


def photoshop_segments(iptc: bytes, others: bytes) -> list[bytes]:
    """Return the contents of the JPEG segments that hold IPTC records and other Photoshop resources."""
    found, current = list[bytes](), b""
    for _, _, resource in _resources(join_photoshop(iptc, others)):
        if current and len(_PHOTOSHOP + current + resource) > _SEGMENT:
            found, current = [*found, _PHOTOSHOP + current], b""
        current += resource
    return [*found, _PHOTOSHOP + current] if current else found


def short_enough(others: bytes) -> bytes:
    """Return the Photoshop resources that are short enough for a JPEG segment."""
    return b"".join(resource for _, _, resource in _resources(others) if len(_PHOTOSHOP + resource) <= _SEGMENT)


def _resources(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (number, content, complete resource) up to the end or the first damaged resource."""
    place = 0
    while data[place : place + 4] in _SIGNATURES and place + 12 <= len(data):
        number = int.from_bytes(data[place + 4 : place + 6], "big")
        named = 1 + data[place + 6]
        start = place + 6 + named + named % 2
        size = int.from_bytes(data[start : start + 4], "big")
        end = start + 4 + size
        if start + 4 > len(data) or end > len(data):
            return
        yield number, data[start + 4 : end], data[place:end] + b"\0" * (size % 2)
        place = end + size % 2


def _segments_lost(image: Any) -> Iterator[str]:
    for name, data in image.applist:
        if name == "COM" or data.startswith(_HANDLED) or not data.strip(b"\0"):
            continue
        if data.startswith(b"urn:iso:std:iso:ts:21496"):
            yield GAIN_MAP
        elif name == "APP11" and b"c2pa" in data:
            yield _CREDENTIALS
        else:
            maker = re.match(rb"[A-Za-z0-9 ]{2,20}", data)
            yield f"{name} data ({maker[0].decode().strip()})" if maker else f"{name} data"


def _behind(file: IO[bytes], image: Any) -> list[str]:
    """Name the data that follows the image of a JPEG, except smaller versions of the same image."""
    file.seek(0)
    data = file.read(_MOST_BYTES)
    tail = data[_end(data) :]
    if not tail.strip(b"\0\xff\r\n \x1a"):
        return []
    found = [what for what, mark in _MARKS if mark.search(tail)]
    entries = getattr(image, "mpinfo", None) or {}
    kinds = {str(entry.get("Attribute", {}).get("MPType")) for entry in entries.get(0xB002, ())}
    if any(kind.startswith("Multi-Frame") for kind in kinds):
        found.append(IMAGE)
    return found or ([] if entries else [_MORE])


def _end(data: bytes) -> int:
    """Return the position where the first image of a JPEG file ends."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xD9:
            return place + 2
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA:
            found = _SCAN.search(data, place)
            place = found.start() if found else len(data)
    return place + 2 if data[place : place + 2] == b"\xff\xd9" else len(data)


def _boxes_lost(file: IO[bytes], image: Any) -> Iterator[str]:
    file.seek(0)
    head = file.read(_HEAD)
    boxes = list(outer_boxes(file))
    kinds = {kind for kind, _, _ in boxes}
    if _MARKS[0][1].search(head[16:]) if image.format != "JXL" else b"jhgm" in kinds:
        yield GAIN_MAP
    if b"mpvd" in kinds:
        yield VIDEO
    if image.info.get("depth_images"):
        yield DEPTH
    if b"jumb" in kinds or any(
        kind == b"uuid" and file.seek(start) and file.read(4) == _C2PA for kind, start, _ in boxes
    ):
        yield _CREDENTIALS

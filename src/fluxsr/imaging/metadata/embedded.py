"""Data that a file embeds besides its image: comments to keep, and what is lost, of which the user is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Any

from fluxsr.imaging.formats.boxes import outer_boxes
from fluxsr.imaging.metadata.photoshop import HEAD as _PHOTOSHOP
from fluxsr.imaging.metadata.xmp import DEPTH, GAIN_MAP, IMAGE, VIDEO

_MORE = "data behind the image"
_CREDENTIALS = "content credentials (C2PA)"
_C2PA = b"\xd8\xfe\xc3\xd6"  # beginning of the UUID of its box
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
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


def lost(file: IO[bytes], image: Any) -> list[str]:
    """Name the embedded data of a file that no output can store.

    Args:
        file: open for reading.
        image: the same file, opened with Pillow.
    """
    if image.format in ("JPEG", "MPO"):
        found = [*_segments_lost(image), *_behind(file, image)]
    elif image.format in ("HEIF", "AVIF", "JXL"):
        found = [*_boxes_lost(file, image)]
    else:
        found = []
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
    if b"jumb" in kinds or any(kind == b"uuid" and _read(file, start, 4) == _C2PA for kind, start, _ in boxes):
        yield _CREDENTIALS


def _read(file: IO[bytes], start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)

"""Read what the boxes of AVIF, HEIF and JPEG 2000 files say about colours (ISO/IEC 14496-12, 23008-12, 15444-1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import IO

_MOST = 1 << 24  # bytes read of a box: boxes of metadata hold no pixels
_MOST_BOXES = 1000  # files have a dozen


def outer_boxes(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, stop) of the outermost boxes of a file: where the contents of each begin and end."""
    place, end = 0, file.seek(0, 2)
    for _ in range(_MOST_BOXES):
        file.seek(place)
        head = file.read(16)
        size, kind, start = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), 16
        size = size or end - place  # 0 means up to the end of the file
        if len(head) < 8 or size < start:
            return
        yield kind, place + start, place + size
        place += size


def cicp(file: IO[bytes]) -> bytes:
    """Return the CICP code points of the primary item of an AVIF or HEIF as PNG's cICP chunk; empty without them."""
    for kind, data in _properties(file):
        if kind == b"colr" and data[:4] == b"nclx" and len(data) >= 10:
            return bytes((data[5], data[7], 0, 1))  # matrix and range are undone by the decoder
    return b""


def depth(file: IO[bytes]) -> int:
    """Return the bits per channel of the primary item of an AVIF or HEIF, or of a JPEG 2000; 8 where it is not said."""
    for kind, data in _properties(file):
        if kind == b"pixi" and len(data) > 5:
            return data[5]
    for kind, data in _inside(top(file, b"jp2h")):
        if kind == b"ihdr" and len(data) > 10 and data[10] != 255:
            return (data[10] & 0x7F) + 1
    return 8


def jp2_colours(file: IO[bytes]) -> tuple[bytes, bytes]:
    """Return the ICC profile and the CICP code points (as PNG's cICP) of a JPEG 2000; empty where there are none."""
    with suppress(IndexError, ValueError):
        for kind, data in _inside(top(file, b"jp2h")):
            if kind == b"colr" and data[0] in (2, 3):
                return data[3:], b""
            if kind == b"colr" and data[0] == 5 and len(data) >= 9:
                return b"", bytes((data[4], data[6], 0, 1))
    return b"", b""


def _properties(file: IO[bytes]) -> list[tuple[bytes, bytes]]:
    """Return (kind, contents) of the properties of the primary item of an AVIF or HEIF."""
    with suppress(IndexError, ValueError):
        meta = dict(_inside(top(file, b"meta")[4:]))
        iprp = dict(_inside(meta.get(b"iprp", b"")))
        properties = list(_inside(iprp.get(b"ipco", b"")))
        pitm = meta.get(b"pitm", bytes(8))
        item = int.from_bytes(pitm[4:6] if pitm[0] == 0 else pitm[4:8], "big")
        return [properties[number - 1] for number in _associated(iprp.get(b"ipma", b""), item)]
    return []


def _associated(ipma: bytes, primary: int) -> Iterator[int]:
    """Yield the numbers, from 1 on, of the properties of an item."""
    wide_item, wide_property = ipma[0] > 0, ipma[3] & 1
    place = 8
    for _ in range(int.from_bytes(ipma[4:8], "big")):
        step = 4 if wide_item else 2
        item, count = int.from_bytes(ipma[place : place + step], "big"), ipma[place + step]
        place += step + 1
        for _ in range(count):
            size = 2 if wide_property else 1
            number = int.from_bytes(ipma[place : place + size], "big") & (0x7FFF if wide_property else 0x7F)
            place += size
            if item == primary and number:
                yield number


def top(file: IO[bytes], name: bytes) -> bytes:
    """Return the contents of the first box of that kind in a file; empty without one."""
    for kind, start, stop in outer_boxes(file):
        if kind == name:
            file.seek(start)
            return file.read(min(stop - start, _MOST))
    return b""


def _inside(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, contents) of the boxes in the contents of a box."""
    return ((kind, data[start:stop]) for kind, start, stop in outer_boxes(BytesIO(data)))

"""The size of a JPEG XL image by its header: the decoder tells it only once it has decoded all of it."""

from __future__ import annotations

from typing import IO

_CODESTREAM = b"\xff\x0a"
_HEADER = 11  # bytes: the signature and at most 68 bits of size
_BOXES = 1000  # looked at until the header is whole; files have a dozen
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def looks_like(file: IO[bytes]) -> bool:
    """Whether pillow_jxl would take it; leaves the file at its beginning."""
    file.seek(0)
    head = file.read(7)
    file.seek(0)
    return head[:2] == _CODESTREAM or head[4:7] == b"JXL"


def size_of(file: IO[bytes]) -> tuple[int, int] | None:
    """(width, height) by the header; None where it is not there or not whole. Leaves the file at its beginning.

    Args:
        file: that looks like JPEG XL, or its beginning.
    """
    file.seek(0)
    head = file.read(_HEADER)
    if head[:2] != _CODESTREAM:
        head = _unboxed(file)
    file.seek(0)
    if len(head) < _HEADER or head[:2] != _CODESTREAM:
        return None
    return _size(int.from_bytes(head[2:], "little"))


def _unboxed(file: IO[bytes]) -> bytes:
    """The beginning of the codestream, which a container may hold in several boxes of any length."""
    found, place = b"", 0
    for _ in range(_BOXES):
        file.seek(place)
        head = file.read(16)
        length, kind, start = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:
            length, start = int.from_bytes(head[8:], "big"), 16
        if kind == b"jxlp":
            start += 4  # the number of the part
        rest = length == 0  # until the end of the file
        if len(head) < 8 or (length < start and not rest):
            break
        if kind in (b"jxlc", b"jxlp"):
            file.seek(place + start)
            found += file.read(_HEADER if rest else min(_HEADER, length - start))
        if rest or len(found) >= _HEADER:
            break
        place += length
    return found[:_HEADER]


def _size(bits: int) -> tuple[int, int]:
    """SizeHeader of ISO/IEC 18181-1, lowest bit first."""

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    if not ratio:
        return side(), height
    over, under = _RATIOS[ratio - 1]
    return height * over // under, height

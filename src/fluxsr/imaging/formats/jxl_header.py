"""Read the header of a JPEG XL codestream, and ask by it for samples in floating point (ISO/IEC 18181-1)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

SIGNATURE = b"\xff\x0a"
_DETAILS = 4096  # bytes in which the header is looked for
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_SIDE_BITS = (9, 13, 18, 30)


@dataclass(frozen=True)
class Header:
    """What the header of a codestream says.

    Attributes:
        width, height: in pixels, as stored.
        bits: per sample.
        floating: whether samples are floating-point numbers.
        lossy: whether colours are in XYB, from which the decoder makes others.
        size_end, depth_start, depth_end: positions of these fields, in bits from the signature's end.
    """

    width: int
    height: int
    bits: int
    floating: bool
    lossy: bool
    size_end: int
    depth_start: int
    depth_end: int


def size_in(codestream: bytes) -> tuple[int, int]:
    """Return (width, height) of a codestream or its beginning.

    Raises:
        IndexError: it is not whole.
    """
    return _size(_Bits(codestream[2:]))


class _Bits:
    """Bits of bytes, lowest first."""

    def __init__(self, data: bytes) -> None:
        self.value, self.length, self.place = int.from_bytes(data, "little"), 8 * len(data), 0

    def take(self, count: int) -> int:
        if self.place + count > self.length:
            raise IndexError("the header is not whole")
        found = self.value >> self.place & ((1 << count) - 1)
        self.place += count
        return found

    def choice(self, *ways: tuple[int, int]) -> int:
        """Read a U32: two bits choose the (offset, count of bits) of the number."""
        offset, count = ways[self.take(2)]
        return offset + self.take(count)


def _size(bits: _Bits) -> tuple[int, int]:
    """Read SizeHeader of ISO/IEC 18181-1: (width, height)."""
    small = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if small else bits.take(_SIDE_BITS[bits.take(2)]) + 1

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return side(), height
    over, under = _RATIOS[ratio - 1]
    return height * over // under, height


def _depth(bits: _Bits) -> tuple[bool, int]:
    """Read BitDepth: whether samples are floats, and bits per sample."""
    if bits.take(1):
        size = bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
        return True, size
    return False, bits.choice((8, 0), (10, 0), (12, 0), (1, 6))


def header_of(codestream: bytes) -> Header:
    """Read SizeHeader and the beginning of ImageMetadata.

    Raises:
        IndexError: it is not whole, or of a kind that is not read here.
    """
    bits = _Bits(codestream[2:_DETAILS])
    width, height = _size(bits)
    size_end = bits.place
    if bits.take(1):  # all values are the default: 8 bit, lossy, sRGB
        return Header(width, height, 8, False, True, size_end, bits.place, bits.place)
    if bits.take(1):  # extra fields
        bits.take(3)  # orientation
        if bits.take(1):
            _size(bits)
        if bits.take(2):
            raise IndexError("a preview or an animation")
    depth_start = bits.place
    floating, depth = _depth(bits)
    depth_end = bits.place
    bits.take(1)
    for _ in range(bits.choice((0, 0), (1, 0), (2, 4), (1, 12))):
        _skip_extra_channel(bits)
    return Header(width, height, depth, floating, bool(bits.take(1)), size_end, depth_start, depth_end)


def _skip_extra_channel(bits: _Bits) -> None:
    if bits.take(1):
        return
    kind = bits.choice((0, 0), (1, 0), (2, 4), (18, 6))
    _depth(bits)
    bits.choice((0, 0), (3, 0), (4, 0), (1, 3))
    for _ in range(bits.choice((0, 0), (0, 4), (16, 5), (48, 10))):
        bits.take(8)
    if kind == 0:  # alpha: whether it is multiplied in
        bits.take(1)
    elif kind not in (1, 3, 4):
        raise IndexError("spot colours or a filter array")


def as_float(codestream: bytes, header: Header) -> bytes:
    """Return a lossy codestream that asks for samples in floating point; its colours are the same.

    libjxl gives samples as the header names them, and cuts what does not fit. Numbers of the header can be written
    with more bits than they need: those of the size are chosen so that the rest moves by whole bytes.
    """
    if header.floating or header.depth_start == header.depth_end:
        return codestream
    cut = -(-header.depth_end // 8)
    bits = _Bits(codestream[2 : 2 + cut])
    middle, rest = (
        (bits.value >> first & ((1 << last - first) - 1), last - first)
        for first, last in ((header.size_end, header.depth_start), (header.depth_end, 8 * cut))
    )
    depth = (0b0111_00_1, 7)  # floating point, 32 bits in all, 8 of the exponent (less 1)
    for tall, wide in product(range(4), repeat=2):
        if header.height > 1 << _SIDE_BITS[tall] or header.width > 1 << _SIDE_BITS[wide]:
            continue
        fields = [(0, 1), (tall, 2), (header.height - 1, _SIDE_BITS[tall]), (0, 3), (wide, 2)]
        fields += [(header.width - 1, _SIDE_BITS[wide]), middle, depth, rest]
        length = sum(count for _, count in fields)
        if length % 8 == 0:
            value, place = 0, 0
            for number, count in fields:
                value |= number << place
                place += count
            return codestream[:2] + value.to_bytes(length // 8, "little") + codestream[2 + cut :]
    return codestream

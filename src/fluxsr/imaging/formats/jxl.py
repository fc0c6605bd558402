"""JPEG XL: read the size before anything is decoded, and pixels at full bit depth (ISO/IEC 18181-1).

The plugin of Pillow knows the size only after it has decoded the whole image, and reduces everything to 8 bits.
"""

from __future__ import annotations

from itertools import product
from typing import IO, NamedTuple

import numpy as np

from fluxsr.errors import InputError
from fluxsr.imaging.color import colorimetry
from fluxsr.imaging.formats.boxes import outer_boxes
from fluxsr.imaging.raster import checked_float

SIGNATURE = b"\xff\x0a"
_LEAST = 11  # bytes: the signature and at most 68 bits of size
_DETAILS = 4096  # bytes in which the header is looked for
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_SIDE_BITS = (9, 13, 18, 30)
_LINEAR = b"Rel_Lin"  # in the name of the profile that libjxl makes for linear light
_BRIGHT = 1.02  # white, with a tolerance for lossy compression


class Header(NamedTuple):
    """The header of a codestream.

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


def looks_like(file: IO[bytes]) -> bool:
    """Return whether pillow_jxl accepts the file. Rewinds the file."""
    file.seek(0)
    head = file.read(7)
    file.seek(0)
    return head[:2] == SIGNATURE or head[4:7] == b"JXL"


def size_of(file: IO[bytes]) -> tuple[int, int] | None:
    """Return (width, height) of a file that looks like JPEG XL; None if its header is incomplete. Rewinds the file."""
    file.seek(0)
    head = file.read(_LEAST)
    if head[:2] != SIGNATURE:
        head = _codestream(file, _LEAST)
    file.seek(0)
    if len(head) < _LEAST or head[:2] != SIGNATURE:
        return None
    return _size(_Bits(head[2:]))


def pixels(file: IO[bytes], profile: bytes) -> tuple[np.ndarray, bytes, list[str]] | None:
    """Return pixels of more than 8 bits, or of 8 bits that Pillow's plugin would reduce to linear light.

    Args:
        file: a JPEG XL image.
        profile: ICC profile of the pixels that libjxl decodes.

    Returns:
        (H,W,C) as in Raster, their profile, and notes; None where the plugin's pixels are as good.
    """
    import imagecodecs

    data = _codestream(file)
    try:
        header = header_of(data)
    except IndexError:
        return None
    linear = _LINEAR in profile.replace(b"\0", b"")
    if header.bits == 8 and not (header.lossy and linear):
        return None
    if header.lossy:
        return _lossy(imagecodecs.jpegxl_decode(as_float(data, header)), header, None if linear else profile)
    found = _planes(imagecodecs.jpegxl_decode(data))
    if found.dtype.kind == "f":
        return checked_float(found), profile, []
    maximum = np.float32(65535 / (2 ** min(header.bits, 16) - 1))
    return (found.astype(np.float32) * maximum).round().astype(np.uint16), profile, []


def _lossy(found: np.ndarray, header: Header, profile: bytes | None) -> tuple[np.ndarray, bytes, list[str]]:
    """Return pixels that were decoded from XYB in floating point; a profile of None means linear light of sRGB."""
    found, notes = _planes(found), list[str]()
    if header.floating and (found > _BRIGHT).mean() > 0.01:
        raise InputError(f"floating-point pixels up to {found.max():g}; convert the file to 8 or 16 bit")
    if profile is None:
        colours = found.shape[-1] - (found.shape[-1] in (2, 4))
        values, profile, name = colorimetry.encode_linear(found[..., :colours])
        found = np.concatenate([values, found[..., colours:]], -1)
        notes.append(f"its colours are converted to {name}: lossy JPEG XL decodes to linear light")
    maximum, dtype = (255, np.uint8) if header.bits == 8 else (65535, np.uint16)
    return (found.clip(0, 1) * np.float32(maximum)).round().astype(dtype), profile, notes


def _planes(found: np.ndarray) -> np.ndarray:
    return found if found.ndim == 3 else found[..., None]


def _codestream(file: IO[bytes], length: int | None = None) -> bytes:
    """Return the codestream or its beginning, which a container may hold in several boxes of any length."""
    file.seek(0)
    if file.read(2) == SIGNATURE:
        file.seek(0)
        return file.read(-1 if length is None else length)
    found = b""
    for kind, start, stop in outer_boxes(file):
        start += 4 if kind == b"jxlp" else 0  # the number of the part
        if start > stop:
            break
        if kind in (b"jxlc", b"jxlp"):
            file.seek(start)
            found += file.read(stop - start if length is None else min(length - len(found), stop - start))
        if length is not None and len(found) >= length:
            break
    return found


class _Bits:
    """Bits of bytes, lowest first."""

    def __init__(self, data: bytes) -> None:
        self.value, self.length, self.place = int.from_bytes(data, "little"), 8 * len(data), 0

    def take(self, count: int) -> int:
        if self.place + count > self.length:
            raise IndexError("the header is incomplete")
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
    """Read SizeHeader and the beginning of ImageMetadata; raise an IndexError for kinds that are not read here."""
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

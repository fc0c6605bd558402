"""PNG files: write row by row, read 16 bits per channel, and read text and colour chunks.

Pillow writes RGB with 8 bits only, and holds the whole image in memory.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import count
from typing import IO

import numpy as np

from fluxsr.imaging.raster import ImageSpec

Chunk = tuple[bytes, bytes]
"""(kind, data) of a chunk."""

LEVEL = 4  # level 6 of zlib takes about twice the time and saves about 2 % of the size
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG's colour type
_ROWS = 64  # rows that are filtered at a time
_COLOUR_CHUNKS = (b"cICP", b"sRGB", b"gAMA", b"cHRM")
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
# Chunks about pixels and colours, which are read or rewritten, or are meaningless for an output.
_HANDLED = (
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI",
    b"mDCv", b"cLLi", b"pHYs", b"sBIT", b"bKGD", b"hIST", b"tIME", b"acTL", b"fcTL", b"fdAT", b"CgBI", b"iDOT", b"sPLT",
    b"orNT", b"vpAg",
)  # fmt: skip
_NAMES = {b"caBX": "content credentials (C2PA)"}
_MOST_BYTES = 64 << 20
_MOST_SECONDS = 65_535  # that a frame of an APNG may last
_RAW = "Raw profile type "


def chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield kind and length of each chunk, with the file positioned at its data."""
    place, end = 8, file.seek(0, 2)
    while place + 12 <= end:
        file.seek(place)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if place + 12 + length > end:
            return
        yield kind, length
        if kind == b"IEND":
            return
        place += 12 + length


def color_chunks(file: IO[bytes]) -> tuple[Chunk, ...]:
    """Return the chunks that describe colours, except iCCP."""
    found = list[Chunk]()
    for kind, length in chunks(file):
        if kind == b"IDAT":
            break
        if kind in _COLOUR_CHUNKS and length <= 32:
            found.append((kind, file.read(length)))
    return tuple(found)


def text_chunks(file: IO[bytes]) -> tuple[list[Chunk], list[str]]:
    """Return the text chunks of a file, and the names of other data that is not kept."""
    texts, others, unknown, left = list[Chunk](), list[str](), list[str](), _MOST_BYTES
    for kind, length in chunks(file):
        if kind in _TEXT_CHUNKS:
            left -= length
            if left >= 0:
                texts.append((kind, file.read(length)))
            else:
                others.append("further text")
        elif kind in _NAMES:
            others.append(_NAMES[kind])
        elif kind not in _HANDLED and kind.isalpha():
            unknown.append(kind.decode())
    others += [f"PNG chunk {', '.join(dict.fromkeys(unknown))}"] if unknown else []
    return texts, list(dict.fromkeys(others))


def keyword(chunk: Chunk) -> str:
    """Return the keyword of a text chunk, such as "parameters" or "Comment"."""
    name = chunk[1].partition(b"\0")[0].decode("latin-1")
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def text(chunk: Chunk) -> str:
    """Return the text of a chunk, decompressed; empty if it is damaged."""
    kind, data = chunk
    rest = data.partition(b"\0")[2]
    with contextlib.suppress(zlib.error, IndexError):
        if kind == b"zTXt":
            return _unpacked(rest[1:]).decode("latin-1")
        if kind == b"iTXt":
            packed, rest = rest[0] == 1, rest[2:].split(b"\0", 2)[-1]
            return (_unpacked(rest) if packed else rest).decode(errors="replace")
        return rest.decode("latin-1")
    return ""


def raw_profile(texts: list[Chunk], *names: str) -> bytes:
    """Decode a metadata block that ImageMagick and others write as hexadecimal text; empty without one."""
    for chunk in texts:
        if is_raw_profile(chunk, *names):
            lines = text(chunk).strip().split("\n")
            with contextlib.suppress(ValueError):
                return bytes.fromhex("".join(lines[2:]))
    return b""


def is_raw_profile(chunk: Chunk, *names: str) -> bool:
    """Return whether a text chunk holds one of these metadata blocks as hexadecimal text."""
    return keyword(chunk) in [_RAW + name for name in names]


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


def write(file: IO[bytes], frames: Iterable[tuple[ImageSpec, Iterable[np.ndarray]]]) -> None:
    """Write a PNG, or an APNG of frames that replace each other. The file need not be seekable.

    PNG stores no IPTC and no Photoshop resources. Each frame has bands of rows from top to bottom, each (rows,W,C). All
    frames have the size and channels of the first.
    """
    file.write(b"\x89PNG\r\n\x1a\n")
    number = count()  # of the chunks of an animation
    for place, (spec, bands) in enumerate(frames):
        depth = 16 if spec.sixteen else 8
        if place == 0:
            header = struct.pack(">IIBBBBB", spec.width, spec.height, depth, _COLOURS[spec.channels], 0, 0, 0)
            for kind, data in [(b"IHDR", header), *_ancillary(spec)]:
                _write_chunk(file, kind, data)
        if spec.frame.count > 1:
            milliseconds = min(spec.frame.milliseconds, _MOST_SECONDS * 1000)
            finest = min(1000, int(_MOST_SECONDS * 1000 / max(milliseconds, 1)))  # the numerator has 16 bits too
            time = Fraction(milliseconds / 1000).limit_denominator(finest)
            control = (next(number), spec.width, spec.height, 0, 0, time.numerator, time.denominator, 0, 0)
            _write_chunk(file, b"fcTL", struct.pack(">IIIIIHHBB", *control))
        for packed in _compressed(bands, spec.channels * depth // 8):
            if place == 0:
                _write_chunk(file, b"IDAT", packed)
            elif packed:
                _write_chunk(file, b"fdAT", struct.pack(">I", next(number)) + packed)
    file.write(b"\0\0\0\0IEND\xaeB`\x82")


def _compressed(bands: Iterable[np.ndarray], pixel: int) -> Iterator[bytes]:
    packer, above = zlib.compressobj(LEVEL, zlib.DEFLATED, 15, 9), None
    for band in bands:
        for first in range(0, len(band), _ROWS):
            rows = _bytes(band[first : first + _ROWS])  # (R, bytes of a row)
            above = np.zeros_like(rows[:1]) if above is None else above
            yield packer.compress(_filtered(rows, above, pixel))
            above = rows[-1:]
    yield packer.flush()


def _ancillary(spec: ImageSpec) -> Iterator[Chunk]:
    profile, metadata = spec.profile, spec.metadata
    if spec.frame.count > 1:
        yield b"acTL", struct.pack(">II", spec.frame.count, spec.frame.plays)
    yield from (chunk for chunk in spec.colors if chunk[0] != b"sRGB" or not profile)  # PNG allows only one of the two
    if profile:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)
    if metadata.dpi:
        yield b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in metadata.dpi), 1)
    if metadata.exif:
        yield b"eXIf", metadata.exif
    if metadata.xmp:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp
    yield from metadata.texts
    for comment in metadata.comments:  # their encoding is unknown: UTF-8 if it is valid, else Latin-1
        comment = comment.replace(b"\0", b" ")
        utf8 = not comment.isascii() and comment.decode(errors="ignore").encode() == comment
        yield (b"iTXt", b"Comment\0\0\0\0\0" + comment) if utf8 else (b"tEXt", b"Comment\0" + comment)


def _write_chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    if data or kind != b"IDAT":
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def _unpacked(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MOST_BYTES)


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

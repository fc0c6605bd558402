"""Text chunks of PNG files: kept unchanged in a PNG, decoded for other formats."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import IO

Chunk = tuple[bytes, bytes]
"""(kind, data) of a chunk: tEXt, zTXt or iTXt."""

_KINDS = (b"tEXt", b"zTXt", b"iTXt")
# Chunks about pixels and colours, which are read or rewritten, or are meaningless for an output.
_HANDLED = (
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI",
    b"mDCv", b"cLLi", b"pHYs", b"sBIT", b"bKGD", b"hIST", b"tIME", b"acTL", b"fcTL", b"fdAT", b"CgBI", b"iDOT", b"sPLT",
    b"orNT", b"vpAg",
)  # fmt: skip
_NAMES = {b"caBX": "content credentials (C2PA)"}
_MOST_BYTES = 64 << 20
_RAW = "Raw profile type "


def read(file: IO[bytes]) -> tuple[list[Chunk], list[str]]:
    """Return the text chunks of a PNG file, and the names of other data that is not kept."""
    texts, others, unknown, left = list[Chunk](), list[str](), list[str](), _MOST_BYTES
    for kind, length in chunks(file):
        if kind in _KINDS:
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


def comment(name: str, data: bytes) -> Chunk:
    """Return a text chunk for a comment of unknown encoding: UTF-8 if it is valid, else Latin-1."""
    with contextlib.suppress(UnicodeDecodeError):
        if not data.isascii():
            data.decode()
            return b"iTXt", name.encode() + b"\0\0\0\0\0" + data.replace(b"\0", b" ")
    return b"tEXt", name.encode() + b"\0" + data.replace(b"\0", b" ")


def raw_profile(chunks: list[Chunk], *names: str) -> bytes:
    """Decode a metadata block that ImageMagick and others write as hexadecimal text; empty without one."""
    for chunk in chunks:
        if keyword(chunk) in [_RAW + name for name in names]:
            lines = text(chunk).strip().split("\n")
            with contextlib.suppress(ValueError):
                return bytes.fromhex("".join(lines[2:]))
    return b""


def is_raw_profile(chunk: Chunk, *names: str) -> bool:
    """Whether a text chunk holds one of these metadata blocks as hexadecimal text."""
    return keyword(chunk) in [_RAW + name for name in names]


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


def _unpacked(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MOST_BYTES)

"""EXIF made and read byte by byte, because Pillow's own would not be that of cameras, and files in and out."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxsr.imaging import io
from fluxsr.imaging.resize import bicubic
from fluxsr.options import UpscaleOptions

WIDTH, HEIGHT, SCALE = 20, 30, 3
TEXT, SHORT, LONG, RATIONAL, UNDEFINED, DOUBLE = 2, 3, 4, 5, 7, 12
SIZES = {1: 1, TEXT: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, DOUBLE: 8}
EXIF, GPS, INTEROP, NOTE = 0x8769, 0x8825, 0xA005, 0x927C
JOSE = "José".encode() + b"\0"
NAME = b"IMG:EOS 10D JPEG\0"
THUMBNAIL = b"\xff\xd8 the small picture \xff\xd9"


def directory(order: str, at: int, entries: dict[int, tuple[int, bytes]], after: int = 0) -> bytes:
    """A directory at an offset, with its long values behind it."""
    behind = at + 2 + 12 * len(entries) + 4
    rows, tail = [struct.pack(order + "H", len(entries))], b""
    for tag, (kind, data) in sorted(entries.items()):
        stands = data.ljust(4, b"\0")
        if len(data) > 4:
            stands = struct.pack(order + "I", behind + len(tail))
            tail += data + b"\0" * (len(data) % 2)
        rows.append(struct.pack(order + "HHI", tag, kind, len(data) // SIZES[kind]) + stands)
    return b"".join(rows) + struct.pack(order + "I", after) + tail


def camera(order: str = "<", orientation: int = 1, width: int = 20, height: int = 30, note_at: int = 600) -> bytes:
    """As a Canon writes it: the maker note's offsets count from the beginning of the whole."""

    def short(*numbers: int) -> tuple[int, bytes]:
        return SHORT, struct.pack(f"{order}{len(numbers)}H", *numbers)

    def pointer(place: int) -> tuple[int, bytes]:
        return LONG, struct.pack(order + "I", place)

    name = struct.pack(order + "HHHII", 1, 6, TEXT, len(NAME), note_at + 18) + bytes(4)
    parts = {
        8: directory(order, 8, {
            0x010F: (TEXT, b"Canon\0"), 0x013B: (TEXT, JOSE), 0x8298: (TEXT, b"\xa9 Jos\xe9\0"),
            0x0112: short(orientation), EXIF: pointer(300), GPS: pointer(800), 0xBEEF: (UNDEFINED, bytes(range(40))),
        }, 1000),
        300: directory(order, 300, {
            0xA001: short(0xFFFF), 0xA002: short(width), 0xA003: short(height), INTEROP: pointer(500),
            0x9214: short(5, 10, 4, 6), 0x829A: (RATIONAL, struct.pack(order + "II", 1, 250)),
            0xA20E: (RATIONAL, struct.pack(order + "II", 1000, 1)),
            0xA20F: (RATIONAL, struct.pack(order + "II", 1000, 1)),
            NOTE: (UNDEFINED, bytes(len(name + NAME))),
        }),
        500: directory(order, 500, {1: (TEXT, b"R03\0"), 2: (UNDEFINED, b"0100")}),
        note_at: name + NAME,
        800: directory(order, 800, {1: (TEXT, b"N\0"), 2: (RATIONAL, struct.pack(order + "6I", 47, 1, 3, 1, 30, 1))}),
        1000: directory(order, 1000, {0x0201: pointer(1200), 0x0202: pointer(len(THUMBNAIL))}),
        1200: THUMBNAIL,
    }  # fmt: skip
    data = bytearray((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)).ljust(1300, b"\0")
    for place, part in parts.items():
        data[place : place + len(part)] = part
    entry = data.index(struct.pack(order + "HHI", NOTE, UNDEFINED, len(name + NAME)), 300)
    data[entry + 8 : entry + 12] = struct.pack(order + "I", note_at)
    return bytes(data[: 1200 + len(THUMBNAIL)])


class Block:
    """A structure, or a TIFF file, looked at."""

    def __init__(self, data: bytes) -> None:
        self.data = data.removeprefix(b"Exif\0\0")
        self.order = {b"II*\0": "<", b"MM\0*": ">"}[self.data[:4]]
        self.main = self.entries(self.number(4))

    def number(self, place: int) -> int:
        return int(struct.unpack_from(self.order + "I", self.data, place)[0])

    def entries(self, place: int) -> dict[int, bytes]:
        """Tag -> raw value."""
        found, (count,) = {}, struct.unpack_from(self.order + "H", self.data, place)
        for start in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(self.order + "HHI", self.data, start)
            size = SIZES.get(kind, 0) * number
            at = start + 8 if size <= 4 else self.number(start + 8)
            found[tag] = self.data[at : at + size]
        self.next = self.number(place + 2 + 12 * count)
        return found

    def inner(self, *tags: int) -> dict[int, bytes]:
        found = self.main
        for tag in tags:
            found = self.entries(struct.unpack(self.order + "I", found[tag])[0])
        return found

    def numbers(self, data: bytes, letter: str = "H") -> list[float]:
        return list(struct.unpack(f"{self.order}{len(data) // struct.calcsize(letter)}{letter}", data))

    def name_in_note(self) -> bytes:
        """What the maker note's own offset leads to."""
        note = self.inner(EXIF)[NOTE]
        return self.data[struct.unpack_from(self.order + "I", note, 10)[0] :][: len(NAME)]


def _picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _saved(folder: Path, ending: str, **options: Any) -> Path:
    path = folder / f"in{ending}"
    _picture().save(path, **options)
    return path


def _enlarged(source: Path, ending: str = "", made: Any = None, **options: Any) -> tuple[Path, str]:
    """The output, and all notes in one."""
    found, target = io.read(source), source.with_name(f"out{ending or source.suffix}")
    size = (SCALE * found.lr.shape[-2], SCALE * found.lr.shape[-1])
    notes = io.write_enlarged(found, [bicubic(found.lr, size)], size, target, UpscaleOptions(**options), made)
    return target, "; ".join([*found.notes, *notes])


def _block(path: Path) -> Block:
    if path.suffix == ".tif":
        return Block(path.read_bytes())
    with Image.open(path) as image:
        image.load()
        return Block(image.info["exif"])


@pytest.fixture(scope="session")
def files() -> SimpleNamespace:
    """Camera's EXIF, files of it, and what becomes of them: names as above, without underscores."""
    return SimpleNamespace(
        camera=camera, directory=directory, Block=Block, JOSE=JOSE, NAME=NAME, THUMBNAIL=THUMBNAIL, WIDTH=WIDTH,
        HEIGHT=HEIGHT, SCALE=SCALE, picture=_picture, saved=_saved, enlarged=_enlarged, block=_block,
    )  # fmt: skip

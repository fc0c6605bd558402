"""Read TIFF structures, such as EXIF, as directories of raw values.

Values are not interpreted. Whatever is not changed is written back byte for byte at its old offset. Maker notes need
this, because many of them hold offsets from the beginning of the whole structure.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, TypeAlias

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
"""TIFF type -> bytes per element."""

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files, in both byte orders."""

EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005
Tree: TypeAlias = "dict[int, Tree]"
_INNER: Tree = {EXIF: {INTEROP: {}}, GPS: {}}
_NUMBERS = {1: "B", 3: "H", 4: "I", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_NARROW = {16: 4, 17: 9, 18: 13}  # 64-bit types of BigTIFF -> 32-bit types
_MOST_BYTES = 256 << 20  # of all values together
_MOST_ENTRIES = 10_000  # per directory


@dataclass
class Value:
    """An entry of a directory.

    Attributes:
        kind: the TIFF type, a key of SIZES.
        data: the raw value, in the byte order of the structure.
        place: offset of a value stored outside its directory; None for one stored inside, or a new one.
        inner: the directory that a pointer refers to; ``data`` is then unused.
    """

    kind: int
    data: bytes
    place: int | None = None
    inner: Directory | None = None


@dataclass
class Directory:
    """An image file directory: tags and values; its old offset and size in bytes, None and 0 for a new directory."""

    values: dict[int, Value] = field(default_factory=dict)
    place: int | None = None
    room: int = 0


@dataclass
class Structure:
    """A TIFF structure.

    Attributes:
        order: byte order, "<" or ">" as in struct.
        main: the first directory. Directories chained after it hold thumbnails or pages and are dropped.
        rest: bytes that belong to no directory, at their offsets, with zeros between them.
        skipped: tags of the first directory that exist but were not read.
    """

    order: str = "<"
    main: Directory = field(default_factory=Directory)
    rest: bytes = b""
    skipped: frozenset[int] = frozenset()

    def numbers(self, value: Value) -> list[int]:
        """Return the numbers of a value of an integer type; an empty list for other types."""
        letter = _NUMBERS.get(value.kind)
        count = len(value.data) // SIZES[value.kind]
        return list(struct.unpack(f"{self.order}{count}{letter}", value.data)) if letter else []

    def integers(self, kind: int, *numbers: int) -> Value:
        """Return a new value of an integer type."""
        return Value(kind, struct.pack(f"{self.order}{len(numbers)}{_NUMBERS[kind]}", *numbers))

    def rational(self, number: float) -> Value:
        """Return a new value of type RATIONAL."""
        under = 1
        while under < 10**6 and number * under % 1 and number * under < 10**8:
            under *= 10
        return Value(5, struct.pack(f"{self.order}II", min(round(number * under), 2**32 - 1), under))

    def inner(self, *tags: int) -> Directory:
        """Return the directory that a chain of pointers leads to; a new empty one if there is none."""
        directory = self.main
        for tag in tags:
            value = directory.values.get(tag)
            directory = value.inner if value and value.inner else Directory()
        return directory


def read(data: bytes) -> Structure:
    """Read a structure in memory with the bytes that belong to no directory; raise a ValueError if there is none."""
    reader = _Reader(BytesIO(data))
    found = reader.structure(())
    rest = bytearray(data)
    for start, stop in [(0, 8), *reader.known, *reader.chained()]:
        stop = min(stop, len(rest))
        rest[start:stop] = bytes(max(stop - start, 0))
    found.rest = b"" if reader.big else bytes(rest).rstrip(b"\0")
    return found


def read_file(file: IO[bytes], skipped: Collection[int] = (), place: int = 0) -> Structure:
    """Read a directory of a TIFF or BigTIFF file, without the pixels and the tags that are ``skipped``.

    ``place`` is its offset; 0 stands for the first directory. A file that is no TIFF raises a ValueError.
    """
    return _Reader(file).structure(skipped, place)


class _Reader:
    """Reads directories and records which bytes belong to them."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.known, self.skipped = file, list[tuple[int, int]](), set[int]()
        self.length = file.seek(0, 2)
        self.left = min(4 * self.length, _MOST_BYTES)
        head = self._at(0, 16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        magic = struct.unpack(f"{self.order}H", head[2:4])[0] if self.order and len(head) >= 8 else 0
        self.big = magic == 43 and len(head) == 16
        if magic != 42 and not self.big:
            raise ValueError("not a TIFF structure")
        self.pointer, self.wide = (f"{self.order}Q", 8) if self.big else (f"{self.order}I", 4)
        self.first = struct.unpack(self.pointer, head[8:16] if self.big else head[4:8])[0]
        self.next = 0  # offset of the directory after the one read last

    def structure(self, skipped: Collection[int], place: int = 0) -> Structure:
        main = self._directory(place or self.first, _INNER, skipped)
        return Structure(self.order, main or Directory(), skipped=frozenset(self.skipped))

    def chained(self) -> Iterator[tuple[int, int]]:
        """Yield the byte ranges of the chained directories: the directories, their values and their images."""
        for _ in range(8):
            mark = len(self.known)
            directory = self._directory(self.next, {}) if self.next else None
            if directory is None:
                return
            yield from self.known[mark:]
            for offsets, lengths in ((0x0201, 0x0202), (0x0111, 0x0117)):
                pair = [directory.values.get(tag) for tag in (offsets, lengths)]
                starts, sizes = (Structure(self.order).numbers(value) if value else [] for value in pair)
                yield from ((start, start + size) for start, size in zip(starts, sizes, strict=False))

    def _at(self, place: int, count: int) -> bytes:
        self.file.seek(place)
        return self.file.read(count)

    def _directory(self, place: int, inner: Tree, skipped: Collection[int] = ()) -> Directory | None:
        """Read the directory at an offset; None if there is none."""
        head = self._at(place, 8 if self.big else 2) if 0 < place < self.length else b""
        count = int.from_bytes(head, "little" if self.order == "<" else "big")
        if len(head) < (8 if self.big else 2) or count > _MOST_ENTRIES:
            return None
        size = 4 + 2 * self.wide
        table = self._at(place + len(head), count * size + self.wide)
        directory = Directory({}, place, len(head) + count * size + self.wide)
        self.known.append((place, place + directory.room))
        after = table[count * size :]
        chain = struct.unpack(self.pointer, after)[0] if len(after) == self.wide else 0
        for start in range(0, min(len(table) - size + 1, count * size), size):
            tag, kind = struct.unpack(f"{self.order}HH", table[start : start + 4])
            if tag in skipped:
                self.skipped.add(tag)
            elif tag not in directory.values:
                value = self._value(kind, table[start + 4 : start + size])
                value = self._followed(value, inner[tag]) if value and tag in inner else value
                directory.values |= {tag: value} if value else {}
        self.next = chain
        return directory

    def _value(self, kind: int, field: bytes) -> Value | None:
        """Read a value; None for an unknown type, or a value outside the file."""
        number, place = struct.unpack(self.pointer, field[: self.wide])[0], None
        size = SIZES.get(kind, 0) * number
        data = field[self.wide : self.wide + size]
        if size > self.wide:
            place = struct.unpack(self.pointer, field[self.wide :])[0]
            if place + size > self.length or size > self.left:
                return None
            self.left -= size
            data = self._at(place, size)
            self.known.append((place, place + size))
        if kind not in _NARROW:
            return Value(kind, data, place) if kind in SIZES else None
        numbers = struct.unpack(f"{self.order}{number}{_NUMBERS[kind]}", data)
        try:
            return Structure(self.order).integers(_NARROW[kind], *numbers)
        except struct.error:  # a number that does not fit in 32 bits
            return None

    def _followed(self, value: Value, inner: Tree) -> Value | None:
        numbers = Structure(self.order).numbers(value)
        if len(numbers) != 1 or numbers[0] in {place for place, _ in self.known}:  # a known offset would be a loop
            return None
        directory = self._directory(numbers[0], inner)
        return None if directory is None else Value(4, b"", None, directory)

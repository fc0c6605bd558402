"""Write TIFF structures."""

from __future__ import annotations

import struct

from fluxsr.imaging.metadata.ifd import SIZES, Directory, Structure


def pack(structure: Structure) -> bytes:
    """Return the bytes of a structure; unchanged values keep their offsets."""
    packer = Packer(structure)
    packer.head(packer.add(structure.main))
    return bytes(packer.out)


class Packer:
    """Writes a structure: first the values that have an offset, then directories and new values after them.

    Attributes:
        out: the bytes so far, with those values of the main directory that have an offset, and its inner directories.
        base: offset of these bytes in the file. Behind another structure, no value keeps its own offset.
    """

    def __init__(self, structure: Structure, big: bool = False, base: int = 0) -> None:
        self.order, self.big, self.base = structure.order, big, base
        self.pointer, self.wide, self.start = (f"{self.order}Q", 8, 16) if big else (f"{self.order}I", 4, 8)
        self.out = bytearray(structure.rest)
        self._put(0, bytes(self.start))
        self._keep(structure.main)
        self._resolve(structure.main)

    def head(self, first: int) -> None:
        """Write the header with the offset of the first directory."""
        mark = b"II" if self.order == "<" else b"MM"
        head = ("HHHQ", 43, 8, 0, first) if self.big else ("HI", 42, first)
        self.out[: self.start] = mark + struct.pack(self.order + str(head[0]), *head[1:])

    def add(self, directory: Directory) -> int:
        """Write a directory at its old offset or at the end, and return its offset."""
        self._resolve(directory)
        self.out += bytes(len(self.out) % 2)
        place = len(self.out)
        if self._stays(directory):
            place = directory.place or 0
        else:
            self.out += bytes(self.size(directory))
        table, tail = self.table(directory, self.base + len(self.out))
        self._put(place, table)
        self.out += tail
        return self.base + place

    def table(self, directory: Directory, behind: int) -> tuple[bytes, bytes]:
        """Return the bytes of a directory, and of its values without an offset, which follow at ``behind`` (even)."""
        rows, tail = [struct.pack(f"{self.order}{'Q' if self.big else 'H'}", len(directory.values))], bytearray()
        for tag, value in sorted(directory.values.items()):
            if len(value.data) <= self.wide:
                stands = value.data.ljust(self.wide, b"\0")
            elif value.place is not None and value.place >= self.start:
                stands = struct.pack(self.pointer, value.place)
            else:
                stands = struct.pack(self.pointer, behind + len(tail))
                tail += value.data + bytes(len(value.data) % 2)
            count = struct.pack(self.pointer, len(value.data) // SIZES[value.kind])
            rows.append(struct.pack(f"{self.order}HH", tag, value.kind) + count + stands)
        return b"".join(rows) + bytes(self.wide), bytes(tail)

    def size(self, directory: Directory) -> int:
        """Return the size of a directory in bytes, without the values stored outside it."""
        return (8 if self.big else 2) + len(directory.values) * (4 + 2 * self.wide) + self.wide

    def _stays(self, directory: Directory) -> bool:
        place = directory.place or 0
        return not self.big and place >= self.start and self.size(directory) <= directory.room

    def _resolve(self, directory: Directory) -> None:
        """Write the directories that pointers refer to, and set the pointers."""
        for value in directory.values.values():
            if value.inner is not None:
                value.data, value.inner = struct.pack(self.pointer, self.add(value.inner)), None
                value.kind = 16 if self.big else 4

    def _keep(self, directory: Directory) -> None:
        if self._stays(directory):
            self._put(directory.place or 0, bytes(self.size(directory)))
        for value in directory.values.values():
            if value.inner is not None:
                self._keep(value.inner)
            elif value.place is not None and value.place >= self.start:
                self._put(value.place, value.data)

    def _put(self, place: int, data: bytes) -> None:
        self.out += bytes(max(place + len(data) - len(self.out), 0))
        self.out[place : place + len(data)] = data

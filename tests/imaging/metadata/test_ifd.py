"""TIFF structures: what nobody changes is written back to the byte, and damaged ones harm nothing."""

from __future__ import annotations

import struct
import time
from io import BytesIO
from typing import Any

import pytest

from fluxsr.imaging.metadata import ifd, ifd_pack


@pytest.mark.parametrize("order", ["<", ">"])
def test_unchanged_but_for_the_thumbnail(files: Any, order: str) -> None:
    data = files.camera(order)
    packed = ifd_pack.pack(ifd.read(data))
    chain = data.index(struct.pack(order + "I", 1000))  # to the thumbnail
    expected = bytearray(data)
    expected[chain : chain + 4] = bytes(4)
    assert packed == expected[: len(packed)] and files.THUMBNAIL not in packed
    assert not packed[1000:].strip(b"\0")


def test_a_longer_value_goes_to_the_end_and_a_new_directory_too(files: Any) -> None:
    found = ifd.read(files.camera())
    found.main.values[0x013B] = ifd.Value(2, b"a longer name than before\0")
    found.inner(ifd.EXIF).values[0xA434] = ifd.Value(2, b"lens\0")
    again = files.Block(ifd_pack.pack(found))
    assert again.main[0x013B] == b"a longer name than before\0" and again.inner(ifd.EXIF)[0xA434] == b"lens\0"
    assert again.inner(ifd.EXIF, ifd.INTEROP)[1] == b"R03\0" and again.name_in_note() == files.NAME


@pytest.mark.parametrize("big", [False, True])
def test_a_new_structure_is_read_again(big: bool) -> None:
    made = ifd.Structure(">")
    inner = ifd.Directory({0x9286: ifd.Value(7, b"UNICODE\0ab"), ifd.INTEROP: ifd.Value(4, b"")})
    inner.values[ifd.INTEROP].inner = ifd.Directory({1: ifd.Value(2, b"R98\0")})
    made.main.values = {0x0112: made.integers(3, 6), ifd.EXIF: ifd.Value(4, b"", None, inner)}
    packer = ifd_pack.Packer(made, big)
    packer.head(packer.add(made.main))
    found = ifd.read_file(BytesIO(packer.out))
    assert found.numbers(found.main.values[0x0112]) == [6]
    assert found.inner(ifd.EXIF).values[0x9286].data == b"UNICODE\0ab"
    assert found.inner(ifd.EXIF, ifd.INTEROP).values[1].data == b"R98\0"


def test_loops_and_lies_take_no_time_and_no_memory() -> None:
    loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, ifd.EXIF, 4, 1, 8) + struct.pack("<I", 8)
    assert ifd.EXIF not in ifd.read(loop).main.values
    rows = b"".join(struct.pack("<HHII", tag, 7, 1_000_000, 8) for tag in range(9000))
    started = time.perf_counter()
    found = ifd.read(b"II*\0\x08\0\0\0" + struct.pack("<H", 9000) + rows + bytes(1_000_100))
    assert len(found.main.values) < 10 and time.perf_counter() - started < 5


@pytest.mark.parametrize("data", [b"", b"II*\0", b"MM\0+\0\x08\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"GIF89a, really"])
def test_something_else(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a TIFF structure"):
        ifd.read(data)

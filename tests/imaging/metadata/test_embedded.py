"""Comments, Photoshop's resources, and whatever else stands in a JPEG: kept, or named in a note."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

COMMENT = "Grüße".encode("latin-1")
IPTC = b"\x1c\x02\x50\x00\x05Adams"


@pytest.fixture
def jpeg(files: Any, tmp_path: Path) -> Any:
    """jpeg((marker, data), ..., tail=b""): a file with segments, and with bytes behind its picture."""

    def made(*segments: tuple[int, bytes], tail: bytes = b"") -> Path:
        extra = b"".join(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments)
        path: Path = files.saved(tmp_path, ".jpg", extra=extra)
        path.write_bytes(path.read_bytes() + tail)
        return path

    return made


def resource(number: int, data: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + b"\0" * (len(data) % 2)


def test_comments_of_a_jpeg_stay(files: Any, jpeg: Any) -> None:
    source = jpeg((0xFE, COMMENT), (0xFE, b"second"))
    target, notes = files.enlarged(source)
    with Image.open(target) as image:
        found = [data for name, data in image.applist if name == "COM"]  # type: ignore[attr-defined]
    assert found == [COMMENT, b"second"] and not notes
    png = files.enlarged(source, ".png")[0].read_bytes()
    assert b"Comment\0" + COMMENT in png and b"Comment\0second" in png
    assert "comment" in files.enlarged(source, ".tif")[1]
    assert b"second" not in files.enlarged(source, strip_metadata=True)[0].read_bytes()


def test_the_comment_of_a_gif_becomes_text(files: Any, tmp_path: Path) -> None:
    target, _ = files.enlarged(files.saved(tmp_path, ".gif", comment=b"from 1995"), ".png")
    assert b"tEXtComment\0from 1995" in target.read_bytes()


@pytest.mark.parametrize("ending", [".jpg", ".tif"])
def test_resources_of_photoshop_stay_but_for_the_thumbnail(files: Any, jpeg: Any, tmp_path: Path, ending: str) -> None:
    address = resource(0x040B, b"https://example.org")
    resources = resource(0x0404, IPTC) + address + resource(0x040C, b"old thumbnail")
    source = jpeg((0xED, b"Photoshop 3.0\0" + resources))
    target, notes = files.enlarged(source, ending)
    data = target.read_bytes()
    assert address in data and IPTC in data and b"old thumbnail" not in data and not notes
    notes = files.enlarged(source, ".png")[1]
    assert "Photoshop" in notes and "IPTC" in notes
    again = target.rename(tmp_path / f"again{ending}")
    assert address in files.enlarged(again, ".jpg")[0].read_bytes(), "read from there as well"


@pytest.mark.parametrize(
    ("tail", "note"),
    [
        (b"\0\0\0\x18ftypmp42" + bytes(40), "embedded video"),
        (b"\xff\xd8\xff\xe1\0\x20http://ns.adobe.com/hdr-gain-map/1.0/ hdrgm:Version\xff\xd9", "gain map"),
        (b"something else that a program put there", "data behind the image"),
        (b"\0" * 100, ""),
    ],
)
def test_what_follows_the_picture_is_noted(files: Any, jpeg: Any, tail: bytes, note: str) -> None:
    notes = files.enlarged(jpeg(tail=tail))[1]
    assert note in notes if note else not notes


@pytest.mark.parametrize(
    ("marker", "data", "note"),
    [
        (0xEB, b"JP\0\1 jumb c2pa", "content credentials (C2PA)"),
        (0xE1, b"FLIR\0 thermal", "APP1 data (FLIR)"),
        (0xE2, b"urn:iso:std:iso:ts:21496:-1\0", "gain map"),
    ],
)
def test_segments_that_are_not_kept_are_noted(files: Any, jpeg: Any, marker: int, data: bytes, note: str) -> None:
    assert note in files.enlarged(jpeg((marker, data)))[1]


def test_an_ordinary_photograph_gives_no_notes(files: Any, tmp_path: Path) -> None:
    source = files.saved(tmp_path, ".jpg", exif=b"Exif\0\0" + files.camera(), dpi=(300, 300), progressive=True)
    assert files.enlarged(source)[1] == ""

"""Texts of PNG files are kept where there is a place for them, and told where there is none."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

TEXTS = (
    ("parameters", "a church, 35mm\nSteps: 20, Sampler: Euler, Seed: 1, Size: 20x30"),
    ("workflow", '{"nodes": [{"id": 1, "title": "Größe"}]}'),
    ("Title", "Église 教会"),
)


@pytest.fixture
def png(files: Any, tmp_path: Path) -> Any:
    """png((name, text), ..., zipped=False): a file with texts."""

    def made(*texts: tuple[str, str], zipped: bool = False) -> Path:
        info = PngImagePlugin.PngInfo()
        for name, text in texts:
            info.add_text(name, text, zip=zipped)
        path: Path = files.saved(tmp_path, ".png", pnginfo=info)
        return path

    return made


def texts_of(path: Path) -> dict[str, str]:
    with Image.open(path) as image:
        image.load()
        return {name: str(text) for name, text in image.text.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("zipped", [False, True])
def test_png_keeps_them(files: Any, png: Any, zipped: bool) -> None:
    target, notes = files.enlarged(png(*TEXTS, zipped=zipped))
    assert texts_of(target) == dict(TEXTS) and not notes


def test_they_go_on_demand(files: Any, png: Any) -> None:
    target, notes = files.enlarged(png(*TEXTS), strip_metadata=True)
    assert texts_of(target) == {} and not notes


def test_other_formats_get_what_they_have_a_place_for_and_the_rest_is_told(files: Any, png: Any) -> None:
    source = png(*TEXTS, ("Comment", "naïve"))
    target, notes = files.enlarged(source, ".jpg")
    assert "workflow" in notes and "Title" in notes and "parameters" not in notes
    with Image.open(target) as image:
        assert image.info["comment"] == "naïve".encode()
    assert files.block(target).inner(0x8769)[0x9286] == b"UNICODE\0" + TEXTS[0][1].encode("utf-16-le")
    assert "parameters" in files.enlarged(source, ".bmp")[1]


def test_exif_as_hexadecimal_text_becomes_exif_with_the_new_size(files: Any, png: Any) -> None:
    data = b"Exif\0\0" + files.camera()
    lines = [data.hex()[start : start + 72] for start in range(0, 2 * len(data), 72)]
    text = "\n".join(["", "exif", f"{len(data):8}", *lines])
    target, _ = files.enlarged(png(("Raw profile type exif", text), zipped=True))
    assert files.block(target).inner(0x8769)[0xA002] == struct.pack("<H", 60)
    assert texts_of(target) == {}


def test_a_chunk_that_is_not_kept_is_told(files: Any, tmp_path: Path) -> None:
    source, chunk = files.saved(tmp_path, ".png"), b"caBXsigned"
    data = source.read_bytes()
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    source.write_bytes(data[:33] + chunk + data[33:])
    assert "content credentials (C2PA)" in files.enlarged(source)[1]


def test_a_text_that_cannot_be_unpacked_harms_nothing(files: Any, tmp_path: Path) -> None:
    source, chunk = files.saved(tmp_path, ".png"), b"zTXtparameters\0\0not zlib"
    data = source.read_bytes()
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    source.write_bytes(data[:33] + chunk + data[33:])
    assert "parameters" in files.enlarged(source, ".jpg")[1]


def test_texts_that_hold_a_gps_position_go_with_it(files: Any, png: Any) -> None:
    texts = (("exif:GPSLatitude", "48/1, 8/1, 0/1"), ("GPSLongitude", "11/1"), ("Title", "GPS receivers"))
    assert texts_of(files.enlarged(png(*texts))[0]) == dict(texts)
    assert texts_of(files.enlarged(png(*texts), strip_gps=True)[0]) == {"Title": "GPS receivers"}

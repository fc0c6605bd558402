"""PNG files: what they say of a picture, and texts, which are kept where there is a place for them."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fluxsr.imaging.formats import png
from fluxsr.imaging.raster import ImageSpec, Metadata


def written(pixels: np.ndarray, rows: int, profile: bytes = b"", metadata: Metadata | None = None) -> bytes:
    stream = BytesIO()
    bands = [pixels[y : y + rows] for y in range(0, len(pixels), rows)]
    spec = ImageSpec(*pixels.shape[1::-1], pixels.shape[2], pixels.dtype == np.uint16, profile, metadata or Metadata())
    png.write(stream, [(spec, bands)])
    return stream.getvalue()


def test_smooth_pictures_shrink() -> None:
    ramp = np.add.outer(np.arange(256), np.arange(256))[..., None].repeat(3, -1) * 100
    assert len(written(ramp.astype(np.uint16), 256)) < ramp.size * 2 / 20


@pytest.mark.parametrize("dpi", [(300.0, 300.0), (72.0, 144.0)])
def test_what_it_tells_of_the_picture(dpi: tuple[float, float]) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Canon"
    tells = Metadata(exif.tobytes().removeprefix(b"Exif\0\0"), b"<x:xmpmeta/>", b"", dpi)
    with Image.open(BytesIO(written(np.zeros((2, 2, 3), np.uint8), 2, b"a profile", tells))) as image:
        image.load()
        assert image.getexif()[0x010F] == "Canon"
        assert image.info["icc_profile"] == b"a profile" and image.info["xmp"] == b"<x:xmpmeta/>"
        assert image.info["dpi"] == pytest.approx(dpi, abs=0.02)


TEXTS = (
    ("parameters", "a church, 35mm\nSteps: 20, Sampler: Euler, Seed: 1, Size: 20x30"),
    ("workflow", '{"nodes": [{"id": 1, "title": "Größe"}]}'),
    ("Title", "Église 教会"),
)


@pytest.fixture
def png_file(files: Any, tmp_path: Path) -> Any:
    """png_file((name, text), ..., zipped=False): a file with texts."""

    def made(*texts: tuple[str, str], zipped: bool = False) -> Path:
        info = PngImagePlugin.PngInfo()
        for name, text in texts:
            info.add_text(name, text, zip=zipped)
        path: Path = files.saved(tmp_path, ".png", pnginfo=info)
        return path

    return made


def with_chunk(path: Path, chunk: bytes) -> Path:
    """The same file with one more chunk (name and data) behind its header."""
    data = path.read_bytes()
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(data[:33] + chunk + data[33:])
    return path


def texts_of(path: Path) -> dict[str, str]:
    with Image.open(path) as image:
        image.load()
        return {name: str(text) for name, text in image.text.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("zipped", [False, True])
def test_png_keeps_them(files: Any, png_file: Any, zipped: bool) -> None:
    target, notes = files.enlarged(png_file(*TEXTS, zipped=zipped))
    assert texts_of(target) == dict(TEXTS) and not notes


def test_they_go_on_demand(files: Any, png_file: Any) -> None:
    target, notes = files.enlarged(png_file(*TEXTS), strip_metadata=True)
    assert texts_of(target) == {} and not notes


def test_other_formats_get_what_they_have_a_place_for_and_the_rest_is_noted(files: Any, png_file: Any) -> None:
    source = png_file(*TEXTS, ("Comment", "naïve"))
    target, notes = files.enlarged(source, ".jpg")
    assert "workflow" in notes and "Title" in notes and "parameters" not in notes
    with Image.open(target) as image:
        assert image.info["comment"] == "naïve".encode()
    assert files.block(target).inner(0x8769)[0x9286] == b"UNICODE\0" + TEXTS[0][1].encode("utf-16-le")
    assert "parameters" in files.enlarged(source, ".bmp")[1]


def test_exif_as_hexadecimal_text_becomes_exif_with_the_new_size(files: Any, png_file: Any) -> None:
    data = b"Exif\0\0" + files.camera()
    lines = [data.hex()[start : start + 72] for start in range(0, 2 * len(data), 72)]
    text = "\n".join(["", "exif", f"{len(data):8}", *lines])
    target, _ = files.enlarged(png_file(("Raw profile type exif", text), zipped=True))
    assert files.block(target).inner(0x8769)[0xA002] == struct.pack("<H", 60)
    assert texts_of(target) == {}


def test_a_chunk_that_is_not_kept_is_noted(files: Any, tmp_path: Path) -> None:
    assert "content credentials (C2PA)" in files.enlarged(with_chunk(files.saved(tmp_path, ".png"), b"caBXsigned"))[1]


def test_a_text_that_cannot_be_unpacked_harms_nothing(files: Any, tmp_path: Path) -> None:
    source = with_chunk(files.saved(tmp_path, ".png"), b"zTXtparameters\0\0not zlib")
    assert "parameters" in files.enlarged(source, ".jpg")[1]


def test_texts_that_hold_a_gps_position_go_with_it(files: Any, png_file: Any) -> None:
    texts = (("exif:GPSLatitude", "48/1, 8/1, 0/1"), ("GPSLongitude", "11/1"), ("Title", "GPS receivers"))
    assert texts_of(files.enlarged(png_file(*texts))[0]) == dict(texts)
    assert texts_of(files.enlarged(png_file(*texts), strip_gps=True)[0]) == {"Title": "GPS receivers"}

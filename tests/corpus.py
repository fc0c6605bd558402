"""Damaged image files, made anew and always the same: cut off, with flipped bits, under wrong names, lying headers.

python tests/corpus.py FOLDER
"""

from __future__ import annotations

import random
import struct
import sys
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

BIT_FLIPS, CUTS = 4, 3  # of every whole file


def whole() -> dict[str, bytes]:
    """Name -> bytes of good files, one of each kind that the reader has a road for."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 32, 4), dtype=np.uint8)
    deep = rng.integers(0, 65536, (24, 32, 3), dtype=np.uint16)
    rgb, rgba = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Canon", 6
    exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8825)[1] = 32, "N"
    told = {"exif": exif.tobytes(), "icc_profile": bytes(imagecodecs.cms_profile("adobergb"))}
    files = {
        "plain.jpg": _saved(rgb, "JPEG", dpi=(300, 300), **told),
        "progressive.jpg": _saved(rgb, "JPEG", progressive=True),
        "cmyk.jpg": _saved(rgb.convert("CMYK"), "JPEG"),
        "rgba.png": _saved(rgba, "PNG", **told),
        "palette.png": _saved(rgb.convert("P"), "PNG", transparency=0),
        "bits.png": _saved(rgb.convert("1"), "PNG"),
        "deep.png": bytes(imagecodecs.png_encode(deep)),
        "plain.tif": _saved(rgb, "TIFF", **told),
        "lzw.tif": _saved(rgba, "TIFF", compression="tiff_lzw"),
        "plain.webp": _saved(rgba, "WEBP", **told),
        "lossless.webp": _saved(rgba, "WEBP", lossless=True),
        "plain.avif": _saved(rgb, "AVIF", **told),
        "plain.bmp": _saved(rgb, "BMP"),
        "plain.gif": _saved(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90)]),
        "plain.ppm": _saved(rgb, "PPM"),
        "plain.jp2": _saved(rgb, "JPEG2000"),
        "plain.tga": _saved(rgb, "TGA"),
    }
    for name, array in (("deep.tif", deep), ("float.tif", (deep / 65535).astype(np.float32))):
        for compression in ("zlib", "lzw"):
            stream = BytesIO()
            tifffile.imwrite(stream, array, photometric="rgb", compression=compression, predictor=True)
            files[f"{compression}_{name}"] = stream.getvalue()
    return files


def damaged(seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of bad files, the same for the same seed."""
    rng, files = random.Random(seed), whole()
    for name, data in files.items():
        for number in range(CUTS):
            yield f"cut{number}_{name}", data[: rng.randrange(1, len(data))]
        for number in range(BIT_FLIPS):
            yield f"flipped{number}_{name}", flipped(data, rng)
        yield f"zeros_{name}", data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
        yield f"longer_{name}", data + rng.randbytes(1000)
        for other in rng.sample(sorted(files), 2):
            yield f"really_a_{other.replace('.', '_')}_{name}", files[other]
    yield from lying(rng)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One to ten bits turned over, half of the time near the beginning, where the headers are."""
    bad = bytearray(data)
    for _ in range(rng.randint(1, 10)):
        bad[rng.randrange(min(len(bad), 200) if rng.random() < 0.5 else len(bad))] ^= 1 << rng.randrange(8)
    return bytes(bad)


def lying(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Headers that promise what does not follow, and files that are no pictures at all."""
    for name, side in (("bomb", 50_000), ("nothing", 0), ("endless", 2**31 - 1)):
        size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        yield f"{name}.png", b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + _chunk(b"IDAT", zlib.compress(bytes(99)))
    stream = BytesIO()
    tifffile.imwrite(stream, np.zeros((8, 8, 3), np.uint16), photometric="rgb")
    with tifffile.TiffFile(BytesIO(stream.getvalue())) as tiff:
        places = [tiff.pages.first.tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
    for side in (60_000, 2**31 - 1):
        data = bytearray(stream.getvalue())
        for place in places:
            data[place : place + 4] = struct.pack("<I", side)
        yield f"bomb{side}.tif", bytes(data)
    yield "ppm_bomb.ppm", b"P6\n99999 99999\n255\n" + bytes(100)
    yield "two\nlines\x1b[31m.png", b"a name that would colour a terminal"
    yield "text.png", b"not an image"
    yield "empty.jpg", b""
    yield "script.tif", b"#!/bin/sh\necho no picture\n"
    yield "postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"
    for number in range(20):
        yield f"noise{number}.{rng.choice(['jpg', 'png', 'tif', 'webp'])}", rng.randbytes(rng.randrange(1, 4000))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, content in damaged():
        (folder / file_name).write_bytes(content)

"""Rasters into image files: PNG and TIFF row by row, the others by Pillow."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from fluxsr.imaging import png
from fluxsr.imaging.formats import Format
from fluxsr.imaging.raster import Metadata

QUALITY = 95
_ROWS = 64  # of a TIFF's strip
_EXIF, _GPS = int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo)


class FormatLimitError(Exception):
    """A picture or its metadata exceed what a format can hold."""


@dataclass(frozen=True)
class Sheet:
    """What is known of a picture before its pixels: see Raster for the words.

    Attributes:
        width, height: in pixels.
        channels: 1 to 4.
        sixteen: 16 bit per channel, or 8.
    """

    width: int
    height: int
    channels: int
    sixteen: bool = False
    profile: bytes = b""
    metadata: Metadata = field(default_factory=Metadata)


def encode(
    file: IO[bytes],
    form: Format,
    sheet: Sheet,
    bands: Iterable[np.ndarray],
    quality: int | None = None,
    lossless: bool = False,
) -> None:
    """Write a file's bytes.

    Args:
        file: open for writing and reading, empty.
        form: of the output; holds what the sheet asks for.
        sheet: of the picture.
        bands: its pixels from top to bottom, (rows,W,channels), uint8 or uint16.
        quality: 1 to 100 for JPEG, WebP and AVIF; None takes 95.
        lossless: for WebP.

    Raises:
        FormatLimitError: the format cannot hold this picture.
        OutputError: what the disk has against it, where the file is of ``atomic.replaced``.
    """
    if form.name == "PNG":
        png.write(file, sheet.width, sheet.height, bands, sheet.profile, sheet.metadata)
    elif form.name == "TIFF":
        _tiff(file, sheet, bands)
    else:
        _by_pillow(file, form, sheet, bands, quality or QUALITY, lossless)


def _by_pillow(
    file: IO[bytes], form: Format, sheet: Sheet, bands: Iterable[np.ndarray], quality: int, lossless: bool
) -> None:
    pixels = np.empty((sheet.height, sheet.width, sheet.channels), np.uint8)
    first = 0
    for band in bands:
        pixels[first : first + len(band)] = band
        first += len(band)
    image = Image.fromarray(pixels[..., 0] if sheet.channels == 1 else pixels)
    del pixels  # Pillow has its own copy of colours
    metadata, options = sheet.metadata, dict[str, Any]()
    if form.icc and sheet.profile:
        options["icc_profile"] = sheet.profile
    if form.exif and metadata.exif:
        options["exif"] = b"Exif\0\0" + metadata.exif
    if form.xmp and metadata.xmp:
        options["xmp"] = metadata.xmp
    if form.dpi and metadata.dpi:
        options["dpi"] = metadata.dpi
    if form.name in ("JPEG", "AVIF"):
        options |= {"quality": quality}
    if form.name == "JPEG":
        options |= {"subsampling": 0 if quality >= 90 else 2, "extra": _photoshop(metadata.iptc)}
    if form.name == "AVIF":
        options |= {"subsampling": "4:0:0" if sheet.channels == 1 else "4:4:4" if quality >= 90 else "4:2:0"}
    if form.name == "WEBP":
        # exact: the colours under transparent pixels are real, and the next program may want them
        options |= {"lossless": lossless, "quality": 75 if lossless else quality, "exact": True}
    try:  # into memory: given a file, Pillow writes past it, and tells no reason where the disk is full
        written = BytesIO()
        image.save(written, format=form.name, **options)
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        raise FormatLimitError(f"{form.name} cannot hold it: {error}") from error
    file.write(written.getbuffer())


def _photoshop(iptc: bytes) -> bytes:
    """A JPEG segment with IPTC records in the Photoshop resource that readers look for."""
    if not iptc:
        return b""
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    data = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(data) + 2) + data


def _tiff(file: IO[bytes], sheet: Sheet, bands: Iterable[np.ndarray]) -> None:
    from tifffile import TiffFile, TiffWriter

    dtype = np.dtype(np.uint16 if sheet.sixteen else np.uint8)
    shape = (sheet.height, sheet.width, sheet.channels)
    large = sheet.height * sheet.width * sheet.channels * dtype.itemsize > 3_900_000_000
    main = _directories(sheet.metadata.exif)
    inner = {} if large else {tag: main.pop(tag) for tag in (_EXIF, _GPS) if tag in main}
    with TiffWriter(file, bigtiff=large, byteorder="<") as writer:
        writer.write(
            _strips(bands),
            shape=shape if sheet.channels > 1 else shape[:2],
            dtype=dtype,
            photometric="minisblack" if sheet.channels < 3 else "rgb",
            planarconfig=None if sheet.channels == 1 else "contig",
            extrasamples=["unassalpha"] if sheet.channels in (2, 4) else None,
            compression="zlib",
            predictor=True,
            rowsperstrip=_ROWS,
            iccprofile=sheet.profile or None,
            resolution=sheet.metadata.dpi,
            resolutionunit="INCH" if sheet.metadata.dpi else None,
            software=False,
            metadata=None,
            maxworkers=1,
            extratags=[*_extratags(main, sheet.metadata), *((tag + 1, 4, 1, 0, True) for tag in inner)],
        )
    if inner:  # tifffile writes no directories within directories: the tags one above hold their places
        file.seek(0)
        with TiffFile(file) as tiff:
            places = {tag: tiff.pages.first.tags[tag + 1].offset for tag in inner}
        for tag, place in places.items():
            start = file.seek(0, 2)
            start += file.write(b"\0" * (start % 2))
            file.write(inner[tag].tobytes(start))
            file.seek(place)
            file.write(struct.pack("<HHII", tag, 4, 1, start))


def _strips(bands: Iterable[np.ndarray]) -> Iterator[bytes]:
    """Compressed strips of equal height, but for the last, of bands of any height."""
    import imagecodecs

    rest: np.ndarray | None = None
    for band in bands:
        rest = band if rest is None else np.concatenate([rest, band])
        while len(rest) >= _ROWS:
            yield _packed(rest[:_ROWS], imagecodecs.delta_encode)
            rest = rest[_ROWS:]
    if rest is not None and len(rest):
        yield _packed(rest, imagecodecs.delta_encode)


def _packed(rows: np.ndarray, delta: Any) -> bytes:
    little = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
    return zlib.compress(delta(little, axis=1).tobytes(), png.LEVEL)


def _directories(data: bytes) -> dict[int, Any]:
    """EXIF's tags; the inner directories as ones that can be written."""
    exif = Image.Exif()
    if data:
        exif.load(b"Exif\0\0" + data)
    found: dict[int, Any] = dict(exif)
    for tag in (_EXIF, _GPS):
        found.pop(tag, None)
        inner = exif.get_ifd(tag)
        if inner:
            directory = ImageFileDirectory_v2(ifh=b"II*\0\x08\0\0\0")
            for name, value in inner.items():
                if not isinstance(value, dict):  # Interop: how the file of a camera is named
                    directory[name] = value
            found[tag] = directory
    return found


def _extratags(main: dict[int, Any], metadata: Metadata) -> list[tuple[Any, ...]]:
    own = {0x0100, 0x0101, 0x011A, 0x011B, 0x0128}  # tifffile writes them
    tags: list[tuple[Any, ...]] = []
    for tag, value in main.items():
        if tag in own:
            continue
        if isinstance(value, str):
            tags.append((tag, "s", 0, value, True))
        elif isinstance(value, int):
            tags.append((tag, 3 if value < 65536 else 4, 1, value, True))
        elif isinstance(value, bytes) and value:
            tags.append((tag, 7, len(value), value, True))
    if metadata.xmp:
        tags.append((700, 1, len(metadata.xmp), metadata.xmp, True))
    if metadata.iptc:
        tags.append((33723, 7, len(metadata.iptc), metadata.iptc, True))
    return tags

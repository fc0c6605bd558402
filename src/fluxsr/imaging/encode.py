"""Encode image files: PNG and TIFF row by row, other formats with Pillow."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import Image

from fluxsr.imaging.formats import Format, png, tiff
from fluxsr.imaging.metadata import embedded
from fluxsr.imaging.raster import ImageSpec

QUALITY = 95


class FormatLimitError(Exception):
    """Error raised when an image or its metadata exceed the limits of a format."""


def encode(
    file: IO[bytes],
    form: Format,
    spec: ImageSpec,
    bands: Iterable[np.ndarray],
    quality: int | None = None,
    lossless: bool = False,
) -> None:
    """Encode an image into a file.

    Args:
        file: empty, open for writing and reading.
        form: format of the output; stores everything that ``spec`` names.
        bands: pixel rows from top to bottom, each (rows,W,channels), uint8 or uint16.
        quality: 1 to 100 for JPEG, WebP and AVIF; None means 95.
        lossless: for WebP.

    Raises:
        FormatLimitError: the format cannot store this image.
    """
    if form.name == "PNG":
        png.write(file, spec, bands)
    elif form.name == "TIFF":
        tiff.write(file, spec, bands)
    else:
        _by_pillow(file, form, spec, bands, quality or QUALITY, lossless)


def _by_pillow(
    file: IO[bytes], form: Format, spec: ImageSpec, bands: Iterable[np.ndarray], quality: int, lossless: bool
) -> None:
    pixels = np.empty((spec.height, spec.width, spec.channels), np.uint8)
    first = 0
    for band in bands:
        pixels[first : first + len(band)] = band
        first += len(band)
    image = Image.fromarray(pixels[..., 0] if spec.channels == 1 else pixels)
    del pixels  # Pillow keeps its own copy of colour images
    metadata = spec.metadata
    options: dict[str, Any] = {
        "icc_profile": form.icc and spec.profile,
        "exif": form.exif and metadata.exif and b"Exif\0\0" + metadata.exif,
        "xmp": form.xmp and metadata.xmp,
        "dpi": form.dpi and metadata.dpi,
    }
    options = {name: value for name, value in options.items() if value}
    if form.name in ("JPEG", "AVIF"):
        options |= {"quality": quality}
    if form.name == "JPEG":
        resources = embedded.photoshop_segments(metadata.iptc, metadata.photoshop)
        extra = b"".join(_segment(0xED, segment) for segment in resources)
        extra += b"".join(_segment(0xFE, comment) for comment in metadata.comments)
        options |= {"subsampling": 0 if quality >= 90 else 2, "extra": extra}
    if form.name == "AVIF":
        options |= {"subsampling": "4:0:0" if spec.channels == 1 else "4:4:4" if quality >= 90 else "4:2:0"}
    if form.name == "WEBP":
        # exact: keep the colours under transparent pixels, which the next program may need
        options |= {"lossless": lossless, "quality": 75 if lossless else quality, "exact": True}
    try:  # into memory: given a file, Pillow bypasses its write() and hides why a full disk refuses
        written = BytesIO()
        image.save(written, format=form.name, **options)
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        raise FormatLimitError(f"{form.name} cannot store it: {error}") from error
    if form.name == "AVIF" and (cicp := dict(spec.colors).get(b"cICP")):
        _sign(written, cicp)
    file.write(written.getbuffer())


def _sign(file: IO[bytes], cicp: bytes) -> None:
    """Write code points into the colour box of an AVIF, where Pillow only announces the profile."""
    file.seek(0)
    head = file.read(4096)
    place = head.find(b"colrnclx")
    if place >= 0:
        file.seek(place + 8)
        file.write(struct.pack(">HH", *cicp[:2]))
    file.seek(0, 2)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

"""Rasters into image files: PNG and TIFF row by row, the others by Pillow."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import Image

from fluxsr.imaging.formats import Format, png, tiff
from fluxsr.imaging.metadata import photoshop
from fluxsr.imaging.raster import Metadata

QUALITY = 95


class FormatLimitError(Exception):
    """A picture or its metadata exceed what a format can hold."""


@dataclass(frozen=True)
class ImageSpec:
    """What is known of a picture before its pixels: see Raster for the words.

    Attributes:
        width, height: in pixels.
        channels: 1 to 4.
        sixteen: 16 bit per channel, or 8.
        colors: see Raster.
    """

    width: int
    height: int
    channels: int
    sixteen: bool = False
    profile: bytes = b""
    metadata: Metadata = field(default_factory=Metadata)
    colors: tuple[tuple[bytes, bytes], ...] = ()


def encode(
    file: IO[bytes],
    form: Format,
    spec: ImageSpec,
    bands: Iterable[np.ndarray],
    quality: int | None = None,
    lossless: bool = False,
) -> None:
    """Write a file's bytes.

    Args:
        file: open for writing and reading, empty.
        form: of the output; holds what the spec asks for.
        spec: of the picture.
        bands: its pixels from top to bottom, (rows,W,channels), uint8 or uint16.
        quality: 1 to 100 for JPEG, WebP and AVIF; None takes 95.
        lossless: for WebP.

    Raises:
        FormatLimitError: the format cannot hold this picture.
        OutputError: what the disk has against it, where the file is of ``atomic.replaced``.
    """
    if form.name == "PNG":
        png.write(file, spec.width, spec.height, bands, spec.profile, spec.metadata, spec.colors)
    elif form.name == "TIFF":
        shape = (spec.height, spec.width, spec.channels)
        tiff.write(file, shape, spec.sixteen, bands, spec.profile, spec.metadata)
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
    del pixels  # Pillow has its own copy of colours
    metadata, options = spec.metadata, dict[str, Any]()
    if form.icc and spec.profile:
        options["icc_profile"] = spec.profile
    if form.exif and metadata.exif:
        options["exif"] = b"Exif\0\0" + metadata.exif
    if form.xmp and metadata.xmp:
        options["xmp"] = metadata.xmp
    if form.dpi and metadata.dpi:
        options["dpi"] = metadata.dpi
    if form.name in ("JPEG", "AVIF"):
        options |= {"quality": quality}
    if form.name == "JPEG":
        extra = b"".join(_segment(0xED, block) for block in photoshop.blocks(metadata.iptc, metadata.photoshop))
        extra += b"".join(_segment(0xFE, comment) for comment in metadata.comments)
        options |= {"subsampling": 0 if quality >= 90 else 2, "extra": extra}
    if form.name == "AVIF":
        options |= {"subsampling": "4:0:0" if spec.channels == 1 else "4:4:4" if quality >= 90 else "4:2:0"}
    if form.name == "WEBP":
        # exact: the colours under transparent pixels are real, and the next program may want them
        options |= {"lossless": lossless, "quality": 75 if lossless else quality, "exact": True}
    try:  # into memory: given a file, Pillow writes past it, and tells no reason where the disk is full
        written = BytesIO()
        image.save(written, format=form.name, **options)
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        raise FormatLimitError(f"{form.name} cannot hold it: {error}") from error
    if form.name == "AVIF" and (cicp := dict(spec.colors).get(b"cICP")):
        _sign(written, cicp)
    file.write(written.getbuffer())


def _sign(file: IO[bytes], cicp: bytes) -> None:
    """Put code points into an AVIF, in whose colour box Pillow says only that there is a profile."""
    file.seek(0)
    head = file.read(4096)
    place = head.find(b"colrnclx")
    if place >= 0:
        file.seek(place + 8)
        file.write(struct.pack(">HH", *cicp[:2]))
    file.seek(0, 2)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

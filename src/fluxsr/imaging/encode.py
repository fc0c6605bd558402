"""Encode image files: PNG and TIFF row by row, GIF and WebP animations frame by frame, other files with Pillow."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO
from itertools import chain
from typing import IO, Any

import numpy as np
from PIL import Image

from fluxsr.imaging.formats import Format, FormatLimitError, avif, gif, png, tiff, webp
from fluxsr.imaging.metadata import embedded
from fluxsr.imaging.raster import ImageSpec, Metadata

QUALITY = 95
Layer = tuple[ImageSpec, Iterable[np.ndarray]]
"""A frame or page, and its pixel rows from top to bottom, each (rows,W,channels), uint8 or uint16."""

_WRITERS = {"PNG": png.write, "TIFF": tiff.write, "GIF": gif.write}


def encode(
    file: IO[bytes], form: Format, layers: Iterable[Layer], quality: int | None = None, lossless: bool = False
) -> None:
    """Encode an image, an animation or pages into a file.

    Args:
        file: empty, open for writing and reading.
        form: format of the output; stores everything that the specifications name.
        layers: as many as ``ImageSpec.frame`` counts.
        quality: 1 to 100 for JPEG, WebP and AVIF; None means 95.
        lossless: for WebP.

    Raises:
        FormatLimitError: the format cannot store this image.
    """
    if form.name in _WRITERS:
        _WRITERS[form.name](file, layers)
        return
    layers = iter(layers)
    spec, bands = next(layers)
    several, quality = spec.frame.count > 1, quality or QUALITY
    if several and form.name == "WEBP":
        options = _options(form, replace(spec, metadata=Metadata(), profile=b""), quality, lossless)
        images = ((spec, _image(spec, bands)) for spec, bands in chain([(spec, bands)], layers))
        webp.write(file, ((spec, _saved(image, form, options)) for spec, image in images))
        return
    image, options = _image(spec, bands), _options(form, spec, quality, lossless)
    if several:
        others = ((_image(spec, bands), spec.frame.milliseconds) for spec, bands in layers)
        image = avif.Animation(chain([(image, spec.frame.milliseconds)], others))
        options |= {"save_all": True, "duration": image.times}
    data = bytearray(_saved(image, form, options))
    if form.name == "AVIF":
        avif.finish(data, spec.frame.plays, dict(spec.colors).get(b"cICP"))
    file.write(data)


def _image(spec: ImageSpec, bands: Iterable[np.ndarray]) -> Image.Image:
    pixels = np.empty((spec.height, spec.width, spec.channels), np.uint8)
    first = 0
    for band in bands:
        pixels[first : first + len(band)] = band
        first += len(band)
    return Image.fromarray(pixels[..., 0] if spec.channels == 1 else pixels)


def _options(form: Format, spec: ImageSpec, quality: int, lossless: bool) -> dict[str, Any]:
    """Return what Pillow must be told to save an image."""
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
    return options


def _saved(image: Image.Image, form: Format, options: dict[str, Any]) -> bytes:
    """Return a file that Pillow saves. Given a file, it bypasses its write() and hides why a full disk refuses."""
    try:
        written = BytesIO()
        image.save(written, format=form.name, **options)
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        raise FormatLimitError(f"{form.name} cannot store it: {error}") from error
    if isinstance(image, avif.Animation) and image.error:
        raise image.error
    return written.getvalue()


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

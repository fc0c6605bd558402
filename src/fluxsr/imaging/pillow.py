"""Decode with Pillow, which reads 8 bits per channel; imagecodecs helps with 16-bit PNG and JPEG XL."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import Image

from fluxsr.errors import InputError, TooLargeError
from fluxsr.imaging.atomic import reason_of
from fluxsr.imaging.color import profiles
from fluxsr.imaging.formats import avif, jxl, png, tiff
from fluxsr.imaging.metadata.transfer import read_metadata
from fluxsr.imaging.raster import Frame, Metadata, Raster, checked_float

# Pillow knows more formats. Some of them start other programs (EPS), and none holds photographs.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "TGA")
_SEVERAL = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")  # formats whose further frames or pages are read
_EXTRAS = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}  # format -> package, where it is installed
_LOST_SHARE = 0.05  # largest fraction of rows that a truncated JPEG may lack


def kind_of_image(image: Image.Image) -> str:
    """Return the name of a format, as in Raster."""
    return {"MPO": "JPEG", "DIB": "BMP"}.get(str(image.format), str(image.format))


def first_raster(file: IO[bytes], check: Callable[[int, int], None], page: int, place: int) -> tuple[Raster, int]:
    """Return the first frame of a file, or a page of a TIFF, and its orientation. See ``decode``."""
    if jxl.looks_like(file):  # its decoder decodes everything before the check below
        size = jxl.size_of(file)
        if size is None:
            raise InputError("is damaged or cut off: its JPEG XL header has no size")
        check(*size)
    with opened(file) as image:
        if page:
            image.seek(page)
        check(*image.size)
        several = getattr(image, "is_animated", False) and image.format != "MPO"
        raster, orientation = frame_raster(file, image, place=place)
        if not several:
            return raster, orientation
        count = 1 if page or raster.format not in _SEVERAL else _count(file, image)
        return replace(raster, notes=(tiff.SEVERAL, *raster.notes), frame=Frame(count)), orientation


def frame_raster(file: IO[bytes], image: Any, number: int | None = None, place: int = 0) -> tuple[Raster, int]:
    """Return the frame of an image at which Pillow is, and its orientation.

    Args:
        file, image: the file, and the image that was opened from it.
        number: of the frame in an animation; None for an image whose further frames are not read.
        place: offset of the directory of a TIFF's page; 0 for the first one.
    """
    pixels, profile, colors, notes = _pixels(file, image, number is not None)
    orientation, found, lost = read_metadata(image, file, place) if not number else (1, Metadata(), [])
    kind, frame = kind_of_image(image), Frame()
    if number is not None:
        frame = Frame(image.n_frames - hidden_images(image), image.info.get("duration") or 0, _plays(file, image))
    lossless = _lossless(kind, file, 64 if number is None else 4096)
    return Raster(pixels, kind, profile, found, lossless, (*notes, *lost), colors, frame), orientation


@contextlib.contextmanager
def opened(file: IO[bytes]) -> Any:
    """Context manager for a file that Pillow or one of its plugins reads.

    Raises:
        TooLargeError: the image exceeds the limit of Pillow.
    """
    kinds: tuple[str, ...] = _FORMATS
    for kind, package in _EXTRAS.items():
        with contextlib.suppress(ImportError):
            module = importlib.import_module(package)
            if kind == "HEIF" and kind not in Image.OPEN:
                module.register_heif_opener()
            kinds = (*kinds, kind)
    try:
        image = Image.open(file, formats=kinds)
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"too large: {reason_of(error)}") from error
    with image:
        yield image


def hidden_images(image: Image.Image) -> int:
    """Return how many images of a PNG are not part of its animation: 1 or 0."""
    return int(bool(image.info.get("default_image")))


def _count(file: IO[bytes], image: Any) -> int:
    """Return the number of frames or pages; 2 if it takes decoding to say where damaged ones end."""
    if image.format == "TIFF":
        return len(tiff.page_places(file))
    with contextlib.suppress(Exception):  # the first frame is fine
        return int(image.n_frames) - hidden_images(image)
    return 2


def _plays(file: IO[bytes], image: Image.Image) -> int:
    """Return how often an animation is shown, as in Frame."""
    if image.format == "AVIF":
        return avif.plays(file)
    loop = image.info.get("loop")
    if image.format == "GIF":  # which counts repetitions
        return 1 if loop is None else loop and loop + 1
    return int(loop or 0)


def _pixels(
    file: IO[bytes], image: Image.Image, animated: bool
) -> tuple[np.ndarray, bytes, tuple[png.Chunk, ...], list[str]]:
    """Return pixels as in Raster, not yet upright; their profile, colour chunks, and notes."""
    profile, notes = image.info.get("icc_profile") or b"", list[str]()
    if image.format == "PNG" and png.read_depth(file) == 16 and not animated:
        pixels = png.read_sixteen(file)
    elif image.format == "JXL" and (found := jxl.pixels(file, profile)) is not None:
        pixels, profile, notes = found
    else:
        image, notes = _loaded(file, image)
        if image.mode == "CMYK":
            converted = profiles.cmyk_to_srgb(image)
            return np.asarray(converted), b"", (), [*notes, "has CMYK colours, which become sRGB"]
        pixels = _array(image)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
    depth = png.read_depth(file) if image.format == "PNG" else profiles.depth_of(file, str(image.format))
    if pixels.dtype == np.uint8 and depth > 8:
        notes = [*notes, f"has {depth} bits per channel, of which 8 are read"]
    profile, colors = profiles.colors_of(file, image, profile, pixels.shape[-1] <= 2)
    return pixels, profile, colors, notes


def _loaded(file: IO[bytes], image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Decode. A JPEG without its last bytes is accepted if it lacks only a few rows."""
    try:
        image.load()
        return image, []
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        file.seek(0)
        with Image.open(BytesIO(file.read() + b"\xff\xd9"), formats=("JPEG",)) as completed:
            completed.load()
        if _even_rows(np.asarray(completed)) > max(16, _LOST_SHARE * completed.height):
            raise
        return completed, ["is cut off at its end; its last rows may be missing"]


def _even_rows(pixels: np.ndarray) -> int:
    """Count the rows at the bottom that equal the row above: libjpeg fills missing data this way."""
    differs = (pixels[1:] != pixels[:-1]).reshape(len(pixels) - 1, -1).any(1)
    return int(len(pixels) - 1 - (np.flatnonzero(differs)[-1] if differs.any() else -1))


def _array(image: Image.Image) -> np.ndarray:
    transparent = "transparency" in image.info
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"has values from {values.min()} to {values.max()}; convert it to 8 or 16 bit")
        return values.astype(np.uint16)
    if image.mode == "F":
        return checked_float(np.asarray(image))
    grey = image.mode in ("1", "L", "LA", "La") or (image.mode == "P" and not transparent and _grey_palette(image))
    alpha = transparent or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    mode = ("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB")
    if image.mode in ("La", "1"):
        image = image.convert("LA" if image.mode == "La" else "L")
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _grey_palette(image: Image.Image) -> bool:
    palette = np.array(image.getpalette("RGB") or [0, 1, 0]).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _lossless(kind: str, file: IO[bytes], head: int) -> bool:
    """Return whether the compression is lossless, from the first bytes of a WebP."""
    if kind == "WEBP":
        file.seek(0)
        return b"VP8L" in file.read(head)  # the first chunk, or the one after VP8X; in an animation further ones
    return kind not in ("JPEG", "AVIF", "HEIF", "JPEG2000", "JXL")

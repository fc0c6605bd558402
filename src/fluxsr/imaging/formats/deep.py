"""What Pillow would cut to 8 bit: PNG of 16 bit, and TIFF, of which it also knows but some kinds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import IO

import numpy as np

from fluxsr.errors import InputError
from fluxsr.imaging.metadata import transfer as metadata
from fluxsr.imaging.raster import Raster

SEVERAL = "has several pages or frames; the first was taken"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # + is BigTIFF


def png_depth(file: IO[bytes]) -> int:
    """Bits per channel that a PNG's header names."""
    file.seek(24)  # signature 8, length and name of IHDR 8, width and height 8
    return file.read(1)[0]


def png(file: IO[bytes]) -> np.ndarray:
    """Pixels of a PNG of 16 bit, (H,W,C) uint16, C as in Raster."""
    import imagecodecs

    file.seek(0)
    pixels = imagecodecs.png_decode(file.read())
    return pixels if pixels.ndim == 3 else pixels[..., None]


def tiff(file: IO[bytes], check: Callable[[int, int], None]) -> tuple[Raster, int] | None:
    """A TIFF's first page and its orientation; None for what is no TIFF, or one of a kind that Pillow reads as well.

    Args:
        file: open for reading.
        check: called with width and height before a pixel is decoded; raises where they are too large.

    Raises:
        InputError: floats outside [0,1], an unusual number format.
    """
    from tifffile import PHOTOMETRIC, TiffFile

    file.seek(0)
    if file.read(4) not in _TIFF:
        return None
    file.seek(0)
    with TiffFile(file) as tiff:
        page = tiff.pages.first
        shades = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB)
        if (
            np.max(page.bitspersample) < 8
            or page.photometric not in shades
            or page.dtype is None
            or page.imagedepth > 1
        ):
            return None
        check(page.imagewidth, page.imagelength * max(page.samplesperpixel // 4, 1))
        pixels = page.asarray(maxworkers=1)
        separate, extra = page.planarconfig == 2 and page.samplesperpixel > 1, tuple(page.extrasamples)
        inverted = page.photometric == PHOTOMETRIC.MINISWHITE
        orientation, found, lost = metadata.of_tiff(file)
        notes: tuple[str, ...] = ()
        with contextlib.suppress(Exception):  # there is none, or it is damaged, which harms nothing
            notes = (SEVERAL,) if tiff.pages[1] else ()
        profile = bytes(page.iccprofile or b"")
    pixels = np.moveaxis(pixels, 0, -1) if separate else pixels
    pixels = _ranged(pixels[..., None] if pixels.ndim == 2 else pixels)
    colours = pixels.shape[-1] - len(extra)
    alpha = bool(extra) and extra[0] in (1, 2)  # the others are something else
    pixels = pixels[..., : colours + alpha]
    if inverted:
        pixels = (np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else np.float32(1)) - pixels
    pixels = _straight(pixels) if alpha and extra[0] == 1 else pixels
    return Raster(pixels, "TIFF", profile, found, notes=(*notes, *lost)), orientation


def checked_float(values: np.ndarray) -> np.ndarray:
    """Floating-point pixels as float32.

    Raises:
        InputError: they lie outside [0,1], so that their white is not known.
    """
    if not (values.min() >= 0 and values.max() <= 1):
        raise InputError(
            f"floating-point pixels from {values.min():g} to {values.max():g}; "
            "expected [0,1], convert the file to 8 or 16 bit"
        )
    return values.astype(np.float32)


def _ranged(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.dtype == np.uint32:
        return (pixels >> 16).astype(np.uint16)
    if np.issubdtype(pixels.dtype, np.floating):
        return checked_float(pixels)
    raise InputError(f"has pixels of type {pixels.dtype}; convert it to 8 or 16 bit")


def _straight(pixels: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by alpha, divided by it."""
    whole = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0
    alpha = pixels[..., -1:] / np.float32(whole)
    colours = np.divide(pixels[..., :-1], alpha, where=alpha > 0, out=np.zeros(pixels[..., :-1].shape, np.float32))
    colours = colours.clip(0, whole)
    return np.concatenate([colours.round().astype(pixels.dtype) if whole > 1 else colours, pixels[..., -1:]], axis=-1)

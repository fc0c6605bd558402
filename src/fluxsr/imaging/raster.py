"""A picture as a file holds it: pixels in the file's own colours, and all that belongs to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fluxsr.errors import InputError


@dataclass(frozen=True)
class Metadata:
    """What a file says of its picture, each as the bytes that formats exchange; empty where there is none.

    Attributes:
        exif: a TIFF structure, without the "Exif" in front.
        xmp: an XMP packet.
        iptc: IPTC-IIM records.
        dpi: pixels per inch, horizontal and vertical.
        photoshop: Photoshop's image resources, without IPTC.
        texts: text chunks of a PNG, kind and data, as they are.
        comments: of JPEG and GIF files, in no certain encoding.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None
    photoshop: bytes = b""
    texts: tuple[tuple[bytes, bytes], ...] = ()
    comments: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Raster:
    """A decoded file.

    Attributes:
        pixels: (H,W,C), upright; C is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; alpha is not multiplied in.
            uint8 and uint16 of their whole range, or float32 in [0,1].
        format: Pillow's name of the file's format.
        profile: ICC, of the colours of pixels; empty means sRGB.
        metadata: as the file has it, the orientation included, which is applied to pixels already.
        lossless: whether the file's own compression loses nothing.
        notes: what a user should know, one line each.
        colors: what else the file says of its colours, in agreement with the profile: (name, data) of the PNG chunks
            cICP, sRGB, gAMA and cHRM. The code points of other formats are a cICP here.
    """

    pixels: np.ndarray
    format: str
    profile: bytes = b""
    metadata: Metadata = field(default_factory=Metadata)
    lossless: bool = True
    notes: tuple[str, ...] = ()
    colors: tuple[tuple[bytes, bytes], ...] = ()


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H,W,C) as they are to be seen, after EXIF's orientation 1 to 8; others change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


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

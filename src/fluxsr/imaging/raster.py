"""Decoded image files: pixels in the file's own colours, their metadata, and how an output differs from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fluxsr.errors import InputError


@dataclass(frozen=True)
class Metadata:
    """Metadata of an image file, as the bytes that formats exchange; empty where a file has none.

    Attributes:
        exif: a TIFF structure, without the "Exif" prefix.
        xmp: an XMP packet.
        iptc: IPTC-IIM records.
        dpi: pixels per inch, horizontal and vertical.
        photoshop: Photoshop image resources, without IPTC.
        texts: (kind, data) of the text chunks of a PNG, unchanged.
        comments: comments of JPEG and GIF files, whose encoding is unknown.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None
    photoshop: bytes = b""
    texts: tuple[tuple[bytes, bytes], ...] = ()
    comments: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Frame:
    """What a file states about one of its frames or pages.

    Attributes:
        count: number of frames or pages in the file.
        milliseconds: how long an animation shows the frame; 0 for pages.
        plays: how often the animation is shown; 0 means without end.
    """

    count: int = 1
    milliseconds: float = 0
    plays: int = 0


@dataclass(frozen=True)
class Raster:
    """A decoded image file, or one of its frames or pages.

    Attributes:
        pixels: (H,W,C), upright. C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha), not premultiplied.
            uint8 or uint16 over their full range, or float32 in [0,1].
        format: Pillow's name of the file format.
        profile: ICC profile of the pixels; empty means sRGB.
        metadata: as stored, including the orientation, which is already applied to the pixels.
        lossless: whether the file's compression is lossless.
        notes: messages for the user, one line each.
        colors: further colour information that agrees with the profile: (name, data) of the PNG chunks cICP, sRGB,
            gAMA and cHRM. The code points of other formats are stored as a cICP chunk.
        frame: which of several frames this is.
    """

    pixels: np.ndarray
    format: str
    profile: bytes = b""
    metadata: Metadata = field(default_factory=Metadata)
    lossless: bool = True
    notes: tuple[str, ...] = ()
    colors: tuple[tuple[bytes, bytes], ...] = ()
    frame: Frame = Frame()


@dataclass(frozen=True)
class ImageSpec:
    """An output image except for its pixels: its size, channels and depth, and fields of Raster."""

    width: int
    height: int
    channels: int
    sixteen: bool = False
    profile: bytes = b""
    metadata: Metadata = field(default_factory=Metadata)
    colors: tuple[tuple[bytes, bytes], ...] = ()
    frame: Frame = Frame()


@dataclass(frozen=True)
class Change:
    """The geometric and colour change from an input to its output, which metadata must follow.

    Attributes:
        old, new: (width, height) in pixels, upright.
        orientation: EXIF orientation 1 to 8 of the stored pixels; the output is upright.
        to_srgb: whether the colours were converted from another space to sRGB.
        drop_location: whether the place where the picture was taken is removed.
    """

    old: tuple[int, int]
    new: tuple[int, int]
    orientation: int = 1
    to_srgb: bool = False
    drop_location: bool = False

    @property
    def turned(self) -> bool:
        return self.orientation in range(2, 9)

    @property
    def sideways(self) -> bool:
        """Whether width and height are swapped."""
        return self.orientation in (5, 6, 7, 8)

    @property
    def factors(self) -> tuple[float, float]:
        """Scale factors of width and height."""
        return self.new[0] / max(self.old[0], 1), self.new[1] / max(self.old[1], 1)

    def point(self, x: float, y: float, width: float, height: float) -> tuple[float, float]:
        """Map a point of the stored image into the upright one of this size, without scaling."""
        if self.sideways:
            x, y = y, x
        if self.orientation in (2, 3, 6, 7):
            x = width - x
        if self.orientation in (3, 4, 7, 8):
            y = height - y
        return x, y


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels (H,W,C) turned upright by an EXIF orientation of 1 to 8; other numbers change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def checked_float(values: np.ndarray) -> np.ndarray:
    """Return floating-point pixels as float32; raise an InputError outside [0,1], where white is unknown."""
    if not (values.min() >= 0 and values.max() <= 1):
        raise InputError(
            f"floating-point pixels from {values.min():g} to {values.max():g}; "
            "expected [0,1], convert the file to 8 or 16 bit"
        )
    return values.astype(np.float32)

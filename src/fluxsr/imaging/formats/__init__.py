"""File formats: their endings, what each can store, and the readers and writers that Pillow lacks.

This module needs only the standard library, because the command line reads it before torch is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fluxsr.errors import OutputError


class FormatLimitError(Exception):
    """Error raised when an image or its metadata exceed the limits of a format."""


@dataclass(frozen=True)
class Format:
    """A format that can be written.

    Attributes:
        name: Pillow's name of the format.
        endings: file endings with their dots; the first is the usual one.
        sixteen: whether it is written with 16 bits per channel.
        alpha, grey: whether it stores transparency, a single channel.
        icc, exif, xmp, iptc, dpi, texts, comments: metadata that it stores. Photoshop resources go with IPTC.
        streamed: whether it is written row by row, so that memory does not grow with the height.
        frames: whether it stores several frames or pages.
        palette: whether each frame has at most 256 colours, and transparency that is on or off.
    """

    name: str
    endings: tuple[str, ...]
    sixteen: bool = False
    alpha: bool = True
    grey: bool = True
    icc: bool = True
    exif: bool = True
    xmp: bool = True
    iptc: bool = False
    dpi: bool = True
    texts: bool = False
    comments: bool = False
    streamed: bool = False
    frames: bool = False
    palette: bool = False


WRITTEN = (
    Format("PNG", (".png",), sixteen=True, texts=True, comments=True, streamed=True, frames=True),
    Format("JPEG", (".jpg", ".jpeg", ".jfif", ".jpe"), alpha=False, iptc=True, comments=True),
    Format("WEBP", (".webp",), grey=False, dpi=False, frames=True),
    Format("TIFF", (".tif", ".tiff"), sixteen=True, iptc=True, streamed=True, frames=True),
    Format("AVIF", (".avif",), dpi=False, frames=True),
    Format("BMP", (".bmp",), alpha=False, icc=False, exif=False, xmp=False),
    Format("GIF", (".gif",), icc=False, exif=False, xmp=False, dpi=False, comments=True, frames=True, palette=True),
)

ENDINGS: dict[str, Format] = {ending: form for form in WRITTEN for ending in form.endings}
"""Endings that can be written."""

READABLE = (*ENDINGS, ".ppm", ".pgm", ".pnm", ".jp2", ".tga", ".heic", ".heif", ".jxl")
"""Endings taken for images inside folders and globs. A file that is named directly is always tried."""

# HEIC is lossy already, and GIF would lose colours; every other format becomes a lossless PNG
_ANOTHER = {".heic": ".jpg", ".heif": ".jpg", ".gif": ".png"}


def format_of(path: str | Path) -> Format:
    """Return the format of a file ending.

    Raises:
        OutputError: the ending cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise OutputError(f"{path}: cannot write '{ending}' files; use one of {', '.join(ENDINGS)}")
    return ENDINGS[ending]


def result_ending(chosen: str | None, found: str) -> str:
    """Return the ending of a result, with its dot.

    Args:
        chosen: the option ``format``.
        found: Pillow's name of the input's format.
    """
    ending = f".{chosen}" if chosen else following(Path(f"image.{found.lower()}"))
    return ENDINGS[ending].endings[0]


def following(source: Path) -> str:
    """Return the output ending for an input: its own, or the closest one if its format cannot hold the result."""
    ending = source.suffix.lower()
    return _ANOTHER.get(ending, ending if ending in ENDINGS else ".png")

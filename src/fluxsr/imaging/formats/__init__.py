"""What there is of file formats: endings, what each can hold, which output an input asks for.

Only the standard library: the command line plans with it before torch is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fluxsr.errors import OutputError


@dataclass(frozen=True)
class Format:
    """A format that is written.

    Attributes:
        name: Pillow's name of it.
        endings: with their dots; the first is the usual one.
        sixteen: whether it holds 16 bit per channel, as we write it.
        alpha, grey: whether it holds transparency, a single channel.
        icc, exif, xmp, iptc, dpi, texts, comments: what it has a place for. Photoshop's resources go with IPTC.
        streamed: whether it is written row by row, in memory that does not grow with the picture.
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


WRITTEN = (
    Format("PNG", (".png",), sixteen=True, texts=True, comments=True, streamed=True),
    Format("JPEG", (".jpg", ".jpeg", ".jfif", ".jpe"), alpha=False, iptc=True, comments=True),
    Format("WEBP", (".webp",), grey=False, dpi=False),
    Format("TIFF", (".tif", ".tiff"), sixteen=True, iptc=True, streamed=True),
    Format("AVIF", (".avif",), dpi=False),
    Format("BMP", (".bmp",), alpha=False, icc=False, exif=False, xmp=False),
)

ENDINGS: dict[str, Format] = {ending: form for form in WRITTEN for ending in form.endings}
"""Endings that can be written."""

READABLE = (*ENDINGS, ".gif", ".ppm", ".pgm", ".pnm", ".jp2", ".tga", ".heic", ".heif", ".jxl")
"""Endings taken for images inside folders and globs; a file named outright is tried in any case."""

_ANOTHER = {".heic": ".jpg", ".heif": ".jpg"}  # photographs with losses already; all else loses nothing as PNG


def format_of(path: str | Path) -> Format:
    """The format that an ending asks for.

    Raises:
        OutputError: an ending that is not written.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise OutputError(f"{path}: cannot write '{ending}' files; use one of {', '.join(ENDINGS)}")
    return ENDINGS[ending]


def following(source: Path) -> str:
    """The ending of an output that keeps the format of its input, or, of one that is not written, comes nearest."""
    ending = source.suffix.lower()
    return ending if ending in ENDINGS else _ANOTHER.get(ending, ".png")

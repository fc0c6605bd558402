"""Detect the raw files of cameras by their content.

A raw file holds what the sensor saw, next to a small preview that many image libraries read without a warning.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, Any

from fluxsr.errors import InputError

# Signatures of raw formats that are not (fully) TIFF: offset, bytes, name.
_SIGNATURES = (
    (0, b"FUJIFILMCCD-RAW", "Fujifilm RAF"),
    (0, b"IIRO", "Olympus ORF"),
    (0, b"IIRS", "Olympus ORF"),
    (0, b"MMOR", "Olympus ORF"),
    (0, b"IIU\0", "Panasonic RW2"),
    (0, b"FOVb", "Sigma X3F"),
    (0, b"\0MRM", "Minolta MRW"),
    (0, b"ARRI", "ARRIRAW"),
    (4, b"ftypcrx ", "Canon CR3"),
    (6, b"HEAPCCDR", "Canon CRW"),
    (8, b"CR\x02", "Canon CR2"),
    (8, b"IIII", "Phase One IIQ"),
    (8, b"MMMM", "Phase One IIQ"),
)
_SENSOR = (32803, 34892)  # photometric interpretations of DNG and TIFF/EP: colour filter array, linear raw
_LOOKED_AT = 4  # pages that are checked, and as many sub-pages of the first
_SUBFILE, _OLD_SUBFILE, _PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION = 254, 255, 262, 330, 50706


def refuse_raw(file: IO[bytes]) -> None:
    """Raise an InputError for a raw file that has a signature of its own."""
    file.seek(0)
    head = file.read(32)
    for offset, signature, name in _SIGNATURES:
        if head[offset:].startswith(signature):
            raise InputError(f"is a raw file of a camera ({name}); develop it and save a TIFF or PNG")


def refuse_raw_tiff(tiff: Any) -> None:
    """Raise an InputError for a tifffile.TiffFile that is a raw file, or begins with a preview of a larger image."""
    found = ""
    with suppress(Exception):  # of a damaged TIFF the decoder says what is wrong with it
        first = tiff.pages.first
        name = "DNG" if first.tags.valueof(_DNG_VERSION) is not None else ""
        reduced = int(first.tags.valueof(_SUBFILE) or 0) & 1 or first.tags.valueof(_OLD_SUBFILE) == 2
        reduced = reduced and (_SUB_IFDS in first.tags or page_of(tiff.pages, 1) is not None)
        others = [
            page_of(pages, k) for pages in (tiff.pages, first.pages) if pages is not None for k in range(_LOOKED_AT)
        ]
        if any(page is not None and page.tags.valueof(_PHOTOMETRIC) in _SENSOR for page in (first, *others)):
            name = name or "TIFF with sensor data"
        if name:
            found = f"is a raw file of a camera ({name}); develop it and save a TIFF or PNG"
        elif reduced:
            found = "holds a reduced preview as its first page, as raw files do; save its full image as a TIFF"
    if found:
        raise InputError(found)


def page_of(pages: Any, number: int) -> Any:
    """Return one of a TIFF's pages; None where there is none, or its directory is damaged."""
    with suppress(Exception):
        return pages[number]
    return None

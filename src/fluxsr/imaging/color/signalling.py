"""Find out which colours a file's pixels have: by ICC profile, code points (CICP), PNG chunks or EXIF."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import IO, Any

from fluxsr.imaging.color import colorimetry
from fluxsr.imaging.formats import bmp, boxes, png

Chunks = tuple[tuple[bytes, bytes], ...]

_DETAILS, _COLOR_SPACE, _INTEROP = 0x8769, 0xA001, 0xA005  # EXIF's directory of details, and tags there
_ADOBE = 2  # not in the standard, but written by cameras


def colors_of(file: IO[bytes], image: Any, profile: bytes, grey: bool) -> tuple[bytes, Chunks]:
    """Return the ICC profile of an image's colours, and what the file says of them besides (see Raster.colors).

    Args:
        file: open for reading.
        image: the same as Pillow opens it.
        profile: the ICC profile that Pillow finds.
        grey: whether its pixels have one channel of colour.

    Raises:
        InputError: HDR, or colours that are not supported.
    """
    kind, chunks = image.format, Chunks()
    if kind == "PNG":
        chunks = png.color_chunks(file)
        if not profile or b"cICP" in dict(chunks):
            profile = colorimetry.profile_from_png(chunks, grey) or b""
    elif kind in ("AVIF", "HEIF") and not profile:
        profile, chunks = _of_cicp(boxes.cicp(file), grey)
    elif kind == "JPEG2000":
        profile, cicp = boxes.jp2_colours(file)
        profile, chunks = (profile, ()) if profile else _of_cicp(cicp, grey)
    elif kind in ("BMP", "DIB"):
        profile = bmp.profile(file)
    if not profile and not chunks and not grey and _names_adobe(image):
        profile = colorimetry.adobe_rgb()
    return profile, chunks


def depth_of(file: IO[bytes], kind: str) -> int:
    """Return the bits per channel of a file whose format Pillow reads as 8 bit; 8 where it has no more.

    Args:
        file: open for reading.
        kind: Pillow's name of its format.
    """
    if kind == "PPM":
        file.seek(0)
        head = re.match(rb"P[2356]((\s|#[^\n]*\n)+(\d+)){3}", file.read(1000))
        return int(head[3]).bit_length() if head else 8
    return boxes.depth(file) if kind in ("AVIF", "HEIF", "JPEG2000") else 8


def _of_cicp(cicp: bytes, grey: bool) -> tuple[bytes, Chunks]:
    if not cicp:
        return b"", ()
    told = not {0, 2, 3} & set(cicp[:2])  # the others are reserved or "unspecified"
    return colorimetry.profile_from_cicp(cicp[0], cicp[1], grey), ((b"cICP", cicp),) if told else ()


def _names_adobe(image: Any) -> bool:
    """Return whether EXIF says Adobe RGB, as cameras do by the name of a file format (R03) instead of a profile."""
    with suppress(Exception):  # of a damaged EXIF anything may be thrown
        exif = image.getexif()
        details = exif.get_ifd(_DETAILS)
        return details.get(_COLOR_SPACE) == _ADOBE or "R03" in str(exif.get_ifd(_INTEROP).get(1, ""))
    return False

"""What belongs to a picture besides its pixels: read from a file, corrected for the enlarged picture, thinned out."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import replace
from typing import IO, Any

from PIL import ExifTags, Image

from fluxsr.imaging.formats import Format
from fluxsr.imaging.raster import ORIENTATION, Metadata

STRIP = ("none", "gps", "all")

_EXIF, _GPS = int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo)
_MAKER_NOTE = 0x927C
# How a TIFF's pixels lie in its file, which its EXIF does not say of the output's; and what has its own place.
_LAYOUT = {
    *range(254, 267), 273, *range(277, 282), 284, *range(288, 294), *range(317, 326), 330, 332, 338, 339, 340, 341,
    347, *range(512, 522), *range(529, 533), 700, 33723, 34377, 34675,
}  # fmt: skip
_JPEG_ROOM = 65_000  # bytes of a segment, less its head


def of(image: Image.Image) -> tuple[int, Metadata]:
    """A loaded image's orientation (1 where its pixels are upright) and what its file says of it.

    What is damaged is left out.
    """
    exif: Image.Exif | None = None
    with contextlib.suppress(Exception):  # of a damaged EXIF anything may be thrown
        exif = image.getexif()
    orientation, data = _read(exif, image.format == "TIFF")
    if image.format == "JXL":  # its pixels' own orientation counts, and the decoder has applied it
        orientation = 1
    if image.format in ("JPEG", "MPO"):
        iptc = image.info.get("photoshop", {}).get(0x0404, b"")
    else:
        iptc = image.tag_v2.get(33723, b"") if image.format == "TIFF" else b""  # type: ignore[attr-defined]
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return orientation, Metadata(data, _as_bytes(xmp), _as_bytes(iptc), _dpi(image.info.get("dpi")))


def of_tiff(file: IO[bytes]) -> tuple[int, Metadata]:
    """The same of a TIFF that Pillow does not open."""
    exif = Image.Exif()
    with contextlib.suppress(Exception):
        file.seek(0)
        exif.load_from_fp(file)
        xmp, iptc = exif.get(700, b""), exif.get(33723, b"")
        unit = {2: 1.0, 3: 2.54}.get(exif.get(0x0128, 2), 0.0)
        dpi = _dpi([unit * float(exif[tag]) for tag in (0x011A, 0x011B)] if 0x011A in exif else None)
        orientation, data = _read(exif, True)
        return orientation, Metadata(data, _as_bytes(xmp), _as_bytes(iptc), dpi)
    return 1, Metadata()


def _read(exif: Image.Exif | None, tiff: bool) -> tuple[int, bytes]:
    orientation, data = 1, b""
    with contextlib.suppress(Exception):
        if exif is not None:
            orientation = int(exif.get(ORIENTATION, 1))
            for tag in _LAYOUT & set(exif) if tiff else ():
                del exif[tag]
            if str(exif.get(0x010E, "")).startswith('{"shape"'):  # how tifffile notes the array it wrote
                del exif[0x010E]
            data = _bytes(exif)
            _exif(data)  # what cannot be read again is not worth writing
    return orientation, data


def carried(found: Metadata, form: Format, width: int, height: int, strip: str = "none") -> tuple[Metadata, list[str]]:
    """What the file of an enlarged, upright picture may say, and notes on what is lost.

    Args:
        found: the input's.
        form: the output's format; what it has no place for is left out.
        width, height: of the output, in pixels.
        strip: "none", "gps" (places alone), "all".
    """
    if strip == "all":
        return Metadata(), []
    dpi = found.dpi
    exif = _corrected(found.exif, width, height, strip == "gps", None if form.dpi else dpi) if form.exif else b""
    xmp = _corrected_xmp(found.xmp, width, height, strip == "gps") if form.xmp else b""
    result = Metadata(exif, xmp, found.iptc if form.iptc else b"", dpi if form.dpi else None)
    notes = [
        f"its {name.upper()} is left out: {form.name} has no place for it"
        for name in ("exif", "xmp", "iptc")
        if getattr(found, name) and not getattr(form, name)
    ]
    if form.name == "JPEG":
        for name in ("exif", "xmp", "iptc"):
            if len(getattr(result, name)) > _JPEG_ROOM:
                lighter: Any = {name: _lighter(result.exif) if name == "exif" else b""}
                result = replace(result, **lighter)
                notes.append(f"its {name.upper()} is too long for a JPEG; parts of it are left out")
    return result, notes


def _corrected(data: bytes, width: int, height: int, no_place: bool, dpi: tuple[float, float] | None) -> bytes:
    """EXIF of the output: its size, upright, without the input's thumbnail."""
    if not data and dpi is None:
        return b""
    exif = _exif(data)
    for tag, value in ((0x0100, width), (0x0101, height), (ORIENTATION, 1)):
        if tag in exif:
            exif[tag] = value
    details = exif.get_ifd(_EXIF)
    for tag, value in ((0xA002, width), (0xA003, height)):
        if tag in details:
            details[tag] = value
    if no_place:
        exif._ifds.pop(_GPS, None)
        if _GPS in exif:
            del exif[_GPS]
    if dpi is not None:
        exif[0x011A], exif[0x011B], exif[0x0128] = dpi[0], dpi[1], 2
    return _bytes(exif)


def _lighter(data: bytes) -> bytes:
    """EXIF without the maker's note, which is the long part; nothing where that does not help."""
    exif = _exif(data)
    exif.get_ifd(_EXIF).pop(_MAKER_NOTE, None)
    lighter = _bytes(exif)
    return lighter if len(lighter) <= _JPEG_ROOM else b""


def _exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    if data:
        exif.load(b"Exif\0\0" + data)
    exif.get_ifd(_EXIF), exif.get_ifd(_GPS)  # read now: what is changed in them is what is written
    return exif


def _bytes(exif: Image.Exif) -> bytes:
    """EXIF without the "Exif" in front; its first directory alone: the second is the thumbnail's."""
    if not len(exif) and not any(exif._ifds.values()):
        return b""
    for tag in (_EXIF, _GPS):
        if tag in exif._ifds and tag in exif:
            exif[tag] = exif._ifds[tag]  # as changed, not as read
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _corrected_xmp(data: bytes, width: int, height: int, no_place: bool) -> bytes:
    """XMP of the output; it is text, in which a value stands as an attribute or as an element."""
    sizes = {
        rb"tiff:Orientation": b"1",
        rb"(?:tiff:ImageWidth|exif:PixelXDimension)": str(width).encode(),
        rb"(?:tiff:ImageLength|exif:PixelYDimension)": str(height).encode(),
    }
    for name, value in sizes.items():
        data = re.sub(rb"(" + name + rb"\s*=\s*[\"']|<" + name + rb">)\s*\d+", rb"\g<1>" + value, data)
    if no_place:
        data = re.sub(rb"\sexif:GPS\w+\s*=\s*(?:\"[^\"]*\"|'[^']*')", b"", data)
        data = re.sub(
            rb"<(exif:GPS\w+)\b[^<>]*(?:/>|>[^<]*</\1\s*>)", b"", data
        )  # linear in time, also of hostile text
        if b":GPS" in data:  # written in a way that this does not know
            return b""
    return data


def _as_bytes(data: Any) -> bytes:
    if isinstance(data, tuple) and len(data) == 1:
        data = data[0]
    return data.encode() if isinstance(data, str) else data if isinstance(data, bytes) else b""


def _dpi(values: Any) -> tuple[float, float] | None:
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        x, y = (float(value) for value in values)
        if all(math.isfinite(value) and 0 < value < 1e6 for value in (x, y)):
            return x, y
    return None

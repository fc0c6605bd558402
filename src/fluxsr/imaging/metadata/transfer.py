"""Transfer metadata: read it from the input, adapt it to the upscaled image, drop what the output cannot store."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import replace
from typing import IO, Any

from fluxsr.imaging.formats import Format, png
from fluxsr.imaging.metadata import embedded, exif, xmp
from fluxsr.imaging.raster import Change, Metadata

_JPEG_ROOM = {"exif": 65_527, "xmp": 65_504, "iptc": 65_000}  # bytes in a segment after its header
_COMMENT_ROOM = 65_533
_NAMES = {"exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "photoshop": "data for Photoshop", "comments": "comment"}
_PARAMETERS = "parameters"  # where image generators store their settings


def read_metadata(image: Any, file: IO[bytes], place: int = 0) -> tuple[int, Metadata, list[str]]:
    """Return an image's orientation (1 if its pixels are upright), its metadata, and notes on what is lost.

    Damaged metadata is dropped. ``image`` was opened from the file with Pillow, and loaded. ``place`` is that of
    ``ifd.read_file``.
    """
    if image.format == "TIFF":
        return read_tiff_metadata(file, place)
    data, texts, lost = exif.extracted(_exif_of(image)), list[png.Chunk](), list[str]()
    packet = _as_bytes(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b"")
    with contextlib.suppress(Exception):  # damaged metadata may raise anything; the pixels are fine
        lost = embedded.lost(file, image)
    if image.format == "PNG":
        texts, others = png.text_chunks(file)
        lost += others
        data = data or exif.extracted(png.raw_profile(texts, "exif", "APP1"))
        packet = packet or png.raw_profile(texts, "xmp")
        texts = [chunk for chunk in texts if not _has_own_place(chunk)]
    iptc, resources = b"", b""
    if image.format in ("JPEG", "MPO"):
        iptc, resources = embedded.split_photoshop(embedded.photoshop(image))
    # these two have an orientation of their own, which the decoder has applied
    orientation = 1 if image.format in ("JXL", "HEIF") else exif.orientation(data)
    dpi = _dpi(image.info.get("dpi"))
    found = Metadata(data, packet, iptc, dpi, resources, tuple(texts), embedded.comments(image))
    return orientation, found, [_dropped(what) for what in lost]


def read_tiff_metadata(file: IO[bytes], place: int = 0) -> tuple[int, Metadata, list[str]]:
    """Return the same as ``read_metadata`` for a page of a TIFF, whichever library decodes it.

    ``place`` is that of ``ifd.read_file``.
    """
    with contextlib.suppress(ValueError):
        data, others, notes = exif.from_tiff(file, place)
        iptc, resources = embedded.split_photoshop(others.get(exif.PHOTOSHOP, b""))
        dpi = _dpi(exif.resolution(exif.structure(data)))
        found = Metadata(data, others.get(exif.XMP, b""), others.get(exif.IPTC, b"") or iptc, dpi, resources)
        return exif.orientation(data), found, notes
    return 1, Metadata(), []


_GPS_TEXT = re.compile(r"(^|:)gps", re.IGNORECASE)  # keywords such as exif:GPSLatitude


def carry_over(found: Metadata, form: Format, change: Change, strip: str = "none") -> tuple[Metadata, list[str]]:
    """Return the metadata of the upscaled, upright output, and notes on what is lost.

    What the format cannot store is dropped. ``strip`` is "none", "gps" (remove locations) or "all".
    """
    if strip == "all":
        return Metadata(), []
    change = replace(change, drop_location=strip == "gps", orientation=exif.orientation(found.exif))
    if change.drop_location:
        kept = tuple(chunk for chunk in found.texts if not _GPS_TEXT.search(png.keyword(chunk)))
        found = replace(found, texts=kept)
    found = _converted(found, form)
    notes = [
        f"its {_NAMES[name]} is dropped: {form.name} cannot store it"
        for name in ("exif", "xmp", "iptc", "photoshop", "comments")
        if getattr(found, name) and not getattr(form, "iptc" if name == "photoshop" else name)
    ]
    if found.texts and not form.texts:
        names = ", ".join(dict.fromkeys(png.keyword(chunk) for chunk in found.texts))
        notes.append(f"its text ({names[:100]}) is dropped: {form.name} cannot store it")
    result = Metadata(
        iptc=found.iptc if form.iptc else b"",
        dpi=found.dpi if form.dpi else None,
        photoshop=found.photoshop if form.iptc else b"",
        texts=found.texts if form.texts else (),
        comments=found.comments if form.comments else (),
    )
    if form.exif:
        data, dropped = exif.adapted(
            found.exif,
            change,
            tiff=form.name == "TIFF",
            keep_orientation=form.name != "AVIF",  # Pillow would rewrite the whole block
            dpi=None if form.dpi else found.dpi,
        )
        result, notes = replace(result, exif=data), notes + dropped
    if form.xmp:
        packet, lost = xmp.adapted(found.xmp, change, f"image/{form.name.lower()}")
        result, notes = replace(result, xmp=packet), notes + [_dropped(what) for what in lost]
    if change.turned and result.photoshop:
        result = replace(result, photoshop=embedded.without_paths(result.photoshop))
        if len(result.photoshop) < len(found.photoshop):
            notes.append(_dropped("Photoshop paths"))
    return _fitting_a_jpeg(result, notes) if form.name == "JPEG" else (result, notes)


def _converted(found: Metadata, form: Format) -> Metadata:
    """Move the texts of a PNG to where another format stores them."""
    if form.texts:
        return found
    comments, texts = list(found.comments), list[png.Chunk]()
    data = found.exif
    for chunk in found.texts:
        name, text = png.keyword(chunk), png.text(chunk)
        if name == "Comment" and form.comments and text:
            comments.append(text.encode())
        elif name == _PARAMETERS and form.exif and text and (more := exif.with_comment(data, text)):
            data = more
        else:
            texts.append(chunk)
    return replace(found, exif=data, comments=tuple(comments), texts=tuple(texts))


def too_long(found: Metadata, form: Format) -> bool:
    """Return whether the XMP of an output is too long for its format."""
    return form.name == "JPEG" and len(found.xmp) > _JPEG_ROOM["xmp"]


def _fitting_a_jpeg(result: Metadata, notes: list[str]) -> tuple[Metadata, list[str]]:
    fitting: dict[str, Any] = {name: b"" for name, room in _JPEG_ROOM.items() if len(getattr(result, name)) > room}
    if "exif" in fitting:
        fitting["exif"] = exif.shortened(result.exif, _JPEG_ROOM["exif"])
    fitting["photoshop"] = embedded.short_enough(result.photoshop)
    fitting["comments"] = tuple(comment for comment in result.comments if len(comment) <= _COMMENT_ROOM)
    notes += [
        f"its {_NAMES[name]} is too long for a JPEG; parts of it are dropped"
        for name, value in fitting.items()
        if len(value) < len(getattr(result, name))
    ]
    return replace(result, **fitting), notes


def _exif_of(image: Any) -> bytes:
    data = image.info.get("exif", b"")
    if image.format == "AVIF":  # Pillow rewrites it if the file's own rotation differs from EXIF
        with contextlib.suppress(AttributeError, TypeError, ValueError):  # Pillow internals, which may change
            raw, orientation = image._decoder.get_info()[4:6]
            data = exif.with_orientation(exif.extracted(raw), orientation) if raw else data
    if image.format == "HEIF" and image.info.get("original_orientation"):  # applied to the pixels, and reset to 1
        data = exif.with_orientation(exif.extracted(data), image.info["original_orientation"])
    return _as_bytes(data)


def _has_own_place(chunk: png.Chunk) -> bool:
    return png.keyword(chunk) == "XML:com.adobe.xmp" or png.is_raw_profile(chunk, "exif", "APP1", "xmp")


def _dropped(what: str) -> str:
    return f"its {what} is dropped: it belongs to the original file only"


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

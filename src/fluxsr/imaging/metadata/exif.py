"""Adapt EXIF to an upscaled image: only entries about size, position or colours of the pixels are changed."""

from __future__ import annotations

import contextlib
from typing import IO

from fluxsr.imaging.metadata import geotiff, ifd
from fluxsr.imaging.metadata.ifd import EXIF, GPS, INTEROP, Directory, Structure, Value
from fluxsr.imaging.metadata.ifd_pack import pack
from fluxsr.imaging.raster import Change

ORIENTATION, MAKER_NOTE = 0x0112, 0x927C
_COMMENT = 0x9286
X_RESOLUTION, Y_RESOLUTION, UNIT = 0x011A, 0x011B, 0x0128
_DESCRIPTION, _LAYERS = 0x010E, 0x935C
XMP, IPTC, PHOTOSHOP = 700, 33723, 34377  # of a TIFF's first directory
_SIZES = (((), 0x0100, 0x0101), ((EXIF,), 0xA002, 0xA003), ((EXIF, INTEROP), 0x1001, 0x1002))
_SUBJECT = (0x9214, 0xA214)  # SubjectArea, SubjectLocation
_FOCAL_PLANE = (0xA20E, 0xA20F)  # pixels per unit of length on the sensor
_NOTE_REACH = 60_000  # largest offset at which a maker note is kept in place by padding
# Maker notes whose offsets are relative to the note itself, so that it can be moved.
_MOVABLE = (b"Nikon\0\x02", b"FUJIFILM", b"OLYMPUS\0", b"OM SYSTEM", b"Apple iOS", b"PENTAX \0")

LAYOUT = frozenset({
    *range(254, 267), 273, *range(277, 282), 284, *range(288, 294), 297, *range(317, 326), *range(330, 348),
    *range(512, 522), *range(529, 533), XMP, IPTC, PHOTOSHOP, 34675,
})  # fmt: skip
"""Tags of a TIFF's first directory that describe how pixels are stored, or that have a field in Metadata."""


def from_tiff(file: IO[bytes], place: int = 0) -> tuple[bytes, dict[int, bytes], list[str]]:
    """Return the EXIF of a TIFF file as a separate structure, its XMP, IPTC and PHOTOSHOP, and notes on what is lost.

    ``place`` is that of ``ifd.read_file``. A file that is no TIFF raises a ValueError.
    """
    found, notes = ifd.read_file(file, (LAYOUT | {_LAYERS}) - {XMP, IPTC, PHOTOSHOP}, place), list[str]()
    values = found.main.values
    others = {tag: values.pop(tag).data for tag in (XMP, IPTC, PHOTOSHOP) if tag in values}
    if _LAYERS in found.skipped:
        notes.append("has Photoshop layers, which are dropped; the flattened image was read")
    described = values[_DESCRIPTION].data[:2000] if _DESCRIPTION in values else b""
    descriptions = {b'{"shape"': "", b"ImageJ=": "ImageJ", b"<OME": "OME"}  # of the array in the old file
    names = [name for mark, name in descriptions.items() if mark in described]
    for tag in (_DESCRIPTION, 50838, 50839) if names else ():  # with the private tags of ImageJ
        values.pop(tag, None)
    if names and names[0]:
        notes.append(f"its {names[0]} description of the pixels is dropped: it does not hold for the output")
    details = found.inner(EXIF).values
    note = details.get(MAKER_NOTE)
    stood = note.place if note else None
    unplace(found.main)
    if note and stood is not None and not note.data.startswith(_MOVABLE):
        if stood + len(note.data) <= _NOTE_REACH:
            note.place = stood
        else:
            del details[MAKER_NOTE]
            notes.append("its maker note is dropped: it cannot keep its offset")
    return _packed(found), others, notes


def structure(data: bytes) -> Structure:
    """Parse EXIF; damaged EXIF gives an empty structure."""
    with contextlib.suppress(ValueError):
        return ifd.read(data)
    return Structure()


def extracted(data: bytes) -> bytes:
    """Return EXIF without any prefix; empty if it cannot be parsed."""
    starts = [data.find(mark, 0, 24) for mark in (b"II*\0", b"MM\0*")]
    data = data[min((start for start in starts if start >= 0), default=len(data)) :]
    return data if structure(data).main.values else b""


def orientation(data: bytes) -> int:
    """Return the orientation, 1 to 8; 1 if there is no valid one."""
    found = structure(data)
    value = found.main.values.get(ORIENTATION)
    number = next(iter(found.numbers(value)), 1) if value else 1
    return number if number in range(1, 9) else 1


def adapted(
    data: bytes, change: Change, *, tiff: bool, keep_orientation: bool = True, dpi: tuple[float, float] | None = None
) -> tuple[bytes, list[str]]:
    """Return the EXIF of the output, and notes on what is lost.

    Args:
        tiff: whether the output is a TIFF, the only format that stores a map position.
        keep_orientation: whether an orientation tag becomes 1, or is removed.
        dpi: resolution to write here, because the format stores it nowhere else.
    """
    found = structure(data)
    main = found.main.values
    for path, *tags in _SIZES:
        values = found.inner(*path).values
        for tag, size in zip(tags, change.new, strict=True):
            if tag in values:
                values[tag] = found.integers(3 if values[tag].kind == 3 and size < 65536 else 4, size)
    if main.pop(ORIENTATION, None) and keep_orientation:
        main[ORIENTATION] = found.integers(3, 1)
    _move_subject(found, change)
    _scale_focal_plane(found, change)
    if change.drop_location:
        main.pop(GPS, None)
    if change.to_srgb:
        _set_srgb(found)
    if dpi is not None and _rounded(resolution(found)) != _rounded(dpi):
        set_resolution(found, dpi)
    notes = geotiff.scale(found, change, tiff)
    return (_packed(found) if data or dpi else b""), notes if data else []


def with_orientation(data: bytes, number: int) -> bytes:
    """Return EXIF with this orientation."""
    found = structure(data)
    values = found.main.values
    if not values or (number == 1 and ORIENTATION not in values):
        return data
    values[ORIENTATION] = found.integers(3, number)
    return pack(found)


def with_comment(data: bytes, text: str) -> bytes | None:
    """Return EXIF with a user comment; None if it has one already."""
    found = structure(data)
    old = found.inner(EXIF).values.get(_COMMENT)
    if old and old.data[8:].strip(b"\0 "):
        return None
    details = found.main.values.setdefault(EXIF, Value(4, b"", None, Directory())).inner
    if details is not None:
        code = "utf-16-le" if found.order == "<" else "utf-16-be"
        details.values[_COMMENT] = Value(7, b"UNICODE\0" + text.encode(code, errors="replace"))
    return pack(found)


def shortened(data: bytes, room: int) -> bytes:
    """Return EXIF without its maker note, the longest part; empty if it is still longer than ``room`` bytes."""
    found = structure(data)
    found.inner(EXIF).values.pop(MAKER_NOTE, None)
    found.rest = b""
    unplace(found.main)
    packed = _packed(found)
    return packed if len(packed) <= room else b""


def resolution(found: Structure) -> tuple[float, float] | None:
    """Return the resolution in pixels per inch, horizontal and vertical; None if there is no valid one."""
    values = found.main.values
    unit = found.numbers(values[UNIT])[:1] if UNIT in values else [2]
    scale = {2: 1.0, 3: 2.54}.get(unit[0] if unit else 2)
    x, y = (_fraction(found, values.get(tag)) for tag in (X_RESOLUTION, Y_RESOLUTION))
    return (x * scale, y * scale) if scale and x and y else None


def set_resolution(found: Structure, dpi: tuple[float, float]) -> None:
    """Set the resolution in pixels per inch."""
    x, y = (found.rational(value) for value in dpi)
    found.main.values |= {X_RESOLUTION: x, Y_RESOLUTION: y, UNIT: found.integers(3, 2)}


def _packed(found: Structure) -> bytes:
    for path in ((EXIF, INTEROP), (EXIF,), (GPS,)):  # a pointer to an empty directory is invalid
        outer = found.inner(*path[:-1]).values
        inner = outer[path[-1]].inner if path[-1] in outer else None
        if inner is not None and not inner.values:
            del outer[path[-1]]
    return pack(found) if found.main.values else b""


def unplace(directory: Directory) -> None:
    """Forget the offsets of a directory and its values, which then may be moved."""
    directory.place = None
    for value in directory.values.values():
        value.place = None
        if value.inner is not None:
            unplace(value.inner)


def _move_subject(found: Structure, change: Change) -> None:
    details = found.inner(EXIF).values
    for tag in _SUBJECT:
        numbers = found.numbers(details[tag]) if tag in details else []
        if len(numbers) < 2:
            continue
        x, y = change.point(numbers[0], numbers[1], *change.old)
        extent = numbers[2:][::-1] if change.sideways else numbers[2:]
        factors = (*change.factors, *change.factors)
        scaled = [round(max(number, 0) * factor) for number, factor in zip((x, y, *extent), factors, strict=False)]
        if max(scaled) < 65536:
            details[tag] = found.integers(3, *scaled)
        else:  # SHORT is its only valid type
            del details[tag]


def _scale_focal_plane(found: Structure, change: Change) -> None:
    details = found.inner(EXIF).values
    values = [_fraction(found, details.get(tag)) for tag in _FOCAL_PLANE]
    if all(values):
        values = values[::-1] if change.sideways else values
        for tag, value, factor in zip(_FOCAL_PLANE, values, change.factors, strict=True):
            details[tag] = found.rational(value * factor)


def _set_srgb(found: Structure) -> None:
    details, interop = found.inner(EXIF).values, found.inner(EXIF, INTEROP).values
    if 0xA001 in details:
        details[0xA001] = found.integers(3, 1)
    if 1 in interop and interop[1].data.startswith(b"R03"):
        interop[1] = Value(2, b"R98\0")


def _fraction(found: Structure, value: Value | None) -> float:
    """Return the value of a RATIONAL; 0 for other types."""
    if value is None or value.kind != 5 or len(value.data) < 8:
        return 0.0
    over, under = found.numbers(Value(4, value.data))[:2]
    return over / under if under else 0.0


def _rounded(dpi: tuple[float, float] | None) -> list[float]:
    return [round(value, 2) for value in dpi or ()]

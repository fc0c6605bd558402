"""Adapt EXIF to an upscaled image: only entries about size, position or colours of the pixels are changed."""

from __future__ import annotations

import contextlib
from typing import IO

from fluxsr.imaging.metadata import geotiff, ifd, ifd_pack
from fluxsr.imaging.metadata.change import Change
from fluxsr.imaging.metadata.ifd import EXIF, GPS, INTEROP, Directory, Structure, Value

ORIENTATION, MAKER_NOTE = 0x0112, 0x927C
_COMMENT = 0x9286
X_RESOLUTION, Y_RESOLUTION, UNIT = 0x011A, 0x011B, 0x0128
_DESCRIPTION, _LAYERS = 0x010E, 0x935C
_SIZES = (((), 0x0100, 0x0101), ((EXIF,), 0xA002, 0xA003), ((EXIF, INTEROP), 0x1001, 0x1002))
_SUBJECT = (0x9214, 0xA214)  # SubjectArea, SubjectLocation
_FOCAL_PLANE = (0xA20E, 0xA20F)  # pixels per unit of length on the sensor
_NOTE_REACH = 60_000  # largest offset at which a maker note is kept in place by padding
# Maker notes whose offsets are relative to the note itself, so that it can be moved.
_MOVABLE = (b"Nikon\0\x02", b"FUJIFILM", b"OLYMPUS\0", b"OM SYSTEM", b"Apple iOS", b"PENTAX \0")

LAYOUT = frozenset({
    *range(254, 267), 273, *range(277, 282), 284, *range(288, 294), 297, *range(317, 326), *range(330, 348),
    *range(512, 522), *range(529, 533), 700, 33723, 34377, 34675,
})  # fmt: skip
"""Tags of a TIFF's first directory that describe how pixels are stored, or that have a field in Metadata."""


def from_tiff(file: IO[bytes]) -> tuple[bytes, list[str]]:
    """Return the EXIF of a TIFF file as a separate structure, and notes on what is lost.

    Raises:
        ValueError: the file is not a TIFF.
    """
    found, notes = ifd.read_file(file, {*LAYOUT, _LAYERS}), list[str]()
    values = found.main.values
    if _LAYERS in found.skipped:
        notes.append("has Photoshop layers, which are dropped; the flattened image was read")
    described = values[_DESCRIPTION].data if _DESCRIPTION in values else b""
    kind = {b'{"shape"': "", b"ImageJ=": "ImageJ", b"<OME": "OME"}
    for mark, name in kind.items():  # descriptions of the array in the old file
        if mark in described[:2000]:
            del values[_DESCRIPTION]
            for tag in (50838, 50839):  # private tags of ImageJ
                values.pop(tag, None)
            notes += (
                [f"its {name} description of the pixels is dropped: it does not hold for the output"] if name else []
            )
            break
    note = found.inner(EXIF).values.get(MAKER_NOTE)
    place = note.place if note else None
    _unplace(found.main)
    if note and place is not None and not note.data.startswith(_MOVABLE):
        if place + len(note.data) <= _NOTE_REACH:
            note.place = place
        else:
            del found.inner(EXIF).values[MAKER_NOTE]
            notes.append("its maker note is dropped: it cannot keep its offset")
    return _packed(found), notes


def structure(data: bytes) -> Structure | None:
    """Parse EXIF; None if it is damaged or empty."""
    with contextlib.suppress(ValueError):
        return ifd.read(data) if data else None
    return None


def extracted(data: bytes) -> bytes:
    """Return EXIF without any prefix; empty if it cannot be parsed."""
    starts = [data.find(mark, 0, 24) for mark in (b"II*\0", b"MM\0*")]
    data = data[min((start for start in starts if start >= 0), default=len(data)) :]
    found = structure(data)
    return data if found and found.main.values else b""


def orientation(data: bytes) -> int:
    """Return the orientation, 1 to 8; 1 if there is no valid one."""
    found = structure(data)
    value = found.main.values.get(ORIENTATION) if found else None
    number = next(iter(found.numbers(value)), 1) if found and value else 1
    return number if number in range(1, 9) else 1


def adapted(
    data: bytes, change: Change, *, tiff: bool, keep_orientation: bool = True, dpi: tuple[float, float] | None = None
) -> tuple[bytes, list[str]]:
    """Return the EXIF of the output, and notes on what is lost.

    Args:
        data: EXIF of the input.
        change: from the input to the output.
        tiff: whether the output is a TIFF, the only format that stores a map position.
        keep_orientation: whether an orientation tag becomes 1, or is removed.
        dpi: resolution to write here, because the format stores it nowhere else.
    """
    found = structure(data) or Structure()
    main = found.main.values
    for path, *tags in _SIZES:
        values = found.inner(*path).values
        for tag, size in zip(tags, change.new, strict=True):
            if tag in values:
                values[tag] = found.integers(3 if values[tag].kind == 3 and size < 65536 else 4, size)
    if ORIENTATION in main:
        if keep_orientation:
            main[ORIENTATION] = found.integers(3, 1)
        else:
            del main[ORIENTATION]
    _move_subject(found, change)
    _scale_focal_plane(found, change)
    if change.drop_location:
        main.pop(GPS, None)
    if change.to_srgb:
        _set_srgb(found)
    if dpi is not None and _dpi(found) != tuple(round(value, 2) for value in dpi):
        main[X_RESOLUTION], main[Y_RESOLUTION] = (found.rational(value) for value in dpi)
        main[UNIT] = found.integers(3, 2)
    notes = geotiff.scale(found, change, tiff)
    return (_packed(found) if data or dpi else b""), notes if data else []


def with_orientation(data: bytes, number: int) -> bytes:
    """Return EXIF with this orientation."""
    found = structure(data)
    if found is None or (number == 1 and ORIENTATION not in found.main.values):
        return data
    found.main.values[ORIENTATION] = found.integers(3, number)
    return ifd_pack.pack(found)


def has_comment(data: bytes) -> bool:
    """Whether there is a user comment."""
    found = structure(data)
    value = found.inner(EXIF).values.get(_COMMENT) if found else None
    return value is not None and bool(value.data[8:].strip(b"\0 "))


def with_comment(data: bytes, text: str) -> bytes:
    """Return EXIF with a user comment."""
    found = structure(data) or Structure()
    details = found.main.values.setdefault(EXIF, Value(4, b"", None, Directory())).inner
    if details is not None:
        code = "utf-16-le" if found.order == "<" else "utf-16-be"
        details.values[_COMMENT] = Value(7, b"UNICODE\0" + text.encode(code, errors="replace"))
    return ifd_pack.pack(found)


def shortened(data: bytes, room: int) -> bytes:
    """Return EXIF without its maker note, the longest part; empty if it is still longer than ``room`` bytes."""
    found = structure(data)
    if found is None:
        return b""
    found.inner(EXIF).values.pop(MAKER_NOTE, None)
    found.rest = b""
    _unplace(found.main)
    packed = _packed(found)
    return packed if len(packed) <= room else b""


def resolution(found: Structure) -> tuple[float, float] | None:
    """Return the resolution in pixels per inch, horizontal and vertical; None if there is no valid one."""
    unit = found.numbers(found.main.values[UNIT])[:1] if UNIT in found.main.values else [2]
    scale = {2: 1.0, 3: 2.54}.get(unit[0] if unit else 2)
    values = [found.main.values.get(tag) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    fractions = [_fraction(found, value) for value in values if value]
    if scale is None or len(fractions) != 2 or not all(fractions):
        return None
    return fractions[0] * scale, fractions[1] * scale


def _packed(found: Structure) -> bytes:
    for path in ((EXIF, INTEROP), (EXIF,), (GPS,)):  # a pointer to an empty directory is invalid
        outer = found.inner(*path[:-1]).values
        inner = outer[path[-1]].inner if path[-1] in outer else None
        if inner is not None and not inner.values:
            del outer[path[-1]]
    return ifd_pack.pack(found) if found.main.values else b""


def _unplace(directory: Directory) -> None:
    directory.place = None
    for value in directory.values.values():
        value.place = None
        if value.inner is not None:
            _unplace(value.inner)


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
    values = [_fraction(found, details[tag]) if tag in details else 0.0 for tag in _FOCAL_PLANE]
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


def _fraction(found: Structure, value: Value) -> float:
    """Return the value of a RATIONAL; 0 for other types."""
    if value.kind != 5 or len(value.data) < 8:
        return 0.0
    over, under = found.numbers(Value(4, value.data))[:2]
    return over / under if under else 0.0


def _dpi(found: Structure) -> tuple[float, ...] | None:
    said = resolution(found)
    return None if said is None else tuple(round(value, 2) for value in said)

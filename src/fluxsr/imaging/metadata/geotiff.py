"""Map position of a GeoTIFF, which is given in pixels and must be scaled with the image."""

from __future__ import annotations

import re
import struct

from fluxsr.imaging.metadata.ifd import Structure, Value
from fluxsr.imaging.raster import Change

_SCALE, _TIEPOINTS, _MATRIX, _KEYS = 33550, 33922, 34264, 34735
_TAGS = {_SCALE, _TIEPOINTS, _MATRIX, _KEYS, 34736, 34737}
_UNKNOWN = {33920, 50844}  # Intergraph matrix and rational polynomials, which are not scaled here
_GDAL, _NO_DATA = 42112, 42113
_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2


def scale(found: Structure, change: Change, tiff: bool) -> list[str]:
    """Scale the map position for the output in place, or remove it; return notes on what is removed.

    Only a ``tiff`` stores a map position.
    """
    values, notes = found.main.values, list[str]()
    if _NO_DATA in values:
        del values[_NO_DATA]
        notes.append("its value for missing pixels (GDAL) is dropped: upscaled pixels do not keep it exactly")
    if _GDAL in values:
        text = re.sub(rb'<Item name="STATISTICS_[^<>]*>[^<]*</Item>\s*', b"", values[_GDAL].data)
        values[_GDAL] = values[_GDAL] if text == values[_GDAL].data else Value(2, text)
    present = (_TAGS | _UNKNOWN) & set(values)
    if not present:
        return notes
    why = ""
    if not tiff:
        why = "only TIFF stores it"
    elif change.turned or present & _UNKNOWN or not _scaled(found, change):
        why = "it cannot be computed for the upscaled image"
    if why or change.drop_location:
        for tag in present:
            del values[tag]
    return [*notes, f"its map position (GeoTIFF) is dropped: {why}"] if why and not change.drop_location else notes


def _scaled(found: Structure, change: Change) -> bool:
    """Scale all tags of the position; return whether that was possible."""
    across, down = change.factors
    # Coordinate p of the input is factor * p + shift in the output: pixel centres move, corners do not.
    shifts = [(factor - 1) / 2 if _is_point(found) else 0.0 for factor in (across, down)]
    values = found.main.values
    numbers = {tag: _doubles(found, values[tag]) for tag in (_SCALE, _TIEPOINTS, _MATRIX) if tag in values}
    if not all(numbers.values()) or len(numbers.get(_SCALE, [0] * 3)) != 3 or len(numbers.get(_MATRIX, [0] * 16)) != 16:
        return False
    if _SCALE in numbers:
        x, y, z = numbers[_SCALE]
        numbers[_SCALE] = [x / across, y / down, z]
    if _TIEPOINTS in numbers:
        points = numbers[_TIEPOINTS]
        for start in range(0, len(points) - 5, 6):
            points[start] = points[start] * across + shifts[0]
            points[start + 1] = points[start + 1] * down + shifts[1]
    if _MATRIX in numbers:
        matrix = numbers[_MATRIX]
        for row in range(0, 16, 4):
            matrix[row] /= across
            matrix[row + 1] /= down
            matrix[row + 3] -= matrix[row] * shifts[0] + matrix[row + 1] * shifts[1]
    for tag, entries in numbers.items():
        values[tag] = Value(12, struct.pack(f"{found.order}{len(entries)}d", *entries))
    return True


def _is_point(found: Structure) -> bool:
    keys = found.numbers(found.main.values[_KEYS]) if _KEYS in found.main.values else []
    return any(keys[at : at + 4] == [_RASTER_TYPE, 0, 1, _PIXEL_IS_POINT] for at in range(4, len(keys), 4))


def _doubles(found: Structure, value: Value) -> list[float]:
    count = len(value.data) // 8
    return list(struct.unpack(f"{found.order}{count}d", value.data)) if value.kind == 12 else []

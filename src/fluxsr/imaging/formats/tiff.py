"""TIFF written strip by strip, around an EXIF structure whose bytes stay at their offsets.

The file begins with the EXIF structure, so that it is its header as well, and ends with the directory of the picture.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from fluxsr.imaging.metadata import exif, photoshop
from fluxsr.imaging.metadata.ifd import Structure, Value
from fluxsr.imaging.metadata.ifd_pack import Packer
from fluxsr.imaging.raster import Metadata

LEVEL = 4  # as PNG's
_ROWS = 64  # of a strip
_LARGE = 3_900_000_000  # bytes of pixels above which offsets take 64 bits


def write(
    file: IO[bytes],
    shape: tuple[int, int, int],
    sixteen: bool,
    bands: Iterable[np.ndarray],
    profile: bytes,
    metadata: Metadata,
) -> None:
    """Write a TIFF, or a BigTIFF where it would be too large.

    Args:
        file: to write to, empty; must be seekable.
        shape: (height, width, channels), the latter as in Raster.
        sixteen: 16 bit per channel, or 8.
        bands: from top to bottom, (rows,W,C), uint8 or uint16.
        profile: ICC; empty for none.
        metadata: EXIF, XMP, IPTC, Photoshop's resources and dpi.
    """
    big = shape[0] * shape[1] * shape[2] * (1 + sixteen) > _LARGE
    structure = exif.structure(metadata.exif) or Structure()
    values = structure.main.values
    for tag in exif.LAYOUT & set(values):
        del values[tag]
    packer = Packer(structure, big)
    file.write(packer.out)
    offsets, lengths = list[int](), list[int]()
    for strip in _strips(bands, structure.order):
        offsets.append(file.tell())
        lengths.append(file.write(strip))
    file.write(b"\0" * (file.tell() % 2))
    values |= _pixels(structure, shape, sixteen) | _belongings(structure, profile, metadata)
    wide = 16 if big else 4
    values |= {0x0111: structure.integers(wide, *offsets), 0x0117: structure.integers(wide, *lengths)}
    first = file.tell()
    table, tail = packer.table(structure.main, first + packer.size(structure.main))
    file.write(table + tail)
    packer.head(first)
    file.seek(0)
    file.write(packer.out[:16] if big else packer.out[:8])


def _pixels(structure: Structure, shape: tuple[int, int, int], sixteen: bool) -> dict[int, Value]:
    height, width, channels = shape
    short, long = 3, 4
    found = {
        0x0100: structure.integers(long, width),
        0x0101: structure.integers(long, height),
        0x0102: structure.integers(short, *[16 if sixteen else 8] * channels),
        0x0103: structure.integers(short, 8),  # zlib
        0x0106: structure.integers(short, 1 if channels < 3 else 2),  # grey with black as 0, RGB
        0x0115: structure.integers(short, channels),
        0x0116: structure.integers(long, _ROWS),
        0x011C: structure.integers(short, 1),
        0x013D: structure.integers(short, 2),  # differences along the rows
        0x0153: structure.integers(short, *[1] * channels),
    }
    return found | ({0x0152: structure.integers(short, 2)} if channels in (2, 4) else {})  # alpha, not multiplied in


def _belongings(structure: Structure, profile: bytes, metadata: Metadata) -> dict[int, Value]:
    blocks = photoshop.resources(metadata.iptc if metadata.photoshop else b"", metadata.photoshop)
    tags = {700: (1, metadata.xmp), 33723: (7, metadata.iptc), 34377: (1, blocks), 34675: (7, profile)}
    found = {tag: Value(kind, data) for tag, (kind, data) in tags.items() if data}
    if metadata.dpi:
        found |= {
            exif.X_RESOLUTION: structure.rational(metadata.dpi[0]),
            exif.Y_RESOLUTION: structure.rational(metadata.dpi[1]),
        }
        found[exif.UNIT] = structure.integers(3, 2)
    return found


def _strips(bands: Iterable[np.ndarray], order: str) -> Iterator[bytes]:
    """Compressed strips of equal height, but for the last, of bands of any height."""
    rest: np.ndarray | None = None
    for band in bands:
        rest = band if rest is None else np.concatenate([rest, band])
        while len(rest) >= _ROWS:
            yield _packed(rest[:_ROWS], order)
            rest = rest[_ROWS:]
    if rest is not None and len(rest):
        yield _packed(rest, order)


def _packed(rows: np.ndarray, order: str) -> bytes:
    import imagecodecs

    differences = np.asarray(imagecodecs.delta_encode(np.ascontiguousarray(rows), axis=1))
    return zlib.compress(differences.astype(f"{order}u{rows.itemsize}").tobytes(), LEVEL)

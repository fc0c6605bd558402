"""Read TIFF at full bit depth, and write it strip by strip around an EXIF structure that keeps its offsets.

A written file begins with the EXIF structure, which is also its header, and ends with the directory of the image.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO

import numpy as np

from fluxsr.errors import InputError
from fluxsr.imaging.formats import raw
from fluxsr.imaging.metadata import embedded, exif, ifd
from fluxsr.imaging.metadata.ifd import Structure, Value
from fluxsr.imaging.metadata.ifd_pack import Packer
from fluxsr.imaging.metadata.transfer import read_tiff_metadata
from fluxsr.imaging.raster import ImageSpec, Raster, checked_float

LEVEL = 4  # as in png.py
SEVERAL = "has several pages or frames; the first was taken"
_ROWS = 64  # rows per strip
_LARGE = 3_900_000_000  # bytes of pixels above which offsets need 64 bits


def read(file: IO[bytes], check: Callable[[int, int], None]) -> tuple[Raster, int] | None:
    """Return the first page of a TIFF and its orientation; None for other files, and for kinds that Pillow reads.

    ``check`` is called with width and height before pixels are decoded; it raises if they are too large.
    """
    from tifffile import PHOTOMETRIC, TiffFile

    file.seek(0)
    if file.read(4) not in ifd.SIGNATURES:
        return None
    file.seek(0)
    with TiffFile(file) as tiff:
        raw.refuse_raw_tiff(tiff)
        page = tiff.pages.first
        read_here = page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB)
        if not read_here or np.max(page.bitspersample) < 8 or page.dtype is None or page.imagedepth > 1:
            return None
        check(page.imagewidth, page.imagelength * max(page.samplesperpixel // 4, 1))
        pixels = page.asarray(maxworkers=1)
        separate, extra = page.planarconfig == 2 and page.samplesperpixel > 1, tuple(page.extrasamples)
        inverted = page.photometric == PHOTOMETRIC.MINISWHITE
        orientation, found, notes = read_tiff_metadata(file)
        notes = [*([SEVERAL] if raw.page_of(tiff.pages, 1) else []), *notes]
        profile = bytes(page.iccprofile or b"")
    pixels = np.moveaxis(pixels, 0, -1) if separate else pixels
    pixels = _ranged(pixels[..., None] if pixels.ndim == 2 else pixels)
    colours = pixels.shape[-1] - len(extra)
    alpha = bool(extra) and extra[0] in (1, 2)  # other extra channels are not alpha
    pixels = pixels[..., : colours + alpha]
    if inverted:
        pixels = (np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else np.float32(1)) - pixels
    pixels = _straight(pixels) if alpha and extra[0] == 1 else pixels
    return Raster(pixels, "TIFF", profile, found, notes=tuple(notes)), orientation


def write(file: IO[bytes], spec: ImageSpec, bands: Iterable[np.ndarray]) -> None:
    """Write a TIFF, or a BigTIFF if a TIFF would be too large. The file must be empty and seekable.

    ``bands`` are rows from top to bottom, each (rows,W,C).
    """
    big = spec.height * spec.width * spec.channels * (1 + spec.sixteen) > _LARGE
    structure = exif.structure(spec.metadata.exif)
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
    _describe(structure, spec)
    _attach(structure, spec)
    wide = 16 if big else 4
    values |= {0x0111: structure.integers(wide, *offsets), 0x0117: structure.integers(wide, *lengths)}
    first = file.tell()
    table, tail = packer.table(structure.main, first + packer.size(structure.main))
    file.write(table + tail)
    packer.head(first)
    file.seek(0)
    file.write(packer.out[: packer.start])


def _describe(structure: Structure, spec: ImageSpec) -> None:
    """Set the tags that say how the pixels are stored."""
    short, long, channels = 3, 4, spec.channels
    tags = {
        0x0100: (long, spec.width),
        0x0101: (long, spec.height),
        0x0102: (short, *[16 if spec.sixteen else 8] * channels),
        0x0103: (short, 8),  # zlib
        0x0106: (short, 1 if channels < 3 else 2),  # grey with black as 0, or RGB
        0x0115: (short, channels),
        0x0116: (long, _ROWS),
        0x011C: (short, 1),
        0x013D: (short, 2),  # horizontal differencing
        0x0153: (short, *[1] * channels),
        **({0x0152: (short, 2)} if channels in (2, 4) else {}),  # alpha, not premultiplied
    }
    structure.main.values |= {tag: structure.integers(*numbers) for tag, numbers in tags.items()}


def _attach(structure: Structure, spec: ImageSpec) -> None:
    """Set the tags of profile and metadata."""
    metadata = spec.metadata
    blocks = embedded.join_photoshop(metadata.iptc if metadata.photoshop else b"", metadata.photoshop)
    tags = {
        exif.XMP: (1, metadata.xmp),
        exif.IPTC: (7, metadata.iptc),
        exif.PHOTOSHOP: (1, blocks),
        34675: (7, spec.profile),
    }
    structure.main.values |= {tag: Value(kind, data) for tag, (kind, data) in tags.items() if data}
    if metadata.dpi:
        exif.set_resolution(structure, metadata.dpi)


def _strips(bands: Iterable[np.ndarray], order: str) -> Iterator[bytes]:
    """Yield compressed strips of equal height (the last may be lower) from bands of any height."""
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


def _ranged(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.dtype == np.uint32:
        return (pixels >> 16).astype(np.uint16)
    if np.issubdtype(pixels.dtype, np.floating):
        return checked_float(pixels)
    raise InputError(f"has pixels of type {pixels.dtype}; convert it to 8 or 16 bit")


def _straight(pixels: np.ndarray) -> np.ndarray:
    """Return premultiplied colours divided by alpha."""
    maximum = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0
    alpha = pixels[..., -1:] / np.float32(maximum)
    colours = np.divide(pixels[..., :-1], alpha, where=alpha > 0, out=np.zeros(pixels[..., :-1].shape, np.float32))
    colours = colours.clip(0, maximum)
    return np.concatenate([colours.round().astype(pixels.dtype) if maximum > 1 else colours, pixels[..., -1:]], axis=-1)

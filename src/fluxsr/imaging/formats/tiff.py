"""Read TIFF at full bit depth, and write it strip by strip around an EXIF structure that keeps its offsets.

A written file begins with the EXIF structure, which is also its header, and ends with the directory of the image.
Further pages follow in the same way, but their EXIF is moved.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import IO

import numpy as np

from fluxsr.errors import InputError
from fluxsr.imaging.formats import FormatLimitError, raw
from fluxsr.imaging.metadata import embedded, exif, ifd
from fluxsr.imaging.metadata.ifd import Structure, Value
from fluxsr.imaging.metadata.ifd_pack import Packer
from fluxsr.imaging.metadata.transfer import read_tiff_metadata
from fluxsr.imaging.raster import Frame, ImageSpec, Raster, checked_float

LEVEL = 4  # as in png.py
SEVERAL = "has several pages or frames; the first was taken"
_ROWS = 64  # rows per strip
_MOST = 4_290_000_000  # bytes before the last directory
_NO_PAGE = 5  # bits of a page's kind: a reduced copy, a mask
_LARGE = 3_900_000_000  # bytes of pixels above which offsets need 64 bits


def page_places(file: IO[bytes]) -> dict[int, int]:
    """Return the numbers of a TIFF's pages and the offsets of their directories, 0 for the first one.

    Reduced copies and masks of pages are left out, unless the first page is one. Other files have no pages.
    """
    from tifffile import TiffFile

    if not _is_tiff(file):
        return {}
    with TiffFile(file) as tiff:
        found, seen = {0: 0}, {tiff.pages.first.offset}
        for number in count(1):
            page = raw.page_of(tiff.pages, number)
            if page is None or page.offset in seen:  # the end, or a damaged file whose pages form a loop
                break
            seen.add(page.offset)
            if not page.subfiletype & _NO_PAGE:
                found[number] = page.offset
    return found


def _is_tiff(file: IO[bytes]) -> bool:
    file.seek(0)
    found = file.read(4) in ifd.SIGNATURES
    file.seek(0)
    return found


def read(file: IO[bytes], check: Callable[[int, int], None], place: int = 0) -> tuple[Raster, int] | None:
    """Return a page of a TIFF and its orientation; None for other files, and for kinds that Pillow reads.

    ``check`` is called with width and height before pixels are decoded; it raises if they are too large. ``place`` is
    the offset of the page's directory; 0 stands for the first page.
    """
    from tifffile import PHOTOMETRIC, TiffFile, TiffPage

    if not _is_tiff(file):
        return None
    with TiffFile(file) as tiff:
        raw.refuse_raw_tiff(tiff)
        file.seek(place)
        page = TiffPage(tiff, 0) if place else tiff.pages.first
        read_here = page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB)
        if not read_here or np.max(page.bitspersample) < 8 or page.dtype is None or page.imagedepth > 1:
            return None
        check(page.imagewidth, page.imagelength * max(page.samplesperpixel // 4, 1))
        pixels = page.asarray(maxworkers=1)
        separate, extra = page.planarconfig == 2 and page.samplesperpixel > 1, tuple(page.extrasamples)
        inverted = page.photometric == PHOTOMETRIC.MINISWHITE
        orientation, found, notes = read_tiff_metadata(file, place)
        count = len(page_places(file)) if not place and raw.page_of(tiff.pages, 1) is not None else 1
        notes = [*([SEVERAL] if count > 1 else []), *notes]
        profile = bytes(page.iccprofile or b"")
    pixels = np.moveaxis(pixels, 0, -1) if separate else pixels
    pixels = _ranged(pixels[..., None] if pixels.ndim == 2 else pixels)
    colours = pixels.shape[-1] - len(extra)
    alpha = bool(extra) and extra[0] in (1, 2)  # other extra channels are not alpha
    pixels = pixels[..., : colours + alpha]
    if inverted:
        pixels = (np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else np.float32(1)) - pixels
    pixels = _straight(pixels) if alpha and extra[0] == 1 else pixels
    return Raster(pixels, "TIFF", profile, found, notes=tuple(notes), frame=Frame(count)), orientation


def write(file: IO[bytes], pages: Iterable[tuple[ImageSpec, Iterable[np.ndarray]]]) -> None:
    """Write a TIFF, or a BigTIFF if a TIFF would be too large. The file must be empty and seekable.

    Each page has bands of rows from top to bottom, each (rows,W,C).

    Raises:
        FormatLimitError: the pages are so much larger than the first one that a TIFF cannot hold them.
    """
    first: Packer | None = None
    link = 0  # where the offset of the next page's directory belongs
    for spec, bands in pages:
        size = spec.height * spec.width * spec.channels * (1 + spec.sixteen) * spec.frame.count
        structure = exif.structure(spec.metadata.exif)
        for tag in exif.LAYOUT & set(structure.main.values):
            del structure.main.values[tag]
        if first is None:
            packer = first = Packer(structure, size > _LARGE)
        else:
            if structure.order != first.order:  # only where a page has no metadata
                structure = Structure(first.order)
            exif.unplace(structure.main)
            structure.rest = b""
            packer = Packer(structure, first.big, file.seek(0, 2))
        place = _write_page(file, packer, structure, spec, bands)
        if link:
            file.seek(link)
            file.write(struct.pack(packer.pointer, place))
        else:
            packer.head(place)
            file.seek(0)
            file.write(packer.out[: packer.start])
        link = place + packer.size(structure.main) - packer.wide
    file.seek(0, 2)


def _write_page(
    file: IO[bytes], packer: Packer, structure: Structure, spec: ImageSpec, bands: Iterable[np.ndarray]
) -> int:
    """Write a page at the end of a file, and return the offset of its directory."""
    file.write(packer.out)
    offsets, lengths = list[int](), list[int]()
    for strip in _strips(bands, structure.order):
        offsets.append(file.tell())
        lengths.append(file.write(strip))
    file.write(b"\0" * (file.tell() % 2))
    _describe(structure, spec)
    _attach(structure, spec)
    if not packer.big and file.tell() > _MOST:
        raise FormatLimitError("its pages take more than 4 GB, and the first one is small")
    wide = 16 if packer.big else 4
    structure.main.values |= {0x0111: structure.integers(wide, *offsets), 0x0117: structure.integers(wide, *lengths)}
    place = file.tell()
    table, tail = packer.table(structure.main, place + packer.size(structure.main))
    file.write(table + tail)
    return place


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

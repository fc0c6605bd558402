"""Decode image files: Pillow reads 8 bits per channel, tifffile and imagecodecs read more.

Every error is one line: what was found and what to do.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fluxsr.errors import InputError, TooLargeError, is_untranslatable
from fluxsr.imaging.atomic import first_line
from fluxsr.imaging.color import colorimetry, profiles
from fluxsr.imaging.formats import avif, bmp, jxl, png, raw, tiff
from fluxsr.imaging.metadata.transfer import read_metadata
from fluxsr.imaging.raster import Frame, Metadata, Raster, checked_float, upright
from fluxsr.options import MAX_PIXELS

MAX_BYTES = 4 << 30

# Pillow knows more formats. Some of them start other programs (EPS), and none holds photographs.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "TGA")
_SEVERAL = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")  # formats whose further frames or pages are read
_EXTRAS = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}  # format -> package, where it is installed
_UNSUPPORTED = re.compile(r"unsupported|not supported|not implemented|requires the|unknown compression", re.IGNORECASE)
_LOST_SHARE = 0.05  # largest fraction of rows that a truncated JPEG may lack


def decode(path: str | Path, max_pixels: int = MAX_PIXELS) -> Raster:
    """Read the first page or frame of an image file.

    Args:
        path: the file. Its content decides on the format, not its name.
        max_pixels: larger images are refused before any pixel is decoded.

    Raises:
        InputError: the file is missing, empty, damaged, not an image, not supported, or has no pixels.
        TooLargeError: an InputError; the image has too many pixels.
    """
    path = Path(path)
    with _readable(path) as file:
        return _decoded(file, _limit(path, max_pixels))


def decode_frames(path: str | Path, max_pixels: int = MAX_PIXELS) -> Iterator[Raster]:
    """Read the frames of an animation as full pictures, or the pages of a TIFF, one after the other.

    Only the first frame of an animation has metadata. Arguments and errors are those of ``decode``.
    """
    path = Path(path)
    check = _limit(path, max_pixels)
    with _readable(path) as file:
        if pages := tiff.page_places(file):
            yield from (_decoded(file, check, number, place) for number, place in pages.items())
            return
        with _opened(file) as image:
            first, orientation = _hidden(image), 1
            for number in range(image.n_frames - first):
                image.seek(first + number)
                check(*image.size)
                raster, turned = _by_pillow(file, image, number)
                orientation = orientation if number else turned
                yield replace(raster, pixels=np.ascontiguousarray(upright(raster.pixels, orientation)))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to decode it. Whatever a decoder raises for damaged data becomes an InputError."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name an image file")
    try:
        state = path.stat()  # before opening, because a pipe would wait for its writer
        if not stat.S_ISREG(state.st_mode):
            raise InputError(f"{path} is a pipe or a device, not a file; save its contents as a file first")
        if state.st_size == 0:
            raise InputError(f"{path} is empty (0 bytes)")
        if state.st_size > MAX_BYTES:
            raise InputError(f"{path} is too large: {state.st_size} bytes, the limit is {MAX_BYTES}")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnidentifiedImageError as error:
        raise InputError(_unknown(path)) from error
    except InputError as error:
        if str(error).startswith(str(path)):
            raise
        link = "" if str(error).startswith(("is ", "has ", "holds ")) else ":"
        raise type(error)(f"{path}{link} {error}") from error
    except RecursionError:
        raise
    except Exception as error:  # decoders raise anything for damaged data
        if is_untranslatable(error):
            raise
        reason = first_line(error) if isinstance(error, OSError) else f"{type(error).__name__} {first_line(error)}"
        if isinstance(error, NotImplementedError) or _UNSUPPORTED.search(reason):
            raise InputError(f"{path} is not supported: {reason}; save it as PNG or TIFF") from error
        raise InputError(f"{path} is damaged or cut off: {reason}") from error


def size_of(file: IO[bytes]) -> tuple[int, int] | None:
    """Return the upright (width, height) from the first bytes of a file; None if they do not tell.

    Raises:
        TooLargeError: the image exceeds the limit of Pillow.
    """
    if jxl.looks_like(file):
        return jxl.size_of(file)
    found: tuple[int, int] | None = _asked(file, _upright_size)
    return found


def kind_of(file: IO[bytes]) -> str:
    """Return the name of a file's format, as in Raster; empty if no decoder knows it."""
    return _asked(file, _kind) or ""


def _asked(file: IO[bytes], question: Callable[[Image.Image], Any]) -> Any:
    try:
        with _opened(file) as image:
            return question(image)
    except TooLargeError:
        raise
    except Exception as error:  # decoders raise anything for part of a file
        if is_untranslatable(error):
            raise
        return None


def _upright_size(image: Image.Image) -> tuple[int, int]:
    exif = image.getexif() if "exif" in image.info else {}  # otherwise a PNG would be decoded
    width, height = image.size
    return (height, width) if exif.get(0x0112) in (5, 6, 7, 8) else (width, height)


def _kind(image: Image.Image) -> str:
    return {"MPO": "JPEG", "DIB": "BMP"}.get(str(image.format), str(image.format))


def _limit(path: Path, max_pixels: int) -> Callable[[int, int], None]:
    """Return the function that refuses images which are too large or empty."""

    def check(width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise InputError(f"{path} has no pixels ({width}x{height})")
        if width * height > max_pixels:
            raise TooLargeError(
                f"{path} is too large: {width}x{height} are {width * height} pixels, "
                f"the limit is {max_pixels} (--max-pixels)"
            )

    return check


def _decoded(file: IO[bytes], check: Callable[[int, int], None], page: int = 0, place: int = 0) -> Raster:
    """Decode with the first reader that knows the file: TIFF, BMP with channel masks, Pillow.

    Args:
        file: the file.
        check: called with width and height before pixels are decoded; it raises if they are too large.
        page, place: number of a page of a TIFF, and the offset of its directory; 0 and 0 for the first.
    """
    raw.refuse_raw(file)
    found = tiff.read(file, check, place)
    if found is None:
        masked = bmp.bitfields(file, check)
        found = _first_by_pillow(file, check, page, place) if masked is None else (masked, 1)
    raster, orientation = found
    colorimetry.refuse_hdr(raster.profile)
    return replace(raster, pixels=np.ascontiguousarray(upright(raster.pixels, orientation)))


def _first_by_pillow(file: IO[bytes], check: Callable[[int, int], None], page: int, place: int) -> tuple[Raster, int]:
    if jxl.looks_like(file):  # its decoder decodes everything before the check below
        size = jxl.size_of(file)
        if size is None:
            raise InputError("is damaged or cut off: its JPEG XL header has no size")
        check(*size)
    with _opened(file) as image:
        if page:
            image.seek(page)
        check(*image.size)
        several = getattr(image, "is_animated", False) and image.format != "MPO"
        raster, orientation = _by_pillow(file, image, place=place)
        if not several:
            return raster, orientation
        count = 1 if page or raster.format not in _SEVERAL else _count(file, image)
        return replace(raster, notes=(tiff.SEVERAL, *raster.notes), frame=Frame(count)), orientation


def _by_pillow(file: IO[bytes], image: Any, number: int | None = None, place: int = 0) -> tuple[Raster, int]:
    """Return the frame of an image at which Pillow is, and its orientation.

    Args:
        file, image: the file, and the image that was opened from it.
        number: of the frame in an animation; None for an image whose further frames are not read.
        place: offset of the directory of a TIFF's page; 0 for the first one.
    """
    pixels, profile, colors, notes = _pixels(file, image, number is not None)
    orientation, found, lost = read_metadata(image, file, place) if not number else (1, Metadata(), [])
    kind, frame = _kind(image), Frame()
    if number is not None:
        frame = Frame(image.n_frames - _hidden(image), image.info.get("duration") or 0, _plays(file, image))
    lossless = _lossless(kind, file, 64 if number is None else 4096)
    return Raster(pixels, kind, profile, found, lossless, (*notes, *lost), colors, frame), orientation


@contextlib.contextmanager
def _opened(file: IO[bytes]) -> Any:
    kinds: tuple[str, ...] = _FORMATS
    for kind, package in _EXTRAS.items():
        with contextlib.suppress(ImportError):
            module = importlib.import_module(package)
            if kind == "HEIF" and kind not in Image.OPEN:
                module.register_heif_opener()
            kinds = (*kinds, kind)
    try:
        image = Image.open(file, formats=kinds)
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"too large: {first_line(error)}") from error
    with image:
        yield image


def _hidden(image: Image.Image) -> int:
    """Return how many images of a PNG are not part of its animation: 1 or 0."""
    return int(bool(image.info.get("default_image")))


def _count(file: IO[bytes], image: Any) -> int:
    """Return the number of frames or pages; 2 if it takes decoding to say where damaged ones end."""
    if image.format == "TIFF":
        return len(tiff.page_places(file))
    with contextlib.suppress(Exception):  # the first frame is fine
        return int(image.n_frames) - _hidden(image)
    return 2


def _plays(file: IO[bytes], image: Image.Image) -> int:
    """Return how often an animation is shown, as in Frame."""
    if image.format == "AVIF":
        return avif.plays(file)
    loop = image.info.get("loop")
    if image.format == "GIF":  # which counts repetitions
        return 1 if loop is None else loop and loop + 1
    return int(loop or 0)


def _pixels(
    file: IO[bytes], image: Image.Image, animated: bool
) -> tuple[np.ndarray, bytes, tuple[png.Chunk, ...], list[str]]:
    """Return pixels as in Raster, not yet upright; their profile, colour chunks, and notes."""
    profile, notes = image.info.get("icc_profile") or b"", list[str]()
    if image.format == "PNG" and png.read_depth(file) == 16 and not animated:
        pixels = png.read_sixteen(file)
    elif image.format == "JXL" and (found := jxl.pixels(file, profile)) is not None:
        pixels, profile, notes = found
    else:
        image, notes = _loaded(file, image)
        if image.mode == "CMYK":
            converted = profiles.cmyk_to_srgb(image)
            return np.asarray(converted), b"", (), [*notes, "has CMYK colours, which become sRGB"]
        pixels = _array(image)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.dtype == np.uint8 and (depth := profiles.depth_of(file, str(image.format))) > 8:
        notes = [*notes, f"has {depth} bits per channel, of which 8 are read"]
    profile, colors = profiles.colors_of(file, image, profile, pixels.shape[-1] <= 2)
    return pixels, profile, colors, notes


def _loaded(file: IO[bytes], image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Decode. A JPEG without its last bytes is accepted if it lacks only a few rows."""
    try:
        image.load()
        return image, []
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        file.seek(0)
        with Image.open(BytesIO(file.read() + b"\xff\xd9"), formats=("JPEG",)) as completed:
            completed.load()
        if _even_rows(np.asarray(completed)) > max(16, _LOST_SHARE * completed.height):
            raise
        return completed, ["is cut off at its end; its last rows may be missing"]


def _even_rows(pixels: np.ndarray) -> int:
    """Count the rows at the bottom that equal the row above: libjpeg fills missing data this way."""
    differs = (pixels[1:] != pixels[:-1]).reshape(len(pixels) - 1, -1).any(1)
    return int(len(pixels) - 1 - (np.flatnonzero(differs)[-1] if differs.any() else -1))


def _array(image: Image.Image) -> np.ndarray:
    transparent = "transparency" in image.info
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"has values from {values.min()} to {values.max()}; convert it to 8 or 16 bit")
        return values.astype(np.uint16)
    if image.mode == "F":
        return checked_float(np.asarray(image))
    grey = image.mode in ("1", "L", "LA", "La") or (image.mode == "P" and not transparent and _grey_palette(image))
    alpha = transparent or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    mode = ("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB")
    if image.mode in ("La", "1"):
        image = image.convert("LA" if image.mode == "La" else "L")
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _grey_palette(image: Image.Image) -> bool:
    palette = np.array(image.getpalette("RGB") or [0, 1, 0]).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _lossless(kind: str, file: IO[bytes], head: int) -> bool:
    """Return whether the compression is lossless, from the first bytes of a WebP."""
    if kind == "WEBP":
        file.seek(0)
        return b"VP8L" in file.read(head)  # the first chunk, or the one after VP8X; in an animation further ones
    return kind not in ("JPEG", "AVIF", "HEIF", "JPEG2000", "JXL")


def _unknown(path: Path) -> str:
    for endings, package, extra in (((".heic", ".heif"), "pillow_heif", "heic"), ((".jxl",), "pillow_jxl", "jxl")):
        if path.suffix.lower() in endings and importlib.util.find_spec(package) is None:
            return f'{path} needs {package}; pip install "fluxsr[{extra}]"'
    return f"{path} is not an image that can be read, whatever its name"

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
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fluxsr.errors import InputError, TooLargeError, is_untranslatable
from fluxsr.imaging import pillow
from fluxsr.imaging.atomic import reason_of
from fluxsr.imaging.color import colorimetry
from fluxsr.imaging.formats import bmp, jxl, raw, tiff
from fluxsr.imaging.raster import Raster, upright
from fluxsr.options import MAX_PIXELS

MAX_BYTES = 4 << 30

_UNSUPPORTED = re.compile(r"unsupported|not supported|not implemented|requires the|unknown compression", re.IGNORECASE)


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
        with pillow.opened(file) as image:
            first, orientation = pillow.hidden_images(image), 1
            for number in range(image.n_frames - first):
                image.seek(first + number)
                check(*image.size)
                raster, turned = pillow.frame_raster(file, image, number)
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
        reason = reason_of(error) if isinstance(error, OSError) else f"{type(error).__name__} {reason_of(error)}"
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
    return _asked(file, pillow.kind_of_image) or ""


def _asked(file: IO[bytes], question: Callable[[Image.Image], Any]) -> Any:
    try:
        with pillow.opened(file) as image:
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
        found = pillow.first_raster(file, check, page, place) if masked is None else (masked, 1)
    raster, orientation = found
    colorimetry.refuse_hdr(raster.profile)
    return replace(raster, pixels=np.ascontiguousarray(upright(raster.pixels, orientation)))


def _unknown(path: Path) -> str:
    for endings, package, extra in (((".heic", ".heif"), "pillow_heif", "heic"), ((".jxl",), "pillow_jxl", "jxl")):
        if path.suffix.lower() in endings and importlib.util.find_spec(package) is None:
            return f'{path} needs {package}; pip install "fluxsr[{extra}]"'
    return f"{path} is not an image that can be read, whatever its name"

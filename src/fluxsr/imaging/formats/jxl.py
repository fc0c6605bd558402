"""Read the header of JPEG XL files, and their pixels at full bit depth.

The plugin of Pillow knows the size only after it has decoded the whole image, and reduces everything to 8 bits.
"""

from __future__ import annotations

from typing import IO

import numpy as np

from fluxsr.errors import InputError
from fluxsr.imaging.color import colorimetry
from fluxsr.imaging.formats.boxes import outer_boxes
from fluxsr.imaging.formats.jxl_header import SIGNATURE, Header, as_float, header_of, size_in
from fluxsr.imaging.raster import checked_float

_HEADER = 11  # bytes: the signature and at most 68 bits of size
_LINEAR = b"Rel_Lin"  # in the name of the profile that libjxl makes for linear light
_BRIGHT = 1.02  # white, with a tolerance for lossy compression


def looks_like(file: IO[bytes]) -> bool:
    """Whether pillow_jxl accepts the file. Rewinds the file."""
    file.seek(0)
    head = file.read(7)
    file.seek(0)
    return head[:2] == SIGNATURE or head[4:7] == b"JXL"


def size_of(file: IO[bytes]) -> tuple[int, int] | None:
    """Return (width, height) from the header; None if it is missing or incomplete. Rewinds the file.

    Args:
        file: a file that looks like JPEG XL, or its beginning.
    """
    file.seek(0)
    head = file.read(_HEADER)
    if head[:2] != SIGNATURE:
        head = _codestream(file, _HEADER)
    file.seek(0)
    if len(head) < _HEADER or head[:2] != SIGNATURE:
        return None
    return size_in(head)


def pixels(file: IO[bytes], profile: bytes) -> tuple[np.ndarray, bytes, list[str]] | None:
    """Return pixels of more than 8 bit, or that Pillow's plugin would give as 8 bit of linear light.

    Args:
        file: of a JPEG XL image.
        profile: ICC, as the plugin tells it: of the pixels as libjxl gives them.

    Returns:
        (H,W,C) as in Raster, their profile, and notes; None where the plugin's pixels are as good.

    Raises:
        InputError: floating-point pixels outside [0,1].
    """
    import imagecodecs

    data = _codestream(file)
    try:
        header = header_of(data)
    except IndexError:
        return None
    linear = _LINEAR in profile.replace(b"\0", b"")
    if header.bits == 8 and not (header.lossy and linear):
        return None
    if header.lossy:
        return _lossy(imagecodecs.jpegxl_decode(as_float(data, header)), header, None if linear else profile)
    found = _planes(imagecodecs.jpegxl_decode(data))
    if found.dtype.kind == "f":
        return checked_float(found), profile, []
    whole = np.float32(65535 / (2 ** min(header.bits, 16) - 1))
    return (found.astype(np.float32) * whole).round().astype(np.uint16), profile, []


def _lossy(found: np.ndarray, header: Header, profile: bytes | None) -> tuple[np.ndarray, bytes, list[str]]:
    """Return pixels that were decoded from XYB in floating point; a profile of None means linear light of sRGB."""
    found, notes = _planes(found), list[str]()
    if header.floating and (found > _BRIGHT).mean() > 0.01:
        raise InputError(f"floating-point pixels up to {found.max():g}; convert the file to 8 or 16 bit")
    if profile is None:
        colours = found.shape[-1] - (found.shape[-1] in (2, 4))
        values, profile, name = colorimetry.encode_linear(found[..., :colours])
        found = np.concatenate([values, found[..., colours:]], -1)
        notes.append(f"its colours are converted to {name}: lossy JPEG XL decodes to linear light")
    whole, dtype = (255, np.uint8) if header.bits == 8 else (65535, np.uint16)
    return (found.clip(0, 1) * np.float32(whole)).round().astype(dtype), profile, notes


def _planes(found: np.ndarray) -> np.ndarray:
    return found if found.ndim == 3 else found[..., None]


def _codestream(file: IO[bytes], length: int | None = None) -> bytes:
    """Return the codestream or its beginning, which a container may hold in several boxes of any length."""
    file.seek(0)
    if file.read(2) == SIGNATURE:
        file.seek(0)
        return file.read(-1 if length is None else length)
    found = b""
    for kind, start, stop in outer_boxes(file):
        start += 4 if kind == b"jxlp" else 0  # the number of the part
        if start > stop:
            break
        if kind in (b"jxlc", b"jxlp"):
            file.seek(start)
            found += file.read(stop - start if length is None else min(length - len(found), stop - start))
        if length is not None and len(found) >= length:
            break
    return found

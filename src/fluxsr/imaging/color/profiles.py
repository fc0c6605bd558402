"""Find the ICC profile of a file's colours, and convert by it in floating point.

Colours outside sRGB become values outside [0,1].
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from itertools import product
from typing import IO, Any

import numpy as np
from PIL import Image, ImageCms

from fluxsr.imaging.color import colorimetry
from fluxsr.imaging.formats import bmp, boxes, png

_SPACES = {b"RGB ": ("rgb", 3), b"GRAY": ("gray", 1)}
_DETAILS, _COLOR_SPACE, _INTEROP = 0x8769, 0xA001, 0xA005  # EXIF's directory of details, and tags there
_ADOBE = 2  # not in the standard, but written by cameras


def colors_of(file: IO[bytes], image: Any, profile: bytes, grey: bool) -> tuple[bytes, tuple[png.Chunk, ...]]:
    """Return the ICC profile of an image's colours, and what else the file says of them (see Raster.colors).

    Args:
        file, image: the file, and what Pillow makes of it.
        profile: the ICC profile that Pillow finds.
        grey: whether the image has one channel of colour.
    """
    kind, chunks = image.format, tuple[png.Chunk, ...]()
    if kind == "PNG":
        chunks = png.color_chunks(file)
        if not profile or b"cICP" in dict(chunks):
            profile = colorimetry.profile_from_png(chunks, grey) or b""
    elif kind in ("AVIF", "HEIF") and not profile:
        profile, chunks = _of_cicp(boxes.cicp(file), grey)
    elif kind == "JPEG2000":
        profile, cicp = boxes.jp2_colours(file)
        profile, chunks = (profile, ()) if profile else _of_cicp(cicp, grey)
    elif kind in ("BMP", "DIB"):
        profile = bmp.profile(file)
    if not profile and not chunks and not grey and _names_adobe(image):
        profile = colorimetry.adobe_rgb()
    return profile, chunks


def depth_of(file: IO[bytes], kind: str) -> int:
    """Return the bits per channel of a file whose format, by Pillow's name, is read as 8 bit; 8 if it has no more."""
    if kind == "PPM":
        file.seek(0)
        head = re.match(rb"P[2356]((\s|#[^\n]*\n)+(\d+)){3}", file.read(1000))
        return int(head[3]).bit_length() if head else 8
    return boxes.depth(file) if kind in ("AVIF", "HEIF", "JPEG2000") else 8


def _of_cicp(cicp: bytes, grey: bool) -> tuple[bytes, tuple[png.Chunk, ...]]:
    if not cicp:
        return b"", ()
    specified = not {0, 2, 3} & set(cicp[:2])  # the others are reserved or "unspecified"
    return colorimetry.profile_from_cicp(cicp[0], cicp[1], grey), ((b"cICP", cicp),) if specified else ()


def _names_adobe(image: Any) -> bool:
    """Return whether EXIF says Adobe RGB, as cameras do by the name of a file format (R03) instead of a profile."""
    with suppress(Exception):  # of a damaged EXIF anything may be thrown
        exif = image.getexif()
        details = exif.get_ifd(_DETAILS)
        return details.get(_COLOR_SPACE) == _ADOBE or "R03" in str(exif.get_ifd(_INTEROP).get(1, ""))
    return False


def to_srgb(colours: np.ndarray, profile: bytes) -> np.ndarray | None:
    """Convert colours (H,W,C) of a profile, float32 in [0,1], C = 1 or 3, to sRGB.

    Colours outside sRGB become values below 0 or above 1. Return None if the profile is damaged or does not match.
    """
    return _transformed(colours, profile, inward=True)


def from_srgb(colours: np.ndarray, profile: bytes) -> np.ndarray | None:
    """Convert sRGB (H,W,C), also outside [0,1], to colours of the profile, clipped to [0,1]; None if impossible."""
    back = _transformed(colours, profile, inward=False)
    return None if back is None else back.clip(0, 1)


@lru_cache(maxsize=16)
def usable(profile: bytes, channels: int) -> bool:
    """Whether a profile converts colours with this number of channels to sRGB and back."""
    ramp = np.linspace(0, 1, 5, dtype=np.float32)
    probe = np.array(list(product(ramp, repeat=channels)), np.float32)[None]
    there = to_srgb(probe, profile)
    back = None if there is None else from_srgb(there, profile)
    return back is not None and bool(np.abs(back - probe).max() < 0.1)


@lru_cache(maxsize=16)
def is_srgb(profile: bytes) -> bool:
    """Whether an RGB profile is sRGB, to less than half a step of 8 bits."""
    ramp = np.linspace(0, 1, 9, dtype=np.float32)
    probe = np.array(list(product(ramp, repeat=3)), np.float32)[None]
    there = to_srgb(probe, profile)
    return there is not None and bool(np.abs(there - probe).max() < 0.5 / 255)


def _transformed(colours: np.ndarray, profile: bytes, inward: bool) -> np.ndarray | None:
    import imagecodecs

    space, channels = _SPACES.get(profile[16:20], ("", 0))
    count = colours.shape[-1]
    if channels == 0 or (count, channels) == (3, 1):
        return None
    wide = np.repeat(colours, 3, axis=-1) if count == 1 and (channels == 3 or not inward) else colours
    one, two = (profile, _srgb()) if inward else (_srgb(), profile)
    try:
        result = imagecodecs.cms_transform(
            np.ascontiguousarray(wide, dtype=np.float32),
            one,
            two,
            colorspace=space if inward else "rgb",
            outcolorspace="rgb" if inward else space,
            outdtype="float32",
        )
    except (imagecodecs.CmsError, ValueError, RuntimeError):
        return None
    result = result.reshape(*colours.shape[:2], -1)
    if not np.isfinite(result).all():
        return None
    return result[..., :1] if count == 1 else result


@lru_cache(maxsize=1)
def _srgb() -> bytes:
    import imagecodecs

    return bytes(imagecodecs.cms_profile("srgb"))


def cmyk_to_srgb(image: Image.Image) -> Image.Image:
    """Convert a CMYK image to 8-bit sRGB, by its profile if it has a CMYK one."""
    data = image.info.get("icc_profile") or b""
    if data[16:20] == b"CMYK":
        try:
            profile = ImageCms.ImageCmsProfile(BytesIO(data))
            result = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert result is not None  # it works on a copy
            return result
        except (ImageCms.PyCMSError, OSError):
            pass  # treat a damaged profile as none
    return image.convert("RGB")

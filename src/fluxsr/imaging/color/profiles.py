"""Convert colours by ICC profile in floating point; colours outside sRGB become values outside [0,1]."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from itertools import product

import numpy as np
from PIL import Image, ImageCms

_SPACES = {b"RGB ": ("rgb", 3), b"GRAY": ("gray", 1)}


def to_srgb(colours: np.ndarray, profile: bytes) -> np.ndarray | None:
    """Convert colours of a profile to sRGB.

    Args:
        colours: (H,W,C) float32 in [0,1], C = 1 or 3.
        profile: ICC profile of the colours.

    Returns:
        (H,W,C) float32, below 0 or above 1 for colours outside sRGB; None if the profile is damaged or does not match
        the channels.
    """
    return _transformed(colours, profile, _srgb(), inward=True)


def from_srgb(colours: np.ndarray, profile: bytes) -> np.ndarray | None:
    """Convert sRGB (H,W,C), also outside [0,1], to colours of the profile, clipped to [0,1]; None if impossible."""
    back = _transformed(colours, profile, _srgb(), inward=False)
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


def _transformed(colours: np.ndarray, profile: bytes, srgb: bytes, inward: bool) -> np.ndarray | None:
    import imagecodecs

    space, channels = _SPACES.get(profile[16:20], ("", 0))
    given = colours.shape[-1]
    if channels == 0 or (given, channels) == (3, 1):
        return None
    wide = np.repeat(colours, 3, axis=-1) if given == 1 and (channels == 3 or not inward) else colours
    one, two = (profile, srgb) if inward else (srgb, profile)
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
    return result[..., :1] if given == 1 else result


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

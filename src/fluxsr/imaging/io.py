"""Image files: read into RGB, written in one piece, and to tensors and back.

Errors are one line each: what was found and what to do.
"""

from __future__ import annotations

import contextlib
import os
import struct
import uuid
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from fluxsr.errors import InputError, OutputError

FORMATS: dict[str, str] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
"""Endings that can be written, and Pillow's name for each."""

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    # zlib's level 6 takes about twice the time for about 2 % of the size
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_deflate"},
}

_PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # ICC's colour space -> Pillow's mode
_FITTING = {("RGB", "RGB"), ("L", "L"), ("L", "RGB"), ("CMYK", "CMYK")}  # (image, profile)

# What Pillow's many decoders raise on broken files.
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error)


@dataclass(frozen=True)
class Picture:
    """An image file as the pipeline takes it.

    Attributes:
        image: sRGB, 8 bit, upright (the EXIF orientation is applied).
        path: where it came from.
    """

    image: Image.Image
    path: Path


def read(path: str | Path) -> Picture:
    """Read an image file; of files with several frames the first.

    Grey, palette, CMYK and 16-bit files become 8-bit RGB, by way of their ICC profile where they have
    one; transparency is laid over white.

    Raises:
        InputError: the file is missing, empty, broken, not an image, or has no pixels.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name an image file")
    if not path.exists():
        raise InputError(f"{path} does not exist")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes)")
        with Image.open(path) as opened:
            opened.load()
            image = to_rgb(to_srgb(ImageOps.exif_transpose(opened)))
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that can be read, whatever its name") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large: {_line(error)}") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read: {error.strerror}") from error
    except _BROKEN as error:
        raise InputError(f"{path} is damaged or cut off: {_line(error)}") from error
    if 0 in image.size:
        raise InputError(f"{path} has no pixels ({image.width}x{image.height})")
    return Picture(image, path)


def to_srgb(image: Image.Image) -> Image.Image:
    """An image with an ICC profile as sRGB, its transparency kept; the image itself without a usable profile.

    A profile that is broken, or of another kind of colours than the image's, is ignored.
    """
    data = image.info.get("icc_profile")
    if not data:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(data))
        mode = _PROFILE_MODES.get(profile.profile.xcolor_space)
        if mode is None or (_colours(image), mode) not in _FITTING:
            return image
        deep = image.mode.startswith(("I", "F"))  # Pillow's own conversion would clip 16 bit at 255
        transparent = image.has_transparency_data and not deep
        whole = image.convert("RGBA") if transparent else image
        colours = (to_rgb(whole) if deep else whole).convert(mode)
        result = ImageCms.profileToProfile(colours, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # OSError: what is there is no profile
        return image
    assert result is not None  # it works on a copy
    if transparent:
        result.putalpha(whole.getchannel("A"))
    return result


def _colours(image: Image.Image) -> str:
    if image.mode in ("CMYK", "LAB"):
        return image.mode
    return "L" if image.mode.startswith(("1", "L", "I", "F")) else "RGB"


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB; transparency is laid over white.

    Raises:
        InputError: floating-point pixels outside [0,1], whose white is not known.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16 bit at 255
        sixteen = np.asarray(image).astype(np.float32) / 257
        return Image.fromarray(sixteen.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise InputError(
                f"floating-point pixels from {values.min():g} to {values.max():g}; "
                "expected [0,1], convert the file to 8 or 16 bit"
            )
        return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def write(image: Image.Image, path: str | Path) -> None:
    """Write an image so that the path holds either the whole file or what it held before.

    The bytes go to a hidden neighbour that is renamed once it is on the disk. The format follows
    the ending; missing folders are made.

    Raises:
        OutputError: unknown ending, a folder that cannot be written, a format's own limits.
    """
    path = Path(path)
    kind = _kind(path)
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as file:
            image.save(file, format=kind, **_SAVE_OPTIONS.get(kind, {}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, ValueError, struct.error) as error:
        raise OutputError(f"{path} cannot be written: {_line(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # gone after the rename, or never made
            part.unlink()


def check_writable(path: str | Path) -> None:
    """Find out before the work whether ``write`` could write here.

    Raises:
        OutputError: as ``write``, but for the format's own limits.
    """
    path = Path(path)
    _kind(path)
    part = _part(path)
    try:
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(exist_ok=False)
        part.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {_line(error)}") from error


def _kind(path: Path) -> str:
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(FORMATS)
        raise OutputError(f"{path}: cannot write '{path.suffix}' files; use one of {known}")
    return kind


def _part(path: Path) -> Path:
    return path.with_name(f".{path.stem[:40]}.{uuid.uuid4().hex[:8]}.part")


def to_tensor(image: Image.Image) -> Tensor:
    """A Pillow image as (1,3,H,W), float32, RGB in [0,1]."""
    pixels = torch.from_numpy(np.array(to_rgb(image)))  # (H,W,3), a copy: torch wants it writable
    return pixels.permute(2, 0, 1)[None].float().div_(255)


def to_pil(image: Tensor) -> Image.Image:
    """(3,H,W) or (1,3,H,W) about [0,1] as an 8-bit RGB image, rounded and clamped.

    Works channel by channel: a float copy of a large image would weigh more than the image.
    """
    image = image[0] if image.ndim == 4 else image
    pixels = np.empty((*image.shape[1:], 3), dtype=np.uint8)
    for channel in range(3):
        values = (image[channel].detach().float() * 255).round_().clamp_(0, 255)
        pixels[..., channel] = values.to(torch.uint8).cpu().numpy()
    return Image.fromarray(pixels)


def _line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]

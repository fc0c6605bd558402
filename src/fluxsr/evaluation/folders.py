"""Find the images of folders by file stem, and read them as stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.io import to_rgb
from fluxsr.imaging.listing import is_hidden

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff"}


def list_images(folder: Path) -> dict[str, Path]:
    """Return the images in a folder by file stem, sorted; hidden ones are ignored.

    Raises:
        InputError: no such folder, no images, or two images of one stem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or is_hidden(path.name):
            continue
        if path.stem in found:
            raise InputError(f"two images of one stem: {found[path.stem]} and {path.name}; keep one")
        found[path.stem] = path
    if not found:
        raise InputError(f"no images in {folder}; known endings: {', '.join(sorted(SUFFIXES))}")
    return found


def check_stems(stems: Sequence[str], paths: dict[str, Path], folder: Path) -> None:
    """Raise an error for a folder that lacks some of the stems.

    Raises:
        InputError: with the first few that are missing.
    """
    missing = [stem for stem in stems if stem not in paths]
    if missing or not stems:
        shown = ", ".join(missing[:5]) or "(none asked for)"
        raise InputError(f"{len(missing)} of {len(stems)} images are not in {folder}: {shown}")


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) from the header of an image.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def load_image(path: Path) -> Tensor:
    """Read pixels as stored, RGB, float64 (1, 3, H, W) in [0, 1].

    Orientation tags and colour profiles are not applied; 16-bit grey is scaled to 8 bit.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(to_rgb(image), dtype=np.float64)
    except (OSError, UnidentifiedImageError, InputError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255

"""Read and write image files, and convert between Pillow images and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fluxsr.errors import OutputError
from fluxsr.imaging.atomic import replaced
from fluxsr.imaging.decode import MAX_PIXELS, decode
from fluxsr.imaging.encode import FormatLimitError, ImageSpec, encode
from fluxsr.imaging.formats import format_of
from fluxsr.imaging.picture import Picture, picture_of, rows_of, spec_of
from fluxsr.imaging.raster import checked_float
from fluxsr.options import UpscaleOptions


def read(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read an image file. If it has several pages or frames, read the first.

    Raises:
        InputError: the file is missing, empty, damaged, too large, not an image, or has no pixels.
    """
    path = Path(path)
    raster = decode(path, max_pixels)
    try:
        state = path.stat()
        times = (state.st_atime_ns, state.st_mtime_ns)
    except OSError:  # deleted since: the image was read, its dates are unknown
        times = None
    return picture_of(raster, path, times)


def write(image: Image.Image, path: str | Path, quality: int | None = None) -> None:
    """Write an image as 8-bit RGB without metadata, atomically.

    Raises:
        OutputError: the ending is unknown, the folder cannot be written, or the format has too narrow limits.
    """
    path, form = Path(path), format_of(path)
    pixels = np.asarray(to_rgb(image))
    with _output(path) as file:
        encode(file, form, ImageSpec(image.width, image.height, 3), [pixels], quality)


def write_enlarged(
    picture: Picture, bands: Iterable[Tensor], size: tuple[int, int], path: str | Path, options: UpscaleOptions
) -> list[str]:
    """Write an upscaled image with the colours and metadata of its input, atomically.

    Args:
        picture: the input.
        bands: the result from top to bottom, each (1,3,rows,W), float32, about [0,1]; overwritten.
        size: (height, width) of the result.
        path: its ending decides on the format.
        options: how the image is written.

    Returns:
        Notes on what the format cannot store.

    Raises:
        OutputError: the ending is unknown, the folder cannot be written, or the format has too narrow limits.
    """
    path, form = Path(path), format_of(path)
    spec, notes = spec_of(picture, form, size, options)
    same = picture.format == form.name
    lossless = same and picture.lossless if options.lossless is None else options.lossless

    def rows() -> Iterable[np.ndarray]:
        first = 0
        for band in bands:
            yield rows_of(picture, spec, band, first)
            first += band.shape[-2]

    with _output(path, None if options.strip == "all" else picture.times) as file:
        encode(file, form, spec, rows(), options.quality, lossless)
    return notes


@contextmanager
def _output(path: Path, times: tuple[int, int] | None = None) -> Iterator[IO[bytes]]:
    """Open an output with ``replaced``; limits of a format become an OutputError too."""
    try:
        with replaced(path, times) as file:
            yield file
    except FormatLimitError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to 8-bit RGB; transparency is composited over white.

    Raises:
        InputError: floating-point pixels lie outside [0,1], so that the value of white is unknown.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16 bit at 255
        sixteen = np.asarray(image).astype(np.float32) / 257
        return Image.fromarray(sixteen.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = checked_float(np.asarray(image))
        return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """Convert a Pillow image to (1,3,H,W), float32, RGB in [0,1]."""
    pixels = torch.from_numpy(np.array(to_rgb(image)))  # (H,W,3); a copy, because torch needs it writable
    return pixels.permute(2, 0, 1)[None].float().div_(255)


def to_pil(image: Tensor) -> Image.Image:
    """Convert (3,H,W) or (1,3,H,W), about [0,1], to an 8-bit RGB image, rounded and clamped.

    Channels are converted one by one, because a float copy of a large image takes more memory than the image.
    """
    image = image[0] if image.ndim == 4 else image
    pixels = np.empty((*image.shape[1:], 3), dtype=np.uint8)
    for channel in range(3):
        values = (image[channel].detach().float() * 255).round_().clamp_(0, 255)
        pixels[..., channel] = values.to(torch.uint8).cpu().numpy()
    return Image.fromarray(pixels)

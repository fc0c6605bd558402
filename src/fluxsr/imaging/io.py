"""Read and write image files, and convert the images that callers pass and get: Pillow images, arrays and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fluxsr.errors import InputError, OutputError
from fluxsr.imaging.atomic import replaced, write_bytes
from fluxsr.imaging.decode import MAX_PIXELS, decode
from fluxsr.imaging.encode import Layer, encode
from fluxsr.imaging.formats import FormatLimitError, format_of
from fluxsr.imaging.picture import Picture, over_white, picture_of, rows_of, spec_of
from fluxsr.imaging.raster import Frame, ImageSpec, checked_float
from fluxsr.options import UpscaleOptions

OUTPUT_TYPES = ("pil", "pt", "np")


@dataclass(frozen=True)
class Enlarged:
    """The result for a picture.

    Attributes:
        picture: the input.
        bands: the result from top to bottom, each (1,3,rows,W), float32, about [0,1]; overwritten.
        size: (height, width) of the result.
        made: what made the output, for ``provenance.marked``.
    """

    picture: Picture
    bands: Iterable[Tensor]
    size: tuple[int, int]
    made: Mapping[str, str] | None = None


def read(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read the first page or frame of an image file; raise an InputError if that is impossible (see ``decode``)."""
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
        encode(file, form, [(ImageSpec(image.width, image.height, 3), [pixels])], quality)


def write_enlarged(
    picture: Picture,
    bands: Iterable[Tensor],
    size: tuple[int, int],
    path: str | Path,
    options: UpscaleOptions,
    made: Mapping[str, str] | None = None,
) -> list[str]:
    """Write one upscaled image, whose parts are those of ``Enlarged``; see ``write_frames``."""
    return write_frames([Enlarged(replace(picture, frame=Frame()), bands, size, made)], path, options)


def write_frames(results: Iterable[Enlarged], path: str | Path, options: UpscaleOptions) -> list[str]:
    """Write upscaled images as one file, with the colours and metadata of their inputs, atomically.

    Args:
        results: as many as the frames of their pictures count.
        path: its ending decides on the format.
        options: how the results are written.

    Returns:
        Notes on what the format cannot store.
    """
    path, form, notes = Path(path), format_of(path), dict[str, None]()
    results = iter(results)
    first = next(results)
    same = first.picture.format == form.name
    lossless = same and first.picture.lossless if options.lossless is None else options.lossless

    def layers() -> Iterator[Layer]:
        for result in chain([first], results):
            spec, more = spec_of(result.picture, form, result.size, options, result.made)
            notes.update(dict.fromkeys(more))
            yield spec, rows(result, spec)

    def rows(result: Enlarged, spec: ImageSpec) -> Iterator[np.ndarray]:
        top = 0
        for band in result.bands:
            yield rows_of(result.picture, spec, band, top, options.wrap)
            top += band.shape[-2]

    with _output(path, None if options.strip == "all" else first.picture.times) as file:
        encode(file, form, layers(), options.quality, lossless)
    return list(notes)


@contextmanager
def _output(path: Path, times: tuple[int, int] | None = None) -> Iterator[IO[bytes]]:
    """Open an output with ``replaced``; limits of a format become an OutputError too."""
    try:
        with replaced(path, times) as file:
            yield file
    except FormatLimitError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def contact_sheet(path: Path, rows: Sequence[Sequence[Tensor]], side: int = 256) -> None:
    """Write a grid of images, to compare results by eye. The ending of ``path`` decides on the format.

    Args:
        rows: images (3,H,W) in 0..255. Each is cropped to its central square; smaller ones are padded with black.
        side: side of a square, in pixels.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise OutputError(f"{path} cannot be written: unknown file extension '{path.suffix}'")
    lines = []
    for row in rows:
        cells = []
        for image in row:
            top, left = (max(0, (n - side) // 2) for n in image.shape[1:])
            cell = image[:, top : top + side, left : left + side].float().clamp(0, 255).round()
            cells.append(F.pad(cell, (0, side - cell.shape[2], 0, side - cell.shape[1])))
        lines.append(torch.cat(cells, dim=2))
    grid, data = torch.cat(lines, dim=1).to(torch.uint8).permute(1, 2, 0).contiguous().numpy(), BytesIO()
    Image.fromarray(grid).save(data, kind)
    write_bytes(data.getvalue(), path)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to 8-bit RGB; transparency is composited over white."""
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


def as_tensors(image: Any) -> list[Tensor]:
    """Return a list of images (1,3,H,W), float32 in [0,1], on the CPU; raise an InputError for other types.

    Args:
        image: PIL image; array (H,W), (H,W,C) or (B,H,W,C) of grey (C = 1), RGB or RGBA, uint8 or float
            in [0,1]; tensor (3,H,W) or (B,3,H,W), float in [0,1]; or a list of these. Grey becomes RGB,
            and transparency is composited over white.
    """
    if isinstance(image, Sequence) and not isinstance(image, str):
        return [lr for entry in image for lr in as_tensors(entry)]
    if isinstance(image, Image.Image):
        return [to_tensor(image)]
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if not isinstance(image, Tensor):
        raise InputError(f"image is a {type(image).__name__}; pass a PIL image, an array, a tensor or a list")
    image = image[None] if image.ndim == 3 else image
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise InputError(
            f"image has shape {tuple(image.shape)} and type {image.dtype}; expected floats "
            "(B,3,H,W) in [0,1] (or an array (B,H,W,3))"
        )
    return _each(_in_range(image.detach().float().cpu()))


def checked_size(lr: Tensor) -> tuple[int, int]:
    """Return (height, width) of an image (1,3,h,w); raise an InputError for other shapes."""
    if lr.ndim != 4 or lr.shape[:2] != (1, 3):
        raise InputError(f"image has shape {tuple(lr.shape)}; expected one image, (1,3,height,width)")
    height, width = lr.shape[-2:]
    if min(height, width) < 1:
        raise InputError(f"image is {width}x{height} pixels; it must not be empty")
    return height, width


def as_output(image: Tensor, output_type: str) -> Any:
    """Convert an image (1,3,H,W), about [0,1], to "pil", "pt" (1,3,H,W) or "np" (1,H,W,3), clamped to [0,1]."""
    if output_type == "pil":
        return to_pil(image)
    image = image.clamp_(0, 1)
    return image if output_type == "pt" else image.permute(0, 2, 3, 1).numpy()


def stacked(images: list[Any]) -> Any:
    """Concatenate arrays or tensors of equal size; return other lists, and PIL images, unchanged."""
    if not isinstance(images[0], (Tensor, np.ndarray)) or len({image.shape for image in images}) != 1:
        return images
    return torch.cat(images) if isinstance(images[0], Tensor) else np.concatenate(images)


def _from_array(array: np.ndarray) -> list[Tensor]:
    pixels = array[..., None] if array.ndim == 2 else array
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    kinds = array.dtype == np.uint8 or np.issubdtype(array.dtype, np.floating)
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3, 4) or not kinds:
        raise InputError(
            f"image is an array of shape {array.shape} and type {array.dtype}; expected (H,W), (H,W,C) or (B,H,W,C) "
            "with C = 1, 3 or 4 (grey, RGB or RGBA), uint8 or floats in [0,1]"
        )
    values = pixels / np.float32(255) if array.dtype == np.uint8 else pixels
    # Copy: torch takes no negative strides, which a BGR image reversed by [..., ::-1] has.
    image = _in_range(torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 1), dtype=np.float32)))
    if image.shape[1] == 4:
        image = over_white(image[:, :3], image[:, 3:])
    return _each(image.expand(-1, 3, -1, -1))


def _each(images: Tensor) -> list[Tensor]:
    """Return the images (1,3,H,W) of a batch. ``split`` alone would return one empty image for an empty batch."""
    return list(images.split(1)) if len(images) else []


def _in_range(image: Tensor) -> Tensor:
    if image.numel() and not (image.min() >= -1e-3 and image.max() <= 1 + 1e-3):
        raise InputError(f"image has values from {image.min():g} to {image.max():g}; expected RGB in [0,1]")
    return image.clamp(0, 1)

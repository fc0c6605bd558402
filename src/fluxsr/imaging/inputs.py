"""Convert the images that callers pass (PIL images, arrays, tensors) to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging import io
from fluxsr.imaging.color.alpha import over_white

LEAST_SIDE = 16  # pixels of one token


def tensors(image: Any) -> list[Tensor]:
    """Return a list of images (1,3,H,W), float32 in [0,1], on the CPU.

    Args:
        image: PIL image; array (H,W), (H,W,C) or (B,H,W,C) of grey (C = 1), RGB or RGBA, uint8 or float
            in [0,1]; tensor (3,H,W) or (B,3,H,W), float in [0,1]; or a list of these. Grey becomes RGB,
            and transparency is composited over white.

    Raises:
        InputError: the type, shape or range is not one of these.
    """
    if isinstance(image, Sequence) and not isinstance(image, str):
        return [lr for entry in image for lr in tensors(entry)]
    if isinstance(image, Image.Image):
        return [io.to_tensor(image)]
    if isinstance(image, np.ndarray):
        return _of_array(image)
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
    """Return (height, width) of an image (1,3,h,w).

    Raises:
        InputError: the shape is another one, or a side is too short.
    """
    if lr.ndim != 4 or lr.shape[:2] != (1, 3):
        raise InputError(f"image has shape {tuple(lr.shape)}; expected one image, (1,3,height,width)")
    height, width = lr.shape[-2:]
    if min(height, width) < LEAST_SIDE:
        raise InputError(f"image is {width}x{height} pixels; sides of {LEAST_SIDE} or more are needed")
    return height, width


def _of_array(array: np.ndarray) -> list[Tensor]:
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
    image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 1), dtype=np.float32))
    image = _in_range(image)
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

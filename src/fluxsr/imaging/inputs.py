"""Whatever callers have as images, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging import io


def tensors(image: Any) -> list[Tensor]:
    """A list of (1,3,H,W), float32 in [0,1], on the CPU.

    Args:
        image: PIL image; array (H,W,3) or (B,H,W,3), uint8 or float in [0,1]; tensor (3,H,W) or
            (B,3,H,W), float in [0,1]; or a list of these.

    Raises:
        InputError: another type, shape or range.
    """
    if isinstance(image, Sequence) and not isinstance(image, str):
        return [lr for entry in image for lr in tensors(entry)]
    if isinstance(image, Image.Image):
        return [io.to_tensor(image)]
    if isinstance(image, np.ndarray):
        image = np.moveaxis(image, -1, -3)
        image = torch.from_numpy(image / np.float32(255) if image.dtype == np.uint8 else image)
    if not isinstance(image, Tensor):
        raise InputError(f"image is a {type(image).__name__}; pass a PIL image, an array, a tensor or a list")
    image = image[None] if image.ndim == 3 else image
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise InputError(
            f"image has shape {tuple(image.shape)} and type {image.dtype}; expected floats "
            "(B,3,H,W) (arrays: (B,H,W,3), uint8 or float)"
        )
    image = image.detach().float().cpu()
    if image.numel() and not (image.min() >= -1e-3 and image.max() <= 1 + 1e-3):
        raise InputError(f"image has values from {image.min():g} to {image.max():g}; expected RGB in [0,1]")
    return list(image.clamp(0, 1).split(1))

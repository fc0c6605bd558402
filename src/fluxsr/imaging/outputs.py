"""Convert results to the output type that a caller asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fluxsr.imaging import io

TYPES = ("pil", "pt", "np")


def converted(image: Tensor, output_type: str) -> Any:
    """Convert an image (1,3,H,W), about [0,1], to "pil", "pt" (1,3,H,W) or "np" (1,H,W,3), clamped to [0,1]."""
    if output_type == "pil":
        return io.to_pil(image)
    image = image.clamp_(0, 1)
    return image if output_type == "pt" else image.permute(0, 2, 3, 1).numpy()


def stacked(images: list[Any]) -> Any:
    """Concatenate arrays or tensors of equal size; return other lists, and PIL images, unchanged."""
    if not isinstance(images[0], (Tensor, np.ndarray)) or len({image.shape for image in images}) != 1:
        return images
    return torch.cat(images) if isinstance(images[0], Tensor) else np.concatenate(images)

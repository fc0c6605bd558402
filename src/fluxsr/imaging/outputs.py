"""Images as callers want them: PIL images, arrays or tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fluxsr.imaging import io

TYPES = ("pil", "pt", "np")


def converted(image: Tensor, output_type: str) -> Any:
    """An image (1,3,H,W), about [0,1], as "pil", "pt" (1,3,H,W) or "np" (1,H,W,3); the latter two clamped to [0,1]."""
    if output_type == "pil":
        return io.to_pil(image)
    image = image.clamp_(0, 1)
    return image if output_type == "pt" else image.permute(0, 2, 3, 1).numpy()


def stacked(images: list[Any]) -> Any:
    """Arrays or tensors of one size as one, else, and PIL images, the list."""
    if not isinstance(images[0], (Tensor, np.ndarray)) or len({image.shape for image in images}) != 1:
        return images
    return torch.cat(images) if isinstance(images[0], Tensor) else np.concatenate(images)

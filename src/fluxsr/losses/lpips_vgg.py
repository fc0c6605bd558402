"""LPIPS with VGG16. The package ``lpips`` contains its own weights; those of VGG16 are downloaded once.

`losses.lpips` has LPIPS with SqueezeNet, which needs neither the package nor a download.
"""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from fluxsr.errors import InputError, first_line, needed

VGG = "https://download.pytorch.org/models/vgg16-397923af.pth"  # the file that lpips loads through torchvision


def load_lpips_vgg() -> Any:
    """Load the frozen network, a distance between two batches in [-1,1].

    Raises:
        InputError: the package is not installed, or VGG16 is missing and cannot be downloaded.
    """
    needed("perceptual: lpips", "lpips", "lpips")
    import lpips

    weights = Path(torch.hub.get_dir(), "checkpoints", Path(VGG).name)  # where torchvision looks
    if not weights.is_file():
        _download(weights)
    return lpips.LPIPS(net="vgg", verbose=False).requires_grad_(False)


def _download(weights: Path) -> None:
    try:
        weights.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(VGG, str(weights), hash_prefix=weights.stem.split("-")[1])
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: the hash of the file is wrong
        raise InputError(
            f"perceptual is lpips, whose VGG16 cannot be downloaded ({first_line(error)}); "
            f"put {VGG} into {weights.parent}, or set perceptual to a file of LPIPS (squeeze)"
        ) from error

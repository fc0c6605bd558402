"""LPIPS on VGG16, by the package ``lpips``: it brings the linear heads, and VGG16 itself is downloaded once.

`losses.lpips` has LPIPS on SqueezeNet, which needs neither the package nor a download.
"""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from fluxsr.errors import InputError, needed

VGG = "https://download.pytorch.org/models/vgg16-397923af.pth"  # torchvision's, which lpips asks it for


def load_lpips_vgg() -> Any:
    """Return the frozen network, a distance of two batches in [-1,1].

    Raises:
        InputError: the package is not installed, or VGG16 is not there and cannot be downloaded.
    """
    needed("perceptual: lpips", "lpips", "lpips")
    import lpips

    place = Path(torch.hub.get_dir(), "checkpoints", Path(VGG).name)  # where torchvision looks
    if not place.is_file():
        _download(place)
    return lpips.LPIPS(net="vgg", verbose=False).requires_grad_(False)


def _download(place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(VGG, str(place), hash_prefix=place.stem.split("-")[1])
    except (OSError, HTTPException, RuntimeError) as error:  # a RuntimeError is a file that came damaged
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"perceptual is lpips, whose VGG16 cannot be downloaded ({reason}); put {VGG} into {place.parent} by hand, "
            "or set perceptual to efficientnet, to a file of LPIPS (squeeze), or to a folder of "
            "`fluxsr train perceptual`"
        ) from error

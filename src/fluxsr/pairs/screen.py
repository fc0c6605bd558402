"""Screen a store: find the pairs whose images are flat, blurred or broken, so that training leaves them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.backbones import latents
from fluxsr.imaging.resize import bicubic
from fluxsr.pairs.store import PairStore

BLOCK = 16  # pixels
FLAT_BLOCK = 3.0  # standard deviation below which a block is flat, in 8-bit steps


@dataclass(frozen=True)
class Measures:
    """Measures of an image.

    Attributes:
        flat: share of the blocks of 16 x 16 pixels whose brightness has a standard deviation below 3 of 255 steps.
        detail: contrast of the finest detail relative to the whole contrast. The finest detail is what an image loses
            when it is halved and enlarged again. Both are 95th percentiles over blocks, so blurred backgrounds and
            low contrast do not count.
        clipped: share of the pixels that are pure black or pure white.
    """

    flat: float
    detail: float
    clipped: float


def measure(image: Tensor) -> Measures:
    """Measure an image (3,H,W), RGB in [0,1], with sides of 16 pixels or more."""
    height, width = (side // BLOCK * BLOCK for side in image.shape[1:])
    grey = image[:, :height, :width].float().clamp(0, 1).mean(0)[None, None]
    fine = grey - bicubic(F.avg_pool2d(grey, 2), (height, width))
    spread, rms = _blocks(grey).std(-1), _blocks(fine).square().mean(-1).sqrt()
    contrast, finest = (float(torch.quantile(values, 0.95)) for values in (spread, rms))
    clipped = ((grey <= 0) | (grey >= 1)).float().mean()
    return Measures(
        float((spread * 255 < FLAT_BLOCK).float().mean()), finest / contrast if contrast else 0.0, float(clipped)
    )


def _blocks(plane: Tensor) -> Tensor:
    """Return the pixels of every block of a plane (1,1,H,W), (blocks, 256)."""
    return F.unfold(plane, BLOCK, stride=BLOCK)[0].T


@torch.no_grad()
def screen(store: PairStore, vae: Any, limits: Measures) -> Iterator[tuple[str, str]]:
    """Yield the name of every pair, and why it is dropped; "" if it is kept. Then record the dropped pairs.

    Args:
        store: the store.
        vae: the teacher's autoencoder.
        limits: ``flat`` and ``clipped`` are the largest that is kept, ``detail`` the smallest.
    """
    device, dropped = next(vae.parameters()).device, {}
    for pair in store:
        if reason := _fault(vae, pair.z_0.float().to(device), limits):
            dropped[pair.name] = reason
        yield pair.name, reason
    store.write_dropped({"limits": asdict(limits), "dropped": dropped})


def _fault(vae: Any, z_0: Tensor, limits: Measures) -> str:
    if not bool(torch.isfinite(z_0).all()):
        return "broken: its latent has values that are not finite"
    found = measure(latents.decode(vae, z_0[None])[0].cpu())
    if found.clipped > limits.clipped:
        return f"broken: {found.clipped:.0%} of its pixels are pure black or white, above {limits.clipped:.0%}"
    if found.flat > limits.flat:
        return f"flat: {found.flat:.0%} of its blocks have no texture, above {limits.flat:.0%}"
    if found.detail < limits.detail:
        return f"blurred: its finest detail has {found.detail:.3f} of its contrast, below {limits.detail:g}"
    return ""

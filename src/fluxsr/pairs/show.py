"""Contact sheet of a store: decoded clean latents above their noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluxsr.backbones import latents
from fluxsr.imaging.io import contact_sheet as image_sheet
from fluxsr.pairs.store import PairStore


@torch.no_grad()
def contact_sheet(store: PairStore, vae: Any, path: Path, count: int = 6) -> None:
    """Save a picture of ``count`` pairs, evenly sampled from the store, with each decoded z_0 above its eps.

    Raises:
        InputError: the store has no pairs.
        OutputError: the path cannot be written.
    """
    device = next(vae.parameters()).device
    pairs = store.sample_evenly(count)
    clean = [latents.decode(vae, pair.z_0[None].float().to(device))[0].cpu() * 255 for pair in pairs]
    noise = [_grey(pair.eps) for pair in pairs]
    side = min(512, max(max(image.shape[1:]) for image in clean))
    image_sheet(path, [clean, noise], side)


def _grey(eps: Tensor) -> Tensor:
    """Return the first three channels of noise as an image in 0..255, with 8x8 pixels per value."""
    return (eps[:3].float() * 40 + 128).repeat_interleave(8, 1).repeat_interleave(8, 2)

"""Pixels to latents and back, and latents to the transformer's tokens and back.

Scale and shift come from the autoencoder's config, never from constants: FLUX's are 0.3611 and 0.1159,
the bundled model has its own.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

PATCH = 2  # FLUX packs 2x2 latents into a token


def encode(vae: Any, images: Tensor) -> Tensor:
    """Images to latents, z = (VAE.encode(x) - shift) * scale, at the mode of the posterior.

    Args:
        vae: diffusers AutoencoderKL (FLUX) or AutoencoderDC (the bundled model).
        images: (B,3,H,W), RGB in [0,1]; H and W multiples of the autoencoder's downsampling.

    Returns:
        Latents (B,C,H/8,W/8), float32.
    """
    encoded = vae.encode(images.to(vae.dtype) * 2 - 1)
    # AutoencoderKL gives a posterior, AutoencoderDC the latent itself.
    z = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
    return normalise(vae, z.float())


def decode(vae: Any, z: Tensor) -> Tensor:
    """Latents (B,C,h,w) to images (B,3,8h,8w), float32, about [0,1] and not clamped."""
    return vae.decode(denormalise(vae, z).to(vae.dtype)).sample.float() / 2 + 0.5


def _shift(vae: Any) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0


def normalise(vae: Any, z: Tensor) -> Tensor:
    return (z - _shift(vae)) * vae.config.scaling_factor


def denormalise(vae: Any, z: Tensor) -> Tensor:
    return z / vae.config.scaling_factor + _shift(vae)


def pixel_multiple(vae: Any) -> int:
    """Image sides must be multiples of this: downsampling of the autoencoder times the packing (16 for FLUX)."""
    widths = getattr(vae.config, "block_out_channels", None) or vae.config.encoder_block_out_channels
    return PATCH * 2 ** (len(widths) - 1)


def pack(z: Tensor) -> Tensor:
    """Latents (B,C,h,w) to tokens (B, h/2*w/2, 4C), channel order c, dy, dx as in FLUX."""
    return rearrange(z, "b c (h dy) (w dx) -> b (h w) (c dy dx)", dy=PATCH, dx=PATCH)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens (B,N,4C) to latents (B,C,height,width)."""
    return rearrange(
        tokens, "b (h w) (c dy dx) -> b c (h dy) (w dx)", h=height // PATCH, w=width // PATCH, dy=PATCH, dx=PATCH
    )


def image_ids(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Positions (h/2*w/2, 3) = (0, row, column) of the tokens of latents (..., height, width).

    Always float32: bfloat16 cannot tell rows above 256 apart.
    """
    rows, columns = height // PATCH, width // PATCH
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, device=device)
    return ids.reshape(-1, 3)

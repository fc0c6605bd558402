"""Convert pixels to latents and back, for the autoencoders of all families.

Scale and shift are read from the autoencoder's config. FLUX.1 has 0.3611 and 0.1159, the bundled model has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from math import lcm
from typing import Any

import torch
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from fluxsr.backbones.families import family_of


def encode(vae: Any, images: Tensor) -> Tensor:
    """Convert images to latents, z = (VAE.encode(x) - shift) * scale, at the mode of the posterior.

    Args:
        vae: autoencoder of a known family.
        images: (B,3,H,W), RGB in [0,1]. H and W are multiples of the autoencoder's downsampling.

    Returns:
        Latents (B,C,H/8,W/8), float32.
    """
    encoded = vae.encode(images.to(vae.dtype) * 2 - 1)
    # AutoencoderKL returns a posterior; AutoencoderDC and AutoencoderTiny return the latents themselves.
    z = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded[0]
    return normalise(vae, z.float())


@apply_forward_hook  # an offloaded autoencoder comes to the device
def restored(vae: Any, lr_up: Tensor) -> Tensor:
    """Return the images that z_l encodes: enlarged LR images, or what the autoencoder's restorer makes of them."""
    return vae.restorer(lr_up) if hasattr(vae, "restorer") else lr_up


def decode(vae: Any, z: Tensor, checkpoint: bool = False) -> Tensor:
    """Convert latents (B,C,h,w) to images (B,3,8h,8w) in float32, about [0,1] and not clamped.

    Args:
        checkpoint: use gradient checkpointing, which does not change values or gradients. AutoencoderKL does this block
            by block, and it stays enabled. AutoencoderDC does not support it, so its whole decoder is one block.
    """
    z = denormalise(vae, z).to(vae.dtype)
    if checkpoint and not vae._supports_gradient_checkpointing:
        sample = recomputed(lambda x: vae.decode(x).sample, z, use_reentrant=False)
    else:
        if checkpoint and not vae.is_gradient_checkpointing:
            vae.enable_gradient_checkpointing()
        sample = vae.decode(z).sample
    return sample.float() / 2 + 0.5


def decode_step(
    vae: Any, z_hat: Tensor, z_l: Tensor, start: Tensor, decoder: Callable[[Any, Tensor], Tensor] | None = None
) -> Tensor:
    """Convert the latents after the step to images, x_hat = D(z_hat).

    With a restorer it is x_hat = x + D(z_hat) - D(z_l), where x is the restored image: the step adds its change, and
    what a small autoencoder cannot represent is not lost. This is ours, not the paper's.

    Args:
        z_hat, z_l: latents (B,C,h,w) after and before the step.
        start: images (B,3,H,W) that z_l encodes, from `restored`. They are used only with a restorer.
        decoder: function that decodes, in place of `decode`.

    Returns:
        As `decode`.
    """
    decoder = decoder or decode
    if not hasattr(vae, "restorer"):
        return decoder(vae, z_hat)
    after, before = decoder(vae, torch.cat([z_hat, z_l])).chunk(2)
    return start + (after - before)  # exactly start where the step changes nothing


def random_crop(z: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, tuple[int, int]]:
    """Cut a random square from latents (B,C,h,w), at the same position for the whole batch.

    There is one draw per batch, so processes with the same seed cut the same crop.

    Args:
        side: side of the crop in latents. An axis that is shorter is not cropped.

    Returns:
        The crop (B,C,side,side), and its position (top, left) in latents, for `decode_crop` and `crop_pixels`.
    """
    if side < 1:
        raise ValueError(f"side is {side}; a crop has at least one latent")
    top, left = (
        int(torch.randint(max(length - side, 0) + 1, (), generator=generator, device=generator.device))
        for length in z.shape[-2:]
    )
    return z[..., top : top + side, left : left + side], (top, left)


def decode_crop(
    vae: Any, z: Tensor, place: tuple[int, int], side: int, margin: int = 2, checkpoint: bool = False
) -> Tensor:
    """Decode a crop of latents (B,C,h,w) with a margin around it. The gradient reaches the margin too.

    The receptive field of a decoder extends beyond one latent, so a crop without margin is wrong at its border.
    AutoencoderKL's norms and attention also depend on the whole image, which no margin replaces.

    Args:
        place: position (top, left) of the crop in latents, from `random_crop`.
        side: side of the crop in latents.
        margin: latents that are decoded and then cut off on each side.
        checkpoint: see `decode`.

    Returns:
        Images (B,3,8 side,8 side), as from `decode`.
    """
    top, left = (max(start - margin, 0) for start in place)
    inside = (place[0] - top, place[1] - left)
    window = z[..., top : place[0] + side + margin, left : place[1] + side + margin]
    return crop_pixels(vae, decode(vae, window, checkpoint), inside, side)


def crop_pixels(vae: Any, images: Tensor, place: tuple[int, int], side: int) -> Tensor:
    """Return the pixels (B,3,8 side,8 side) of images (B,3,H,W) that correspond to a crop of their latents."""
    factor = latent_pixels(vae)
    top, left = (factor * start for start in place)
    return images[..., top : top + factor * side, left : left + factor * side]


def normalise(vae: Any, z: Tensor) -> Tensor:
    return family_of(vae).normalise(vae, z)


def denormalise(vae: Any, z: Tensor) -> Tensor:
    return family_of(vae).denormalise(vae, z)


def latent_pixels(vae: Any) -> int:
    """Return the side of a latent in pixels (8 for FLUX.1)."""
    return family_of(vae).latent_pixels(vae)


def pixel_multiple(vae: Any) -> int:
    """Return the side of a token in pixels (16 for FLUX). Image sides must be multiples of it."""
    return family_of(vae).patch * latent_pixels(vae)


def tile_multiple(vae: Any) -> int:
    """Return the pixels of which sides and places of tiles must be multiples: a token, or a block of the restorer."""
    block = vae.restorer.block if hasattr(vae, "restorer") else 1
    return lcm(pixel_multiple(vae), block)


def channels(transformer: Any) -> int:
    """Return the number of latent channels that a transformer takes (16 for FLUX.1)."""
    return family_of(transformer).latent_channels(transformer.config)

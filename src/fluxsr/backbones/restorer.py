"""The restorer R of a small model: convolutions that sharpen the enlarged LR image before it is encoded, z_l = E(R(x)).

A transformer of a few million parameters can do this only with much training, and large models do not need it. The
step then adds its change to the restored image (`latents.decode_step`). This is ours, not the paper's. DiffBIR
(https://arxiv.org/abs/2308.15070) also restores an image before it is refined.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderDC
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.backbones.family import extended_class

FACTOR = 4  # side in pixels of the blocks on whose grid the convolutions run: the grid of the LR image at x4


class Restorer(nn.Module):
    """Convolutions with PReLU on blocks of 4 x 4 pixels, whose result is added to the image.

    The shape is SRVGGNetCompact's (https://github.com/xinntao/Real-ESRGAN), but with the enlarged image as input.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        channels = [3 * FACTOR**2, *[width] * (layers + 1)]
        pairs = zip(channels, channels[1:], strict=False)
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(before, after, 3, 1, 1), nn.PReLU(after)) for before, after in pairs)
        )
        self.last = nn.Conv2d(width, channels[0], 3, 1, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)  # starts as the identity

    def forward(self, images: Tensor) -> Tensor:
        """Restore images (B,3,H,W), RGB in [0,1], whose sides are multiples of 4."""
        blocks = F.pixel_unshuffle(images.to(self.last.weight.dtype), FACTOR)
        change = F.pixel_shuffle(self.last(self.layers(blocks)), FACTOR)
        return images + change.to(images.dtype)  # 16 bits hold the change well, and the image badly


def _add_restorer(vae: Any, restorer_width: int, restorer_layers: int) -> None:
    vae.restorer = Restorer(restorer_width, restorer_layers)


RestoringAutoencoder = extended_class(
    AutoencoderDC,
    "RestoringAutoencoder",
    {"restorer_width": 64, "restorer_layers": 16},
    _add_restorer,
    "AutoencoderDC with a `Restorer`, which `latents.restored` applies.",
)


def with_restorer(vae: AutoencoderDC, width: int, layers: int) -> Any:
    """Return the autoencoder with a new restorer, which is the identity, or unchanged if it already has one."""
    if hasattr(vae, "restorer"):
        return vae
    config = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    restoring: Any = RestoringAutoencoder(**config, restorer_width=width, restorer_layers=layers)
    restoring.load_state_dict(vae.state_dict(), strict=False)
    return restoring.to(device=vae.device, dtype=vae.dtype, memory_format=torch.channels_last).requires_grad_(False)

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

BLOCK, SMALL = 16, 3  # every 16 x 16 pixels of the enlarged image, 4 x 4 of the LR image at x4, become 3 x 3 pixels
RESIDUAL = 0.2  # share of a residual branch, and slope of the activations, as in Real-ESRGAN


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the results of all before it (RDB of ESRGAN)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_convolution(width + k * growth, growth) for k in range(4))
        self.last = _convolution(width + 4 * growth, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B,C,h,w) to features of the same shape."""
        seen = [x]
        for layer in self.layers:
            seen.append(F.leaky_relu(layer(torch.cat(seen, 1)), RESIDUAL))
        return x + RESIDUAL * self.last(torch.cat(seen, 1))


class ResidualBlock(nn.Module):
    """Three dense blocks (RRDB of ESRGAN, https://arxiv.org/abs/1809.00219, figure 4)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B,C,h,w) to features of the same shape."""
        return x + RESIDUAL * self.dense(x)


class Restorer(nn.Module):
    """Real-ESRGAN's network (https://arxiv.org/abs/2107.10833) at three quarters of the LR image's sides.

    There it costs 44 % less. Blurred photographs lose little when they are reduced so far, and sharp ones lose visible
    detail. A share of the difference between the input and the result at the LR image's resolution is added back, as
    in iterative back-projection (Irani and Peleg, 1991).
    """

    block = BLOCK  # tiles must start at multiples of it, or they are reduced at other places than their neighbours

    def __init__(self, width: int, growth: int, blocks: int) -> None:
        super().__init__()
        self.first = _convolution(3, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width, growth) for _ in range(blocks)))
        self.joined = _convolution(width, width)
        self.enlarged = nn.ModuleList(_convolution(width, width) for _ in range(2))
        self.fine = _convolution(width, width)
        self.last = _convolution(width, 3)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)  # starts as the identity
        self.share = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """Restore images (B,3,H,W), RGB in [0,1]. All but the features is computed in float32."""
        height, width = images.shape[-2:]
        padded = F.pad(images.float(), (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
        size = padded.shape[-2:]
        small = _resized(padded, torch.Size(side // BLOCK * SMALL for side in size))
        features = self.features(small.to(self.first.weight.dtype)).float()
        weight, bias = (parameter.float() for parameter in self.last.parameters())
        with torch.autocast(images.device.type, enabled=False):
            drawn = F.conv2d(features, weight, bias, padding=1)  # four times as large as `small`
        lr = F.avg_pool2d(drawn, SMALL)  # at the sides of the LR image
        enlarged, again = (_resized(x, size) for x in (drawn, lr))
        restored = enlarged + self.share.float() * (padded - again)
        return restored[..., :height, :width].to(images.dtype)

    def features(self, small: Tensor) -> Tensor:
        """Return the features (B,C,4h,4w) from which an image four times as large is drawn, for images (B,3,h,w)."""
        first = self.first(small)
        features = first + self.joined(self.blocks(first))
        for layer in self.enlarged:
            features = F.leaky_relu(layer(F.interpolate(features, scale_factor=2.0)), RESIDUAL)
        return F.leaky_relu(self.fine(features), RESIDUAL)


def _resized(images: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(images, size=size, mode="bicubic", antialias=True)


def _convolution(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, 1, 1)


def _add_restorer(vae: Any, restorer_width: int, restorer_growth: int, restorer_blocks: int) -> None:
    vae.restorer = Restorer(restorer_width, restorer_growth, restorer_blocks)


RestoringAutoencoder = extended_class(
    AutoencoderDC,
    "RestoringAutoencoder",
    {"restorer_width": 64, "restorer_growth": 16, "restorer_blocks": 23},
    _add_restorer,
    "AutoencoderDC with a `Restorer`, which `latents.restored` applies.",
)


def with_restorer(vae: AutoencoderDC, width: int, growth: int, blocks: int) -> Any:
    """Return the autoencoder with a new restorer, which is the identity, or unchanged if it already has one."""
    if hasattr(vae, "restorer"):
        return vae
    config = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    restoring: Any = RestoringAutoencoder(
        **config, restorer_width=width, restorer_growth=growth, restorer_blocks=blocks
    )
    restoring.load_state_dict(vae.state_dict(), strict=False)
    return restoring.to(device=vae.device, dtype=vae.dtype, memory_format=torch.channels_last).requires_grad_(False)

"""Stage 1: the autoencoder, trained on clean photographs. Later stages keep it frozen, as in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.training.config import AutoencoderConfig
from fluxsr.training.dataset import NOISE, PhotoCrops, normals, sample_generators


class AutoencoderStage:
    """Squared error and edge error of the reconstruction, and the KL of a posterior of fixed variance."""

    def __init__(self, config: AutoencoderConfig, vae: Any, photos: list[Tensor], device: torch.device):
        """Set up the stage with an AutoencoderDC and photographs (3,H,W), uint8."""
        self.vae = vae.to(device)
        self.modules: dict[str, nn.Module] = {"vae": vae}
        self.crops = PhotoCrops(photos, config.run.crop, config.run.seed)
        self.config, self.device = config, device

    def losses(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        c = self.config
        images = self.crops(step, samples).to(self.device, memory_format=torch.channels_last) * 2 - 1
        latents = self.vae.encode(images).latent
        generators = sample_generators(c.run.seed, step, samples, NOISE)
        noise = normals(latents.shape[1:], generators).to(self.device)
        output = self.vae.decode(latents + c.latent_noise * noise).sample.float()
        return {
            "mse": 3 * F.mse_loss(output, images),
            "edges": c.edge_weight * gradient_distance(output, images),
            "kl": c.kl_weight * latents.float().square().mean() / 2,
            "log/psnr": -10 * torch.log10((output.detach() - images).square().mean((1, 2, 3)) / 4),  # (B,)
        }


def gradient_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean L1 distance between the horizontal and vertical differences of two images (B,C,H,W)."""
    difference = x - y
    return difference.diff(dim=3).abs().mean() + difference.diff(dim=2).abs().mean()


@torch.no_grad()
def fit_scale(vae: Any, batches: list[Tensor]) -> float:
    """Return the factor that scales latents to unit root mean square over batches (B,3,H,W) in [0,1]."""
    latents = torch.cat([vae.encode(batch * 2 - 1).latent.float().flatten() for batch in batches])
    return float(latents.square().mean().rsqrt())

"""Stage 2: a small feature network that recognises how a photograph was degraded.

It needs no pretrained weights. A network that distinguishes blur, noise and block artefacts has features that differ
between them, as a perceptual distance requires.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.degradation.jpeg import jpeg
from fluxsr.degradation.kernels import filter_images, gaussian_kernels
from fluxsr.degradation.noise import add_gaussian
from fluxsr.losses.features import FeatureNetwork
from fluxsr.training.config import PerceptualConfig
from fluxsr.training.dataset import SPOIL, PhotoCrops, sample_generators

TARGETS = 4  # horizontal blur, vertical blur, noise, JPEG


class PerceptualStage:
    """Regression of blur widths, noise level and JPEG quality of randomly degraded crops."""

    def __init__(self, config: PerceptualConfig, photos: list[Tensor], device: torch.device):
        torch.manual_seed(config.run.seed)
        self.network = FeatureNetwork(config.widths, TARGETS).to(device).to(memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {"network": self.network}
        self.crops = PhotoCrops(photos, config.run.crop, config.run.seed)
        self.seed, self.device = config.run.seed, device

    def losses(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        generators = sample_generators(self.seed, step, samples, SPOIL)
        with torch.autocast(self.device.type, enabled=False):  # JPEG needs more precision than bfloat16 has
            images, targets = spoil(self.crops(step, samples), generators)
        images = images.to(self.device, memory_format=torch.channels_last)
        predicted = self.network(images * 2 - 1).float()
        errors = F.smooth_l1_loss(predicted, targets.to(self.device), beta=0.1, reduction="none").mean(0)
        names = ("blur_x", "blur_y", "noise", "jpeg")
        return {name: error for name, error in zip(names, errors, strict=True)}


def spoil(images: Tensor, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
    """Blur, add noise and compress each image by random amounts. Each operation is skipped with probability 1/4.

    Args:
        images: (B,3,H,W) in [0,1].
        generators: one per image.

    Returns:
        The degraded images and their targets (B,4) in [0,1]: horizontal and vertical blur width divided by 3 pixels,
        noise level divided by 25 grey levels, 1 - quality/100 (0 without compression).
    """
    count = len(images)
    drawn = torch.stack([torch.rand(4, generator=generator) for generator in generators])
    chances = torch.stack([torch.rand(4, generator=generator) for generator in generators])
    present, grey = chances[:, :3] > 0.25, chances[:, 3] < 0.4
    drawn = drawn * present[:, [0, 0, 1, 2]]
    zero, one = torch.zeros(count), torch.ones(count)
    sigma = 0.05 + 3 * drawn
    kernels = gaussian_kernels(sigma[:, 0], sigma[:, 1], zero, one, zero.bool(), torch.full((count,), 10.0))
    images = filter_images(images, kernels)
    singles = zip(images.split(1), 25 * drawn[:, 2:3], grey.split(1), generators, strict=True)
    images = torch.cat([add_gaussian(*single) for single in singles])
    compressed = jpeg(images, 100 - 80 * drawn[:, 3])
    images = torch.where(present[:, 2].view(-1, 1, 1, 1), compressed, images)
    return images, drawn * torch.tensor([1.0, 1.0, 1.0, 0.8])

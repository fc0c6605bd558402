"""Optional adversarial losses on pixels or latents; off in the paper's recipe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fluxsr.extensions.efficientnet import EfficientNetLite

LEAD = 100  # steps for which the critic trains before the adversarial term starts


class Critic(nn.Module):
    """Patch critic with spectral norm: it scores every neighbourhood of an image or a latent.

    Patches are scored separately, so the score of one image does not depend on the rest of the batch. For a
    conditional critic, concatenate the condition along the channels, after the input.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128), channels: int = 3):
        super().__init__()
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(channels, widths[0], 3, 1, 1)), nn.LeakyReLU(0.2)]
        for a, b in zip(widths, [*widths[1:], widths[-1]], strict=True):
            layers += [spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
            layers += [spectral_norm(nn.Conv2d(b, b, 3, 1, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Score images (B,3,H,W) in [-1,1] or latents (B,C,H,W) as (B,1,h,w); higher is more like a photograph."""
        return self.layers(images)


class FeatureCritic(nn.Module):
    """Critic on the features of a frozen pretrained network.

    Every feature level has its own head with spectral norm, as in "Projected GANs Converge Faster" (arXiv
    2111.01007), but without mixing of levels.
    """

    def __init__(self, network: EfficientNetLite, width: int = 64):
        super().__init__()
        self.network = network
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(channels, width, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, 1, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, 1, 3, 1, 1)),
            )
            for channels in network.channels
        )

    def forward(self, images: Tensor) -> Tensor:
        """Score images (B,3,H,W) in [-1,1] as (B,levels,h,w), at the resolution of the second level."""
        taps = self.network.features(images)
        size = taps[1].shape[-2:]
        maps = [head(tap) for head, tap in zip(self.heads, taps, strict=True)]
        return torch.cat([F.interpolate(scores, size, mode="area") for scores in maps], dim=1)


def critic_loss(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return the critic's hinge loss, 0 for real scores above 1 and fake scores below -1. Inputs get no gradient."""
    scores = critic(torch.cat([real.detach(), fake.detach()])).float()
    score_real, score_fake = scores.chunk(2)
    return F.relu(1 - score_real).mean() + F.relu(1 + score_fake).mean()


def generator_loss(critic: nn.Module, fake: Tensor) -> Tensor:
    """Return minus the mean score of fake images. The critic's parameters get no gradient."""
    trained = [parameter for parameter in critic.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        return -critic(fake).float().mean()
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def critic_terms(
    critic: nn.Module | None, real: Tensor, fake: Tensor, weight: float, since: int, name: str = ""
) -> dict[str, Tensor]:
    """Return the critic's and the generator's losses by name; an empty dict without a critic or before its start.

    Args:
        critic: the critic; None if there is none.
        real, fake: inputs that the critic distinguishes, of equal shape.
        weight: weight of the generator's loss.
        since: steps since the adversarial term starts; the critic starts LEAD steps earlier.
        name: prefix of the names, for a second critic.
    """
    if critic is None or since < -LEAD:
        return {}
    terms = {f"{name}critic": critic_loss(critic, real, fake)}
    if since >= 0:
        terms[f"{name}adversarial"] = weight * generator_loss(critic, fake)
    return terms

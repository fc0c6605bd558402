"""Optional adversarial terms, on pixels or on latents; off in the paper's recipe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fluxsr.losses.efficientnet import EfficientNetLite

LEAD = 100  # steps that a critic learns before it is listened to


class Critic(nn.Module):
    """A patch critic with spectral norm: a score for every neighbourhood of an image, or of a latent.

    Patches are scored alone, so the score of one image does not depend on its batch neighbours. A condition is joined
    by channels: what is judged first, what it was made from behind it.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128), channels: int = 3):
        super().__init__()
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(channels, widths[0], 3, 1, 1)), nn.LeakyReLU(0.2)]
        for a, b in zip(widths, [*widths[1:], widths[-1]], strict=True):
            layers += [spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
            layers += [spectral_norm(nn.Conv2d(b, b, 3, 1, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B,1,h,w) of images (B,3,H,W) in [-1,1] or latents (B,C,H,W); higher is more like a photograph."""
        return self.layers(images)


class FeatureCritic(nn.Module):
    """A critic that looks at the features of a frozen network: it knows what photographs are made of from the start.

    Every tap has a head of its own with spectral norm, as in "Projected GANs Converge Faster" (arXiv 2111.01007);
    the taps are not mixed here.
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
        """Scores (B,taps,h,w) of images (B,3,H,W) in [-1,1], at the resolution of the second tap."""
        taps = self.network.features(images)
        size = taps[1].shape[-2:]
        maps = [head(tap) for head, tap in zip(self.heads, taps, strict=True)]
        return torch.cat([F.interpolate(scores, size, mode="area") for scores in maps], dim=1)


def critic_loss(critic: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """Hinge loss of the critic: real scores above 1, made ones below -1. The gradient stops at the images."""
    scores = critic(torch.cat([real.detach(), made.detach()])).float()
    score_real, score_made = scores.chunk(2)
    return F.relu(1 - score_real).mean() + F.relu(1 + score_made).mean()


def generator_loss(critic: nn.Module, made: Tensor) -> Tensor:
    """Minus the mean score of made images; the critic's own parameters get no gradient from it."""
    trained = [parameter for parameter in critic.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        return -critic(made).float().mean()
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def critic_terms(
    critic: nn.Module | None, real: Tensor, made: Tensor, weight: float, since: int, name: str = ""
) -> dict[str, Tensor]:
    """Both sides' losses of one step, by name; nothing without a critic or before it is wanted.

    Args:
        real, made: what the critic tells apart, of one shape.
        weight: of the made images' side.
        since: steps since the term sets in; LEAD steps earlier the critic begins to learn.
        name: prefix of the names, for a second critic.
    """
    if critic is None or since < -LEAD:
        return {}
    terms = {f"{name}critic": critic_loss(critic, real, made)}
    if since >= 0:
        terms[f"{name}adversarial"] = weight * generator_loss(critic, made)
    return terms

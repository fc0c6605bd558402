"""The loss terms that the extensions add to a training stage, and the scales at which TV-LPIPS may compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.extensions.adversarial import Critic, FeatureCritic, critic_terms
from fluxsr.extensions.efficientnet import load_efficientnet
from fluxsr.extensions.periodic import periodic_loss


class Options(Protocol):
    """The options of a training stage that ``extra_terms`` reads."""

    periodic_weight: float
    adversarial_weight: float
    adversarial_start: int


def build_critics(
    seed: int,
    device: torch.device,
    widths: Sequence[int] | None,
    network: str = "",
    latent_widths: Sequence[int] | None = None,
    latent_channels: int = 0,
) -> dict[str, nn.Module]:
    """Return the critics of a stage by module name.

    Args:
        seed: seed of the initial weights.
        device: training device.
        widths: widths of the critic on pixels; None for no such critic.
        network: "efficientnet" for a critic that sees this network's features instead of pixels.
        latent_widths: widths of the critic on latents; None for no such critic.
        latent_channels: channels of a latent and its condition together.
    """
    torch.manual_seed(seed)  # for the initial weights; torch's layers take no generator
    critics: dict[str, nn.Module] = {}
    if widths is not None:
        critics["critic"] = FeatureCritic(load_efficientnet()) if network == "efficientnet" else Critic(widths)
    if latent_widths is not None:
        critics["latent_critic"] = Critic(latent_widths, latent_channels)
    return {name: critic.to(device).to(memory_format=torch.channels_last) for name, critic in critics.items()}


def extra_terms(
    options: Options,
    critics: Mapping[str, nn.Module],
    step: int,
    pixels: tuple[Tensor, Tensor] | None,
    period: int,
    latents: tuple[Tensor, Tensor] | None = None,
    latent_weight: float = 0.0,
) -> dict[str, Tensor]:
    """Return the weighted terms that are on, by name; an empty dict if all are off.

    Args:
        options: weights of the terms, and the step at which the adversarial terms start.
        critics: the stage's modules, with the critics of ``build_critics``.
        step: the training step.
        pixels: output and target (B,3,H,W) in [-1,1]; None if nothing was decoded.
        period: period in pixels of the pattern that the periodic loss suppresses.
        latents: output and target for the critic on latents, each with its condition as further channels.
        latent_weight: weight of the adversarial term on latents.
    """
    terms, since = {}, step - options.adversarial_start
    if pixels is not None:
        output, target = pixels
        if options.periodic_weight:
            terms["periodic"] = options.periodic_weight * periodic_loss(output - target, period)
        terms |= critic_terms(critics.get("critic"), target, output, options.adversarial_weight, since)
    if latents is not None:
        output, target = latents
        terms |= critic_terms(critics.get("latent_critic"), target, output, latent_weight, since, "latent_")
    return terms


def at_scale(x: Tensor, y: Tensor, scales: Sequence[float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return two batches at one of several scales, the same for both.

    A scale n above 1 cuts a random part of 1/n of the sides and repeats its pixels n times, so that a perceptual
    network whose first layer has a stride still sees every pixel. A scale 1/n averages blocks of n x n pixels.

    Args:
        x, y: (B,C,H,W), sides multiples of every n.
        scales: 1, whole numbers n, or fractions 1/n; one is drawn.
        generator: draws the scale and the place of the part.

    Returns:
        Two batches of the same shape.
    """
    scale = scales[int(torch.randint(len(scales), (), generator=generator))]
    if scale == 1:
        return x, y
    if scale < 1:
        size = round(1 / scale)
        return F.avg_pool2d(x, size), F.avg_pool2d(y, size)
    factor = round(scale)
    height, width = (side // factor for side in x.shape[-2:])
    top, left = (
        int(torch.randint(whole - part + 1, (), generator=generator))
        for whole, part in zip(x.shape[-2:], (height, width), strict=True)
    )
    parts = (image[..., top : top + height, left : left + width] for image in (x, y))
    enlarged_x, enlarged_y = (F.interpolate(part, scale_factor=factor, mode="nearest") for part in parts)
    return enlarged_x, enlarged_y

"""Stage 5, the method: Flow Trajectory Distillation of the one-step student (FluxSR, section 3; docs/method.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr import flow
from fluxsr.backbones import latents
from fluxsr.backbones.device import image_layout
from fluxsr.backbones.encoder_lora import without_encoder_lora
from fluxsr.backbones.families import family_of
from fluxsr.backbones.features import attention_taps
from fluxsr.backbones.loading import Backbone
from fluxsr.backbones.velocity import on_grid, velocity
from fluxsr.errors import InputError
from fluxsr.extensions.losses import at_scale
from fluxsr.extensions.periodic import periodic_loss
from fluxsr.keyed import keyed_generator
from fluxsr.losses.attention import adl_loss
from fluxsr.losses.ftd import ftd_by_time, ftd_loss
from fluxsr.losses.tv_lpips import tv_lpips
from fluxsr.training.config import DistillConfig
from fluxsr.training.dataset import CROP, NOISE, SCALE, TIME, normals, sample_generators

Batch = tuple[Tensor, Tensor, Tensor, Tensor]

# Distributions of t (ftd_times): functions from u ~ U[0, 1] to the position between t_l (0) and noise (1).
TIME_LAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: u,  # the paper's
    "uniform+start": lambda u: u,  # averaged with the loss at t_l
    "start": torch.zeros_like,  # only t_l, the time of inference
}


class DistillStage:
    """Train the student's transformer with FTD, MSE, TV-LPIPS and ADL; the periodic loss is ours.

    The autoencoder is frozen, except its decoder with ``train_decoder`` and a LoRA of its encoder with
    ``train_encoder_lora``.
    """

    def __init__(
        self,
        config: DistillConfig,
        backbone: Backbone,
        batches: Callable[[int, Sequence[int]], Batch],
        distance: Callable[[Tensor, Tensor], Tensor] | None,
        device: torch.device,
    ):
        """Set up the stage.

        Args:
            config: options of the stage.
            backbone: base whose transformer holds the trainable adapter.
            batches: function from a step and its samples to (x_0, z_l, z_0, eps): images in [0,1], then latents. With
                `encodes_in_step` there are enlarged LR images in [0,1] in place of z_l.
            distance: perceptual distance of two batches in [-1,1]; None if TV-LPIPS is off.
            device: training device.

        Raises:
            InputError: options that contradict each other or do not fit the base.
        """
        check(config, backbone)
        self.config, self.backbone, self.batches, self.device = config, backbone, batches, device
        self.distance = distance
        self.modules = trained_parts(config, backbone)

    def losses(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        c, seed = self.config, self.config.run.seed
        x_0, z_l, z_0, eps = (tensor.to(self.device) for tensor in self.batches(step, samples))
        start = x_0  # not used without a restorer
        if encodes_in_step(c, self.backbone.vae):
            start = latents.restored(self.backbone.vae, z_l.contiguous(memory_format=image_layout(self.device)))
            x_0, z_l, z_0, eps = encode_batch(self.backbone.vae, x_0, start, z_0, eps)
        if c.eps_source == "fresh":
            eps = normals(eps.shape[1:], sample_generators(seed, step, samples, NOISE)).to(self.device)

        # v_theta on the LR-to-noise path, t ~ U[t_l, 1], and at its start, as inference uses it.
        on_path = [k for k, sample in enumerate(samples) if sample % c.ftd_every == 0]
        drawn = [torch.rand(1, generator=g) for g in sample_generators(seed, step, samples, TIME)]
        t = c.t_l + (1 - c.t_l) * TIME_LAWS[c.ftd_times](torch.cat(drawn)[on_path])
        t = on_grid(t, torch.bfloat16 if c.run.precision == "bf16" else torch.float32).to(self.device)
        z_t = flow.lr_interpolate(z_l[on_path], eps[on_path], t, c.t_l)
        z, times = torch.cat([z_t, z_l]), torch.cat([t, t.new_full((len(z_l),), c.t_l)])
        with _taps(c, self.backbone) as features:  # one call computes v_theta(z_t, t) and v_theta(z_l, t_l)
            v = velocity(self.backbone.transformer, z, times, self.backbone.prompt, c.guidance)
        v_path, v_step = v.split([len(z_t), len(z_l)])
        z_hat = flow.one_step(z_l, v_step, c.t_l)

        # Micro-batches hold different numbers of FTD samples; reweight so that their average is the full-batch mean.
        share = len(on_path) * c.ftd_every / len(samples)
        rows = len(features[0]) / len(samples) / (1 + 1 / c.ftd_every)
        ftd = v_path.sum()  # 0, with a gradient, where a micro-batch has no FTD sample
        if on_path:
            ftd = share * ftd_loss(z_0[on_path], z_l[on_path], v_path, c.t_l)
        if c.ftd_times == "uniform+start":
            ftd = (ftd + ftd_loss(z_0, z_l, v_step, c.t_l)) / 2
        by_time = ftd_by_time(z_0[on_path], z_l[on_path], v_path, t, c.t_l)

        terms = {"ftd": c.ftd_weight * ftd, "adl": c.adl_weight * rows * adl_loss(features)}
        if _on_pixels(c):
            terms |= self._reconstruction(step, *self._decoded(step, x_0, z_hat, z_l, start))
        return terms | {f"log/ftd/{bin}": value for bin, value in by_time.items()}

    def _decoded(self, step: int, x_0: Tensor, z_hat: Tensor, z_l: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same crop of the result, as in `latents.decode_step`, and of x_0 (B,3,H,W), both in [-1,1]."""
        c, vae = self.config, self.backbone.vae
        side = c.pixel_crop // latents.latent_pixels(vae) or z_hat.shape[-1]
        _, corner = latents.random_crop(z_hat, side, keyed_generator(c.run.seed, step, 0, CROP))
        decoder = partial(latents.decode_crop, place=corner, side=side, checkpoint=c.run.decoder_checkpointing)
        start, target = (latents.crop_pixels(vae, images, corner, side) for images in (start, x_0))
        return latents.decode_step(vae, z_hat, z_l, start, decoder) * 2 - 1, target * 2 - 1

    def _reconstruction(self, step: int, x_hat: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return L_rec of the decoded result, squared error and TV-LPIPS, and the periodic loss."""
        c = self.config
        terms = {"mse": c.mse_weight * F.mse_loss(x_hat, target)}
        if self.distance is not None and c.tv_lpips_weight:
            views = at_scale(x_hat, target, c.tv_lpips_scales, keyed_generator(c.run.seed, step, 0, SCALE))
            terms["tv_lpips"] = c.tv_lpips_weight * tv_lpips(*views, self.distance, c.tv_gamma)
        if c.periodic_weight:
            token = latents.pixel_multiple(self.backbone.vae)
            terms["periodic"] = c.periodic_weight * periodic_loss(x_hat - target, token)
        return terms


def trained_parts(config: DistillConfig, backbone: Backbone) -> dict[str, nn.Module]:
    """Return the parts of a student that have trained parameters, in the order of checkpoints."""
    parts: dict[str, nn.Module] = {"adapter": backbone.transformer}
    if config.train_encoder_lora:
        parts["encoder"] = backbone.vae.encoder
    return parts | ({"decoder": backbone.vae.decoder} if config.train_decoder else {})


def encodes_in_step(config: DistillConfig, vae: Any) -> bool:
    """Return whether the step encodes its batch: for a gradient, or because it needs the restored images too."""
    return config.train_encoder_lora or hasattr(vae, "restorer")


def encode_batch(vae: Any, x_0: Tensor, lr_up: Tensor, z_0: Tensor, eps: Tensor) -> Batch:
    """Encode LR images to z_l, and x_0 to z_0 where there is no teacher pair. A LoRA of the encoder acts on z_l only.

    Args:
        x_0, lr_up: images (B,3,H,W) in [0,1]; the second may be restored.
        z_0, eps: latents of the teacher pairs, or empty.
    """
    device = next(vae.parameters()).device
    layout = image_layout(device)
    if not z_0.numel():
        with torch.no_grad(), without_encoder_lora(vae):
            z_0 = latents.encode(vae, x_0.to(device, memory_format=layout))
        eps = torch.zeros_like(z_0)  # the step draws it
    return x_0, latents.encode(vae, lr_up.to(device, memory_format=layout)), z_0, eps


def _on_pixels(config: DistillConfig) -> bool:
    """Return whether any loss on pixels has a weight. Otherwise decoding, which is expensive, is skipped."""
    return any((config.mse_weight, config.tv_lpips_weight, config.periodic_weight))


def check(config: DistillConfig, backbone: Backbone) -> None:
    """Check the options of a stage against its base.

    Raises:
        InputError: options that contradict each other or do not fit the base.
    """
    c, pixels = config, latents.latent_pixels(backbone.vae)
    if c.ftd_times not in TIME_LAWS:
        raise InputError(f"ftd_times is {c.ftd_times!r}; choose from {', '.join(TIME_LAWS)}")
    if c.ftd_every < 1 or c.run.batch % c.ftd_every:
        raise InputError(f"run.batch is {c.run.batch}; it must be a multiple of ftd_every, which is {c.ftd_every}")
    if c.train_decoder and not _on_pixels(c):
        raise InputError("train_decoder is on, but no loss on pixels has a weight; set one, such as mse_weight")
    if not c.tv_lpips_scales or any(s <= 0 or max(s, 1 / s) % 1 for s in c.tv_lpips_scales):
        raise InputError(f"tv_lpips_scales is {c.tv_lpips_scales}; give whole numbers, or fractions such as 0.5")
    if c.pixel_crop < 0 or c.pixel_crop % pixels:
        raise InputError(
            f"pixel_crop is {c.pixel_crop}; it must be a multiple of a latent's {pixels} pixels, or 0 for all"
        )
    token = latents.pixel_multiple(backbone.vae)
    if c.periodic_weight and 0 < c.pixel_crop < token:
        raise InputError(f"pixel_crop is {c.pixel_crop}; periodic_weight needs {token} pixels (one token) or more")
    if family_of(backbone.transformer).embeds_guidance(backbone.transformer.config) and c.guidance is None:
        raise guidance_missing(c.base)
    try:
        with _taps(c, backbone):
            pass
    except ValueError as error:
        raise InputError(f"adl_double is {c.adl_double}, adl_single is {c.adl_single}: {error}") from error


def guidance_missing(base: str) -> InputError:
    """Return the error for a base that needs a guidance scale."""
    return InputError(f"{base or 'the base'} embeds a guidance scale; set guidance (FLUX.1-dev: 3.5)")


def _taps(config: DistillConfig, backbone: Backbone) -> AbstractContextManager[list[Tensor]]:
    tokens = backbone.prompt.prompt_embeds.shape[1]
    return attention_taps(backbone.transformer, tokens, config.adl_double, config.adl_single)

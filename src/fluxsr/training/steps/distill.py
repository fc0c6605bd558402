"""Stage 5, the method: Flow Trajectory Distillation of the one-step student (FluxSR, section 3; docs/method.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr import flow
from fluxsr.backbone.features import attention_taps
from fluxsr.backbone.latents import decode, encode
from fluxsr.backbone.loading import Backbone
from fluxsr.backbone.velocity import time_on_grid, velocity
from fluxsr.errors import InputError
from fluxsr.losses.adversarial import Critic, critic_loss, generator_loss
from fluxsr.losses.attention import adl_loss
from fluxsr.losses.ftd import ftd_by_time, ftd_loss
from fluxsr.losses.tv_lpips import tv_lpips
from fluxsr.training.config import DistillConfig
from fluxsr.training.dataset import NOISE, TIME, normals, sample_generators

Batch = tuple[Tensor, Tensor, Tensor]
CRITIC_LEAD = 100  # steps that the critic learns before it is listened to

# Laws of t (ftd_times): from a uniform draw u in [0, 1] to the place between t_l (0) and the noise (1).
TIME_LAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: u,  # the paper's
    "uniform+start": lambda u: u,  # and t_l itself, half and half
}


class DistillStage:
    """FTD + MSE + TV-LPIPS + ADL (+ adversarial) on the LoRA of a frozen transformer; the autoencoder is frozen."""

    def __init__(
        self,
        config: DistillConfig,
        backbone: Backbone,
        batches: Callable[[int, Sequence[int]], Batch],
        distance: Callable[[Tensor, Tensor], Tensor],
        device: torch.device,
    ):
        """``backbone.transformer`` carries the trainable adapter; ``distance`` is perceptual, on [-1,1]."""
        if config.ftd_times not in TIME_LAWS:
            raise InputError(f"ftd_times is {config.ftd_times!r}; choose from {', '.join(TIME_LAWS)}")
        self.config, self.backbone, self.batches, self.device = config, backbone, batches, device
        self.distance = distance
        self.modules: dict[str, nn.Module] = {"adapter": backbone.transformer}
        if config.adversarial_weight:
            torch.manual_seed(config.run.seed)
            self.modules["critic"] = Critic(config.critic_widths).to(device).to(memory_format=torch.channels_last)

    def losses(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        c, vae = self.config, self.backbone.vae
        x_0, lr_up, eps = (tensor.to(self.device) for tensor in self.batches(step, samples))
        if c.eps_source == "fresh":
            eps = normals(eps.shape[1:], sample_generators(c.run.seed, step, samples, NOISE)).to(self.device)
        with torch.no_grad():
            z_0, z_l = encode(vae, torch.cat([x_0, lr_up]).contiguous(memory_format=torch.channels_last)).chunk(2)

        # One call gives v_theta on the LR-to-noise path, t ~ U[t_l, 1], and at its start, where inference stands.
        drawn = [torch.rand(1, generator=g) for g in sample_generators(c.run.seed, step, samples, TIME)]
        t = c.t_l + (1 - c.t_l) * TIME_LAWS[c.ftd_times](torch.cat(drawn))
        t = time_on_grid(t, torch.bfloat16 if c.run.precision == "bf16" else torch.float32).to(self.device)
        z_t = flow.lr_interpolate(z_l, eps, t, c.t_l)
        times = torch.cat([t, torch.full_like(t, c.t_l)])
        with attention_taps(self.backbone.transformer, self.backbone.prompt.prompt_embeds.shape[1]) as features:
            v = velocity(self.backbone.transformer, torch.cat([z_t, z_l]), times, self.backbone.prompt, c.guidance)
        v_path, v_step = v.chunk(2)

        ftd = ftd_loss(z_0, z_l, v_path, c.t_l)
        if c.ftd_times == "uniform+start":
            ftd = (ftd + ftd_loss(z_0, z_l, v_step, c.t_l)) / 2
        by_time = {f"log/ftd/{bin}": value for bin, value in ftd_by_time(z_0, z_l, v_path, t, c.t_l).items()}

        terms = {"ftd": c.ftd_weight * ftd, "adl": c.adl_weight * adl_loss(features)}
        pixels = c.mse_weight or c.tv_lpips_weight or c.adversarial_weight
        return terms | by_time | (self._pixels(step, x_0, flow.one_step(z_l, v_step, c.t_l)) if pixels else {})

    def _pixels(self, step: int, x_0: Tensor, z_hat: Tensor) -> dict[str, Tensor]:
        """What the decoded image of the one step lacks; left out if nothing weighs it, for decoding costs much."""
        c, x_hat, target = self.config, decode(self.backbone.vae, z_hat) * 2 - 1, x_0 * 2 - 1
        terms = {"mse": c.mse_weight * F.mse_loss(x_hat, target)}
        if c.tv_lpips_weight:
            terms["tv_lpips"] = c.tv_lpips_weight * tv_lpips(x_hat, target, self.distance, c.tv_gamma)
        return terms | self._adversarial(step, x_hat, target)

    def _adversarial(self, step: int, x_hat: Tensor, target: Tensor) -> dict[str, Tensor]:
        critic = self.modules.get("critic")
        if critic is None or step < self.config.adversarial_start - CRITIC_LEAD:
            return {}
        terms = {"critic": critic_loss(critic, target, x_hat)}
        if step >= self.config.adversarial_start:
            terms["adversarial"] = self.config.adversarial_weight * generator_loss(critic, x_hat)
        return terms

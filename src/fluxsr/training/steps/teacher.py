"""Stage 3: the flow-matching teacher, on latents of photographs with one fixed prompt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fluxsr import flow
from fluxsr.backbone.prompts import random_prompt
from fluxsr.backbone.tiny import build_transformer
from fluxsr.backbone.velocity import time_on_grid, velocity
from fluxsr.training.config import TeacherConfig
from fluxsr.training.dataset import keyed_generator


class TeacherStage:
    """Squared error between the transformer's velocity and eps - z_0 (rectified flow)."""

    def __init__(self, config: TeacherConfig, latents: list[Tensor], device: torch.device):
        """``latents``: encoded photographs, each (C,h,w), normalised."""
        torch.manual_seed(config.run.seed)
        channels = latents[0].shape[0]
        self.transformer = build_transformer(
            channels, config.num_layers, config.num_single_layers, config.num_attention_heads, config.text_dim
        ).to(device)
        self.prompt = random_prompt(config.text_tokens, config.text_dim, keyed_generator(config.run.seed, 7))
        self.modules: dict[str, nn.Module] = {"transformer": self.transformer}
        self.latents, self.config, self.device = latents, config, device

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        z_0 = self._crops(step)
        eps = torch.randn(z_0.shape, generator=generator).to(self.device)
        t = self._times(len(z_0), generator).to(self.device)
        z_t = flow.interpolate(z_0, eps, t)
        v = velocity(self.transformer, z_t, t, self.prompt)
        return {"flow": (v - flow.velocity(z_0, eps)).square().mean()}

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        if self.config.time_law == "uniform":
            t = torch.rand(count, generator=generator)
        else:  # as Stable Diffusion 3 (https://arxiv.org/abs/2403.03206)
            t = torch.randn(count, generator=generator).sigmoid()
        return time_on_grid(t, torch.bfloat16 if self.config.run.precision == "bf16" else torch.float32)

    def _crops(self, step: int) -> Tensor:
        """Latent crops (B,C,n,n), keyed by (seed, step, sample)."""
        side, crops = self.config.run.crop // 8, []
        for sample in range(self.config.run.batch):
            generator = keyed_generator(self.config.run.seed, step, sample)
            index, y, x = torch.rand(3, generator=generator).tolist()
            z = self.latents[int(index * len(self.latents))]
            top, left = (int(r * (n - side + 1)) for r, n in zip((y, x), z.shape[1:], strict=True))
            crops.append(z[:, top : top + side, left : left + side].float())
        return torch.stack(crops).to(self.device)

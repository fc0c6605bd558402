"""Stage 2: the flow-matching teacher, trained on latents of photographs with one fixed prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fluxsr import flow
from fluxsr.backbones.families import family_of
from fluxsr.backbones.prompts import random_prompt
from fluxsr.backbones.tiny import build_transformer
from fluxsr.backbones.velocity import on_grid, velocity
from fluxsr.errors import InputError
from fluxsr.keyed import keyed_generator
from fluxsr.training.config import TeacherConfig
from fluxsr.training.dataset import NOISE, TIME, normals, sample_generators


class TeacherStage:
    """Squared error between the transformer's velocity and eps - z_0 (rectified flow)."""

    def __init__(self, config: TeacherConfig, latents: list[Tensor], latent_pixels: int, device: torch.device):
        """Set up the stage.

        Args:
            config: options of the stage.
            latents: normalised latents of photographs, each (C,h,w).
            latent_pixels: side of a latent in pixels.
            device: training device.

        Raises:
            InputError: the crop is not a multiple of a token, or is larger than every photograph.
        """
        torch.manual_seed(config.run.seed)
        self.transformer = build_transformer(
            *(latents[0].shape[0], config.num_layers, config.num_single_layers, config.num_attention_heads),
            *(config.text_dim, config.head_dim),
        ).to(device)
        crop, token = config.run.crop, latent_pixels * family_of(self.transformer).patch
        if crop < token or crop % token:
            raise InputError(f"run.crop is {crop}; it must be a multiple of a token's {token} pixels")
        self.side = crop // latent_pixels
        self.latents = [z for z in latents if min(z.shape[1:]) >= self.side]
        if not self.latents:
            raise InputError(f"run.crop is {crop}, but every photograph is smaller; set a smaller crop")
        self.prompt = random_prompt(config.text_tokens, config.text_dim, keyed_generator(config.run.seed, 7))
        self.modules: dict[str, nn.Module] = {"transformer": self.transformer}
        self.config, self.device = config, device

    def losses(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        z_0, seed = self._crops(step, samples), self.config.run.seed
        eps = normals(z_0.shape[1:], sample_generators(seed, step, samples, NOISE)).to(self.device)
        t = self._times(sample_generators(seed, step, samples, TIME)).to(self.device)
        z_t = flow.interpolate(z_0, eps, t)
        v = velocity(self.transformer, z_t, t, self.prompt)
        return {"flow": (v - flow.velocity(z_0, eps)).square().mean()}

    def _times(self, generators: Sequence[torch.Generator]) -> Tensor:
        if self.config.time_law == "uniform":
            t = torch.cat([torch.rand(1, generator=generator) for generator in generators])
        else:  # logit-normal, as in Stable Diffusion 3 (https://arxiv.org/abs/2403.03206)
            t = normals((), generators).sigmoid()
        return on_grid(t, torch.bfloat16 if self.config.run.precision == "bf16" else torch.float32)

    def _crops(self, step: int, samples: Sequence[int]) -> Tensor:
        """Return latent crops (B,C,n,n), keyed by (seed, step, sample)."""
        crops = []
        for sample in samples:
            generator = keyed_generator(self.config.run.seed, step, sample)
            index, y, x = torch.rand(3, generator=generator).tolist()
            z = self.latents[int(index * len(self.latents))]
            top, left = (int(r * (n - self.side + 1)) for r, n in zip((y, x), z.shape[1:], strict=True))
            crops.append(z[:, top : top + self.side, left : left + self.side].float())
        return torch.stack(crops).to(self.device)

"""The teacher: a frozen flow model with its text conditions and its solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from fluxsr import flow
from fluxsr.backbones import latents
from fluxsr.backbones.families import family_of
from fluxsr.backbones.loading import load_transformer
from fluxsr.backbones.parts import part_config
from fluxsr.backbones.places import folder_of
from fluxsr.backbones.prompts import FixedPrompt, load_prompt
from fluxsr.backbones.text import encode_prompts
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import FluxSRError, InputError, ModelError
from fluxsr.pairs.config import PairsConfig


@torch.no_grad()
def integrate_windows(
    transformer: Any,
    prompt: FixedPrompt,
    z: Tensor,
    times: Sequence[float],
    window: int,
    solver: flow.Solver = "euler",
    guidance: float | None = None,
    unconditional: FixedPrompt | None = None,
) -> Tensor:
    """Integrate latents (B,C,h,w) along the teacher's flow, window by window, in float32.

    Args:
        z: latents at ``times[0]``.
        times: increasing times invert, decreasing times sample.
        window: side of a window in latent pixels; it must divide h and w.
        guidance: guidance scale, embedded by the transformer or, with ``unconditional``, classifier-free.
        unconditional: the empty prompt of classifier-free guidance. Both predictions share one call.
    """
    height, width = z.shape[-2:]
    if height % window or width % window:
        raise ValueError(f"window {window} does not divide the latent of {height}x{width}; choose a divisor")
    windows = rearrange(z, "b c (i h) (j w) -> (b i j) c h w", h=window, w=window)
    if len(prompt.prompt_embeds) > 1:  # every window uses the prompt of its latent
        each = len(windows) // len(z)
        embeds, pooled = prompt.prompt_embeds, prompt.pooled_prompt_embeds
        prompt = FixedPrompt(embeds.repeat_interleave(each, 0), pooled.repeat_interleave(each, 0))
    if unconditional is None or guidance is None:
        field = partial(_field, transformer, prompt, guidance)
    else:
        field = partial(_guided_field, transformer, _joined(len(windows), prompt, unconditional), guidance)
    done = flow.integrate(field, windows, times, solver)
    return rearrange(done, "(b i j) c h w -> b c (i h) (j w)", i=height // window, j=width // window)


def _field(transformer: Any, prompt: FixedPrompt, guidance: float | None, z_t: Tensor, t: float) -> Tensor:
    return velocity(transformer, z_t, t, prompt, guidance)


def _guided_field(transformer: Any, both: FixedPrompt, guidance: float, z_t: Tensor, t: float) -> Tensor:
    """Classifier-free guidance: go beyond the prediction without a text, in the direction of the one with it."""
    conditional, unconditional = velocity(transformer, torch.cat([z_t, z_t]), t, both).chunk(2)
    return unconditional + guidance * (conditional - unconditional)


def _joined(count: int, *prompts: FixedPrompt) -> FixedPrompt:
    """Return the prompts of a batch in which each of these stands for ``count`` latents."""
    return FixedPrompt(
        torch.cat([prompt.prompt_embeds.expand(count, -1, -1) for prompt in prompts]),
        torch.cat([prompt.pooled_prompt_embeds.expand(count, -1) for prompt in prompts]),
    )


def falling_times(config: PairsConfig, transformer: Any) -> list[float]:
    """Return the solver's times from 1 down to 0, with the shift of the transformer's family if it is dynamic."""
    family = family_of(transformer)
    tokens = (config.window // family.patch) ** 2
    mu = family.shift(tokens, config.steps) if config.shift == "dynamic" else None
    return flow.shifted_sigmas(config.steps, mu).tolist()


@dataclass(frozen=True)
class Teacher:
    """A frozen transformer with the conditions of all prompts that will be used.

    Attributes:
        transformer: the frozen model.
        condition: function from prompts to their embeddings.
        config: options of the pairs.
        device: device of the transformer.
        unconditional: the empty prompt, where guidance is classifier-free.
    """

    transformer: Any
    condition: Callable[[Sequence[str]], FixedPrompt]
    config: PairsConfig
    device: torch.device
    unconditional: FixedPrompt | None = None

    @property
    def channels(self) -> int:
        """Number of latent channels."""
        return latents.channels(self.transformer)

    def sample(self, eps: Tensor, prompts: Sequence[str]) -> Tensor:
        """Integrate noise (B,C,h,w) to clean latents on the CPU."""
        return self._carry(eps, prompts, falling_times(self.config, self.transformer))

    def invert(self, z_0: Tensor, prompts: Sequence[str]) -> Tensor:
        """Integrate clean latents (B,C,h,w) to their noise on the CPU, with the times of sampling reversed."""
        return self._carry(z_0, prompts, falling_times(self.config, self.transformer)[::-1])

    def _carry(self, z: Tensor, prompts: Sequence[str], times: Sequence[float]) -> Tensor:
        config, done = self.config, []
        for first in range(0, len(z), config.batch):
            part = z[first : first + config.batch].to(self.device, torch.float32)
            prompt = self.condition(prompts[first : first + config.batch]).to(self.device, self.transformer.dtype)
            options = (config.window, config.solver, config.guidance, self.unconditional)
            done.append(integrate_windows(self.transformer, prompt, part, times, *options).cpu())
        found = torch.cat(done)
        if not bool(torch.isfinite(found).all()):
            raise FluxSRError(f"the teacher {config.base} returned values that are not finite; try precision=fp32")
        return found


def load_teacher(config: PairsConfig, prompts: Sequence[str], device: torch.device, spool: Path | None) -> Teacher:
    """Load a teacher. The text encoders are freed before the transformer is loaded, so memory holds only one of them.

    Args:
        config: options of the pairs.
        prompts: all prompts that will be used; duplicates are encoded once.
        device: device of the teacher.
        spool: folder for the encoded prompts; None uses the system's temporary folder.

    Raises:
        ModelError: a part of the base is missing or damaged.
        InputError: the base needs a guidance scale, or a prompt cannot be encoded.
    """
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    source = part_config(config.base, "transformer")
    guided = (config.guidance or 0) > 1 and family_of(source).classifier_free(source)
    if guided and not config.prompts:
        raise InputError(
            f"guidance is {config.guidance}, for which {config.base} needs an empty prompt beside others; set prompts, "
            "or leave guidance out"
        )
    unconditional = None
    condition: Callable[[Sequence[str]], FixedPrompt]
    if config.prompts:
        texts = list(dict.fromkeys([*prompts, ""] if guided else prompts))
        condition = encode_prompts(config.base, texts, device, dtype, config.text_tokens, spool=spool)
        unconditional = condition([""]).to(device, dtype) if guided else None
    else:
        try:
            fixed = load_prompt(folder_of(config.base))
        except ModelError as error:
            raise ModelError(f"{error}; or set prompts to a file or to 'composer'") from error

        def condition(_texts: Sequence[str]) -> FixedPrompt:
            return fixed

    transformer = load_transformer(config.base, device, dtype)
    if family_of(transformer).embeds_guidance(transformer.config) and config.guidance is None:
        raise InputError(f"{config.base} embeds a guidance scale; set guidance (FLUX.1-dev: 3.5)")
    return Teacher(transformer, condition, config, device, unconditional)

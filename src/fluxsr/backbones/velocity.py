"""ONE call for teacher, student and inference: v(z_t, t, prompt)."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor

from fluxsr.backbones.cuts import over_cuts
from fluxsr.backbones.latents import image_ids, pack, unpack
from fluxsr.backbones.prompts import FixedPrompt, PromptEmbeddings


def velocity(
    transformer: Any,
    z_t: Tensor,
    t: float | Tensor,
    prompt: FixedPrompt | PromptEmbeddings,
    guidance: float | None = None,
    cuts: int = 1,
) -> Tensor:
    """The transformer's velocity, an estimate of eps - z_0 (section 1 of docs/method.md).

    Args:
        transformer: FluxTransformer2DModel, folded or not, with or without LoRA.
        z_t: latents (B,C,h,w), h and w even.
        t: time in [0,1], a float or (B,). A folded transformer stands at its own time and ignores it. Inference passes
            ``AdapterConfig.condition``, time and guidance as training saw them (``on_grid``).
        prompt: fixed condition, spread over the batch.
        guidance: distilled guidance scale; needed by models with guidance embedding (FLUX.1-dev), else unused.
        cuts: ways to cut the latent into tokens, over which the velocity is a mean: 1, 2 or 4 (`backbones/cuts.py`).

    Returns:
        Velocity (B,C,h,w), float32.
    """
    return over_cuts(lambda z: _of_one_cut(transformer, z, t, prompt, guidance), z_t, cuts)


def _of_one_cut(
    transformer: Any, z_t: Tensor, t: float | Tensor, prompt: FixedPrompt | PromptEmbeddings, guidance: float | None
) -> Tensor:
    batch, _, height, width = z_t.shape
    dtype, device = transformer.dtype, z_t.device
    embeds, pooled = (x.to(device, dtype) for x in (prompt.prompt_embeds, prompt.pooled_prompt_embeds))
    times = torch.as_tensor(t, dtype=torch.float32, device=device).expand(batch)
    if transformer.config.guidance_embeds and guidance is None:
        raise ValueError("guidance is None, but this transformer embeds a guidance scale; pass one (FLUX.1-dev: 3.5)")
    scale = torch.full((batch,), guidance or 0.0, device=device) if transformer.config.guidance_embeds else None
    tokens = transformer(
        hidden_states=pack(z_t).to(dtype),
        encoder_hidden_states=embeds.expand(batch, -1, -1),
        pooled_projections=pooled.expand(batch, -1),
        timestep=times,
        guidance=scale,
        img_ids=image_ids(height, width, device),
        txt_ids=torch.zeros(embeds.shape[1], 3, device=device),
    ).sample
    return unpack(tokens.float(), height, width)


@overload
def on_grid(value: float, dtype: torch.dtype) -> float: ...


@overload
def on_grid(value: Tensor, dtype: torch.dtype) -> Tensor: ...


def on_grid(value: float | Tensor, dtype: torch.dtype) -> float | Tensor:
    """Return the time or guidance that a transformer of this dtype really sees.

    FLUX casts both to its dtype and then multiplies by 1000. In bfloat16 the grid of times is as coarse as 0.004, and a
    guidance of 3.5 becomes 3.504. A value on the grid stays as it is in every dtype that is at least as fine.
    """
    if isinstance(value, Tensor):
        return (value.to(dtype) * 1000).float() / 1000
    return float(torch.tensor(value, dtype=torch.float32).to(dtype) * 1000) / 1000

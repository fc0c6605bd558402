"""Call the transformer, v(z_t, t, prompt), for teacher, student and inference."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor

from fluxsr.backbones.families import family_of
from fluxsr.backbones.family import Prompt


def velocity(transformer: Any, z_t: Tensor, t: float | Tensor, prompt: Prompt, guidance: float | None = None) -> Tensor:
    """Return the transformer's velocity, an estimate of eps - z_0 (section 1 of docs/method.md).

    Args:
        transformer: transformer of a known family, folded or not, with or without LoRA.
        z_t: latents (B,C,h,w); h and w must be multiples of the family's patch.
        t: time in [0,1], a float or (B,). A folded transformer ignores it. At inference, pass time and guidance of
            ``AdapterConfig.condition``, which are rounded as in training (``on_grid``).
        prompt: fixed prompt for the whole batch.
        guidance: guidance scale, required by models that embed one (FLUX.1-dev) and ignored by others.

    Returns:
        Velocity (B,C,h,w), float32.
    """
    family = family_of(transformer)
    times = torch.as_tensor(t, dtype=torch.float32, device=z_t.device).expand(len(z_t))
    return family.velocity(transformer, z_t, times, prompt, needed_guidance(transformer, guidance)).float()


def needed_guidance(transformer: Any, guidance: float | None) -> float | None:
    """Return the guidance scale if the transformer embeds one, and None otherwise.

    Raises:
        ValueError: the transformer embeds a guidance scale, but ``guidance`` is None.
    """
    if not family_of(transformer).embeds_guidance(transformer.config):
        return None
    if guidance is None:
        raise ValueError("guidance is None, but this transformer embeds a guidance scale; pass one (FLUX.1-dev: 3.5)")
    return guidance


@overload
def on_grid(value: float, dtype: torch.dtype) -> float: ...


@overload
def on_grid(value: Tensor, dtype: torch.dtype) -> Tensor: ...


def on_grid(value: float | Tensor, dtype: torch.dtype) -> float | Tensor:
    """Return a time or guidance after the rounding in a transformer of this dtype.

    The transformer casts both to its dtype and then multiplies by 1000. In bfloat16 times are rounded to steps of up to
    0.004, and a guidance of 3.5 becomes 3.504. A rounded value does not change in any dtype that is at least as fine.
    """
    if isinstance(value, Tensor):
        return (value.to(dtype) * 1000).float() / 1000
    return float(torch.tensor(value, dtype=torch.float32).to(dtype) * 1000) / 1000

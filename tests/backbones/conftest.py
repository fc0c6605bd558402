"""Transformers that a test may change: the session's tiny one is shared and must stay as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

TEXT = 16


@pytest.fixture
def build() -> Callable[..., Any]:
    """build(guidance_embeds=..., ...): a fresh FluxTransformer2DModel, 2 double + 2 single blocks, width 32."""
    from diffusers import FluxTransformer2DModel

    def make(seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
        torch.manual_seed(seed)
        sizes: dict[str, Any] = {
            "in_channels": 16, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16,
            "num_attention_heads": 2, "joint_attention_dim": TEXT, "pooled_projection_dim": TEXT,
            "axes_dims_rope": (4, 6, 6),
        }  # fmt: skip
        return FluxTransformer2DModel(**sizes | config).to(dtype).eval()

    return make


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(1))

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fluxsr.backbone.features import attention_taps
from fluxsr.backbone.velocity import velocity


def test_every_block_gives_its_image_tokens_in_order_and_only_within_the_context(
    build: Callable[..., Any], prompt: Any, latents: torch.Tensor
) -> None:
    transformer = build()
    plain = velocity(transformer, latents, 0.25, prompt)
    with attention_taps(transformer, text_tokens=3) as features:
        tapped = velocity(transformer, latents, 0.25, prompt)
    assert torch.equal(plain, tapped), "a tap must not change the output"
    assert [tuple(x.shape) for x in features] == [(2, 12, 32)] * 4  # 2 double, 2 single
    velocity(transformer, latents, 0.25, prompt)
    assert len(features) == 4


def test_gradients_flow_through_the_taps(build: Callable[..., Any], prompt: Any, latents: torch.Tensor) -> None:
    transformer = build()
    with attention_taps(transformer, text_tokens=3) as features:
        velocity(transformer, latents, 0.25, prompt)
    sum(x.square().sum() for x in features).backward()
    assert transformer.transformer_blocks[0].attn.to_out[0].weight.grad.abs().sum() > 0
    assert transformer.single_transformer_blocks[1].attn.to_v.weight.grad.abs().sum() > 0


def test_taps_are_removed_when_the_forward_fails(build: Callable[..., Any]) -> None:
    transformer = build()
    with pytest.raises(RuntimeError, match="stop"), attention_taps(transformer, text_tokens=3):
        raise RuntimeError("stop")
    assert not any(block.attn._forward_hooks for block in transformer.transformer_blocks)

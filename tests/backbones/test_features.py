from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fluxsr.backbones.features import attention_taps
from fluxsr.backbones.velocity import velocity
from fluxsr.losses.attention import adl_loss


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


@pytest.mark.parametrize(
    ("double", "single", "expected"),
    [(None, None, [0, 1, 2, 3]), ((1,), (), [1]), ((), None, [2, 3]), ([1, 0], [1], [0, 1, 3]), ((), (0, 0), [2])],
)
def test_chosen_blocks_are_those_of_all_blocks(
    build: Callable[..., Any], prompt: Any, latents: torch.Tensor, double: Any, single: Any, expected: list[int]
) -> None:
    transformer = build()
    with attention_taps(transformer, 3) as every:
        velocity(transformer, latents, 0.25, prompt)
    with attention_taps(transformer, 3, double=double, single=single) as chosen:
        velocity(transformer, latents, 0.25, prompt)
    assert len(chosen) == len(expected)
    assert all(torch.equal(a, every[k]) for a, k in zip(chosen, expected, strict=True))


@pytest.mark.parametrize(
    ("double", "single", "message"),
    [((2,), None, "double-stream block 2"), (None, (-1,), "single-stream block -1"), ((), (), "no block is chosen")],
)
def test_blocks_that_are_not_there_are_named(build: Callable[..., Any], double: Any, single: Any, message: str) -> None:
    transformer = build()
    with pytest.raises(ValueError, match=message), attention_taps(transformer, 3, double, single):
        pass
    assert not any(block.attn._forward_hooks for block in transformer.transformer_blocks)


def test_text_tokens_have_no_part_in_it(build: Callable[..., Any], latents: torch.Tensor) -> None:
    """The attention of a single-stream block covers text and image; the image's are the last N."""
    from fluxsr.backbones.prompts import random_prompt

    transformer = build()
    for length in (1, 5):
        prompt = random_prompt(length, 16, torch.Generator().manual_seed(0))
        with attention_taps(transformer, length) as features:
            velocity(transformer, latents, 0.25, prompt)
        assert {tuple(x.shape) for x in features} == {(2, 12, 32)}


def adl_step(
    transformer: Any, prompt: Any, latents: torch.Tensor, backward_inside: bool
) -> tuple[int, torch.Tensor, list[torch.Tensor]]:
    """Number of features, ADL + a loss of the output, and every parameter's gradient."""
    transformer.zero_grad()
    with attention_taps(transformer, 3) as features:
        v = velocity(transformer, latents, 0.25, prompt)
        loss = adl_loss(features) + v.square().mean()
        if backward_inside:
            loss.backward()
    if not backward_inside:
        loss.backward()
    return len(features), loss.detach(), [p.grad.clone() for p in transformer.parameters() if p.grad is not None]


@pytest.mark.parametrize("backward_inside", [False, True])
def test_gradient_checkpointing_changes_nothing(
    build: Callable[..., Any], prompt: Any, latents: torch.Tensor, backward_inside: bool
) -> None:
    """Blocks run again during backward; a tap that fired twice would give 8 features, or other gradients."""
    plain = build().train()
    saving = build().train()
    saving.enable_gradient_checkpointing()
    calls = []
    saving.transformer_blocks[0].attn.register_forward_hook(lambda *_: calls.append(1))
    expected = adl_step(plain, prompt, latents, backward_inside)
    found = adl_step(saving, prompt, latents, backward_inside)
    assert len(calls) == 2, "the block was not run again: this test tests nothing"
    assert found[0] == expected[0] == 4
    assert torch.equal(found[1], expected[1])
    assert len(found[2]) == len(expected[2]) > 0
    assert all(torch.equal(a, b) for a, b in zip(found[2], expected[2], strict=True))

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fluxsr.backbones import attention
from fluxsr.backbones.attention import attend_by_chunks, chunked_attention
from fluxsr.backbones.velocity import velocity


@pytest.mark.parametrize("rows", [1, 7, 20, 512])
def test_chunked_attention_is_attention_whatever_the_slice(rows: int) -> None:
    query, key, value = torch.randn(3, 2, 20, 3, 16, generator=torch.Generator().manual_seed(0))  # (B,N,heads,d)
    expected = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)
    torch.testing.assert_close(chunked_attention(query, key, value, rows), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("gain", "most", "times"), [(1, 0.006, 3), (8, 0.03, 12)], ids=["random", "peaked"])
def test_the_error_in_bfloat16_is_bounded_beside_that_of_flash_attention(gain: int, most: float, times: float) -> None:
    """Scores are rounded to bfloat16, so large ones lose more; how little shows in pictures: docs/benchmarks.md."""
    query, key, value = torch.randn(3, 1, 300, 1, 128, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    query = gain * query
    truth = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)
    half = [x.bfloat16() for x in (query, key, value)]
    flash = scaled_dot_product_attention(*(x.transpose(1, 2) for x in half)).transpose(1, 2)
    error, reference = ((x.float() - truth).norm() / truth.norm() for x in (chunked_attention(*half), flash))
    assert error < most and error < times * reference


@torch.no_grad()
@pytest.mark.parametrize("kind", ["transformer_blocks", "single_transformer_blocks"])
def test_a_whole_block_gives_the_same_with_either_processor(kind: str, build: Callable[..., Any]) -> None:
    transformer, generator = build(), torch.Generator().manual_seed(0)
    block = getattr(transformer, kind)[0]
    ids = torch.randint(0, 9, (15, 3), generator=generator).float()  # 3 text and 12 image tokens
    inputs = {
        "hidden_states": torch.randn(2, 12, 32, generator=generator),
        "encoder_hidden_states": torch.randn(2, 3, 32, generator=generator),
        "temb": torch.randn(2, 32, generator=generator),
        "image_rotary_emb": transformer.pos_embed(ids),
    }
    expected = block(**{key: x.clone() if torch.is_tensor(x) else x for key, x in inputs.items()})
    attend_by_chunks(block)
    for ours, theirs in zip(block(**inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_whole_transformer_gives_the_same_with_either_processor(
    build: Callable[..., Any], prompt: Any, latents: torch.Tensor
) -> None:
    transformer = build()
    expected = velocity(transformer, latents, 0.25, prompt)
    attend_by_chunks(transformer)
    torch.testing.assert_close(velocity(transformer, latents, 0.25, prompt), expected, rtol=1e-5, atol=1e-5)


def test_off_the_cpu_it_is_diffusers_own(build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("chunked attention is for CPUs")

    monkeypatch.setattr(attention, "chunked_attention", refuse)
    transformer = build()
    attend_by_chunks(transformer)
    transformer.to("meta")
    for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks):
        attn, x = blocks[0].attn, torch.empty(1, 4, 32, device="meta")
        text = None if blocks is transformer.single_transformer_blocks else x
        out = attn(x, encoder_hidden_states=text)
        assert (out if text is None else out[0]).shape == (1, 4, 32)

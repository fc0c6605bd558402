from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fluxsr.backbones.flux1 import Flux1, FoldedFluxTransformer2DModel
from fluxsr.backbones.folding import fold
from fluxsr.backbones.lora import add_lora
from fluxsr.backbones.parts import load_part
from fluxsr.backbones.velocity import velocity

T, GUIDANCE = 0.25, 3.504  # what a transformer in bfloat16 sees of 3.5
MODULATION = ("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear", "text_embedder.linear_1")


def both(transformer: Any, z: torch.Tensor, prompt: Any, guidance: float | None) -> tuple[Any, Any, Any]:
    """Velocities before and after folding, and the folded transformer."""
    with torch.no_grad():
        before = velocity(transformer, z, T, prompt, guidance)
        folded = fold(transformer, T, guidance, prompt.pooled_prompt_embeds)
        return before, velocity(folded, z, T, prompt, guidance), folded


@pytest.mark.parametrize("guidance", [None, GUIDANCE])
def test_folding_changes_nothing_in_float32(
    guidance: float | None, build: Callable[..., Any], prompt: Any, latents: torch.Tensor
) -> None:
    before, after, _ = both(build(guidance_embeds=guidance is not None), latents, prompt, guidance)
    torch.testing.assert_close(after, before, rtol=2e-6, atol=2e-6)


def test_folding_changes_no_bit_of_one_image_in_bfloat16(
    build: Callable[..., Any], prompt: Any, latents: torch.Tensor
) -> None:
    before, after, _ = both(build(dtype=torch.bfloat16, guidance_embeds=True), latents[:1], prompt, GUIDANCE)
    assert torch.equal(after, before)


def test_folding_stays_within_rounding_for_a_batch_in_bfloat16(
    build: Callable[..., Any], prompt: Any, latents: torch.Tensor
) -> None:
    before, after, _ = both(build(dtype=torch.bfloat16, guidance_embeds=True), latents, prompt, GUIDANCE)
    assert (after - before).norm() / before.norm() < 0.01  # bfloat16 rounds at 0.004


@pytest.mark.parametrize("targets", [(), (*Flux1.lora_targets, *MODULATION)], ids=["attention", "and modulation"])
def test_an_adapter_that_is_not_fused_is_folded_with_the_rest(
    targets: tuple[str, ...], build: Callable[..., Any], prompt: Any, latents: torch.Tensor
) -> None:
    transformer = build(guidance_embeds=True)
    plain = velocity(transformer, latents, T, prompt, GUIDANCE)
    add_lora(transformer, rank=4, alpha=8, targets=targets)
    _randomise(transformer)
    before, after, folded = both(transformer, latents, prompt, GUIDANCE)
    assert not torch.allclose(before, plain, atol=1e-2)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    folded.fuse_lora()
    folded.unload_lora()
    fused = velocity(folded, latents, T, prompt, GUIDANCE)
    torch.testing.assert_close(fused, before, rtol=1e-4, atol=1e-5)
    assert not [name for name in folded.state_dict() if "lora" in name]


def test_a_folded_transformer_ignores_the_time_it_is_called_with(
    build: Callable[..., Any], prompt: Any, latents: torch.Tensor
) -> None:
    _, after, folded = both(build(), latents, prompt, None)
    with torch.no_grad():
        assert torch.equal(velocity(folded, latents, 0.9, prompt), after)


def test_no_weight_is_left_without_memory(build: Callable[..., Any], prompt: Any) -> None:
    folded = fold(build(), T, None, prompt.pooled_prompt_embeds)
    assert not [name for name, tensor in folded.state_dict().items() if tensor.is_meta]
    assert not [name for name, tensor in (*folded.named_parameters(), *folded.named_buffers()) if tensor.is_meta]
    assert {tensor.device.type for tensor in folded.state_dict().values()} == {"cpu"}


def test_blocks_are_taken_over_and_not_copied(build: Callable[..., Any], prompt: Any) -> None:
    transformer = build()
    weight = transformer.transformer_blocks[0].attn.to_q.weight
    assert fold(transformer, T, None, prompt.pooled_prompt_embeds).transformer_blocks[0].attn.to_q.weight is weight


def test_constants_are_buffers_one_per_modulation(build: Callable[..., Any], prompt: Any) -> None:
    folded = fold(build(), T, None, prompt.pooled_prompt_embeds)
    buffers = dict(folded.named_buffers())
    assert len(buffers) == 2 * 2 + 2 + 1  # two per double block, one per single, the last norm
    assert sum(x.numel() for x in buffers.values()) == (2 * 2 * 6 + 2 * 3 + 2) * 32
    assert not [name for name, _ in folded.named_parameters() if "modulation" in name or "time_text" in name]


def test_folding_twice_is_folding_once(build: Callable[..., Any], prompt: Any) -> None:
    folded = fold(build(), T, None, prompt.pooled_prompt_embeds)
    assert fold(folded, T, None, prompt.pooled_prompt_embeds) is folded


def test_the_config_of_a_folded_transformer_builds_its_like(build: Callable[..., Any], prompt: Any) -> None:
    folded = fold(build(), T, None, prompt.pooled_prompt_embeds)
    again = FoldedFluxTransformer2DModel.from_config(folded.config)
    assert again.state_dict().keys() == folded.state_dict().keys()
    assert again.transformer_blocks[0].attn.to_q.weight.shape == (32, 32)


def test_folding_asks_for_the_guidance_that_the_model_embeds(build: Callable[..., Any], prompt: Any) -> None:
    with pytest.raises(ValueError, match=r"guidance is None.*pass one"):
        fold(build(guidance_embeds=True), T, None, prompt.pooled_prompt_embeds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_folded_transformer_loads_to_the_bit(
    dtype: torch.dtype, build: Callable[..., Any], prompt: Any, latents: torch.Tensor, tmp_path: Path
) -> None:
    _, after, folded = both(build(dtype=dtype, guidance_embeds=True), latents, prompt, GUIDANCE)
    folded.save_pretrained(tmp_path / "transformer")
    loaded = load_part(tmp_path, "transformer", dtype).eval()
    assert isinstance(loaded, FoldedFluxTransformer2DModel)
    assert (loaded.config.folded_t, loaded.config.folded_guidance) == (T, GUIDANCE)
    assert loaded.config.num_attention_heads == 2  # the config is the small model's, not the defaults
    for name, tensor in folded.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    with torch.no_grad():
        assert torch.equal(velocity(loaded, latents, T, prompt, GUIDANCE), after)


def _randomise(transformer: Any) -> None:
    """lora_B starts at zero, where an adapter does nothing."""
    for i, (name, parameter) in enumerate(transformer.named_parameters()):
        if "lora_B" in name:
            parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(i))

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

from fluxsr import flow
from fluxsr.backbones import flux1
from fluxsr.backbones.velocity import on_grid, velocity


@torch.no_grad()
@pytest.mark.parametrize("guidance", [None, 3.5])
def test_one_step_along_the_velocity_is_one_step_of_the_flux_pipeline(
    guidance: float | None, build: Callable[..., Any], vae: Any, prompt: Any, latents: torch.Tensor
) -> None:
    transformer, t = build(guidance_embeds=guidance is not None), 0.25
    pipeline = FluxPipeline(FlowMatchEulerDiscreteScheduler(shift=1.0), vae, None, None, None, None, transformer)
    pipeline.set_progress_bar_config(disable=True)
    tokens = pipeline(
        prompt_embeds=prompt.prompt_embeds.expand(2, -1, -1),
        pooled_prompt_embeds=prompt.pooled_prompt_embeds.expand(2, -1),
        latents=flux1.pack(latents), height=64, width=48, sigmas=[t], num_inference_steps=1,
        guidance_scale=guidance or 0.0, output_type="latent",
    ).images  # fmt: skip
    ours = flow.one_step(latents, velocity(transformer, latents, t, prompt, guidance), t)
    torch.testing.assert_close(ours, flux1.unpack(tokens, 8, 6), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, latents, atol=1e-2)


def test_a_model_that_embeds_guidance_asks_for_it(build: Callable[..., Any], prompt: Any, latents: Any) -> None:
    with pytest.raises(ValueError, match=r"guidance is None.*pass one"):
        velocity(build(guidance_embeds=True), latents, 0.25, prompt)


@torch.no_grad()
def test_guidance_is_read_where_the_model_embeds_it_and_only_there(
    build: Callable[..., Any], prompt: Any, latents: Any
) -> None:
    one, other = (velocity(build(guidance_embeds=True), latents, 0.25, prompt, g) for g in (1.0, 3.5))
    assert not torch.allclose(one, other)
    one, other = (velocity(build(), latents, 0.25, prompt, g) for g in (None, 3.5))
    assert torch.equal(one, other)


@torch.no_grad()
def test_every_sample_has_its_own_time(build: Callable[..., Any], prompt: Any, latents: torch.Tensor) -> None:
    transformer, times = build(), torch.tensor([0.3, 0.9])
    together = velocity(transformer, latents, times, prompt)
    alone = [velocity(transformer, z[None], float(t), prompt) for z, t in zip(latents, times, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[1], velocity(transformer, latents, 0.3, prompt)[1])


@torch.no_grad()
def test_velocity_is_float32_and_of_the_latents_shape_for_a_bfloat16_model(
    build: Callable[..., Any], prompt: Any, latents: torch.Tensor
) -> None:
    v = velocity(build(dtype=torch.bfloat16), latents, 0.25, prompt)
    assert v.dtype == torch.float32 and v.shape == latents.shape


def test_gradients_reach_the_latents(build: Callable[..., Any], prompt: Any, latents: torch.Tensor) -> None:
    z = latents.clone().requires_grad_()
    velocity(build(), z, 0.25, prompt).square().sum().backward()
    assert z.grad is not None and (z.grad != 0).all()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_grid_is_what_the_transformer_sees(
    dtype: torch.dtype, build: Callable[..., Any], prompt: Any, latents: torch.Tensor
) -> None:
    transformer, seen = build(dtype=dtype), []
    transformer.time_text_embed.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    for t in torch.linspace(0.2, 1, 9):
        velocity(transformer, latents[:1], float(t), prompt)
        assert float(seen[-1]) / 1000 == pytest.approx(float(on_grid(t, dtype)), abs=1e-7)


def test_the_bfloat16_grid_is_coarse_but_holds_a_quarter() -> None:
    t = torch.linspace(0.512, 1, 1000)
    error = (on_grid(t, torch.bfloat16) - t).abs().max()
    assert 0.001 < error < 0.005
    assert on_grid(torch.tensor(0.25), torch.bfloat16) == 0.25


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("guidance", [1.0, 3.5, 7.3, 30.0])
def test_what_bfloat16_sees_is_seen_in_every_dtype(
    guidance: float, dtype: torch.dtype, build: Callable[..., Any], prompt: Any, latents: torch.Tensor
) -> None:
    """FLUX multiplies after the cast: 3.5 becomes 3504 in bfloat16 alone, and 3.504 does so everywhere."""
    seen: list[tuple[float, float]] = []

    def look(_module: Any, inputs: Any) -> None:
        seen.append((float(inputs[0]), float(inputs[1])))

    for kind, values in (
        (torch.bfloat16, (0.333, guidance)),
        (dtype, (on_grid(0.333, torch.bfloat16), on_grid(guidance, torch.bfloat16))),
    ):
        transformer = build(dtype=kind, guidance_embeds=True)
        transformer.time_text_embed.register_forward_pre_hook(look)
        velocity(transformer, latents[:1], values[0], prompt, values[1])
    assert seen[1] == pytest.approx(seen[0], rel=1e-6)
    assert seen[0][1] == (3504.0 if guidance == 3.5 else pytest.approx(1000 * guidance, rel=0.004))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_value_on_the_grid_stays_there(dtype: torch.dtype) -> None:
    values = torch.cat([torch.linspace(0.001, 1, 2000), torch.linspace(1, 60, 2000)])
    once = on_grid(values, dtype)
    assert torch.equal(on_grid(once, dtype), once)
    assert [on_grid(float(value), dtype) for value in values[::50]] == pytest.approx(once[::50].tolist(), rel=1e-6)

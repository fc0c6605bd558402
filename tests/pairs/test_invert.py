"""Inversion along a teacher's flow: there and back, window by window."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fluxsr import flow
from fluxsr.backbone.prompts import FixedPrompt
from fluxsr.backbone.velocity import velocity
from fluxsr.pairs.invert import integrate_windows, round_trip


def latents(count: int = 2, side: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(seed))


def rising(steps: int) -> list[float]:
    return [k / steps for k in range(steps + 1)]


def test_there_and_back_beats_fresh_noise(transformer: Any, prompt: FixedPrompt) -> None:
    generator = torch.Generator().manual_seed(1)
    own, fresh = round_trip(transformer, prompt, latents(), rising(8), 4, generator)
    assert own < fresh / 5
    assert fresh == pytest.approx(round_trip(transformer, prompt, latents(), rising(8), 4, generator)[1], rel=0.5)


def test_more_steps_and_a_better_solver_lose_less(transformer: Any, prompt: FixedPrompt) -> None:
    def error(steps: int, solver: Any) -> float:
        return round_trip(transformer, prompt, latents(), rising(steps), 4, torch.Generator(), solver)[0]

    assert error(16, "euler") < 0.7 * error(4, "euler")
    assert error(4, "midpoint") < 0.5 * error(4, "euler")


def test_a_window_of_the_whole_is_the_plain_flow(transformer: Any, prompt: FixedPrompt) -> None:
    z = latents()
    found = integrate_windows(transformer, prompt, z, rising(3), 4)
    with torch.no_grad():
        expected = flow.integrate(lambda z_t, t: velocity(transformer, z_t, t, prompt), z, rising(3))
    assert torch.equal(found, expected)
    assert found.shape == z.shape and not found.requires_grad


def test_every_window_goes_its_own_way(transformer: Any, prompt: FixedPrompt) -> None:
    """A latent of 2x3 windows is the six of them, each where it was, whatever the others are."""
    z = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(2))
    whole = integrate_windows(transformer, prompt, z, rising(2), 4)
    for row in (0, 4):
        for column in (0, 4, 8):
            piece = (slice(None), slice(None), slice(row, row + 4), slice(column, column + 4))
            alone = integrate_windows(transformer, prompt, z[piece], rising(2), 4)
            torch.testing.assert_close(whole[piece], alone, atol=1e-5, rtol=1e-5)


def test_window_must_divide(transformer: Any, prompt: FixedPrompt) -> None:
    with pytest.raises(ValueError, match="window 4 does not divide the latent of 4x6"):
        integrate_windows(transformer, prompt, torch.zeros(1, 4, 4, 6), [0.0, 1.0], 4)


def test_guidance_reaches_a_teacher_that_embeds_it(prompt: FixedPrompt) -> None:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    size = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 1}
    teacher: nn.Module = FluxTransformer2DModel(
        in_channels=16, joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=True,
        axes_dims_rope=(4, 6, 6), **size,
    ).eval()  # fmt: skip
    low, high = (integrate_windows(teacher, prompt, latents(), rising(1), 4, guidance=g) for g in (1.0, 7.0))
    assert not torch.equal(low, high)
    own, fresh = round_trip(teacher, prompt, latents(), rising(4), 4, torch.Generator(), guidance=3.5)
    assert own < fresh

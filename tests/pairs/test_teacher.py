"""The teacher at work: windows, times, prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fluxsr import flow
from fluxsr.backbones.prompts import FixedPrompt
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import FluxSRError, InputError, ModelError
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.teacher import falling_times, integrate_windows, load_teacher

CPU = torch.device("cpu")


def latents(count: int = 2, side: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(seed))


def rising(steps: int) -> list[float]:
    return [k / steps for k in range(steps + 1)]


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


def test_every_latent_has_its_own_prompt(transformer: Any, prompt: FixedPrompt) -> None:
    other = FixedPrompt(prompt.prompt_embeds.flip(1) * 2, prompt.pooled_prompt_embeds * -1)
    both = FixedPrompt(
        torch.cat([prompt.prompt_embeds, other.prompt_embeds]),
        torch.cat([prompt.pooled_prompt_embeds, other.pooled_prompt_embeds]),
    )
    z = latents(2, 8)  # two latents of four windows
    found = integrate_windows(transformer, both, z, rising(1), 4)
    for k, alone in enumerate((prompt, other)):
        expected = integrate_windows(transformer, alone, z[k : k + 1], rising(1), 4)
        torch.testing.assert_close(found[k : k + 1], expected, atol=1e-5, rtol=1e-5)


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


def test_times_fall_from_one_to_zero_and_the_shift_is_flux_s(transformer: Any) -> None:
    even = falling_times(PairsConfig(steps=4), transformer)
    assert even == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = falling_times(PairsConfig(steps=28, shift="dynamic", window=128), transformer)
    assert shifted == flow.shifted_sigmas(28, 1.15).tolist()  # 4096 tokens
    assert shifted[-2] == pytest.approx(0.105, abs=1e-3)  # of FLUX.1-dev at 1024 px


def test_a_teacher_with_text_encoders(text_model_folder: Path, options: Callable[..., PairsConfig]) -> None:
    config = options(base=str(text_model_folder), prompts="x.txt", text_tokens=8, guidance=3.5)
    teacher = load_teacher(config, ["a fox", "an owl", "a fox"], CPU, None)
    assert teacher.channels == 4
    fox, owl, again = teacher.sample(latents(1).expand(3, -1, -1, -1), ["a fox", "an owl", "a fox"])
    torch.testing.assert_close(fox, again, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(fox, owl, atol=1e-5)


def test_what_is_missing_is_named(text_model_folder: Path, options: Callable[..., PairsConfig]) -> None:
    config = options(base=str(text_model_folder))
    with pytest.raises(ModelError, match="no fixed prompt in .*set prompts to a file or to 'composer'"):
        load_teacher(config, [""], CPU, None)
    config.prompts, config.text_tokens = "x.txt", 8
    with pytest.raises(InputError, match="embeds a guidance scale; set guidance"):
        load_teacher(config, ["a fox"], CPU, None)


def test_values_that_are_not_finite_are_refused(options: Callable[..., PairsConfig]) -> None:
    teacher = load_teacher(options(), [""], CPU, None)
    with pytest.raises(FluxSRError, match="not finite; try precision=fp32"):
        teacher.sample(torch.full((1, 4, 4, 4), float("nan")), [""])

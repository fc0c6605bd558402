"""Stage 2: flow matching on latents."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fluxsr.errors import InputError
from fluxsr.training.config import RunConfig, TeacherConfig
from fluxsr.training.dataset import TIME, sample_generators
from fluxsr.training.steps import teacher
from fluxsr.training.steps.teacher import TeacherStage

LATENTS = [torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(k)).half() for k in range(3)]


def stage(batch: int = 2, precision: Any = "fp32", latent_pixels: int = 8, **changes: Any) -> TeacherStage:
    run = RunConfig(batch=batch, crop=32, device="cpu", precision=precision)
    config = TeacherConfig(
        run=run, num_layers=1, num_single_layers=1, num_attention_heads=1, text_tokens=2, text_dim=8, **changes
    )
    return TeacherStage(config, LATENTS, latent_pixels, torch.device("cpu"))


def test_the_true_velocity_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """At z_t = (1 - t) z_0 + t eps the network is asked for eps - z_0, at the time that it sees."""
    one = stage(batch=4)
    z_0 = one._crops(0, range(4))

    def true(_transformer: Any, z_t: torch.Tensor, t: torch.Tensor, _prompt: Any) -> torch.Tensor:
        return (z_t - z_0) / t.view(-1, 1, 1, 1)

    monkeypatch.setattr(teacher, "velocity", true)
    assert float(one.losses(0, range(4))["flow"]) < 1e-8


def test_gradient_reaches_the_transformer_and_latents_are_drawn_by_key() -> None:
    one, again = stage(), stage()
    losses = [s.losses(2, [0, 1])["flow"] for s in (one, again)]
    assert torch.equal(*losses)
    losses[0].backward()
    assert all(p.grad is not None for p in one.transformer.parameters())
    assert not torch.equal(one._crops(1, [0, 1]), one._crops(2, [0, 1]))
    assert one._crops(1, [0, 1]).shape == (2, 4, 4, 4)
    assert stage(latent_pixels=16)._crops(1, [0, 1]).shape == (2, 4, 2, 2)


def test_a_photograph_below_the_crop_is_left_out_and_a_crop_that_none_holds_is_refused() -> None:
    small = torch.zeros(4, 3, 8).half()
    one = stage()
    config, device = one.config, torch.device("cpu")
    assert len(TeacherStage(config, [small, *LATENTS], 8, device).latents) == len(LATENTS)
    with pytest.raises(InputError, match="run.crop is 32, but every photograph is smaller; set a smaller crop"):
        TeacherStage(config, [small], 8, device)
    with pytest.raises(InputError, match="run.crop is 32; it must be a multiple of a token's 64 pixels"):
        TeacherStage(config, LATENTS, 32, device)


def test_crops_are_pieces_of_the_latents() -> None:
    for crop in stage(batch=16)._crops(0, range(16)):
        windows = [z.float().unfold(1, 4, 1).unfold(2, 4, 1).permute(1, 2, 0, 3, 4).flatten(0, 1) for z in LATENTS]
        assert bool((torch.cat(windows) == crop).all(dim=(1, 2, 3)).any())


def test_laws_of_time() -> None:
    generators = sample_generators(0, 0, range(4000), TIME)
    uniform = stage(time_law="uniform")._times(generators)
    normal = stage(time_law="logit_normal")._times(generators)
    for t in (uniform, normal):
        assert float(t.min()) >= 0 and float(t.max()) <= 1 and float(t.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(uniform.var()) == pytest.approx(1 / 12, abs=0.005)
    assert float(normal.logit().std()) == pytest.approx(1, abs=0.05)


def test_times_stand_on_the_grid_of_bfloat16() -> None:
    """Where autocast computes in bfloat16 the transformer sees 1000 t rounded to it."""
    t = stage(precision="bf16")._times(sample_generators(0, 0, range(100), TIME))
    torch.testing.assert_close((t * 1000).bfloat16().float(), t * 1000, atol=1e-3, rtol=0)

"""Stage 1: reconstruction on clean crops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fluxsr.backbones.tiny import build_autoencoder
from fluxsr.training.config import AutoencoderConfig, RunConfig
from fluxsr.training.steps.autoencoder import AutoencoderStage, fit_scale, gradient_distance


def stage(**changes: Any) -> AutoencoderStage:
    photos = [torch.randint(0, 256, (3, 48, 64), generator=torch.Generator().manual_seed(k)) for k in range(2)]
    run = RunConfig(batch=2, crop=32, device="cpu")
    config = AutoencoderConfig(run=run, **changes)
    torch.manual_seed(0)
    vae = build_autoencoder([8, 8, 8, 16], [0, 1, 1, 1], latent_channels=4)
    return AutoencoderStage(config, vae, [photo.to(torch.uint8) for photo in photos], torch.device("cpu"))


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for name, value in terms.items() if not name.startswith("log/")]).sum()


def test_losses_reach_every_weight_that_is_on_the_way() -> None:
    one = stage()
    total(one.losses(0, [0, 1])).backward()
    assert all(p.grad is not None for p in one.vae.parameters())


def test_same_seed_same_losses() -> None:
    a, b = (stage().losses(3, [0, 1]) for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    one = stage()
    assert not torch.equal(one.losses(3, [0, 1])["mse"], one.losses(4, [0, 1])["mse"])
    assert not torch.equal(one.losses(3, [0, 1])["mse"], one.losses(3, [2, 3])["mse"])


def test_psnr_is_of_single_samples() -> None:
    """So that its mean does not hang on how a batch is split: the PSNR of a mean is not the mean of PSNRs."""
    one = stage()
    whole, parts = one.losses(0, [0, 1])["log/psnr"], [one.losses(0, [k])["log/psnr"] for k in (0, 1)]
    assert whole.shape == (2,)
    torch.testing.assert_close(whole, torch.cat(parts))


def test_noise_enters_the_latent_only_where_asked() -> None:
    """The same weights and crops, with the noise of another purpose."""
    for deviation, same in ((0.0, True), (1.0, False)):
        a, b = stage(latent_noise=deviation), stage(latent_noise=deviation)
        b.config.run.seed = 5  # the crops hold the seed they were made with
        assert torch.equal(a.losses(0, [0, 1])["mse"], b.losses(0, [0, 1])["mse"]) == same


def test_gradient_distance_of_ramps_is_the_difference_of_their_slopes() -> None:
    ramp = torch.arange(6).float().expand(1, 3, 4, 6)
    torch.testing.assert_close(gradient_distance(3 * ramp, ramp), torch.tensor(2.0))
    torch.testing.assert_close(gradient_distance(ramp + 5, ramp), torch.tensor(0.0))


def test_scale_gives_latents_unit_size() -> None:
    """An encoder whose latent is a fourth of its input in [-1,1]."""
    vae = SimpleNamespace(encode=lambda x: SimpleNamespace(latent=x / 4))
    batches = [torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    scale = fit_scale(vae, batches)
    assert float((scale * (torch.cat(batches) * 2 - 1) / 4).square().mean()) == pytest.approx(1, abs=1e-5)

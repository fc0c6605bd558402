"""Stage 2: the targets say how a crop was spoilt."""

from __future__ import annotations

import torch

from fluxsr.training.config import PerceptualConfig, RunConfig
from fluxsr.training.dataset import SPOIL, sample_generators
from fluxsr.training.steps.perceptual import TARGETS, PerceptualStage, spoil


def crops(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def generators(count: int, seed: int) -> list[torch.Generator]:
    return sample_generators(seed, 0, range(count), SPOIL)


def test_spoilt_images_and_targets_stay_in_range() -> None:
    images, targets = spoil(crops(64), generators(64, 1))
    assert images.shape == (64, 3, 32, 32) and targets.shape == (64, TARGETS)
    assert float(targets.min()) == 0 and float(targets.max()) < 1 and float(targets[:, 3].max()) < 0.8
    left_out = (targets == 0).float().mean(0)
    assert bool(((left_out > 0.08) & (left_out < 0.45)).all())  # a quarter of each
    assert torch.equal(targets[:, 0] == 0, targets[:, 1] == 0)  # blur is there along and across, or not at all


def test_spoiling_is_keyed() -> None:
    a, b, c = (spoil(crops(4), generators(4, seed))[0] for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_an_image_is_spoilt_the_same_in_any_company() -> None:
    images, targets = spoil(crops(4), generators(4, 1))
    alone, target = spoil(crops(4)[2:3], generators(4, 1)[2:3])
    assert torch.equal(targets[2:3], target)
    torch.testing.assert_close(images[2:3], alone)


def test_what_no_degradation_hits_is_almost_the_photograph() -> None:
    clean = crops(128)
    images, targets = spoil(clean, generators(128, 1))
    spared = (targets == 0).all(dim=1)
    assert bool(spared.any())
    error = (images - clean).square().mean((1, 2, 3)).sqrt()
    assert float(error[spared].max()) < 0.02 < float(error[~spared].mean())


def test_losses_reach_the_network() -> None:
    photos = [torch.randint(0, 256, (3, 40, 40), generator=torch.Generator().manual_seed(0)).to(torch.uint8)]
    config = PerceptualConfig(run=RunConfig(batch=2, crop=32, device="cpu"), widths=[4, 8])
    stage = PerceptualStage(config, photos, torch.device("cpu"))
    losses = stage.losses(0, [0, 1])
    assert losses.keys() == {"blur_x", "blur_y", "noise", "jpeg"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in stage.network.parameters())

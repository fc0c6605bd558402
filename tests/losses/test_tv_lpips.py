"""TV-LPIPS: the total-variation map and the distance on it."""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.losses.tv_lpips import tv_lpips, tv_map


def images(count: int = 2, seed: int = 0) -> Tensor:
    """(count,3,8,10) in [-1,1]."""
    return torch.rand(count, 3, 8, 10, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def squared(x: Tensor, y: Tensor) -> Tensor:
    """A distance per image, shaped as the lpips package shapes it."""
    return (x - y).square().mean((1, 2, 3), keepdim=True)


def test_constant_image_has_no_variation() -> None:
    assert torch.equal(tv_map(torch.full((1, 3, 4, 5), 0.3)), torch.full((1, 3, 4, 5), -1.0))


def test_ramp_has_constant_variation_but_at_its_end() -> None:
    ramp = torch.arange(5).float() / 8  # steps of 1/8 along x
    found = tv_map(ramp.expand(1, 3, 4, 5))
    assert torch.equal(found[..., :-1], torch.full((1, 3, 4, 4), 1 / 16 - 1))
    assert torch.equal(found[..., -1], torch.full((1, 3, 4), -1.0))
    assert torch.equal(tv_map(ramp.expand(1, 3, 4, 5).mT), found.mT)


def test_variation_of_both_directions_adds_up_without_sign() -> None:
    step = torch.tensor([[0.0, 0.5], [-0.25, 0.0]]).expand(1, 3, 2, 2)
    assert torch.allclose(tv_map(step)[0, 0], torch.tensor([[0.375, 0.25], [0.125, 0.0]]) - 1)
    assert torch.equal(tv_map(step), tv_map(-step))


def test_map_stays_in_the_range_of_images() -> None:
    checker = (torch.arange(8)[:, None] + torch.arange(10)).remainder(2).float() * 2 - 1
    found = tv_map(checker.expand(1, 3, 8, 10))
    assert found.max() == 1 and found.min() == -1  # the corner alone has no neighbour left


def test_map_of_an_image_is_the_same_in_any_company() -> None:
    pair = images(2)
    assert torch.equal(tv_map(pair)[:1], tv_map(pair[:1]))


def test_is_the_sum_of_both_distances() -> None:
    x, y = images(seed=1), images(seed=2)
    expected = squared(x, y).mean() + 0.5 * squared(tv_map(x), tv_map(y)).mean()
    torch.testing.assert_close(tv_lpips(x, y, squared, gamma=0.5), expected)
    torch.testing.assert_close(tv_lpips(x, y, squared, gamma=0.0), squared(x, y).mean())
    assert tv_lpips(x, y, squared).shape == ()


def test_zero_on_itself_and_mean_over_the_batch() -> None:
    x, y = images(seed=1), images(seed=2)
    assert float(tv_lpips(x, x, squared)) == 0
    alone = torch.stack([tv_lpips(x[k : k + 1], y[k : k + 1], squared) for k in range(2)])
    torch.testing.assert_close(tv_lpips(x, y, squared), alone.mean())


def test_the_maps_term_reaches_the_image() -> None:
    x = images(seed=1).requires_grad_()
    term = tv_lpips(x, images(seed=2), squared, 1.0) - tv_lpips(x, images(seed=2), squared, 0.0)
    (gradient,) = torch.autograd.grad(term, x)
    assert bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) > 0

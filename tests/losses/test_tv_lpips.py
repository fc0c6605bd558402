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


def test_autocast_changes_nothing() -> None:
    """Whatever the distance is: ``lpips.LPIPS()`` does not look after its own precision."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3).requires_grad_(False)
    x = images(seed=1)
    y = x + 0.001 * images(seed=2)

    def convolved(a: Tensor, b: Tensor) -> Tensor:
        assert a.dtype == b.dtype == layer(a).dtype == torch.float32
        return (layer(a) - layer(b)).square().mean((1, 2, 3), keepdim=True)

    expected = tv_lpips(x, y, convolved)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tv_lpips(x, y, convolved), expected)
        assert tv_lpips(x.bfloat16(), y, convolved).dtype == torch.float32


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


def test_is_the_mean_of_both_distances_and_zero_on_itself() -> None:
    x, y = images(seed=1), images(seed=2)
    expected = squared(x, y).mean() + 0.5 * squared(tv_map(x), tv_map(y)).mean()
    torch.testing.assert_close(tv_lpips(x, y, squared, gamma=0.5), expected)
    torch.testing.assert_close(tv_lpips(x, y, squared, gamma=0.0), squared(x, y).mean())
    assert tv_lpips(x, y, squared).shape == () and float(tv_lpips(x, x, squared)) == 0


def test_no_image_depends_on_its_neighbours_neither_in_value_nor_in_gradient() -> None:
    """A neighbour a thousand times larger would show any normalisation over the batch."""
    y = images(2, seed=2)
    ours, loud = images(1, seed=1), 1000 * images(1, seed=3)
    pair = torch.cat([ours, loud]).requires_grad_()
    per_image = squared(pair, y).flatten() + squared(tv_map(pair), tv_map(y)).flatten()
    (together,) = torch.autograd.grad(per_image[0], pair)
    assert torch.equal(together[1], torch.zeros_like(together[1]))
    alone = ours.clone().requires_grad_()
    loss = tv_lpips(alone, y[:1], squared)
    torch.testing.assert_close(per_image[0], loss)
    torch.testing.assert_close(together[:1], torch.autograd.grad(loss, alone)[0])


def test_map_of_a_crop_is_the_crop_of_the_map_but_for_its_last_row_and_column() -> None:
    whole = images(1)
    crop = tv_map(whole[..., 2:7, 3:9])
    assert torch.equal(crop[..., :-1, :-1], tv_map(whole)[..., 2:6, 3:8])

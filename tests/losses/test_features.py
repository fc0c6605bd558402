"""The trainable feature distance: a distance, per image, with gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxsr.losses.features import FeatureNetwork, feature_distance


@pytest.fixture()
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork((4, 6, 8), outputs=3).requires_grad_(False)


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 24, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_taps_halve_the_image(network: FeatureNetwork) -> None:
    shapes = [tuple(tap.shape) for tap in network.features(images())]
    assert shapes == [(2, 4, 16, 24), (2, 6, 8, 12), (2, 8, 4, 6)]
    assert network(images()).shape == (2, 3)


def test_zero_on_itself_symmetric_and_positive(network: FeatureNetwork) -> None:
    x, y = images(seed=1), images(seed=2)
    assert torch.equal(feature_distance(network, x, x), torch.zeros(2))
    assert torch.equal(feature_distance(network, x, y), feature_distance(network, y, x))
    assert bool((feature_distance(network, x, y) > 0).all())


def test_autocast_changes_nothing(network: FeatureNetwork) -> None:
    """Two images that differ by a thousandth: in bfloat16 their features would differ by rounding alone."""
    x = images(seed=1)
    y = x + 0.001 * images(seed=2)
    expected = feature_distance(network, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(feature_distance(network, x, y), expected)
        assert feature_distance(network, x.bfloat16(), y).dtype == torch.float32


def test_grows_with_the_difference(network: FeatureNetwork) -> None:
    x, noise = images(seed=1), images(seed=2)
    distances = [feature_distance(network, x + s * noise, x) for s in (0.01, 0.1, 0.5)]
    assert bool((distances[0] < distances[1]).all()) and bool((distances[1] < distances[2]).all())


def test_gradient_reaches_the_image_and_not_the_frozen_network(network: FeatureNetwork) -> None:
    x = images(seed=1).requires_grad_()
    feature_distance(network, x, images(seed=2)).sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all()) and float(x.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_gradient_is_finite_where_features_vanish(network: FeatureNetwork) -> None:
    for parameter in network.parameters():
        parameter.zero_()
    x = images(seed=1).requires_grad_()
    feature_distance(network, x, images(seed=2)).sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_without_outputs_it_gives_features_only() -> None:
    network = FeatureNetwork((4, 4))
    assert len(network.features(images())) == 2
    with pytest.raises(ValueError, match="without outputs"):
        network(images())

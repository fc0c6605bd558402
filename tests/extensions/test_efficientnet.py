"""EfficientNet-Lite0 reads the package's layout, folds its normalisation, and pads as TensorFlow does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.errors import InputError
from fluxsr.extensions.efficientnet import EPS, FILE, PACKAGE, EfficientNetLite, load_efficientnet

Weights = dict[str, Tensor]


def package_weights() -> Weights:
    """Random weights under the package's own names, as far as they are used."""
    network, generator, weights = EfficientNetLite(), torch.Generator().manual_seed(0), Weights()

    def add(convolution: str, norm: str, kernel: Tensor) -> None:
        size = kernel.shape[0]
        fan = kernel[0].numel()
        weights[f"{convolution}.weight"] = torch.randn(kernel.shape, generator=generator) / fan**0.5
        for name in ("weight", "running_var"):
            weights[f"{norm}.{name}"] = 0.5 + torch.rand(size, generator=generator)
        for name in ("bias", "running_mean"):
            weights[f"{norm}.{name}"] = torch.randn(size, generator=generator)

    add("_conv_stem", "_bn0", network.stem.weight)
    for index, block in enumerate(network.blocks):
        prefix = f"_blocks.{index}"
        if block.expand is not None:
            add(f"{prefix}._expand_conv", f"{prefix}._bn0", block.expand.weight)
        add(f"{prefix}._depthwise_conv", f"{prefix}._bn1", block.depthwise.weight)
        add(f"{prefix}._project_conv", f"{prefix}._bn2", block.project.weight)
    return weights


@pytest.fixture(scope="module")
def weights() -> Weights:
    return package_weights()


@pytest.fixture(scope="module")
def network(weights: Weights) -> EfficientNetLite:
    network = EfficientNetLite()
    network.load(weights)
    return network.requires_grad_(False)


def images(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_taps_are_the_expansions(network: EfficientNetLite) -> None:
    shapes = [tuple(tap.shape) for tap in network.features(images())]
    assert shapes == [(2, 96, 32, 24), (2, 144, 16, 12), (2, 240, 8, 6), (2, 480, 4, 3)]
    assert network.channels == (96, 144, 240, 480)


def test_the_stem_is_convolution_then_normalisation(network: EfficientNetLite, weights: Weights) -> None:
    """Even sides at stride 2 are padded below and to the right alone: TensorFlow's "same"."""
    x = F.conv2d(F.pad(images(), (0, 1, 0, 1)), weights["_conv_stem.weight"], stride=2)
    mean, variance = weights["_bn0.running_mean"], weights["_bn0.running_var"]
    wanted = F.relu6(F.batch_norm(x, mean, variance, weights["_bn0.weight"], weights["_bn0.bias"], eps=EPS))
    torch.testing.assert_close(network.stem(images()), wanted, atol=1e-4, rtol=1e-4)


def test_features_follow_a_shift_of_their_stride(network: EfficientNetLite) -> None:
    wide = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(3)) * 2 - 1
    here, there = network.features(wide)[2], network.features(wide.roll((8, 16), (2, 3)))[2]
    inner = (..., slice(8, -8), slice(8, -8))
    torch.testing.assert_close(here.roll((1, 2), (2, 3))[inner], there[inner], atol=1e-4, rtol=1e-3)


def test_the_package_is_read(weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / PACKAGE / FILE
    file.parent.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    torch.save(weights, file)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    network = load_efficientnet()
    assert not any(p.requires_grad for p in network.parameters())
    assert len(network.features(images())) == 4
    sys.modules.pop(PACKAGE, None)


def test_without_the_package_the_error_says_what_to_install(uninstall: Callable[[str], None]) -> None:
    uninstall(PACKAGE)
    with pytest.raises(InputError, match=r"efficientnet .* needs .*fluxsr\[perceptual\]"):
        load_efficientnet()

"""recipes/tiny/restorer_start.py: convolutions fitted by least squares."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from fluxsr.backbones.restorer import DenseBlock, Restorer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "recipes" / "tiny"))
    return importlib.import_module("restorer_start")


def test_a_convolution_is_found_from_its_inputs_and_outputs(start: ModuleType) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 2, 3, padding=1), torch.randn(2, 3, 16, 16)
    found = nn.Conv2d(3, 2, 3, padding=1)
    with torch.no_grad():
        start.fit(found, x, conv(x), ridge=1e-9)
    torch.testing.assert_close(found.weight, conv.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.bias, conv.bias, atol=1e-4, rtol=1e-4)


def test_a_narrower_block_comes_close_to_a_block_that_uses_few_of_its_channels(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "WIDTH", 4)
    monkeypatch.setattr(start, "GROWTH", 4)
    torch.manual_seed(0)
    wide, narrow, x = DenseBlock(4, 4), DenseBlock(4, 2), torch.randn(2, 4, 24, 24)
    with torch.no_grad():
        for layer in wide.layers:  # of every four new channels only two carry anything
            layer.weight[2:] = 0
            layer.bias[2:] = 0
        result = start.narrow_block(wide, narrow, x, x, wide(x))
        assert torch.equal(result, narrow(x))
        assert (result - wide(x)).square().mean() < 1e-4 * (wide(x) - x).square().mean()


def test_the_last_convolution_is_fitted_to_sharper_images(start: ModuleType) -> None:
    torch.manual_seed(0)
    network, image = Restorer(8, 2, 1), torch.rand(1, 3, 24, 24)
    nn.init.normal_(network.last.weight)
    with torch.no_grad():
        features = network.features(image)
        before = network.last(features)
        assert start.sharpened(network, [image]) is network
        after = network.last(features)
    assert after.var() > 1.05 * before.var()

"""recipes/tiny/restorer_start.py: convolutions fitted by least squares."""

from __future__ import annotations

import importlib
import re
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


@pytest.fixture
def small(start: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script for networks of 4 channels, whose dense layers add 4."""
    monkeypatch.setattr(start, "WIDTH", 4)
    monkeypatch.setattr(start, "GROWTH", 4)
    return start


def use_two_channels(block: DenseBlock) -> DenseBlock:
    """Of every four channels that the block adds, let only two carry anything."""
    with torch.no_grad():
        for layer in block.layers:
            layer.weight[2:] = 0
            layer.bias[2:] = 0
    return block


def test_a_convolution_is_found_from_its_inputs_and_outputs(start: ModuleType) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 2, 3, padding=1), torch.randn(2, 3, 16, 16)
    found = nn.Conv2d(3, 2, 3, padding=1)
    with torch.no_grad():
        start.fit(found, x, conv(x), ridge=1e-9)
    torch.testing.assert_close(found.weight, conv.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.bias, conv.bias, atol=1e-4, rtol=1e-4)


def test_a_narrower_block_comes_close_to_a_block_that_uses_few_of_its_channels(small: ModuleType) -> None:
    torch.manual_seed(0)
    wide, narrow, x = use_two_channels(DenseBlock(4, 4)), DenseBlock(4, 2), torch.randn(2, 4, 24, 24)
    with torch.no_grad():
        result = small.narrow_block(wide, narrow, x, x, wide(x))
        assert torch.equal(result, narrow(x))
        assert (result - wide(x)).square().mean() < 1e-4 * (wide(x) - x).square().mean()


def test_a_narrower_network_comes_close_to_one_that_uses_few_of_its_channels(small: ModuleType) -> None:
    torch.manual_seed(0)
    wide, images = Restorer(4, 4, 2), [torch.rand(1, 3, 24, 24) for _ in range(3)]
    nn.init.normal_(wide.last.weight)
    for block in wide.blocks:
        for dense in block.dense:
            use_two_channels(dense)
    with torch.no_grad():
        narrow = small.narrower(wide, images, growth=2)
        drawn, expected = (net.last(net.features(torch.cat(images))) for net in (narrow, wide))
    assert narrow.blocks[0].dense[0].layers[0].out_channels == 2
    assert (drawn - expected).square().mean() < 1e-4 * expected.var()


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_a_network_is_read_from_the_layout_of_ncnn(
    small: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: torch.dtype
) -> None:
    monkeypatch.setattr(small, "BLOCKS", 1)
    torch.manual_seed(0)
    network = Restorer(4, 4, 1)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    nn.init.normal_(network.last.weight)
    mark = (small.HALF if kind is torch.float16 else 0).to_bytes(4, "little")
    content = b""
    for conv in convs:
        weight = conv.weight.detach().to(kind).numpy().tobytes()
        content += mark + weight + bytes(-len(weight) % 4) + conv.bias.detach().numpy().tobytes()
    path = tmp_path / "network.bin"
    path.write_bytes(content)
    for conv, (weight, bias) in zip(convs, small.read_ncnn(path), strict=True):
        assert torch.equal(weight, conv.weight.to(kind).float())
        assert torch.equal(bias, conv.bias)
    path.write_bytes(content + b"more")
    with pytest.raises(SystemExit, match=re.escape(f"{path} has {len(content) + 4} bytes instead of {len(content)}")):
        small.read_ncnn(path)


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

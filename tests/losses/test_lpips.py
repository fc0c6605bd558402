"""LPIPS (squeeze) from a file: its formula, its limits, and its value with the real weights where they are named."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fluxsr.errors import InputError
from fluxsr.losses.lpips import SCALE, SHIFT, SqueezeLPIPS, cached_lpips, load_lpips

FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)} | {
    9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)
}  # fmt: skip


class Fire(nn.Module):
    """SqueezeNet's block, written as in its paper (arXiv 1602.07360, section 3.1)."""

    def __init__(self, inputs: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


def squeezenet() -> nn.Sequential:
    """The convolutional part of SqueezeNet 1.1 with random weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2), nn.ReLU()]
    for number in range(2, 13):
        layers.append(Fire(*FIRES[number]) if number in FIRES else nn.MaxPool2d(3, 2, ceil_mode=True))
    return nn.Sequential(*layers)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    features = {f"features.{name}": tensor for name, tensor in squeezenet().state_dict().items()}
    heads = {
        f"lin{k}.model.1.weight": torch.rand(1, channels, 1, 1, generator=torch.Generator().manual_seed(k))
        for k, channels in enumerate((64, 128, 256, 384, 384, 512, 512))
    }
    return features | heads


def images(count: int = 2, side: int = 48) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_value_is_the_papers_formula(weights: dict[str, Tensor]) -> None:
    x, y = images(), images().flip(3)
    network, taps = squeezenet(), {1: 0, 4: 1, 7: 2, 9: 3, 10: 4, 11: 5, 12: 6}
    expected = torch.zeros(2)
    a, b = ((image - torch.tensor(SHIFT).view(3, 1, 1)) / torch.tensor(SCALE).view(3, 1, 1) for image in (x, y))
    for number, layer in enumerate(network):
        a, b = layer(a), layer(b)
        if number in taps:
            difference = nn.functional.normalize(a, dim=1) - nn.functional.normalize(b, dim=1)
            head = weights[f"lin{taps[number]}.model.1.weight"]
            expected = expected + (difference**2 * head).sum(1).mean((1, 2))
    torch.testing.assert_close(SqueezeLPIPS(weights)(x, y), expected, rtol=1e-5, atol=1e-6)


def test_distance_of_an_image_to_itself_is_zero_and_the_order_does_not_matter(weights: dict[str, Tensor]) -> None:
    distance, x, y = SqueezeLPIPS(weights), images(), images().flip(2)
    assert distance(x, x).abs().max() == 0
    torch.testing.assert_close(distance(x, y), distance(y, x))


def test_float32_under_autocast(weights: dict[str, Tensor]) -> None:
    distance, x, y = SqueezeLPIPS(weights), images(), images().flip(3)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = distance(x.bfloat16().float(), y)
    assert torch.equal(under_autocast, distance(x.bfloat16().float(), y))


def test_gradient_is_finite_where_features_vanish(weights: dict[str, Tensor]) -> None:
    dead = {name: -tensor.abs() if name == "features.0.bias" else tensor * 1e-9 for name, tensor in weights.items()}
    x = images().requires_grad_()
    SqueezeLPIPS(dead)(x, images().flip(3)).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_file_is_read_back_and_an_unfit_one_is_one_line(weights: dict[str, Tensor], tmp_path) -> None:
    save_file(weights, tmp_path / "lpips.safetensors")
    x, y = images(), images().flip(3)
    assert torch.equal(load_lpips(tmp_path / "lpips.safetensors")(x, y), SqueezeLPIPS(weights)(x, y))
    with pytest.raises(InputError, match="no LPIPS weights at"):
        load_lpips(tmp_path / "other.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="lacks features.0.weight"):
        load_lpips(tmp_path / "other.safetensors")
    del weights["features.9.expand1x1.bias"]
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="lacks features.9.expand1x1.bias"):
        load_lpips(tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_lpips(tmp_path / "text.safetensors")


def test_what_torchvision_and_lpips_have_on_the_disk_is_taken(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, heads = (
        tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth",
        tmp_path / "lpips/weights/v0.1/squeeze.pth",
    )
    spec = SimpleNamespace(origin=str(tmp_path / "lpips" / "__init__.py"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    assert cached_lpips() is None
    for path, prefix in ((features, "features"), (heads, "lin")):
        path.parent.mkdir(parents=True)
        torch.save({name: tensor for name, tensor in weights.items() if name.startswith(prefix)}, path)
    network, (x, y) = cached_lpips(), (images(), images().flip(3))
    assert network is not None and torch.equal(network(x, y), SqueezeLPIPS(weights)(x, y))
    features.write_bytes(b"damaged")
    with pytest.raises(InputError, match="squeezenet1_1-b8a52dc0.pth cannot be read; delete it"):
        cached_lpips()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cached_lpips() is None


@pytest.mark.weights
def test_recorded_value_with_the_real_weights() -> None:
    torch.manual_seed(42)
    x, y = torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)
    assert abs(load_lpips(os.environ["FLUXSR_LPIPS_WEIGHTS"])(x * 2 - 1, y * 2 - 1).mean().item() - 0.1005) < 5e-5

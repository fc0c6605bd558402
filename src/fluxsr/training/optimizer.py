"""Optimizers and their learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fluxsr.errors import InputError, needed
from fluxsr.training.config import RunConfig

BETAS = (0.9, 0.99)


def trained_parameters(modules: Mapping[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Return the trained parameters of every module that has any, by module name."""
    groups = {name: [p for p in module.parameters() if p.requires_grad] for name, module in modules.items()}
    return {name: parameters for name, parameters in groups.items() if parameters}


def build_optimizer(groups: Mapping[str, list[nn.Parameter]], config: RunConfig) -> torch.optim.Optimizer:
    """Build the optimizer: AdamW, AdamW with 8-bit state, or Muon.

    Muon (https://kellerjordan.github.io/posts/muon/) orthogonalises each update. It trains matrices and convolution
    kernels; AdamW trains the rest.

    Raises:
        InputError: the optimizer's package is not installed, or does not run on this device.
    """
    parameters = [p for params in groups.values() for p in params]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, betas=BETAS)
    if config.optimizer == "adamw8bit":
        return _adamw8bit(parameters, config)
    needed("run.optimizer: muon", "train", "pytorch_optimizer")
    from pytorch_optimizer import Muon

    matrices = [p for p in parameters if p.ndim >= 2]
    rest = [p for p in parameters if p.ndim < 2]
    shared = {"weight_decay": config.weight_decay}
    return _in_float32(Muon)(
        [{"params": matrices, "lr": config.muon_lr, "use_muon": True, **shared}]
        + ([{"params": rest, "lr": config.lr, "use_muon": False, "betas": BETAS, **shared}] if rest else [])
    )


def _in_float32(muon: Any) -> Any:
    """Return Muon with its orthogonalisation in float32 for parameters on a CPU.

    The package computes it in bfloat16, which a CPU without bfloat16 units emulates: there it took a third of a step.
    """
    from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5

    class Muon32(muon):
        @staticmethod
        def _orthogonalize(group: dict[str, Any], updates: list[torch.Tensor]) -> list[torch.Tensor]:
            if updates[0].device.type != "cpu":
                return muon._orthogonalize(group, updates)
            matrices = [update.reshape(len(update), -1) for update in updates]
            steps, weights = group["ns_steps"], group["ns_coeffs"]
            return [zero_power_via_newton_schulz_5(m, steps, weights=weights, dtype=torch.float32) for m in matrices]

    return Muon32


def _adamw8bit(parameters: list[nn.Parameter], config: RunConfig) -> torch.optim.Optimizer:
    if any(p.device.type == "cpu" for p in parameters):
        raise InputError("run.optimizer is adamw8bit, which needs a GPU; use adamw on this device")
    needed("run.optimizer: adamw8bit", "nf4", "bitsandbytes")
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters, lr=config.lr, weight_decay=config.weight_decay, betas=BETAS)


def schedule(step: int, config: RunConfig) -> float:
    """Return the learning rate as a fraction of its peak: linear warm-up, then constant or cosine to ``lr_floor``."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr_floor + (1 - config.lr_floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

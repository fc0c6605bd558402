"""The exponential mean of the weights (EMA), which may be validated and exported in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@torch.no_grad()
def update(average: Sequence[Tensor], parameters: Sequence[nn.Parameter], decay: float, step: int) -> None:
    """Exponential mean; the decay starts low, so that the first steps are forgotten. No mean, nothing to do."""
    rate = 1 - min(decay, (1 + step) / (10 + step))
    for mean, parameter in zip(average, parameters, strict=False):
        mean.lerp_(parameter, rate)


def put(average: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> None:
    """The mean in place of the weights."""
    for parameter, mean in zip(parameters, average, strict=False):
        parameter.data.copy_(mean)


@contextmanager
def in_place(average: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """The mean in place of the weights for a while."""
    held = [p.detach().clone() for p in parameters] if average else []
    put(average, parameters)
    try:
        yield
    finally:
        put(held, parameters)

"""Exponential moving average (EMA) of the weights, which validation and export can use instead of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@torch.no_grad()
def update(average: Sequence[Tensor], parameters: Sequence[nn.Parameter], decay: float, step: int) -> None:
    """Update the EMA in place; no-op when EMA is off.

    The decay starts low, so that the EMA forgets the first steps.
    """
    rate = 1 - min(decay, (1 + step) / (10 + step))
    for mean, parameter in zip(average, parameters, strict=False):
        mean.lerp_(parameter, rate)


def put(average: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> None:
    """Copy the EMA into the weights; no-op when EMA is off."""
    for parameter, mean in zip(parameters, average, strict=False):
        parameter.data.copy_(mean)


@contextmanager
def in_place(average: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Context manager in which the weights are replaced by their EMA; no-op when EMA is off."""
    held = [p.detach().clone() for p in parameters] if average else []
    put(average, parameters)
    try:
        yield
    finally:
        put(held, parameters)

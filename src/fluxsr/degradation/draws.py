"""Per-sample random draws from one explicit generator, the only source of randomness in this package."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Range = tuple[float, float]


def uniform(count: int, bounds: Range, generator: torch.Generator) -> Tensor:
    """Draw `count` numbers uniform in [low, high), (count,), on the generator's device."""
    low, high = bounds
    draw = torch.rand(count, generator=generator, device=generator.device)
    return draw * (high - low) + low


def happens(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draw `count` independent booleans that are true with `probability`, (count,), on the generator's device."""
    return uniform(count, (0.0, 1.0), generator) < probability


def choose(count: int, weights: Sequence[float], generator: torch.Generator) -> Tensor:
    """Draw `count` indices with the given weights, which need not sum to 1, int64 (count,)."""
    table = torch.tensor(weights, dtype=torch.float32, device=generator.device)
    return torch.multinomial(table, count, replacement=True, generator=generator)


def whole_number(count: int, bounds: Range, generator: torch.Generator) -> Tensor:
    """Draw `count` whole numbers, both ends included, as float32 (count,)."""
    low, high = bounds
    return uniform(count, (low, high + 1), generator).floor().clamp(low, high)


def expand_dims(value: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1), so that it broadcasts over images."""
    return value.view(-1, 1, 1, 1)

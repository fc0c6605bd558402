"""Randomness that depends on its key alone: no ambient state, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def keyed_generator(*key: int) -> torch.Generator:
    """A CPU generator whose stream depends on the integers of the key alone (seed, step, ...)."""
    state = np.random.SeedSequence([k & 0xFFFFFFFF for k in key]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


def keyed_noise(shape: Sequence[int], *key: int) -> Tensor:
    """Standard normal noise in float16 that a key gives to the bit on any CPU, whatever will use it.

    ``torch.randn`` does not: its vectorised logarithm and cosine differ from the plain ones in the last bits of
    float32 (tests/test_keyed.py). Uniform draws are integers and do agree; the inverse distribution function in
    float64 errs by parts in 1e16, which rounding to float16 removes.
    """
    uniform = torch.rand(*shape, generator=keyed_generator(*key), dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp_min(2**-54)).half()  # 0 would become -inf

"""Random numbers that depend only on a key: without global state, and the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def keyed_generator(*key: int) -> torch.Generator:
    """Return a CPU generator whose stream depends only on the integers of the key (seed, step, ...)."""
    state = np.random.SeedSequence([k & 0xFFFFFFFF for k in key]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


def keyed_noise(shape: Sequence[int], *key: int) -> Tensor:
    """Return standard normal noise in float16 that is bit-identical for a key on every CPU.

    ``torch.randn`` is not: its vectorised logarithm and cosine differ from the scalar ones in the last bits of float32
    (tests/test_keyed.py). Uniform draws are integers and agree. The inverse distribution function in float64 has errors
    of about 1e-16, which rounding to float16 removes.
    """
    uniform = torch.rand(*shape, generator=keyed_generator(*key), dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp_min(2**-54)).half()  # 0 would become -inf

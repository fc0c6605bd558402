"""Keyed randomness: the key alone decides, on every machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
import torch

from fluxsr.keyed import keyed_generator, keyed_noise


def test_generator_depends_on_its_key_alone() -> None:
    def first(*key: int) -> float:
        return float(torch.rand((), generator=keyed_generator(*key), dtype=torch.float64))

    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert first(3, 1, 4) == first(3, 1, 4)
    assert len({first(a, b, c) for a in range(4) for b in range(4) for c in range(1, 5)}) == 64
    assert torch.equal(before, torch.get_rng_state())
    assert 0 <= first(2**32 - 1, 2**20) < 1


def test_noise_is_standard_normal() -> None:
    noise = keyed_noise((16, 64, 64), 0).double()
    assert keyed_noise((2, 3), 1).dtype == torch.float16
    assert float(noise.mean()) == pytest.approx(0, abs=4 / noise.numel() ** 0.5)
    assert float(noise.std()) == pytest.approx(1, abs=4 / noise.numel() ** 0.5)
    for size in (1, 2, 3):  # the share beyond one, two and three deviations
        share = 1 - torch.erf(torch.tensor(size / 2**0.5, dtype=torch.float64))
        assert float((noise.abs() > size).double().mean()) == pytest.approx(float(share), rel=0.2)


def test_noise_depends_on_its_key_alone() -> None:
    assert torch.equal(keyed_noise((4, 8, 8), 5), keyed_noise((4, 8, 8), 5))
    assert not torch.equal(keyed_noise((4, 8, 8), 5), keyed_noise((4, 8, 8), 6))


@pytest.mark.slow  # processes that import torch
@pytest.mark.parametrize("instructions", ["default", "avx2"])
def test_noise_is_the_same_to_the_bit_on_plainer_processors(instructions: str) -> None:
    """torch.randn is not: without vector instructions its logarithm and cosine round otherwise."""
    code = (
        "import hashlib; from fluxsr.keyed import keyed_noise; "
        "print(hashlib.sha256(keyed_noise((16, 128, 128), 1).numpy().tobytes()).hexdigest())"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": instructions, "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = hashlib.sha256(keyed_noise((16, 128, 128), 1).numpy().tobytes()).hexdigest()
    assert there.stdout.strip() == here

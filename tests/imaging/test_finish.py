"""Both touches, one after the other, as a config says."""

from __future__ import annotations

import torch

from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.imaging.detail import held_back
from fluxsr.imaging.finish import finished
from fluxsr.imaging.lattice import without_lattice

MADE, GIVEN = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_a_plain_config_leaves_all() -> None:
    assert torch.equal(finished(MADE, GIVEN, 16, **AdapterConfig().finish), MADE)


def test_the_lattice_goes_first() -> None:
    config = AdapterConfig(lattice_reach=2.0, fine_strength=0.3, flat_floor=0.1)
    expected = held_back(without_lattice(MADE, GIVEN, 16, 2.0), GIVEN, 0.3, 0.1)
    assert torch.equal(finished(MADE, GIVEN, 16, **config.finish), expected)

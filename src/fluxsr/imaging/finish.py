"""The last touch on what a model made: its lattice taken out, its detail held back."""

from __future__ import annotations

from torch import Tensor

from fluxsr.imaging.detail import held_back
from fluxsr.imaging.lattice import without_lattice


def finished(
    made: Tensor, given: Tensor, period: int, *, lattice_reach: float, fine_strength: float, flat_floor: float
) -> Tensor:
    """What a model made of an image, both (B,C,H,W) in a range of [0,1], as its adapter's config would have it.

    Args:
        period: of the lattice, in pixels.
        lattice_reach: see ``lattice.without_lattice``.
        fine_strength, flat_floor: see ``detail.held_back``.
    """
    return held_back(without_lattice(made, given, period, lattice_reach), given, fine_strength, flat_floor)

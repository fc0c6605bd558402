"""How one image is enlarged: what the ways through the pipeline share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol

from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.flow import MAX_STRENGTH


class Step(Protocol):
    """What runs tiles (B,3,h,w) in [0,1] through the model, as ``FluxSRPipeline.one_step``."""

    def __call__(self, lr_up: Tensor, strength: float) -> Tensor: ...


@dataclass(frozen=True)
class Settings:
    """How one image is enlarged; meanings and ranges are those of ``FluxSRPipeline.__call__``.

    Attributes:
        step: runs the tiles instead of the pipeline's own ``one_step``: a server gathers those of several images.
    """

    scale: float = 4
    strength: float | None = None
    tile_size: int | None = None
    tile_overlap: int = 32
    batch_size: int | None = None
    color_fix: str = "wavelet"
    progress: Callable[[int, int], None] | None = None
    step: Step | None = None


def checked_strength(strength: Any) -> float:
    """A share of the step.

    Raises:
        InputError: no number from 0 to ``flow.MAX_STRENGTH``.
    """
    if not isinstance(strength, Real) or not 0 <= float(strength) <= MAX_STRENGTH:  # of a NaN this holds too
        raise InputError(
            f"strength is {strength!r}; choose a number from 0 (no step) to {MAX_STRENGTH:g}, 1 is the whole step"
        )
    return float(strength)


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of pixels or tiles.

    Args:
        name: of the argument, for the message.

    Raises:
        InputError: no whole number, or one below ``least``.
    """
    if not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} is {value!r}; choose a whole number from {least} on")
    return int(value)

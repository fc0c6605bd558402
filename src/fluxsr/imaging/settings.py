"""Settings of one call: what the pipeline's ways to enlarge an image share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Protocol

from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.options import UpscaleOptions


class Step(Protocol):
    """What runs tiles (B,3,h,w) in [0,1] through the model, as ``FluxSRPipeline.one_step``."""

    def __call__(self, lr_up: Tensor, strength: float, *, exact: bool = False) -> Tensor: ...


@dataclass(frozen=True)
class Settings:
    """Options of one image, and how this call works on it.

    Attributes:
        options: how the image is enlarged.
        batch_size, progress: see ``FluxSRPipeline.__call__``.
        step: runs the tiles instead of the pipeline's own ``one_step``: a server gathers those of several images.
        mask: see imaging/mask.py, (1,1,h,w) in [0,1] of any size, or None.
        repairs: how many tiles the output guard has repaired, by fault and remedy; filled while the image is upscaled.
    """

    options: UpscaleOptions = UpscaleOptions()
    batch_size: int | None = None
    progress: Callable[[int, int], None] | None = None
    step: Step | None = None
    mask: Tensor | None = None
    repairs: Counter[tuple[str, str]] = field(default_factory=Counter)


def checked_count(name: str, value: Any) -> int:
    """Return a number of tiles; raise an InputError that names the argument unless it is a whole number from 1."""
    if not isinstance(value, Integral) or value < 1:
        raise InputError(f"{name} is {value!r}; choose a whole number of 1 or more")
    return int(value)

"""Stop a run before its weights change if the loss or the gradient is no longer usable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from fluxsr.errors import FluxSRError

MEMORY = 100  # number of recent losses in the running median
SETTLED = 10  # number of losses needed before the median is used


class Diverged(FluxSRError):
    """Error raised when the loss or its gradient is not finite, or the loss is far above its running median."""


@dataclass
class Watch:
    """Checks of every step. All processes see the same values, so they stop together.

    Attributes:
        explode: largest multiple of the running median that a loss may have; 0 for any.
        recent: magnitudes of the last losses.
        last: path of the last good checkpoint.
    """

    explode: float
    recent: list[float] = field(default_factory=list)
    last: str = "the beginning"

    def loss(self, step: int, measured: Mapping[str, tuple[float, float]]) -> float:
        """Return the loss of a step from the sum and the count of every term.

        Raises:
            Diverged: the loss is not finite or exploded.
        """
        terms = {name: value / count for name, (value, count) in measured.items() if not name.startswith("log/")}
        loss, size = sum(terms.values()), sum(abs(value) for value in terms.values())
        shown = ", ".join(f"{name}={value:.3g}" for name, value in terms.items())
        if not math.isfinite(loss):
            raise self._diverged(f"loss is not finite at step {step} ({shown})")
        usual = median(self.recent) if len(self.recent) >= SETTLED else math.inf
        if self.explode and size > self.explode * usual:
            raise self._diverged(
                f"loss exploded at step {step} ({shown}): {size / usual:.3g} times its running median, "
                f"run.explode allows {self.explode:g}"
            )
        self.recent = [*self.recent, size][-MEMORY:]
        return loss

    def norms(self, step: int, norms: Mapping[str, float]) -> None:
        """Check the norms of the gradients.

        Raises:
            Diverged: one of them is not finite.
        """
        if not all(math.isfinite(norm) for norm in norms.values()):
            shown = ", ".join(f"{name}={norm:.3g}" for name, norm in norms.items())
            raise self._diverged(f"gradient is not finite at step {step} ({shown})")

    def _diverged(self, what: str) -> Diverged:
        return Diverged(f"{what}; the last good checkpoint is {self.last}: resume from it with a lower run.lr")

"""Confidence intervals of means, and comparisons of two methods, by a seeded bootstrap over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fluxsr.errors import InputError
from fluxsr.evaluation.benchmark import Report
from fluxsr.evaluation.catalogue import METRICS
from fluxsr.evaluation.tables import Table, cell

SAMPLES = 2000
LEVEL = 0.95
_TIE = 1e-9


@dataclass(frozen=True)
class Paired:
    """Comparison of two methods on the same images by one metric.

    Attributes:
        column: of the metric.
        difference: mean of first - second.
        low, high: bounds of its interval.
        win_rate: share of images on which the first is better; ties count half.
    """

    column: str
    difference: float
    low: float
    high: float
    win_rate: float

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def interval(
    values: Sequence[float], *, seed: int = 0, samples: int = SAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """Return bounds of the mean: percentiles of the means of resampled images.

    The resamples depend on the seed and the number of images alone. Over images only: it tells nothing of
    training seeds, and for a handful of images it is too narrow.

    Args:
        values: one per image.
        seed: of NumPy's PCG64.
        samples: how often the images are drawn anew.
        level: share of the resampled means inside.

    Raises:
        InputError: no values, or a level outside (0, 1).
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not 0 < level < 1:
        raise InputError(f"cannot bootstrap {array.size} values at the level {level:g}; give values and 0 < level < 1")
    draw = np.random.default_rng(seed)
    means = np.array([array[draw.integers(0, array.size, array.size)].mean() for _ in range(samples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(report: Report, *, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return column -> bounds of its mean; columns that describe the whole set (peak16) have none."""
    columns = next(iter(report.per_image.values()))
    return {key: interval([row[key] for row in report.per_image.values()], seed=seed) for key in columns}


def paired(first: Report, second: Report, *, seed: int = 0) -> list[Paired]:
    """Compare the first report with the second on the same images, by every metric that both have.

    Raises:
        InputError: the two were not scored on the same images or not with the same crop.
    """
    stems = list(first.per_image)
    if set(stems) != set(second.per_image):
        raise InputError(f"{first.name} and {second.name} were not scored on the same images; a pair needs that")
    if first.crop != second.crop:
        raise InputError(f"{first.name} was scored with crop {first.crop}, {second.name} with {second.crop}")
    results = []
    for key in METRICS:
        if not all(key in report.per_image[stem] for report in (first, second) for stem in stems):
            continue
        a, b = (np.array([report.per_image[stem][key] for stem in stems]) for report in (first, second))
        low, high = interval(a - b, seed=seed)
        results.append(Paired(key, float(np.mean(a - b)), low, high, _win_rate(a, b, METRICS[key].better)))
    return results


def _win_rate(a: np.ndarray, b: np.ndarray, better: str) -> float:
    gain = {"higher": a - b, "lower": b - a, "zero": np.abs(b) - np.abs(a)}[better]
    return float(np.mean((gain > _TIE) + 0.5 * (np.abs(gain) <= _TIE)))


def with_intervals(table: Table, reports: Sequence[Report], *, seed: int = 0) -> Table:
    """Return the table of these reports (see `table_of`), with bounds of each mean in its cell."""
    columns = [text.split(" ")[0] for text in table.head[2:]]
    rows = []
    for cells, report in zip(table.rows, reports, strict=True):
        bounds = intervals(report, seed=seed)
        filled = [
            f"{text} [{cell(key, bounds[key][0])}, {cell(key, bounds[key][1])}]" if key in bounds else text
            for key, text in zip(columns, cells[2:], strict=True)
        ]
        rows.append([*cells[:2], *filled])
    note = f"[low, high]: {LEVEL:.0%} interval of the mean over images, {SAMPLES} bootstrap samples, seed {seed}"
    return Table(table.head, rows, [note, *table.notes])


def paired_table(first: Report, second: Report, *, seed: int = 0) -> Table:
    """Return the comparison as a table with one row per metric."""
    results = paired(first, second, seed=seed)
    head = ["metric", first.name, second.name, "difference", "low", "high", "wins", "interval"]
    rows = [
        [
            f"{one.column} {METRICS[one.column].arrow}",
            cell(one.column, first.mean[one.column]),
            cell(one.column, second.mean[one.column]),
            *(f"{value:+.{METRICS[one.column].digits}f}" for value in (one.difference, one.low, one.high)),
            f"{one.win_rate:.0%}",
            "leaves out 0" if one.decided else "holds 0",
        ]
        for one in results
    ]
    count = len(first.per_image)
    notes = [
        f"difference: {first.name} - {second.name}, mean over {count} images; low, high: its {LEVEL:.0%} interval, "
        f"{SAMPLES} bootstrap samples, seed {seed}; wins: share of images on which {first.name} is better",
    ]
    return Table(head, rows, notes)

"""Tables of reports as Markdown, LaTeX, CSV and JSON, with confidence intervals and comparisons of two methods.

Intervals come from a seeded bootstrap over images.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fluxsr.errors import InputError
from fluxsr.evaluation.catalogue import METRICS
from fluxsr.evaluation.folder_scores import Report

SAMPLES = 2000  # of the bootstrap
LEVEL = 0.95
_TIE = 1e-9


@dataclass(frozen=True)
class Table:
    """Cells as they are printed, and notes below them."""

    head: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def cell(column: str, value: float | None) -> str:
    """Format a value with the digits of its metric; a dash if there is none."""
    return "-" if value is None else f"{value:.{METRICS[column].digits}f}"


def table_of(reports: Sequence[Report]) -> Table:
    """Return a table with one row per report. Missing values are dashes."""
    columns = [key for key in METRICS if any(key in report.mean for report in reports)]
    head = ["name", "n", *(f"{key} {METRICS[key].arrow}" for key in columns)]
    rows = [
        [report.name, str(len(report.per_image)), *(cell(key, report.mean.get(key)) for key in columns)]
        for report in reports
    ]
    return Table(head, rows, protocol_lines(columns, reports))


def turned(table: Table) -> Table:
    """Transpose a table: there are many metrics and few methods, so this fits a screen."""
    head, *rows = ([*column] for column in zip(table.head, *table.rows, strict=True))
    return Table(head, rows, table.notes)


def protocol_lines(columns: Sequence[str], reports: Sequence[Report]) -> list[str]:
    """Describe each column, with the crop in pixels."""
    crops = sorted({report.crop for report in reports})
    border = f"border of {' or '.join(map(str, crops))} px cropped"
    return [
        f"{key} {METRICS[key].arrow} {METRICS[key].protocol.replace('border cropped', border)} ({METRICS[key].origin})"
        + "".join(_missing(key, report) for report in reports)
        for key in columns
    ]


def _missing(key: str, report: Report) -> str:
    """Return how many images of a report have a value, if not all or none do."""
    count = sum(key in row for row in report.per_image.values())
    return f"; {report.name}: {count} of {len(report.per_image)} images" if 0 < count < len(report.per_image) else ""


def markdown(table: Table) -> str:
    """Return a Markdown table, with the notes as a list below."""
    lines = [_line(table.head), "|---" * len(table.head) + "|", *map(_line, table.rows)]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).strip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"


def latex(table: Table) -> str:
    """Return a LaTeX tabular for booktabs, with the notes as comments."""
    arrows = {"↑": "$\\uparrow$", "↓": "$\\downarrow$", "→0": "$\\to 0$", "±": "$\\pm$"}

    def row(cells: Sequence[str]) -> str:
        escaped = " & ".join(_escaped(text) for text in cells) + r" \\"
        for sign, command in arrows.items():
            escaped = escaped.replace(sign, command)
        return escaped

    lines = [r"\begin{tabular}{l" + "r" * (len(table.head) - 1) + "}", r"\toprule", row(table.head), r"\midrule"]
    lines += [*map(row, table.rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*(f"% {note}" for note in table.notes), *lines]) + "\n"


def _escaped(text: str) -> str:
    text = text.replace("\\", r"\textbackslash ")
    for sign in "&%$#_{}":
        text = text.replace(sign, "\\" + sign)
    return text


def to_csv(table: Table) -> str:
    """Return comma-separated values, without the notes."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([table.head, *table.rows])
    return file.getvalue()


TEXTS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "latex": latex, "csv": to_csv}


def to_json(reports: Sequence[Report], **more: Any) -> str:
    """Return all reports with their values per image, and further results, as JSON."""
    rows = [
        {
            "name": report.name,
            "n": len(report.per_image),
            "crop": report.crop,
            "protocols": {key: METRICS[key].protocol for key in report.mean},
            "mean": {key: round(value, 5) for key, value in report.mean.items()},
            "per_image": {
                stem: {key: round(value, 4) for key, value in row.items()} for stem, row in report.per_image.items()
            },
        }
        for report in reports
    ]
    return json.dumps({"reports": rows, **more}, indent=1) + "\n"


@dataclass(frozen=True)
class Paired:
    """Comparison of two methods on the same images by one metric.

    Attributes:
        column: name of the metric.
        difference: mean of first - second.
        low, high: bounds of its confidence interval.
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


def interval(values: Sequence[float] | np.ndarray, *, seed: int = 0, samples: int = SAMPLES) -> tuple[float, float]:
    """Return bounds of the mean: percentiles of the means of resampled images.

    The resamples depend on the seed and the number of images alone. The interval covers the choice of images, not of
    training seeds, and is too narrow for a handful of images.
    """
    array = np.asarray(values, dtype=np.float64)
    draw = np.random.default_rng(seed)
    means = np.array([array[draw.integers(0, array.size, array.size)].mean() for _ in range(samples)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def intervals(report: Report, *, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return the bounds of each column's mean; columns that describe the whole set (peak16) have none."""
    rows = report.per_image.values()
    columns = [key for key in METRICS if any(key in row for row in rows)]
    return {key: interval([row[key] for row in rows if key in row], seed=seed) for key in columns}


def paired(first: Report, second: Report, *, seed: int = 0) -> list[Paired]:
    """Compare the first report with the second on the same images, by every metric that both have of an image.

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
        both = [stem for stem in stems if key in first.per_image[stem] and key in second.per_image[stem]]
        if not both:
            continue
        a, b = (np.array([report.per_image[stem][key] for stem in both]) for report in (first, second))
        low, high = interval(a - b, seed=seed)
        results.append(Paired(key, float(np.mean(a - b)), low, high, _win_rate(a, b, METRICS[key].better)))
    return results


def _win_rate(a: np.ndarray, b: np.ndarray, better: str) -> float:
    gain = {"higher": a - b, "lower": b - a, "zero": np.abs(b) - np.abs(a)}[better]
    return float(np.mean((gain > _TIE) + 0.5 * (np.abs(gain) <= _TIE)))


def with_intervals(table: Table, reports: Sequence[Report], *, seed: int = 0) -> Table:
    """Return the reports' table from `table_of` with the bounds of each mean in its cell."""
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

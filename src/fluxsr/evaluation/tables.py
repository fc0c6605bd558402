"""Format reports as tables: Markdown, LaTeX, CSV, JSON. The terminal shows the same cells."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluxsr.evaluation.benchmark import Report
from fluxsr.evaluation.catalogue import METRICS


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
        for key in columns
    ]


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

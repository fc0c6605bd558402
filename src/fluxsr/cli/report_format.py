"""Text that ``fluxsr evaluate`` prints or writes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from fluxsr.evaluation import Report, table_of, to_json
from fluxsr.evaluation.protocols import Protocol
from fluxsr.evaluation.published import published, with_published
from fluxsr.evaluation.tables import TEXTS, Table, intervals, paired, paired_table, turned, with_intervals


def tables(reports: Sequence[Report], protocol: Protocol | None, *, ci: bool, seed: int) -> list[Table]:
    """Return the table of scores with the protocol's published rows, and a comparison if there are two methods."""
    scores = table_of(reports)
    if ci:
        scores = with_intervals(scores, reports, seed=seed)
    if protocol:
        scores = with_published(scores, protocol)
    pair = two_methods(reports)
    return [scores, paired_table(*pair, seed=seed)] if pair else [scores]


def two_methods(reports: Sequence[Report]) -> tuple[Report, Report] | None:
    """Return the two methods to compare, with bicubic last; None if there are not two."""
    methods = [report for report in reports if report.name != "HR"]
    if len(methods) != 2:
        return None
    first, second = methods
    return (second, first) if first.name == "bicubic" else (first, second)


def text_of(reports: Sequence[Report], kind: str, protocol: Protocol | None, *, ci: bool = False, seed: int = 0) -> str:
    """Return the reports as text. ``kind`` is terminal, markdown, latex, csv or json."""
    if kind == "json":
        pair = two_methods(reports)
        theirs = published(protocol) if protocol else {}
        return to_json(
            reports,
            protocol=protocol.name if protocol else None,
            intervals={report.name: intervals(report, seed=seed) for report in reports},
            paired=[dataclasses.asdict(one) for one in paired(*pair, seed=seed)] if pair else [],
            pair=[report.name for report in pair] if pair else [],
            published={name: {key: float(value) for key, value in row.items()} for name, row in theirs.items()},
        )
    scores, *others = tables(reports, protocol, ci=ci, seed=seed)
    if kind == "terminal":
        return "\n".join(drawn(table) for table in (turned(scores), *others))
    return "\n".join(TEXTS[kind](table) for table in (scores, *others))


def drawn(table: Table, justify: Literal["left", "right"] = "right") -> str:
    """Return a table for the terminal, with its notes below."""
    drawing = RichTable(box=box.SIMPLE_HEAD)
    for number, text in enumerate(table.head):
        drawing.add_column(text, justify="left" if number == 0 else justify, overflow="fold")
    for row in table.rows:
        drawing.add_row(*(text.replace("[", "\\[") for text in row))
    console = Console(width=shutil.get_terminal_size((120, 24)).columns, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(drawing)
        for note in table.notes:
            console.print(f"  {note}", markup=False)
    return captured.get()

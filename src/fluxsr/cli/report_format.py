"""Reports as the text that ``fluxsr evaluate`` prints or writes."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from fluxsr.evaluation import Report, table_of, to_json
from fluxsr.evaluation.protocols import Protocol, published, with_published
from fluxsr.evaluation.tables import TEXTS, Table, intervals, paired, paired_table, turned, with_intervals


def tables(reports: Sequence[Report], protocol: Protocol | None, *, ci: bool, seed: int) -> list[Table]:
    """The scores, with the published rows of the protocol; and of two methods on the same images, their comparison."""
    scores = table_of(reports)
    if ci:
        scores = with_intervals(scores, reports, seed=seed)
    if protocol:
        scores = with_published(scores, protocol)
    pair = two_methods(reports)
    return [scores, paired_table(*pair, seed=seed)] if pair else [scores]


def two_methods(reports: Sequence[Report]) -> tuple[Report, Report] | None:
    """Two methods to compare, the later against the earlier in a benchmark's table; None if there are not two."""
    methods = [report for report in reports if report.name != "HR"]
    if len(methods) != 2:
        return None
    first, second = methods
    return (second, first) if first.name == "bicubic" else (first, second)


def shown(reports: Sequence[Report], kind: str, protocol: Protocol | None, *, ci: bool = False, seed: int = 0) -> str:
    """The text of a command line: kind is terminal, markdown, latex, csv or json."""
    if kind == "json":
        pair = two_methods(reports)
        return to_json(
            reports,
            protocol=protocol.name if protocol else None,
            intervals={report.name: intervals(report, seed=seed) for report in reports},
            paired=[dataclasses.asdict(one) for one in paired(*pair, seed=seed)] if pair else [],
            pair=[report.name for report in pair] if pair else [],
            published=published(protocol) if protocol else {},
        )
    made = tables(reports, protocol, ci=ci, seed=seed)
    if kind == "terminal":
        return "\n".join(_rich(table) for table in (turned(made[0]), *made[1:]))
    return "\n".join(TEXTS[kind](table) for table in made)


def _rich(table: Table) -> str:
    drawn = RichTable(box=box.SIMPLE_HEAD)
    for number, text in enumerate(table.head):
        drawn.add_column(text, justify="left" if number == 0 else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(text.replace("[", "\\[") for text in row))
    console = Console(file=io.StringIO(), width=_width(), highlight=False)
    console.print(drawn)
    for note in table.notes:
        console.print(f"  {note}", markup=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _width() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:  # a pipe, or a file
        return 120

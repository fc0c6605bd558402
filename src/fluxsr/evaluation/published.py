"""Results that others published, from ``published.json``, beside ours and as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

from fluxsr.evaluation.catalogue import METRICS
from fluxsr.evaluation.protocols import PROTOCOLS, Protocol
from fluxsr.evaluation.tables import Table, markdown

_PAGE = """# Published results

`fluxsr evaluate --published > docs/table.md` writes this page. None of its values was measured by this project.
[evaluation.md](evaluation.md#protocols) explains the protocols, and how to print your own rows in these tables.
"""


def published(protocol: Protocol) -> dict[str, dict[str, str]]:
    """Return the published values of this protocol by row and metric, with the digits of their source.

    A question mark after a metric means that the source does not state its variant.
    """
    return {name: row for _, _, rows in _tables(protocol) for name, row in rows.items()}


def with_published(table: Table, protocol: Protocol) -> Table:
    """Return a table of this protocol: our rows, then published rows, with notes on their sources."""
    rows = published(protocol)
    columns = [text.split(" ")[0] for text in table.head[2:]]
    further = sorted({key for row in rows.values() for key in row}.difference(columns), key=_place)
    head = [*table.head, *(f"{key} {METRICS[key.rstrip('?')].arrow}" for key in further)]
    ours = [[*cells, *("-" for _ in further)] for cells in table.rows]
    theirs = [
        [name, str(protocol.count), *(row.get(key, "-") for key in (*columns, *further))] for name, row in rows.items()
    ]
    notes = [f"protocol: {protocol.title}", *table.notes]
    for source, entry, _ in _tables(protocol):
        notes.append(f"published by {source}: {entry['source']}, {entry['url']}. {entry['note']}")
    if any(key.endswith("?") for key in further):
        notes.append("a column with ? is of a variant that its source does not tell")
    return Table(head, [*ours, *theirs], notes)


def page() -> str:
    """Return the published results of all protocols as a page in Markdown."""
    tables = ((protocol.title, with_published(Table(["name", "n"], []), protocol)) for protocol in PROTOCOLS.values())
    return _PAGE + "".join(f"\n## {title}\n\n{markdown(table)}" for title, table in tables)


def _tables(protocol: Protocol) -> Iterator[tuple[str, dict[str, Any], dict[str, dict[str, str]]]]:
    """Yield each source of this protocol: its name, its entry in the file, and its rows by name and metric."""
    text = resources.files("fluxsr.evaluation").joinpath("published.json").read_text(encoding="utf-8")
    for source, entry in json.loads(text).items():
        table = dict(entry["tables"].get(protocol.name, {}))
        columns = table.pop("columns", "").split()
        if columns:
            rows = {
                f"{method} ({'published' if method.startswith(source) else f'published by {source}'})": {
                    key: value for key, value in zip(columns, values.split(), strict=True) if value != "-"
                }
                for method, values in table.items()
            }
            yield source, entry, rows


def _place(column: str) -> tuple[int, str]:
    return list(METRICS).index(column.rstrip("?")), column

"""Report of a batch: one row per image, in Parquet, written during the run and read by later runs.

A worker first writes an image's row into the journal and then moves the output into the output folder. Every output
therefore has a row, even after a kill. A row whose output is missing or has another size does not count. The driver
moves rows from the journal into the report, which keeps the last row of each image. Bytes of a name that are not UTF-8
become escapes, because Parquet cannot hold them.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from fluxsr.cluster.items import Item
from fluxsr.cluster.shards import STAGED
from fluxsr.cluster.storage import STATE, Storage
from fluxsr.errors import OutputError, first_line
from fluxsr.names import storable
from fluxsr.processing.resume import fingerprint as fingerprint_of

REPORT = "report.parquet"
JOURNAL = f"{STATE}/journal/"
DONE, FAILED, KEPT = "done", "failed", "kept"
TODO, OUTDATED = "", "outdated"  # states of images, never of rows
COLUMNS = {  # docs/archives.md explains them
    **dict.fromkeys(("input", "output", "status", "error", "notes"), "string"),
    **dict.fromkeys(("width_in", "height_in", "width_out", "height_out"), "int32"),
    **dict.fromkeys(("bytes_in", "bytes_out"), "int64"),
    **dict.fromkeys(("read_seconds", "model_seconds", "write_seconds", "measure_seconds"), "float32"),
    **dict.fromkeys(("fidelity_db", "fine_db", "grid8_db", "grid16_db", "piqe"), "float32"),
    "attempts": "int32",
    **dict.fromkeys(("worker", "finished", "made"), "string"),
}
_ROWS, _SECONDS = 20_000, 300.0  # the report is written after so many rows or seconds; the journal holds the others
Row = dict[str, Any]


class Report:
    """Rows of one output folder. ``settings`` are those of ``processing.resume.fingerprint``.

    Raises:
        OutputError: the existing report cannot be read or written.
    """

    def __init__(self, out: Storage, settings: dict[str, Any]) -> None:
        self.out = out
        self.settings = fingerprint_of(settings)
        self._there = {storable(name.removeprefix(STAGED)): info.get("size") for name, info in out.find().items()}
        self._pending: list[Row] = []
        self._written = time.monotonic()
        self._table = self._read()
        columns = (self._table.column(name).to_pylist() for name in ("output", "status", "made"))
        self._known = {output: (status, made) for output, status, made in zip(*columns, strict=True)}
        self._recover()

    def fingerprint(self, item: Item) -> str:
        """Return a fingerprint of everything that an image's result depends on."""
        return storable(f"{self.settings} {item.stamp} {item.member}".strip())

    def status(self, item: Item) -> str:
        """Return the status of an image: DONE, FAILED, KEPT, TODO or OUTDATED."""
        name = storable(item.name)
        there = name in self._there or self.packed(item.shard)
        if name not in self._known:
            return KEPT if name in self._there and not item.shard else TODO
        status, known = self._known[name]
        if status == KEPT:
            return KEPT if there else TODO
        if known != self.fingerprint(item) and (item.stamp or known.split()[0] != self.settings):
            return OUTDATED
        return status if there or status == FAILED else TODO

    def knows(self, item: Item) -> bool:
        """Return whether the image has a row."""
        return storable(item.name) in self._known

    def made_here(self, name: str) -> bool:
        """Return whether a file of this name in the output folder is a result of an earlier run."""
        return self._known.get(storable(name), (KEPT,))[0] == DONE

    def packed(self, shard: str) -> bool:
        """Return whether a shard's results are packed."""
        return storable(f"{shard}.tar") in self._there

    def add(self, row: Row) -> None:
        """Add a row. The report is written from time to time."""
        row = {name: storable(value) if isinstance(value, str) else value for name, value in row.items()}
        self._known[row["output"]] = (row["status"], row["made"])
        if row["status"] == DONE:
            self._there[row["output"]] = row["bytes_out"]
        self._pending.append(row)
        if len(self._pending) >= _ROWS or time.monotonic() - self._written > _SECONDS:
            self.publish()

    def publish(self) -> int:
        """Write the report with all pending rows, and return its number of rows."""
        import pyarrow as pa
        from pyarrow import parquet

        if self._pending:
            table = pa.concat_tables([self._table, pa.Table.from_pylist(self._pending, _schema())])
            last = {output: number for number, output in enumerate(table.column("output").to_pylist())}
            self._table = table.take([last[output] for output in sorted(last)])
            file = pa.BufferOutputStream()
            parquet.write_table(self._table, file, compression="zstd")
            self.out.write(REPORT, file.getvalue().to_pybytes())
            self.out.remove([journal_name(row["output"]) for row in self._pending])
        self._pending, self._written = [], time.monotonic()
        return len(self._table)

    def _read(self) -> Any:
        from pyarrow import ArrowInvalid

        try:
            data = self.out.read([REPORT])
            return read_parquet(data[REPORT]).cast(_schema()) if data else _schema().empty_table()
        except (ArrowInvalid, ValueError, OSError) as error:
            raise OutputError(
                f"{self.out.url(REPORT)} is not a report of fluxsr batch ({first_line(error)}); "
                "move it away, or choose another -o"
            ) from error

    def _recover(self) -> None:
        """Add the rows that a killed run left in the journal."""
        found = self.out.read(self.out.find(JOURNAL))
        for data in found.values():
            row = _row(data)
            if row and (row["status"] == FAILED or self._there.get(storable(row["output"])) == row["bytes_out"]):
                self.add(row)
        self.publish()
        self.out.remove(found)


def journal_name(output: str) -> str:
    """Return the name of the journal file of an image's row."""
    return f"{JOURNAL}{hashlib.sha256(storable(output).encode()).hexdigest()[:32]}.json"


def output_name(item: Item) -> str:
    """Return the name of an image's output in the output folder; outputs of shards are staged until they are packed."""
    return f"{STAGED}{item.name}" if item.shard else item.name


def journalled(out: Storage, item: Item, fingerprint: str) -> Row | None:
    """Return the row of an image from the journal if its output is complete, else None."""
    for data in out.read([journal_name(item.name)]).values():
        row = _row(data)
        if row and (row["status"], row["made"]) == (DONE, fingerprint):
            return row if out.size(output_name(item)) == row["bytes_out"] else None
    return None


def _row(data: bytes) -> Row | None:
    try:
        found = json.loads(data)
        return {name: found[name] for name in COLUMNS}
    except (ValueError, KeyError, TypeError):
        return None  # written by another version


def blank(item: Item, fingerprint: str) -> Row:
    """Return a row without results."""
    return {**dict.fromkeys(COLUMNS), "input": item.label, "output": item.name, "made": fingerprint, "attempts": 1}


def read_parquet(data: bytes) -> Any:
    """Read a table in this thread, because Arrow's threads may abort or hang a process at its end (arrow #50482)."""
    from pyarrow import BufferReader, parquet

    return parquet.read_table(BufferReader(data), use_threads=False, pre_buffer=False)


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])

"""The report: one row an image, in Parquet, written while the work goes on, and what a later run knows by it.

A worker writes an image's row into the journal, then puts the output into its place. So an output that is there has a
row, whoever is killed when; a row whose output is not there, or has another size, does not count. The driver gathers
rows into parts, and at its end into one file, in which the last row of an image stands. Bytes of a name that are not
UTF-8 stand as escapes in a row, because Parquet holds nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import uuid
from typing import Any

from fluxsr.cluster.items import Item
from fluxsr.cluster.shards import STAGED
from fluxsr.cluster.storage import STATE, Storage
from fluxsr.errors import OutputError
from fluxsr.names import storable
from fluxsr.processing.resume import fingerprint as fingerprint_of

REPORT = "report.parquet"
JOURNAL, PARTS = f"{STATE}/journal/", f"{STATE}/parts/"
DONE, FAILED, KEPT = "done", "failed", "kept"
TODO, OUTDATED = "", "outdated"  # of images, never of rows
COLUMNS = {
    "input": "string",
    "output": "string",
    "status": "string",  # done, failed, or kept: an output that was there and is not ours
    "error": "string",
    "notes": "string",
    "width_in": "int32",
    "height_in": "int32",
    "width_out": "int32",
    "height_out": "int32",
    "bytes_in": "int64",
    "bytes_out": "int64",
    "read_seconds": "float32",  # the input, from its store to pixels
    "model_seconds": "float32",
    "write_seconds": "float32",  # to a file of the worker's; a large result's is within the model's
    "measure_seconds": "float32",
    "fidelity_db": "float32",  # these five: quality.py
    "fine_db": "float32",
    "grid8_db": "float32",
    "grid16_db": "float32",
    "piqe": "float32",
    "attempts": "int32",  # 1, and one more for each worker that was lost with it
    "worker": "string",  # host and process
    "finished": "string",  # UTC
    "made": "string",  # settings and state of the input, as numbers; a later run compares them
}
_ROWS, _SECONDS = 500, 60.0  # of a part, before it is written; the journal has what is not
Row = dict[str, Any]


class Report:
    """The rows of one output place.

    Args:
        out: where outputs go.
        settings: of ``ledger.fingerprint``.
    """

    def __init__(self, out: Storage, settings: dict[str, Any]) -> None:
        self.out = out
        self.settings = fingerprint_of(settings)
        self._there = {storable(name.removeprefix(STAGED)): info.get("size") for name, info in out.find().items()}
        self._known: dict[str, tuple[str, str]] = {}  # output -> status, fingerprint
        self._rows: list[Row] = []
        self._begun = time.monotonic()
        for table in self._tables():
            columns = (table.column(name).to_pylist() for name in ("output", "status", "made"))
            self._known |= {output: (status, known) for output, status, known in zip(*columns, strict=True)}
        self._recover()

    def fingerprint(self, item: Item) -> str:
        """What an image's result depends on."""
        return storable(f"{self.settings} {item.stamp} {item.member}".strip())

    def status(self, item: Item) -> str:
        """What became of an image: one of the words above."""
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
        """Whether the image has a row."""
        return storable(item.name) in self._known

    def made_here(self, name: str) -> bool:
        """Return whether a file of this name below the place is a result of an earlier run."""
        return self._known.get(storable(name), (KEPT,))[0] == DONE

    def packed(self, shard: str) -> bool:
        """Whether a shard's results were packed before."""
        return storable(f"{shard}.tar") in self._there

    def add(self, row: Row) -> None:
        """Take a row; from time to time they are written.

        Raises:
            OutputError: they cannot be.
        """
        row = {name: storable(value) if isinstance(value, str) else value for name, value in row.items()}
        self._known[row["output"]] = (row["status"], row["made"])
        if row["status"] == DONE:
            self._there[row["output"]] = row["bytes_out"]
        self._rows.append(row)
        if len(self._rows) >= _ROWS or time.monotonic() - self._begun > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are not written yet, as a part.

        Raises:
            OutputError: they cannot be.
        """
        import pyarrow as pa

        if self._rows:
            table = pa.Table.from_pylist(self._rows, _schema())
            self.out.write(f"{PARTS}{time.time_ns():020}-{uuid.uuid4().hex[:8]}.parquet", _bytes(table))
            self.out.remove([journal_name(row["output"]) for row in self._rows])
        self._rows, self._begun = [], time.monotonic()

    def publish(self) -> int:
        """Write the report anew, of itself and its parts; how many rows it has.

        Raises:
            OutputError: it cannot be written.
        """
        import pyarrow as pa

        self.flush()
        parts = sorted(self.out.find(PARTS))
        if not parts:
            return len(self._known)
        table = pa.concat_tables(self._tables())
        last = {output: number for number, output in enumerate(table.column("output").to_pylist())}
        table = table.take([last[output] for output in sorted(last)])
        self.out.write(REPORT, _bytes(table))
        self.out.remove(parts)
        return len(table)

    def _tables(self) -> list[Any]:
        """The report and its parts, older ones first."""
        from pyarrow import ArrowInvalid

        tables = []
        for name, data in sorted(self.out.read([REPORT, *self.out.find(PARTS)]).items(), key=lambda one: _age(one[0])):
            try:
                tables.append(read_parquet(data).cast(_schema()))
            except (ArrowInvalid, ValueError, OSError) as error:
                raise OutputError(
                    f"{self.out.url(name)} is no report of ours ({str(error).splitlines()[0]}); "
                    "move it away, or choose another -o"
                ) from error
        return tables

    def _recover(self) -> None:
        """Take the rows that a killed run left in the journal."""
        found = self.out.read(self.out.find(JOURNAL))
        for data in found.values():
            row = _row(data)
            if row and (row["status"] == FAILED or self._there.get(storable(row["output"])) == row["bytes_out"]):
                self.add(row)
        self.flush()
        self.out.remove(found)


def journal_name(output: str) -> str:
    """Where an image's row lies until it is in a part."""
    return f"{JOURNAL}{hashlib.sha256(storable(output).encode()).hexdigest()[:32]}.json"


def output_name(item: Item) -> str:
    """Where an image's output lies: those of shards until they are packed."""
    return f"{STAGED}{item.name}" if item.shard else item.name


def journalled(out: Storage, item: Item, fingerprint: str) -> Row | None:
    """The row of an image whose output is there, if the journal has it."""
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
        return None  # of another version


def blank(item: Item, fingerprint: str) -> Row:
    """A row of which nothing is known yet."""
    return {**dict.fromkeys(COLUMNS), "input": item.label, "output": item.name, "made": fingerprint, "attempts": 1}


def read_parquet(data: bytes) -> Any:
    """A table, read in this thread: Arrow's own may abort or hang a process that ends soon after (arrow #50482)."""
    from pyarrow import BufferReader, parquet

    return parquet.read_table(BufferReader(data), use_threads=False, pre_buffer=False)


def _age(name: str) -> tuple[bool, str]:
    return name != REPORT, name


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])


def _bytes(table: Any) -> bytes:
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()

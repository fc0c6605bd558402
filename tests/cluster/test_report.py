"""One row an image, whoever is killed when."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from fluxsr.cluster.items import Item
from fluxsr.cluster.report import (
    DONE,
    FAILED,
    JOURNAL,
    KEPT,
    OUTDATED,
    REPORT,
    TODO,
    Report,
    blank,
    journal_name,
    journalled,
)
from fluxsr.cluster.storage import Storage
from fluxsr.errors import OutputError

ITEM = Item("a.png", "in/a.png", "1")


def row(report: Report, item: Item = ITEM, status: str = DONE, **more: Any) -> dict[str, Any]:
    return {**blank(item, report.fingerprint(item)), "status": status, "bytes_out": 3, **more}


def rows(store: Storage) -> list[dict[str, Any]]:
    with store.fs.open(store.at(REPORT)) as file:
        return parquet.read_table(file).to_pylist()


def test_what_is_published_is_known_to_the_next(store: Storage) -> None:
    first = Report(store, {"scale": 4})
    assert first.status(ITEM) == TODO
    store.write("a.png", b"one")
    first.add(row(first))
    first.add(row(first, Item("b.png", "in/b.png"), FAILED, error="why"))
    assert first.publish() == 2 and not store.find(JOURNAL)
    second = Report(store, {"scale": 4})
    assert second.status(ITEM) == DONE and second.status(Item("b.png", "in/b.png")) == FAILED
    assert [entry["output"] for entry in rows(store)] == ["a.png", "b.png"] and rows(store)[1]["error"] == "why"


def test_settings_inputs_version_and_lost_outputs_make_it_anew(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report(store, {"scale": 4})
    store.write("a.png", b"one")
    report.add(row(report))
    report.publish()
    assert Report(store, {"scale": 2}).status(ITEM) == OUTDATED
    assert Report(store, {"scale": 4}).status(Item("a.png", "in/a.png", "2")) == OUTDATED
    assert Report(store, {"scale": 4}).status(Item("a.png", "in/a.png")) == DONE, "a state that is not known"
    store.remove(["a.png"])
    assert Report(store, {"scale": 4}).status(ITEM) == TODO
    store.write("b.png", b"theirs")
    theirs, report = Item("b.png", "in/b.png"), Report(store, {"scale": 4})
    assert report.status(theirs) == KEPT and not report.knows(theirs)
    monkeypatch.setattr("fluxsr.processing.resume.__version__", "0.0.1")
    assert Report(store, {"scale": 4}).status(ITEM) == OUTDATED


def test_the_last_row_of_an_image_stands(store: Storage) -> None:
    report = Report(store, {})
    for status in (FAILED, DONE):
        report.add(row(report, status=status))
        assert report.publish() == 1
    report.add(row(report, status=FAILED))
    report.publish()
    assert [entry["status"] for entry in rows(store)] == [FAILED]


def test_a_killed_run_s_journal_counts_where_the_output_is_whole(store: Storage) -> None:
    report = Report(store, {})
    names = ("whole.png", "missing.png", "older.png", "failed.png")
    for name in names:
        status = FAILED if name == "failed.png" else DONE
        store.write(journal_name(name), json.dumps(row(report, Item(name, name, "1"), status)).encode())
    store.write(journal_name("x"), b"{cut o")
    store.write("whole.png", b"one")
    store.write("older.png", b"longer")
    found = Report(store, {})
    assert [found.status(Item(name, name, "1")) for name in names] == [DONE, TODO, KEPT, FAILED]
    assert not store.find(JOURNAL) and found.publish() == 2


def test_a_journalled_row_is_found_by_the_next_worker(store: Storage) -> None:
    report = Report(store, {})
    made = report.fingerprint(ITEM)
    assert journalled(store, ITEM, made) is None
    store.write(journal_name("a.png"), json.dumps(row(report)).encode())
    assert journalled(store, ITEM, made) is None, "no output"
    store.write("a.png", b"one")
    assert journalled(store, ITEM, made) == row(report)
    assert journalled(store, ITEM, "other") is None


def test_a_name_that_is_not_utf_8_is_known_again(store: Storage) -> None:
    item, failed = Item("caf\udce9.png", "in/caf\udce9.png", "1"), Item("b\udcff.png", "in/b\udcff.png")
    report = Report(store, {})
    store.write(item.name, b"one")
    store.write(journal_name(failed.name), json.dumps(row(report, failed, FAILED, error="b\udcff is odd")).encode())
    report.add(row(report, item, notes="\udce9"))
    report.publish()
    again = Report(store, {})
    assert again.status(item) == DONE and again.status(failed) == FAILED and again.publish() == 2
    assert [entry["output"] for entry in rows(store)] == ["b\\udcff.png", "caf\\udce9.png"]
    assert again.made_here(item.name) and not again.made_here(failed.name)


def test_a_file_that_is_no_report(store: Storage) -> None:
    store.write(REPORT, b"something else")
    with pytest.raises(OutputError, match="is not a report of fluxsr batch"):
        Report(store, {})
    with store.fs.open(store.at(REPORT), "wb") as file:
        parquet.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(OutputError, match="move it away"):
        Report(store, {})

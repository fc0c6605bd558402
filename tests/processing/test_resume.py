"""The ledger outlives kills, moves with its folder, and knows an input that has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxsr.processing.inputs import Job
from fluxsr.processing.resume import NAME, Ledger


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "a.png").write_bytes(b"a picture")
    (tmp_path / "out" / "deep").mkdir(parents=True)
    return Job(tmp_path / "a.png", tmp_path / "out" / "deep" / "a.png")


def test_what_is_noted_is_up_to_date_until_something_changes(tmp_path: Path, job: Job) -> None:
    ledger = Ledger(tmp_path / "out", {"scale": 4})
    assert not ledger.outdated(job), "nothing is known of it"
    ledger.note(job, ledger.stamp(job))
    assert not Ledger(tmp_path / "out", {"scale": 4}).outdated(job)
    assert Ledger(tmp_path / "out", {"scale": 2}).outdated(job)
    job.source.write_bytes(b"another picture")
    assert Ledger(tmp_path / "out", {"scale": 4}).outdated(job)


@pytest.mark.parametrize("cut", (1, 20, 45))
def test_a_line_cut_off_by_a_kill_costs_that_line_alone(tmp_path: Path, job: Job, cut: int) -> None:
    ledger, other = Ledger(tmp_path / "out", {}), Job(job.source, job.target.with_name("b.png"))
    ledger.note(job, "first")
    before = ledger.path.read_bytes()
    ledger.note(other, "second")
    ledger.path.write_bytes(ledger.path.read_bytes()[: len(before) + cut])
    Ledger(tmp_path / "out", {}).note(other, "third")
    lines = Ledger(tmp_path / "out", {})._made
    assert lines == {"deep/a.png": "first", "deep/b.png": "third"}


def test_a_folder_that_moved_keeps_its_ledger(tmp_path: Path, job: Job) -> None:
    ledger = Ledger(tmp_path / "out", {})
    ledger.note(job, "other than now")
    (tmp_path / "out").rename(tmp_path / "moved")
    assert Ledger(tmp_path / "moved", {}).outdated(Job(job.source, tmp_path / "moved" / "deep" / "a.png"))


def test_rubbish_in_the_ledger_is_no_error(tmp_path: Path, job: Job) -> None:
    (tmp_path / "out" / NAME).write_bytes(b'\xff\xfe\n[1]\n{"output": 3}\nnull\n')
    assert not Ledger(tmp_path / "out", {}).outdated(job)

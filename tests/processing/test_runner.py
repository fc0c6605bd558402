"""A plan is processed job by job; each failure is one line."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fluxsr.errors import OutputError
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.reporting import CommandLabels, Report
from fluxsr.processing.runner import AHEAD, ProgressCallback, Stages, Write, run_jobs

LABELS = CommandLabels("copy", "copied")


def read(job: Job) -> bytes:
    return job.source.read_bytes()


def copy(job: Job, data: bytes, progress: ProgressCallback) -> Write:
    progress(0.5)

    def write() -> None:
        job.target.parent.mkdir(exist_ok=True)
        job.target.write_bytes(data)

    return write


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    """plan("a", "b"): copies of these files, which are written with their name as contents."""

    def plan(*names: str) -> Plan:
        for name in names:
            (tmp_path / name).write_text("x" + name.encode("utf-8", "ignore").decode())
        return Plan([Job(tmp_path / name, tmp_path / "out" / name) for name in names])

    return plan


def run(plan: Plan, work: Any = copy, reader: Any = read, **options: Any) -> Report:
    return run_jobs(plan, lambda _console: Stages(reader, work), LABELS, **options)


def test_finished_outputs_are_skipped_and_load_nothing(plan: Any, tmp_path: Path) -> None:
    def start(_console: Console) -> Stages[bytes]:
        raise AssertionError("started")

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").touch()
    report = run_jobs(plan("a"), start, LABELS)
    assert report.skipped == [tmp_path / "out" / "a"] and not report.done


def test_the_rest_is_done_after_a_failure(plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = plan(*"abcdefgh")

    def vanishing(job: Job, data: bytes, progress: ProgressCallback) -> Write:
        (tmp_path / "h").unlink(missing_ok=True)
        return copy(job, data, progress)

    (tmp_path / "b").unlink()
    report = run(work, vanishing)
    assert [path.name for path in report.done] == [*"acdefg"]
    assert report.bad == [str(tmp_path / "b"), str(tmp_path / "h")]
    told = capsys.readouterr().err
    assert "6 copied, 2 failed" in told and told.count("error: ") == 2
    with pytest.raises(FileNotFoundError):
        run(work, debug=True)


def test_reading_and_writing_overlap_with_the_work_but_only_a_few_files(plan: Any) -> None:
    names = [f"{number:02}" for number in range(20)]
    lock, alive, most, order = threading.Lock(), 0, 0, []

    def counted(change: int) -> None:
        nonlocal alive, most
        with lock:
            alive += change
            most = max(most, alive)
        time.sleep(0.02)

    def slow_read(job: Job) -> bytes:
        counted(1)
        return read(job)

    def ordered(job: Job, data: bytes, progress: ProgressCallback) -> Write:
        order.append(job.source.name)
        time.sleep(0.025)

        def write() -> None:
            counted(-1)
            copy(job, data, progress)()

        return write

    start = time.perf_counter()
    report = run(plan(*names), ordered, slow_read)
    assert time.perf_counter() - start < 0.065 * 20 * 0.85, "one after the other would take 0.065 s per file"
    assert order == names and [path.name for path in report.done] == names
    assert 2 < most <= 2 * AHEAD + 3, "read ahead, at work, being written"


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)], ids=["once", "twice", "term"]
)
def test_a_signal_once_finishes_the_file_and_twice_stops_now(
    plan: Any, tmp_path: Path, number: int, times: int, capsys: pytest.CaptureFixture[str], request: Any
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupted(job: Job, data: bytes, progress: ProgressCallback) -> Write:
        for _ in range(times):
            signal.raise_signal(number)
        return copy(job, data, progress)

    with pytest.raises(KeyboardInterrupt):
        run(plan(*"abc"), interrupted)
    assert [path.name for path in tmp_path.glob("out/*")] == (["a"] if times == 1 else [])
    if times == 1:
        told = capsys.readouterr().err
        assert "stopping after this image" in told and "1 copied, 2 left" in told


def test_a_full_disk_ends_the_run(plan: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def full(job: Job, data: bytes, progress: ProgressCallback) -> Write:
        def write() -> None:
            raise OutputError(f"{job.target} cannot be written: full") from OSError(errno.ENOSPC, "full")

        return write

    report = run(plan(*(f"{number:02}" for number in range(20))), full)
    assert report.full and report.left + len(report.bad) == 20
    told = capsys.readouterr().err
    assert "make room and run the same command again" in told and "left" in told
    assert told.count("cannot be written") <= 2 * AHEAD + 1


def test_outputs_of_other_settings_or_inputs_are_made_again(plan: Any, tmp_path: Path) -> None:
    work = plan("a", "b")
    (tmp_path / "out").mkdir()
    work.jobs = [replace(job, record=tmp_path / "out") for job in work.jobs]

    def done(settings: dict[str, int]) -> list[str]:
        return [path.name for path in run(work, settings=settings).done]

    assert done({"scale": 4}) == ["a", "b"]
    assert done({"scale": 4}) == []
    assert done({"scale": 2}) == ["a", "b"]
    (tmp_path / "b").write_text("another")
    assert done({"scale": 2}) == ["b"] and (tmp_path / "out" / "b").read_text() == "another"
    (tmp_path / "out" / "a").unlink()
    assert done({"scale": 2}) == ["a"]


def test_names_of_any_characters_are_one_line(plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = plan("two\nlines", "\x1b[31mred", "caf\udce9", "[b]bold[red")
    work.jobs.append(Job(tmp_path / "lost\nfile", tmp_path / "out" / "lost"))
    work.bad.append(("a\nb", "the output c\nd would replace an input"))
    work.jobs = [replace(job, record=tmp_path / "out") for job in work.jobs]
    work.passed.endings[".dng"] = 3
    work.passed.linked.append("in/li\nnk")

    def noted(job: Job, data: bytes, progress: ProgressCallback) -> Write:
        copy(job, data, progress)()
        return lambda: ["has a title: 'x\ny\udcff'"]

    report = run(work, noted, settings={})
    assert len(report.done) == 4 and len(report.bad) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 + 4 + 2 + 2 + 2, "a line and a note each, two errors, the summary, what failed"
    assert all(line.isprintable() for line in lines)
    assert "not looked at: 3 .dng, 1 linked folders (in/li\\nnk)" in lines
    assert len(run(work, settings={}).skipped) == 4

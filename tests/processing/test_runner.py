"""A plan is worked off job by job; each failure is one line."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fluxsr.errors import OutputError
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.reporting import CommandLabels
from fluxsr.processing.runner import AHEAD, ProgressCallback, Stages, Write, run_jobs

WORDS = CommandLabels("copy", "copied")


def plan_of(folder: Path, *names: str) -> Plan:
    return Plan([Job(folder / name, folder / "out" / name) for name in names])


def read(job: Job) -> bytes:
    return job.source.read_bytes()


def work(job: Job, data: bytes, share: ProgressCallback) -> Write:
    share(0.5)

    def write() -> list[str]:
        job.target.parent.mkdir(exist_ok=True)
        job.target.write_bytes(data)
        return []

    return write


def copying(_console: Console) -> Stages[bytes]:
    return Stages(read, work)


def test_nothing_is_started_where_nothing_is_to_do(tmp_path: Path) -> None:
    def start(_console: Console) -> Stages[bytes]:
        raise AssertionError("started")

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").touch()
    report = run_jobs(plan_of(tmp_path, "a"), start, WORDS)
    assert report.skipped == [tmp_path / "out" / "a"] and not report.done


def test_the_rest_is_done_after_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ac":
        (tmp_path / name).write_text(name)
    report = run_jobs(plan_of(tmp_path, "a", "b", "c"), copying, WORDS)
    assert [path.name for path in report.done] == ["a", "c"] and report.bad == [str(tmp_path / "b")]
    told = capsys.readouterr().err
    assert "2 copied, 1 failed" in told and told.count("error: ") == 1


def test_debug_lets_the_error_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_jobs(plan_of(tmp_path, "a"), copying, WORDS, debug=True)


def test_inputs_are_read_ahead_and_outputs_written_behind_but_not_many(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(30)]
    for name in names:
        (tmp_path / name).write_text(name)
    lock, alive, most, order = threading.Lock(), 0, 0, []

    def counted(change: int) -> None:
        nonlocal alive, most
        with lock:
            alive += change
            most = max(most, alive)

    def slow_read(job: Job) -> bytes:
        counted(1)
        return read(job)

    def ordered(job: Job, data: bytes, share: ProgressCallback) -> Write:
        order.append(job.source.name)
        time.sleep(0.002)

        def write() -> list[str]:
            time.sleep(0.004)
            counted(-1)
            return work(job, data, share)()  # type: ignore[return-value]

        return write

    report = run_jobs(plan_of(tmp_path, *names), lambda _: Stages(slow_read, ordered), WORDS)
    assert order == names and [path.name for path in report.done] == names
    assert 2 < most <= 2 * AHEAD + 3, "read ahead, at work, being written"


def test_the_work_waits_for_no_disk(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(10)]
    for name in names:
        (tmp_path / name).write_text(name)

    def slowly(action: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*arguments: Any) -> Any:
            time.sleep(0.04)
            return action(*arguments)

        return slow

    def slow_work(job: Job, data: bytes, share: ProgressCallback) -> Write:
        time.sleep(0.05)
        return slowly(work(job, data, share))

    start = time.perf_counter()
    run_jobs(plan_of(tmp_path, *names), lambda _: Stages(slowly(read), slow_work), WORDS)
    assert time.perf_counter() - start < 0.13 * 10 * 0.8, "one after the other it would be 0.13 s a file"


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_once_finishes_the_file_and_twice_stops_now(
    tmp_path: Path, times: int, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    for name in "abc":
        (tmp_path / name).write_text(name)

    def interrupted(job: Job, data: bytes, share: ProgressCallback) -> Write:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        return work(job, data, share)

    with pytest.raises(KeyboardInterrupt):
        run_jobs(plan_of(tmp_path, "a", "b", "c"), lambda _: Stages(read, interrupted), WORDS)
    made = [path.name for path in (tmp_path / "out").iterdir()] if (tmp_path / "out").exists() else []
    assert made == (["a"] if times == 1 else [])
    if times == 1:
        told = capsys.readouterr().err
        assert "stopping after this image" in told and "1 copied, 2 left" in told


def test_sigterm_is_a_wish_to_stop_too(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)

    def ended(job: Job, data: bytes, share: ProgressCallback) -> Write:
        signal.raise_signal(signal.SIGTERM)
        return work(job, data, share)

    with pytest.raises(KeyboardInterrupt):
        run_jobs(plan_of(tmp_path, "a", "b"), lambda _: Stages(read, ended), WORDS)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_a_full_disk_ends_the_run_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{number:02}" for number in range(20)]
    for name in names:
        (tmp_path / name).write_text(name)

    def full(job: Job, data: bytes, share: ProgressCallback) -> Write:
        def write() -> list[str]:
            raise OutputError(f"{job.target} cannot be written: full") from OSError(errno.ENOSPC, "full")

        return write

    report = run_jobs(plan_of(tmp_path, *names), lambda _: Stages(read, full), WORDS)
    assert report.full and report.left + len(report.bad) == len(names)
    told = capsys.readouterr().err
    assert "make room, and the same command goes on" in told and "left" in told
    assert told.count("cannot be written") <= 2 * AHEAD + 1


def test_an_input_that_vanishes_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abcdefgh":
        (tmp_path / name).write_text(name)

    def vanishing(job: Job, data: bytes, share: ProgressCallback) -> Write:
        (tmp_path / "h").unlink(missing_ok=True)
        return work(job, data, share)

    report = run_jobs(plan_of(tmp_path, *"abcdefgh"), lambda _: Stages(read, vanishing), WORDS)
    assert len(report.done) == 7 and report.bad == [str(tmp_path / "h")]
    assert capsys.readouterr().err.count("error: ") == 1


def test_outputs_of_other_settings_or_inputs_are_done_again(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    (tmp_path / "out").mkdir()
    plan = plan_of(tmp_path, "a", "b")
    plan.record = tmp_path / "out"

    def done(settings: dict[str, int]) -> list[str]:
        return [path.name for path in run_jobs(plan, copying, WORDS, settings=settings).done]

    assert done({"scale": 4}) == ["a", "b"]
    assert done({"scale": 4}) == []
    assert done({"scale": 2}) == ["a", "b"]
    (tmp_path / "b").write_text("another")
    assert done({"scale": 2}) == ["b"] and (tmp_path / "out" / "b").read_text() == "another"
    (tmp_path / "out" / "a").unlink()
    assert done({"scale": 2}) == ["a"]


def test_whatever_a_name_holds_a_line_stays_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["two\nlines", "\x1b[31mred", "caf\udce9", "[b]bold[red"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    plan = plan_of(tmp_path, *names, "lost\nfile")
    plan.bad.append(("a\nb", "the output c\nd would replace an input"))
    plan.record = tmp_path / "out"

    def noted(job: Job, data: bytes, share: ProgressCallback) -> Write:
        write = work(job, data, share)
        return lambda: [*write(), "has a title: 'x\ny\udcff'"]

    report = run_jobs(plan, lambda _: Stages(read, noted), WORDS, settings={})
    assert len(report.done) == 4 and len(report.bad) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 + 2 + 1 + 2, "a note each, two errors, the summary, what failed"
    assert all(line.isprintable() for line in lines)
    assert len(run_jobs(plan, copying, WORDS, settings={}).skipped) == 4


def test_the_summary_tells_what_was_not_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(tmp_path)
    plan.passed.endings[".dng"] = 3
    plan.passed.linked.append("in/li\nnk")
    run_jobs(plan, copying, WORDS)
    said = capsys.readouterr().err.splitlines()
    assert said == ["0 copied", "not looked at: 3 .dng, 1 linked folders (in/li\\nnk)"]

"""A plan is worked off job by job; each failure is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from fluxsr.apps.jobs import Job, Plan
from fluxsr.apps.runner import Share, Step, Words, reason_of, run_jobs
from fluxsr.errors import InputError

WORDS = Words("copy", "copied")


def plan_of(folder: Path, *names: str) -> Plan:
    return Plan([Job(folder / name, folder / "out" / name) for name in names])


def copy(job: Job, share: Share) -> None:
    share(0.5)
    job.target.parent.mkdir(exist_ok=True)
    job.target.write_bytes(job.source.read_bytes())


def test_nothing_is_started_where_nothing_is_to_do(tmp_path: Path) -> None:
    def start(_console: Console) -> Step:
        raise AssertionError("started")

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").touch()
    report = run_jobs(plan_of(tmp_path, "a"), start, WORDS)
    assert report.skipped == [tmp_path / "out" / "a"] and not report.done


def test_the_rest_is_done_after_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ac":
        (tmp_path / name).write_text(name)
    report = run_jobs(plan_of(tmp_path, "a", "b", "c"), lambda _: copy, WORDS)
    assert [path.name for path in report.done] == ["a", "c"] and report.bad == [str(tmp_path / "b")]
    told = capsys.readouterr().err
    assert "2 copied, 1 failed" in told and told.count("error: ") == 1


def test_debug_lets_the_error_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_jobs(plan_of(tmp_path, "a"), lambda _: copy, WORDS, debug=True)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("a.png is empty"), "a.png is empty"),
        (InputError("is wrong"), "a.png: is wrong"),
        (MemoryError(), "out of memory; buy more"),
        (KeyError("x\ny"), "unexpected KeyError"),
    ],
)
def test_reasons_are_one_line_with_the_name(error: Exception, words: str) -> None:
    line = reason_of(error, Path("a.png"), "buy more")
    assert words in line and line.startswith("a.png") and "\n" not in line

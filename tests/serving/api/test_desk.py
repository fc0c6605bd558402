"""The desk: how many it takes, what it keeps, what it hands back."""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxsr.errors import InputError
from fluxsr.serving.api import desk as module
from fluxsr.serving.api.desk import Desk
from fluxsr.serving.api.jobs import Cancelled, Job
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.problems import Problem


class Work:
    """Waits to be let go, or to be stopped; then writes a result."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.size = 10
        self.error: Exception | None = None

    def __call__(self, job: Job) -> tuple[Path, list[str]]:
        while not self.go.wait(0.005):
            if job.stop.is_set():
                raise Cancelled
        if self.error is not None:
            raise self.error
        job.folder.mkdir(exist_ok=True)  # as writing does
        (job.folder / "result.png").write_bytes(bytes(self.size))
        return job.folder / "result.png", ["a note"]


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.go.set()


@pytest.fixture
def desk(tmp_path: Path, work: Work) -> Iterator[Desk]:
    desk = Desk(work, Limits(workers=1, queue=1, keep_seconds=60, keep_bytes=15), tmp_path)
    yield desk
    desk.close()


def begun(desk: Desk) -> Job:
    job = desk.admit()
    job.kept = True
    (job.folder / "image").touch()
    desk.begin(job)
    return job


def ended(job: Job) -> Job:
    assert job.future is not None
    job.future.result(60)
    return job


def test_a_job_runs_and_its_result_is_kept(desk: Desk, work: Work) -> None:
    work.go.set()
    job = ended(begun(desk))
    assert (job.state, job.notes, job.bytes) == ("done", ("a note",), 10)
    assert desk.find(job.id) is job and 0 < (desk.expires_in(job) or 0) <= 60
    assert {path.name for path in job.folder.iterdir()} == {"result.png"}


def test_places_are_counted_from_before_the_body(desk: Desk, work: Work, until: Callable[..., Any]) -> None:
    first, coming = begun(desk), desk.admit()
    with pytest.raises(Problem, match="2 jobs are taken on already; try again in . s") as caught:
        desk.admit()
    assert caught.value.status == 429 and int(caught.value.headers["Retry-After"]) >= 1
    desk.drop(coming)
    assert not coming.folder.exists()
    second = begun(desk)
    until(lambda: first.state == "running")
    assert second.state == "queued" and desk.count("queued") == 1
    work.go.set()
    ended(first), ended(second)
    until(lambda: desk._open == 0)


def test_results_that_nobody_fetched_stop_new_work_and_fetched_ones_make_room(desk: Desk, work: Work) -> None:
    work.go.set()
    kept = [ended(begun(desk)), ended(begun(desk))]
    with pytest.raises(Problem, match="results wait to be fetched") as caught:
        desk.admit()
    assert caught.value.code == "storage_full" and 1 <= int(caught.value.headers["Retry-After"]) <= 60
    kept[1].fetched = True
    ended(begun(desk))
    assert not kept[1].folder.exists() and kept[0].folder.exists()


def test_what_has_expired_is_forgotten(desk: Desk, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    work.go.set()
    job = ended(begun(desk))
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 61)
    with pytest.raises(Problem, match="no such job; results are kept for 60 s"):
        desk.find(job.id)
    assert not job.folder.exists()


def test_a_result_that_goes_out_stays_until_it_is_out(desk: Desk, work: Work) -> None:
    """Deleted or swept meanwhile; and only at its end it was fetched."""
    work.go.set()
    job = ended(begun(desk))
    with desk.lending(job):
        assert not job.fetched
        desk.cancel(job)  # it has ended: forgotten
        assert job.result is not None and job.result.exists() and desk.kept_bytes() == 0
    assert job.fetched and not job.folder.exists()
    with pytest.raises(Problem, match="no such job"), desk.lending(job):
        pytest.fail("its file is gone")
    other = ended(begun(desk))
    with pytest.raises(ConnectionError), desk.lending(other):
        raise ConnectionError
    assert not other.fetched and other.folder.exists()


def test_no_fetched_result_goes_where_an_expired_one_makes_the_room(
    desk: Desk, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.go.set()
    old, new = ended(begun(desk)), ended(begun(desk))
    new.fetched = True
    now = module.time.monotonic()
    old.ended, new.ended = now, now + 30
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 61)
    desk.sweep()
    assert not old.folder.exists() and desk.find(new.id) is new and new.folder.exists()


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_soon(
    desk: Desk, work: Work, until: Callable[..., Any]
) -> None:
    running, waiting = begun(desk), begun(desk)
    until(lambda: running.state == "running")
    for job in (waiting, running):
        desk.cancel(job)
        assert job.state == "cancelled" and job.problem is not None and job.problem.status == 410
    until(lambda: desk._open == 0)
    assert not running.folder.exists() and not waiting.folder.exists(), "nothing counts their uploads any more"
    desk.cancel(running)  # it has ended: now it is forgotten
    with pytest.raises(Problem, match="no such job"):
        desk.find(running.id)


def test_a_result_that_comes_after_all_is_nobodys(desk: Desk, work: Work, until: Callable[..., Any]) -> None:
    """Cancelled and forgotten while its last tile runs: nothing stays on the disk."""
    job = begun(desk)
    until(lambda: job.state == "running")
    job.ended = 1.0
    desk.forget(job)
    work.go.set()
    ended(job)
    assert not job.folder.exists() and desk.kept_bytes() == 0


def test_failures_tell_no_path_and_bugs_tell_nothing(desk: Desk, work: Work) -> None:
    work.go.set()
    for error, code, words in (
        (InputError("{}/image is empty"), "unusable_input", "the image is empty"),
        (RuntimeError("secret"), "internal", "something went wrong in the server"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "no_room",
            "the server cannot write: No space left on device",
        ),
        (MemoryError(), "out_of_memory", "out of memory; try a smaller image or tile_size"),
    ):
        job = desk.admit()
        work.error = InputError(str(error).format(job.folder)) if isinstance(error, InputError) else error
        desk.begin(job)
        ended(job)
        assert job.state == "failed" and job.problem is not None
        assert (job.problem.code, job.problem.message) == (code, words)
        assert not job.folder.exists()


class Picture:
    """Something large."""


def test_a_job_that_failed_holds_nothing_of_its_work(tmp_path: Path) -> None:
    """Its problem is kept for minutes."""
    seen: list[weakref.ref[Picture]] = []

    def work(job: Job) -> tuple[Path, list[str]]:
        picture = Picture()
        seen.append(weakref.ref(picture))
        raise Problem("too_many_pixels", "a result too large", Retry_After="1")

    desk = Desk(work, Limits(), tmp_path)
    job = ended(begun(desk))
    desk.close()
    gc.collect()
    assert job.problem is not None and job.problem.message == "a result too large" and seen[0]() is None
    assert job.problem.headers == {"Retry-After": "1"}


def test_a_drain_hands_back_what_waits_and_lets_the_rest_run(desk: Desk, work: Work, until: Callable[..., Any]) -> None:
    running, waiting = begun(desk), begun(desk)
    until(lambda: running.state == "running")
    assert desk.drain() == [running]
    assert waiting.state == "failed" and waiting.problem is not None
    assert waiting.problem.status == 503 and waiting.problem.headers["Retry-After"]
    with pytest.raises(Problem, match="shutting down"):
        desk.admit()
    work.go.set()
    assert ended(running).state == "done"

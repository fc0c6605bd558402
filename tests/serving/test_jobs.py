"""The job store: how many jobs it accepts, how they end, and what it keeps."""

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
from fluxsr.serving import jobs as module
from fluxsr.serving.errors import ServiceError
from fluxsr.serving.jobs import Cancelled, Job, JobStore, TimeLimitExceeded


class Work:
    """Wait for ``go``, or for the end of the job; then write a result of ``size`` bytes."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.size = 10
        self.error: Exception | None = None
        self.partial = False

    def __call__(self, job: Job) -> str:
        while not self.go.wait(0.005):
            try:
                job.report(0.5)
            except Cancelled:
                if not self.partial:
                    raise
                break
        if self.error is not None:
            raise self.error
        job.folder.mkdir(exist_ok=True)  # as writing does
        (job.folder / "result.png").write_bytes(bytes(self.size))
        return "a result"


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.go.set()


@pytest.fixture
def store(tmp_path: Path, work: Work) -> Iterator[JobStore]:
    store = JobStore(tmp_path, workers=1, places=2, keep_seconds=60, keep_bytes=15)
    yield store
    store.close()


def begun(store: JobStore, work: Callable[[Job], Any], *owner: str) -> Job:
    job = store.admit(owner)
    job.kept = True
    store.start(job, work)
    return job


def ended(job: Job) -> Job:
    job.finished.result(60)
    return job


def test_a_job_runs_and_its_result_is_kept(store: JobStore, work: Work) -> None:
    work.go.set()
    job = ended(begun(store, work))
    assert (job.state, job.result, job.size) == ("done", "a result", 10) and job.folder.exists()
    assert store.find(job.id) is job and 0 < (store.expires_in(job) or 0) <= 60
    assert not store.cancel(job) and job.state == "done", "it has ended"


def test_places_are_counted_from_before_the_body(store: JobStore, work: Work, until: Callable[..., Any]) -> None:
    first, receiving = begun(store, work), store.admit()
    with pytest.raises(ServiceError, match="the server already has 2 jobs; try again in . s") as caught:
        store.admit()
    assert caught.value.status == 429 and int(caught.value.headers["Retry-After"]) >= 1
    store.forget(receiving)
    assert not receiving.folder.exists()
    second = begun(store, work)
    until(lambda: first.state == "running")
    assert second.state == "queued" and store.count("queued") == 1, "one job runs at a time"
    work.go.set()
    ended(first), ended(second)
    assert store._open == 0


def test_unfetched_results_stop_new_work_and_fetched_ones_make_room(store: JobStore, work: Work) -> None:
    work.go.set()
    kept = [ended(begun(store, work)), ended(begun(store, work))]
    with pytest.raises(ServiceError, match="results that wait to be fetched") as caught:
        store.admit()
    assert caught.value.code == "storage_full" and 1 <= int(caught.value.headers["Retry-After"]) <= 60
    kept[1].fetched = True
    ended(begun(store, work))
    assert not kept[1].folder.exists() and kept[0].folder.exists()


def test_an_expired_result_is_deleted_before_a_fetched_one(
    store: JobStore, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.go.set()
    old, new = ended(begun(store, work)), ended(begun(store, work))
    new.fetched = True
    now = module.time.monotonic()
    old.ended, new.ended = now, now + 30
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 61)
    with pytest.raises(ServiceError, match="no such job; results are kept for 60 s"):
        store.find(old.id)
    assert not old.folder.exists() and store.find(new.id) is new and new.folder.exists()


def test_a_result_that_is_being_sent_stays_until_it_is_sent(store: JobStore, work: Work) -> None:
    """Also if it is deleted meanwhile; and it counts as fetched only at the end."""
    work.go.set()
    job = ended(begun(store, work))
    with store.sending(job):
        assert not job.fetched
        store.forget(job)
        assert (job.folder / "result.png").exists() and store.kept_bytes() == 0
    assert job.fetched and not job.folder.exists()
    with pytest.raises(ServiceError, match="no such job"), store.sending(job):
        pytest.fail("its file is gone")
    other = ended(begun(store, work))
    with pytest.raises(ConnectionError), store.sending(other):
        raise ConnectionError
    assert not other.fetched and other.folder.exists()


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_soon(
    store: JobStore, work: Work, until: Callable[..., Any]
) -> None:
    running, waiting = begun(store, work), begun(store, work)
    until(lambda: running.state == "running")
    for job in (waiting, running):
        assert store.cancel(job)
        assert job.state == "cancelled" and job.error is not None and job.error.status == 410
    assert waiting.finished.done()
    ended(running)
    assert store._open == 0 and not running.folder.exists() and not waiting.folder.exists()


def test_a_cancelled_job_may_keep_a_partial_result(store: JobStore, work: Work, until: Callable[..., Any]) -> None:
    work.partial = True
    job = begun(store, work)
    until(lambda: job.progress == 0.5)
    store.cancel(job)
    assert ended(job).result == "a result" and job.state == "cancelled" and job.folder.exists()


@pytest.mark.parametrize("partial", [False, True])
def test_a_job_that_is_forgotten_while_it_runs_leaves_nothing(
    store: JobStore, work: Work, until: Callable[..., Any], partial: bool
) -> None:
    work.partial = partial
    job = begun(store, work)
    until(lambda: job.state == "running")
    store.forget(job)
    ended(job)
    assert not job.folder.exists() and store.kept_bytes() == 0


def test_a_visitor_has_one_job_of_a_kind(store: JobStore, work: Work) -> None:
    store._keep_bytes = 1000
    work.go.set()
    jobs = [ended(begun(store, work, "visitor", kind)) for kind in ("one", "batch", "one")]
    other = ended(begun(store, work, "other", "one"))
    assert [job.folder.exists() for job in jobs] == [False, True, True]
    assert store.owned("visitor", "one") == [jobs[2]] and store.owned("visitor") == jobs[1:]
    assert store.owned() == [] and store.owned("other") == [other]


def test_time_ends_a_job(tmp_path: Path, work: Work) -> None:
    store = JobStore(tmp_path, time_limit=0.05)
    job = ended(begun(store, work))
    assert job.error is not None and job.error.message.startswith("the time limit of 0.05 seconds is reached")
    with pytest.raises(TimeLimitExceeded):
        job.report(1)
    store.close()


def test_failures_name_no_path_and_bugs_say_nothing(store: JobStore, work: Work) -> None:
    work.go.set()
    full = OSError(errno.ENOSPC, "No space left on device")
    for error, code, message in (
        (InputError("{}/image is empty"), "unusable_input", "the image is empty"),
        (InputError("/srv/web/a_x4.png has odd colours (--max-pixels)"), "unusable_input", "a_x4.png has odd colours"),
        (RuntimeError("secret"), "internal", "something went wrong in the server; its log has the details"),
        (full, "no_room", "the server cannot write: No space left on device"),
        (MemoryError(), "out_of_memory", "out of memory; try a smaller image or scale"),
    ):
        job = store.admit()
        work.error = InputError(str(error).format(job.folder)) if isinstance(error, InputError) else error
        store.start(job, work)
        ended(job)
        assert job.state == "failed" and job.error is not None
        assert (job.error.code, job.error.message) == (code, message)
        assert not job.folder.exists()


class Picture:
    """Something large."""


def test_a_failed_job_keeps_nothing_of_its_work_in_memory(store: JobStore) -> None:
    seen: list[weakref.ref[Picture]] = []

    def work(job: Job) -> None:
        picture = Picture()
        seen.append(weakref.ref(picture))
        raise ServiceError("too_many_pixels", "a result too large", {"Retry-After": "1"})

    job = ended(begun(store, work))
    gc.collect()
    assert job.error is not None and job.error.message == "a result too large" and seen[0]() is None
    assert job.error.headers == {"Retry-After": "1"}


def test_a_drain_fails_what_waits_and_lets_the_rest_run(store: JobStore, work: Work, until: Callable[..., Any]) -> None:
    running, waiting = begun(store, work), begun(store, work)
    until(lambda: running.state == "running")
    assert store.drain() == [running]
    assert waiting.state == "failed" and waiting.error is not None
    assert waiting.error.status == 503 and waiting.error.headers["Retry-After"]
    with pytest.raises(ServiceError, match="shutting down"):
        store.admit()
    work.go.set()
    assert ended(running).state == "done"


def test_close_ends_what_runs(store: JobStore, work: Work, until: Callable[..., Any]) -> None:
    job = begun(store, work)
    until(lambda: job.state == "running")
    store.close()
    assert job.finished.done() and job.error is not None and job.error.code == "shutting_down"

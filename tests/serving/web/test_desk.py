"""Jobs: one at a time, ended when asked, when the time is up, and when the visitor leaves."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fluxsr.serving.web.desk import Desk, Stopped, TimeUp


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, seconds=300)


def test_a_second_job_waits_for_the_first(desk: Desk) -> None:
    inside, order = threading.Event(), []

    def second() -> None:
        inside.set()
        with desk.job("b", "one"):
            order.append("second")

    thread = threading.Thread(target=second)
    with desk.job("a", "one"):
        thread.start()
        assert inside.wait(30)
        thread.join(0.2)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_stop_waits_for_the_end_and_hands_over_what_there_was(desk: Desk) -> None:
    begun = threading.Event()

    def work() -> None:
        with desk.job("a", "many") as job:
            begun.set()
            assert job.stop.wait(30)
            with pytest.raises(Stopped):
                job.check()
            job.result = "two of three"

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30)
    assert desk.stop("b", "many") is None and desk.stop("a", "one") is None
    job = desk.stop("a", "many")
    thread.join(30)
    assert job is not None and job.result == "two of three" and desk.stop("a", "many") is None


def test_time_ends_a_job(desk: Desk) -> None:
    with desk.job("a", "one") as job:
        job.check()
        job.seconds = 0
        with pytest.raises(TimeUp, match="up to 0 seconds"):
            job.check()


def test_results_stay_until_the_next_job_of_the_kind_or_the_visitor_leaves(desk: Desk) -> None:
    folders = []
    for kind in ("one", "many", "one"):
        with desk.job("a", kind) as job:
            (job.folder / "x").touch()
            folders.append(job.folder)
    assert [folder.exists() for folder in folders] == [False, True, True]
    desk.leave("a")
    assert not any(folder.exists() for folder in folders) and not any(desk.root.iterdir())


def test_a_job_whose_visitor_left_leaves_nothing(desk: Desk) -> None:
    with desk.job("a", "one") as job:
        desk.leave("a")
        assert job.stop.is_set()
        job.folder.mkdir(exist_ok=True)
        (job.folder / "written later").touch()
    assert not any(desk.root.iterdir())


def test_results_of_who_left_unnoticed_go_with_the_next_job(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with desk.job("a", "one") as job:
        pass
    monkeypatch.setattr("fluxsr.serving.web.desk.KEEP", -desk.seconds)
    with desk.job("b", "one") as other:
        assert not job.folder.exists() and other.folder.exists()


def test_a_closed_desk_lets_nobody_in(desk: Desk) -> None:
    with desk.job("a", "one") as job:
        desk.close()
        assert job.stop.is_set()
    with pytest.raises(Stopped), desk.job("b", "one"):
        raise AssertionError("let in")

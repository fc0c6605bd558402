"""Images handed out to real processes of Ray that die: each is done once, and what kills is given up."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ray import cloudpickle

from fluxsr.cluster.cluster import Cluster, Size, connected
from fluxsr.cluster.dispatch import Dispatch
from fluxsr.cluster.items import Item
from fluxsr.cluster.storage import Full
from fluxsr.errors import InputError, ModelError, OutputError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers cannot import tests


class Fake:
    """A worker without a model; an image's name says what becomes of it."""

    def load(self) -> tuple[str, str]:
        return "fake", "none"

    def upscale(self, item: Item, made: str, attempt: int) -> dict[str, Any]:
        if "kills" in item.name or ("once" in item.name and attempt == 1):
            time.sleep(0.2)  # the other one in its hands has begun
            os.kill(os.getpid(), signal.SIGKILL)
        if "hangs" in item.name:
            time.sleep(600)
        if "refused" in item.name and attempt < 3:
            raise OutputError("the store is away")
        if "full" in item.name:
            raise Full("the disk is full")
        time.sleep(0.05)
        return {"output": item.name, "made": made, "attempts": attempt}


class Stillborn(Fake):
    def load(self) -> tuple[str, str]:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().load()


class Modelless(Fake):
    def load(self) -> tuple[str, str]:
        raise ModelError("there is no such model")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connected(Size(workers=2)) as cluster:
        yield cluster


def run(
    cluster: Cluster, names: list[str], kind: type = Fake, stop: threading.Event | None = None, **options: Any
) -> tuple[list[Any], list[str]]:
    said: list[str] = []
    dispatcher = Dispatch(
        cluster, lambda: cluster.start_worker(kind), lambda item: f"m{item.name}", tell=said.append, **options
    )
    return list(dispatcher.results([Item(name, name) for name in names], stop or threading.Event())), said


def test_all_is_done_once_and_what_kills_is_given_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ahead", 2)  # as with a GPU: another image is in the same hands
    names = ["a", "b", "kills", "c", "once", "refused", *"defgh"]
    results, said = run(cluster, names)
    rows = {row["output"]: row for row in results}
    assert len(results) == len(rows) == len(names)
    lost = rows.pop("kills")
    assert (lost["status"], lost["attempts"]) == ("failed", 3)
    assert "kills: given up after 3 attempts; its worker was lost: " in lost["error"] and "killed" in lost["error"]
    assert all(row["made"] == f"m{name}" for name, row in rows.items())
    assert rows["once"]["attempts"] >= 2 and rows["refused"]["attempts"] == 3
    assert said[:2] == ["model: fake", "plan: none"]
    assert "refused is retried: the store is away" in said


@pytest.mark.slow
def test_what_hangs_is_given_up_after_its_time(cluster: Cluster) -> None:
    results, _ = run(cluster, ["hangs", "a"], timeout=1, attempts=1)
    rows = {row["output"]: row for row in results}
    assert set(rows) == {"hangs", "a"} and "no result after 1 seconds" in rows["hangs"]["error"]


@pytest.mark.slow
def test_what_no_image_is_to_blame_for_ends_the_run(cluster: Cluster) -> None:
    with pytest.raises(Full, match="the disk is full"):
        run(cluster, ["full", "a"])
    with pytest.raises(ModelError, match="there is no such model"):
        run(cluster, ["a"], Modelless)
    with pytest.raises(ModelError, match="2 workers in a row were lost while loading the model"):
        run(cluster, ["a"], Stillborn, attempts=2)


@pytest.mark.slow
def test_a_worker_for_whom_there_is_no_room_holds_nobody_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "workers", 3)  # of the size of 2
    results, _ = run(cluster, [*"abcdef"])
    assert len(results) == 6


def test_more_gpus_than_there_are(cluster: Cluster) -> None:
    with pytest.raises(InputError, match="1 workers with 99 GPUs each were requested, but this machine has"):
        Cluster(Size(gpus_per_worker=99))


@pytest.mark.slow
def test_a_stop_finishes_what_is_begun(cluster: Cluster) -> None:
    stop, done = threading.Event(), []
    dispatcher = Dispatch(cluster, lambda: cluster.start_worker(Fake), lambda item: "", tell=lambda line: None)
    for row in dispatcher.results([Item(str(number), "") for number in range(50)], stop):
        done.append(row)
        stop.set()
    assert len(done) in (1, 2) and dispatcher.left == 50 - len(done), "one in the hands of each of two workers"

"""A lost accelerator ends whatever used it: unready, in one line, and nothing more is tried."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fluxsr.errors import AcceleratorLost
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing import upscale_file
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.reporting import reason_of

ERRORS = [
    torch.AcceleratorError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
]
LINE = "the accelerator failed (CUDA error: "


@pytest.fixture
def lost(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every step of the tiny pipeline fails; one entry for each that was tried."""
    tried: list[int] = []

    def fail(*_: Any, **__: Any) -> Any:
        tried.append(1)
        raise ERRORS[0]

    monkeypatch.setattr(pipeline, "one_step", fail)
    monkeypatch.setattr(upscale_file, "load", lambda _options: pipeline)
    return tried


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        Image.new("RGB", (20, 16)).save(path)
    return paths


def test_upscale_stops_and_says_so(lost: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [Job(path, tmp_path / "out" / path.name) for path in pictures(tmp_path, 6)]
    with pytest.raises(AcceleratorLost, match=r"this process cannot use it any more, start it again"):
        upscale_file.run(Plan(jobs), ModelOptions(), UpscaleOptions())
    told = capsys.readouterr().err
    assert len(lost) == 1 and "1 failed, 5 left" in told and told.count(LINE) == 1
    assert "out of memory" not in told and "unexpected" not in told


def test_other_failures_of_the_device_stop_nothing(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: invalid configuration argument")

    monkeypatch.setattr(pipeline, "one_step", fail)
    monkeypatch.setattr(upscale_file, "load", lambda _options: pipeline)
    report = upscale_file.run(
        Plan([Job(path, tmp_path / "out" / path.name) for path in pictures(tmp_path, 2)]),
        ModelOptions(),
        UpscaleOptions(),
    )
    assert len(report.bad) == 2 and not report.left


@pytest.mark.parametrize("error", ERRORS)
def test_an_illegal_access_to_memory_is_not_called_a_lack_of_it(error: Exception, tmp_path: Path) -> None:
    assert reason_of(error, tmp_path / "a.png", "free some").startswith(f"{tmp_path}/a.png: {LINE}")
    assert "out of memory" in reason_of(RuntimeError("CUDA out of memory"), tmp_path / "a.png", "free some")


def test_a_worker_of_a_cluster_ends_with_a_line(
    lost: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fluxsr.cluster import worker as module
    from fluxsr.cluster.items import Item

    def ended(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(module.os, "_exit", ended)
    (path,) = pictures(tmp_path, 1)
    worker = module.Worker(ModelOptions(), UpscaleOptions(), str(tmp_path / "out"))
    worker.load()
    with pytest.raises(SystemExit, match="1"):
        worker.upscale(Item(path.name, str(path)), "made")
    assert f"{worker.name}: {LINE}" in capsys.readouterr().err
    assert not (tmp_path / "out" / path.name).exists()


def test_the_server_is_unready_and_its_client_may_come_again(lost: list[int], pipeline: Any, tmp_path: Path) -> None:
    from fastapi import testclient

    from fluxsr.serving.http_app import application
    from fluxsr.serving.http_metrics import Metrics
    from fluxsr.serving.jobs import JobStore
    from fluxsr.serving.limits import HttpLimits
    from fluxsr.serving.service import UpscaleService

    (path,) = pictures(tmp_path, 1)
    store, service = JobStore(tmp_path), UpscaleService({"tiny": pipeline}, 10**6, 10**6)
    client = testclient.TestClient(application(store, service, Metrics(), HttpLimits()))
    assert client.get("/readyz").status_code == 200
    for _ in range(2):
        answer = client.post("/v1/upscale", files={"image": path.read_bytes()})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "accelerator_lost")
        assert answer.headers["retry-after"] and len(lost) == 1, "no second job is taken on"
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "accelerator_lost")
    assert client.get("/healthz").status_code == 200
    store.close()


def test_the_server_s_process_ends_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, pipeline: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from fluxsr.serving import http_server, server
    from fluxsr.serving.limits import HttpLimits

    class Doomed(server.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            self._store.lost = "CUDA error: device-side assert triggered"

    monkeypatch.setattr(upscale_file, "load", lambda _options: pipeline)
    monkeypatch.setattr(server, "Server", Doomed)
    with pytest.raises(AcceleratorLost, match="device-side assert triggered.*start it again"):
        http_server.serve(ModelOptions(), HttpLimits(grace=60), "127.0.0.1", 0, [], False)


def test_the_page_ends(lost: list[int], pipeline: Any, tmp_path: Path) -> None:
    from fluxsr.serving.errors import ServiceError
    from fluxsr.serving.jobs import JobStore
    from fluxsr.serving.limits import WebLimits
    from fluxsr.serving.server import listen
    from fluxsr.serving.service import UpscaleService
    from fluxsr.serving.web_jobs import upscale_batch
    from fluxsr.serving.web_server import page_server

    service, store = UpscaleService({"tiny": pipeline}, 10**6, 10**6), JobStore(tmp_path / "store")
    server, listener = page_server(service, store, WebLimits()), listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    sources, job = pictures(tmp_path, 3), store.admit(("visitor", "batch"))
    store.start(job, lambda job: upscale_batch(service, sources, "tiny", UpscaleOptions(), job))
    job.finished.result(60)
    assert len(lost) == 1, "the other images are not tried"
    assert job.error is not None and job.error.message.startswith("the server's accelerator failed")
    with pytest.raises(ServiceError, match="accelerator failed"):
        store.admit(("other", "one"))
    thread.join(60)
    assert not thread.is_alive() and store.lost.startswith("CUDA error")

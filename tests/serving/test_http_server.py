"""The server process: how it ends, and what it says if it cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from fluxsr.cli import serve as command
from fluxsr.cli.main import app
from fluxsr.errors import InputError
from fluxsr.options import ModelOptions
from fluxsr.serving import http_server
from fluxsr.serving.http_routes import JobResultResponse
from fluxsr.serving.jobs import Job, JobStore
from fluxsr.serving.limits import HttpLimits
from fluxsr.serving.server import Server, configured, is_awaited, listen
from fluxsr.serving.service import UpscaledFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
SLOW = {"scale": "8", "tile_size": "64", "tile_overlap": "32"}


@pytest.mark.slow
def test_sigterm_finishes_what_runs_fails_what_waits_and_leaves_no_files(
    serving: Any, model_folder: Path, picture: Callable[..., bytes], until: Callable[..., Any], tmp_path: Path
) -> None:
    answers: dict[str, httpx.Response] = {}
    with serving("--model", str(model_folder), "--workers", "1", "--queue", "5", TMPDIR=str(tmp_path)) as server:
        client = server.client()

        def ask(name: str, **options: Any) -> None:
            files = {"image": picture(40, 40)}
            answers[name] = server.client().post("/v1/upscale", files=files, data=SLOW, **options)

        ask("running", params={"wait": "false"})  # a client that will come for its result
        place = answers["running"].headers["location"]
        until(lambda: client.get(place).json()["status"] == "running")
        waiting = threading.Thread(target=ask, args=("waiting",))
        waiting.start()
        until(lambda: "fluxsr_queue_depth 1.0" in client.get("/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        waiting.join(60)
        until(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/healthz").status_code == 200
        ask("late")
        until(lambda: client.get(place).json()["status"] == "done")
        answers["result"] = client.get(f"{place}/result")
        assert server.process.wait(60) == 0
    assert answers["result"].headers["content-type"] == "image/png"
    for name in ("waiting", "late"):
        assert (answers[name].status_code, answers[name].json()["error"]["code"]) == (503, "shutting_down")
        assert answers[name].headers["retry-after"] == "5"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_after_the_grace_a_running_job_fails_too(
    serving: Any, model_folder: Path, picture: Callable[..., bytes], until: Callable[..., Any]
) -> None:
    answers: list[httpx.Response] = []
    with serving("--model", str(model_folder), "--grace", "0.2") as server:
        files = {"image": picture(300, 300)}  # minutes
        waiting = threading.Thread(
            target=lambda: answers.append(server.client().post("/v1/upscale", files=files, data=SLOW))
        )
        waiting.start()
        until(lambda: 'fluxsr_jobs{state="running"} 1.0' in server.client().get("/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        waiting.join(60)
        assert server.process.wait(60) == 0
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "shutting_down")


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application."""


def test_downloads_have_the_rest_of_the_grace(tmp_path: Path) -> None:
    server = Server(configured(nothing), JobStore(tmp_path), grace=3600)
    server._drain(3600)
    assert server.should_exit and 1000 < (server.config.timeout_graceful_shutdown or 0) <= 3600


def test_a_result_is_awaited_until_all_of_it_was_sent(tmp_path: Path) -> None:
    def work(job: Job) -> UpscaledFile:
        (job.folder / "result.png").write_bytes(bytes(200_000))
        return UpscaledFile(job.folder / "result.png", (1, 1), (1, 1), (), 0)

    store = JobStore(tmp_path)
    job = store.admit()
    job.kept = True
    store.start(job, work)
    job.finished.result(60)
    awaited: list[bool] = []

    async def send(message: Any) -> None:
        awaited.append(is_awaited(job))

    async def receive() -> Any:
        await asyncio.sleep(3600)

    scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.4"}}
    with ThreadPoolExecutor(1) as thread:  # in this one, a browser's event loop may be running
        thread.submit(asyncio.run, JobResultResponse(job, store)(scope, receive, send)).result()
    assert len(awaited) > 2 and all(awaited) and not is_awaited(job)
    store.close()


@pytest.mark.parametrize("command", ["serve", "web"])
def test_a_port_in_use_is_reported_before_the_model_is_loaded(command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = CliRunner().invoke(app, [command, "--model", "missing", "--port", str(port)], catch_exceptions=False)
    line = f"error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --host or --port\n"
    assert done.exit_code == 2 and done.output == line
    with pytest.raises(InputError, match="cannot listen on 203.0.113.1:0"):
        listen("203.0.113.1", 0)  # an address for documentation, which no machine has


def test_signals_drain_then_stop_then_force(tmp_path: Path) -> None:
    server = Server(configured(nothing), JobStore(tmp_path), grace=3600)
    server._store.start(job := server._store.admit(), lambda job: job.cancel_requested.wait(60))
    seen = []
    for _ in range(3):
        server.handle_exit(signal.SIGTERM, None)
        seen.append((server._store.draining, server.should_exit, server.force_exit))
    assert seen == [(True, False, False), (True, True, False), (True, True, True)]
    server._store.close()
    assert job.error is not None and job.error.code == "shutting_down"


@pytest.mark.parametrize(("planned", "most"), [(None, 4), (1, 1), (16, 4)])
def test_a_batch_is_no_larger_than_that_of_the_plan(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch, planned: int | None, most: int
) -> None:
    """The plan's batch fits the memory, and compiled code is compiled for one tile."""
    monkeypatch.setattr(pipeline, "plan", replace(pipeline.plan, batch_size=planned))
    monkeypatch.setattr(http_server.server, "load", lambda options: pipeline)
    seen: list[int] = []

    def batcher(_step: Any, most: int, *_rest: Any) -> Any:
        seen.append(most)
        raise InputError("enough")

    monkeypatch.setattr(http_server, "Batcher", batcher)
    with pytest.raises(InputError, match="enough"):
        http_server.serve(ModelOptions(), HttpLimits(), "127.0.0.1", 0, [], False)
    assert seen == [most]


def test_a_missing_package_is_one_line(uninstall: Callable[..., None]) -> None:
    uninstall("uvicorn")
    done = CliRunner().invoke(app, ["serve"])
    assert done.exit_code == 2 and 'fluxsr serve needs uvicorn; pip install "fluxsr[serve]"' in done.output


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    assert command.keys_of(None, "") == [] and command.keys_of(None, "a b") == ["a b"]
    (tmp_path / "keys").write_text("one\n\n two \n")
    assert command.keys_of(tmp_path / "keys", "other") == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "words"), [(None, "cannot be read"), ("\n \n", "holds no key; write one key per line")]
)
def test_a_file_without_keys_does_not_open_the_server(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "keys").write_text(text)
    done = CliRunner().invoke(app, ["serve", "--api-key-file", str(tmp_path / "keys")])
    assert done.exit_code == 2 and words in done.output


def test_help_is_there_without_the_packages() -> None:
    heavy = ("fastapi", "uvicorn", "torch")
    code = f"import sys; from fluxsr.cli import main; print([name for name in {heavy} if name in sys.modules])"
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr

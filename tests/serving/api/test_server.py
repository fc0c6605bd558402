"""The process: how it ends, and what it says where it cannot begin."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

from fluxsr.cli import serve as command
from fluxsr.cli.main import app
from fluxsr.errors import InputError
from fluxsr.options import ModelOptions
from fluxsr.serving.api import server
from fluxsr.serving.api.desk import Desk
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.routes import Handed
from fluxsr.serving.api.server import Server, _awaited

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
SLOW = {"scale": "8", "tile_size": "64", "tile_overlap": "32"}


@pytest.mark.slow
def test_sigterm_finishes_what_runs_hands_back_what_waits_and_leaves_nothing(
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
def test_after_its_grace_a_running_job_is_handed_back_too(
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


def test_downloads_have_what_is_left_of_the_grace(tmp_path: Path) -> None:
    desk = Desk(lambda job: (job.folder, []), Limits(), tmp_path)
    server = Server(uvicorn.Config(nothing, timeout_graceful_shutdown=5), desk, grace=3600)
    server._drain(3600)
    assert server.should_exit and 1000 < (server.config.timeout_graceful_shutdown or 0) <= 3600


def test_a_result_is_awaited_until_all_of_it_went_out(tmp_path: Path) -> None:
    (tmp_path / "result.png").write_bytes(bytes(200_000))
    desk = Desk(lambda job: (tmp_path / "result.png", []), Limits(), tmp_path)
    job = desk.admit()
    job.kept = True
    desk.begin(job).result(60)
    awaited: list[bool] = []

    async def send(message: Any) -> None:
        awaited.append(_awaited(job))

    async def receive() -> Any:
        await asyncio.sleep(3600)

    scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.4"}}
    asyncio.run(Handed(job, desk)(scope, receive, send))
    assert len(awaited) > 2 and all(awaited) and not _awaited(job)
    desk.close()


def test_a_port_that_is_taken_is_one_line(model_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = CliRunner().invoke(
            app, ["serve", "--model", str(model_folder), "--port", str(other.getsockname()[1])], catch_exceptions=False
        )
    assert done.exit_code == 2 and "choose another --host or --port" in done.output.splitlines()[-1]


@pytest.mark.parametrize(("planned", "most"), [(None, 4), (1, 1), (16, 4)])
def test_a_batch_is_no_larger_than_the_plan_s(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch, planned: int | None, most: int
) -> None:
    """Which fits the memory; and compiled code is compiled for one tile."""
    monkeypatch.setattr(pipeline, "plan", replace(pipeline.plan, batch_size=planned))
    monkeypatch.setattr(server.upscale_file, "load", lambda options: pipeline)
    seen: list[int] = []

    def batcher(_step: Any, most: int, *_rest: Any) -> Any:
        seen.append(most)
        raise InputError("enough")

    monkeypatch.setattr(server, "Batcher", batcher)
    with pytest.raises(InputError, match="enough"):
        server.serve(ModelOptions(), Limits(), "127.0.0.1", 0, [], False)
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
    source = str(Path(__file__).parents[3] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr

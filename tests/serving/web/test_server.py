"""The server around the page: what it lets out, what it refuses, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from fluxsr.errors import OutputError
from fluxsr.options import ModelOptions
from fluxsr.serving.web import server
from fluxsr.serving.web.guard import guarded
from fluxsr.serving.web.limits import Limits
from fluxsr.serving.web.page import examples
from fluxsr.serving.web.server import bound

SOURCE = Path(__file__).parents[3] / "src"


def test_a_taken_port_is_one_line() -> None:
    with bound("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        with pytest.raises(OutputError, match=f"127.0.0.1:{port} cannot be had: .*choose another --host or --port"):
            bound("127.0.0.1", port)
    with pytest.raises(OutputError, match="cannot be had"):
        bound("203.0.113.1", 0)  # for examples: no machine has it


def test_the_page_is_told_to_load_nothing_from_elsewhere(site: Any) -> None:
    with urlopen(site.url) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe-eval" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize("place", ["file=http://127.0.0.1/", "file=https:/example.org/x", "file=/etc/passwd"])
def test_neither_other_servers_nor_other_files_are_fetched(site: Any, place: str) -> None:
    with pytest.raises(HTTPError) as caught:
        urlopen(f"{site.url}gradio_api/{place}")
    assert caught.value.code == 403


def test_pages_of_other_servers_cannot_use_it(site: Any) -> None:
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(f"{site.url}gradio_api/upload", b"x", {"Origin": "http://elsewhere.example"}))
    assert caught.value.code == 403


def test_what_is_no_request_passes() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    with pytest.raises(StopIteration):  # it never waits
        guarded(app)({"type": "lifespan"}, None, None).send(None)
    assert seen == ["lifespan"]


def test_there_are_examples() -> None:
    assert [path.name for path in examples()] == ["building_lr.jpg", "church_lr.jpg"]


def test_ctrl_c_while_the_models_load_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_options: ModelOptions) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it goes on")

    monkeypatch.setattr(server, "_loaded", load)
    held = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            server.serve({"bundled": "bundled"}, ModelOptions(), Limits(), "127.0.0.1", 0)
    finally:
        signal.signal(signal.SIGINT, held)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGTERM")
def test_sigterm_ends_it_and_nothing_is_left(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "fluxsr", "web", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in iter(process.stderr.readline, "") if "open http" in line)
            with urlopen(line.split()[1]) as answer:
                assert answer.status == 200 and list(tmp_path.glob("fluxsr-web-*"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0, process.stderr.read()
        finally:
            process.kill()
    assert not list(tmp_path.glob("fluxsr-web-*"))

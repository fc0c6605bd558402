"""The server of the page: what it refuses, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from fluxsr.options import ModelOptions
from fluxsr.serving import server
from fluxsr.serving.limits import WebLimits
from fluxsr.serving.web_guard import guarded

SOURCE = Path(__file__).parents[2] / "src"


def test_the_browser_is_told_to_load_nothing_from_other_servers(site: Any) -> None:
    with urlopen(site.url) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe-eval" not in answer.headers["content-security-policy"]


def test_other_events_than_requests_pass() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    with pytest.raises(StopIteration):  # it never waits
        guarded(app)({"type": "lifespan"}, None, None).send(None)
    assert seen == ["lifespan"]


def test_there_are_examples() -> None:
    from fluxsr.serving.web_page import examples

    assert [path.name for path in examples()] == ["building_lr.jpg", "church_lr.jpg"]


def test_ctrl_c_while_the_models_load_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxsr.serving import web_server

    def load(_options: ModelOptions) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it goes on")

    monkeypatch.setattr(server, "load", load)
    held = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            web_server.serve({"bundled": "bundled"}, ModelOptions(), WebLimits(), "127.0.0.1", 0)
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

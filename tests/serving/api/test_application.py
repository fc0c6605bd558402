"""The key, errors that are not of a route, health."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from fluxsr.serving.api.application import application
from fluxsr.serving.api.desk import Desk
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.metrics import Metrics

KEY = "correct horse battery staple"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": KEY},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": "schlüssel".encode()},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/upscale"), ("GET", "/v1/jobs/x"), ("GET", "/metrics")])
def test_without_the_key_nothing_opens(server: Any, headers: dict[str, Any], method: str, path: str) -> None:
    answer = httpx.request(method, server.url + path, headers=headers, content=b"x" if method == "POST" else None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_either_header_takes_the_key(server: Any, headers: dict[str, str]) -> None:
    assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 200


def test_health_wants_no_key(server: Any) -> None:
    for path in ("/healthz", "/readyz"):
        assert httpx.get(server.url + path).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/v1/upscale", 405, "method_not_allowed"),
        ("PATCH", "/healthz", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/..%2f..%2fetc", 404, "not_found"),
        ("GET", "/v1/jobs/a%20b", 422, "invalid_option"),
        ("POST", "/v1/upscale?wait=perhaps", 422, "invalid_option"),
    ],
)
def test_every_error_has_the_one_shape(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()) == {"error"} and set(answer.json()["error"]) == {"code", "message"}
    if status == 405:
        assert answer.headers["allow"]


def test_a_bug_is_told_to_the_log_and_not_to_the_client(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits()
    desk, metrics = Desk(lambda _: (tmp_path, []), limits, tmp_path), Metrics()
    monkeypatch.setattr(desk, "find", lambda _: 1 / 0)
    answer = TestClient(application(desk, metrics, limits), raise_server_exceptions=False).get("/v1/jobs/x")
    assert answer.status_code == 500
    assert answer.json() == {"error": {"code": "internal", "message": "something went wrong in the server"}}
    desk.close()


def test_a_full_disk_is_said_and_takes_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits()
    desk, metrics = Desk(lambda _: (tmp_path, []), limits, tmp_path), Metrics()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    client = TestClient(application(desk, metrics, limits), raise_server_exceptions=False)
    monkeypatch.setattr(Path, "mkdir", full)
    answer = client.post("/v1/upscale", files={"image": b"x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "no_room")
    assert desk._open == 0 and desk.count("receiving") == 0
    desk.close()


def test_files_are_deleted_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large results that takes a while, in which everybody else would wait."""
    limits, threads = Limits(), set[bool]()
    desk, metrics = Desk(lambda _: (tmp_path, []), limits, tmp_path), Metrics()

    async def loop() -> int:
        return threading.get_ident()

    monkeypatch.setattr(desk, "sweep", lambda: threads.add(threading.get_ident() == client.portal.call(loop)))
    with TestClient(application(desk, metrics, limits)) as client:
        client.get("/v1/jobs/x")
        client.delete("/v1/jobs/x")
        client.get("/v1/jobs/x/result")
        client.post("/v1/upscale")
    assert threads == {False}
    desk.close()

"""The API key, errors that belong to no route, health, and the regular sweep."""

from __future__ import annotations

import errno
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fluxsr.cli.serve import checked_origin
from fluxsr.errors import InputError
from fluxsr.serving import http_app
from fluxsr.serving.http_app import application
from fluxsr.serving.http_metrics import Metrics
from fluxsr.serving.jobs import JobStore
from fluxsr.serving.limits import HttpLimits
from fluxsr.serving.service import UpscaleService

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
def test_without_the_key_nothing_is_answered(server: Any, headers: dict[str, Any], method: str, path: str) -> None:
    answer = httpx.request(method, server.url + path, headers=headers, content=b"x" if method == "POST" else None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_both_headers_take_the_key(server: Any, headers: dict[str, str]) -> None:
    assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 200


def test_health_needs_no_key(server: Any) -> None:
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
def test_every_error_has_the_same_format(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()) == {"error"} and set(answer.json()["error"]) == {"code", "message"}
    if status == 405:
        assert answer.headers["allow"]


@pytest.fixture
def app_store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path)
    yield store
    store.close()


@pytest.fixture
def app(app_store: JobStore) -> FastAPI:
    """An application in this process that refuses every image."""
    return application(app_store, UpscaleService({}, 1, 1), Metrics(), HttpLimits())


def test_pages_of_allowed_origins_may_call_the_server(app: FastAPI, app_store: JobStore) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in TestClient(app).get("/healthz", headers=asked).headers
    arguments = (app_store, UpscaleService({}, 1, 1), Metrics(), HttpLimits(), ["key"])
    client = TestClient(application(*arguments, origins=["https://a.example"]))
    preflight = client.options("/v1/upscale", headers=asked | {"Access-Control-Request-Headers": "X-API-Key"})
    assert preflight.status_code == 200, "a browser sends no key with this question"
    refused = client.post("/v1/upscale", headers=asked)
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://a.example"
    assert "Location" in refused.headers["access-control-expose-headers"]
    others = client.post("/v1/upscale", headers=asked | {"Origin": "https://b.example"})
    assert "access-control-allow-origin" not in others.headers


@pytest.mark.parametrize("origin", ["https://a.example/", "a.example", "https://A.example", "https://a.example/x"])
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(InputError, match="is not an origin; write it without a path"):
        checked_origin(origin)
    assert checked_origin("http://localhost:5173") and checked_origin("*")


def test_a_bug_is_reported_to_the_log_and_not_to_the_client(
    app: FastAPI, app_store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_store, "find", lambda _: 1 / 0)
    answer = TestClient(app, raise_server_exceptions=False).get("/v1/jobs/x")
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal"
    assert answer.json()["error"]["message"] == "something went wrong in the server; its log has the details"


def test_a_full_disk_is_reported_and_takes_no_place(
    app: FastAPI, app_store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    client = TestClient(app, raise_server_exceptions=False)
    for place in ((Path, "mkdir"), (SpooledTemporaryFile, "write")):
        with monkeypatch.context() as patch:
            patch.setattr(*place, full)
            answer = client.post("/v1/upscale", files={"image": b"x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "no_room")
        assert app_store._open == 0 and app_store.count("receiving") == 0


def test_files_are_deleted_in_threads(app: FastAPI, app_store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting large results takes a while, in which all other requests would wait."""
    threads = set[bool]()

    async def loop() -> int:
        return threading.get_ident()

    monkeypatch.setattr(app_store, "sweep", lambda: threads.add(threading.get_ident() == client.portal.call(loop)))
    with TestClient(app) as client:
        client.get("/v1/jobs/x")
        client.delete("/v1/jobs/x")
        client.get("/v1/jobs/x/result")
        client.post("/v1/upscale")
    assert threads == {False}


def test_the_sweep_returns_memory_to_the_system(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = threading.Event()
    assert http_app.trim_heap() is (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(http_app, "_SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(http_app, "trim_heap", trimmed.set)
    with TestClient(app):
        assert trimmed.wait(60)

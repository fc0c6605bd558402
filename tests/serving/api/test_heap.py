"""Free memory goes back to the system, in the sweep."""

from __future__ import annotations

import platform
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from fluxsr.serving.api import application, heap
from fluxsr.serving.api.desk import Desk
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.metrics import Metrics


def test_it_trims_where_there_is_glibc_and_fails_nowhere() -> None:
    assert heap.trim() is (platform.libc_ver()[0] == "glibc")


def test_the_sweep_trims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits, trimmed = Limits(), threading.Event()
    desk = Desk(lambda _: (tmp_path, []), limits, tmp_path)
    monkeypatch.setattr(application, "_SWEEP", 0.01)
    monkeypatch.setattr(heap, "trim", trimmed.set)
    with TestClient(application.application(desk, Metrics(), limits)):
        assert trimmed.wait(60)
    desk.close()

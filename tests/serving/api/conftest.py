"""A real server process on the tiny model, with small limits."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

KEY = "correct horse battery staple"
SOURCE = Path(__file__).parents[3] / "src"
LIMITS = (
    *("--workers", "2", "--queue", "2", "--batch", "4", "--batch-wait", "0.5", "--upload-seconds", "2"),
    *("--max-bytes", "200000", "--max-pixels", "250000", "--max-output-pixels", "6000000", "--sync-pixels", "3000000"),
)


@dataclass
class Running:
    """A server: where it is, its process, and what it has said."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    def client(self, **options: Any) -> httpx.Client:
        """With the key."""
        headers = {"Authorization": f"Bearer {KEY}", **options.pop("headers", {})}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[Running]:
    """``fluxsr serve`` on a free port; ended by SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fluxsr", "serve", "--port", "0", "--device", "cpu", "--dtype", "fp32", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    server, heard = Running(process), threading.Event()

    def listen() -> None:
        for line in process.stderr or ():
            server.lines.append(line.rstrip())
            if line.startswith("serving on "):
                server.url = line.split()[-1]
                heard.set()
        heard.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        assert heard.wait(120) and server.url, "\n".join(server.lines)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[Running]]:
    """``started``, for tests that want a server of their own."""
    return started


@pytest.fixture(scope="session")
def server(model_folder: Path) -> Iterator[Running]:
    """One server for all tests that leave it as they found it."""
    with started("--model", str(model_folder), *LIMITS, FLUXSR_API_KEY=KEY) as running:
        yield running
    assert "Traceback" not in "\n".join(running.lines), "\n".join(running.lines)


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """An image file of noise."""

    def made(width: int = 20, height: int = 16, kind: str = "PNG", seed: int = 0, **options: Any) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        return file.getvalue()

    return made


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Ask until the answer is truthy; against hanging only, a busy machine is no error."""

    def asked(question: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while not (answer := question()):
            assert time.monotonic() < end, "it never came to be"
            time.sleep(0.02)
        return answer

    return asked


@pytest.fixture(scope="session")
def metric() -> Callable[[httpx.Client, str], float]:
    """A number of /metrics, by its whole name with labels."""

    def read(client: httpx.Client, name: str) -> float:
        for line in client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
        return 0.0

    return read

"""A real HTTP server process with small limits, the web page in this process, and a Chromium."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from fluxsr.pipeline import FluxSRPipeline

KEY = "correct horse battery staple"
SOURCE = Path(__file__).parents[2] / "src"
LIMITS = (
    *("--workers", "2", "--queue", "2", "--batch", "4", "--batch-wait", "0.5", "--upload-seconds", "2"),
    *("--max-bytes", "200000", "--max-pixels", "250000", "--max-output-pixels", "6000000", "--sync-pixels", "3000000"),
)


@dataclass
class Running:
    """A server process and what it has written to stderr."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    def client(self, **options: Any) -> httpx.Client:
        """Return a client that sends the key."""
        headers = {"Authorization": f"Bearer {KEY}", **options.pop("headers", {})}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[Running]:
    """Run ``fluxsr serve`` on a free port; SIGTERM ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fluxsr", "serve", "--port", "0", "--device", "cpu", "--dtype", "fp32", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    server, heard = Running(process), threading.Event()

    def read_lines() -> None:
        for line in process.stderr or ():
            server.lines.append(line.rstrip())
            if line.startswith("serving on "):
                server.url = line.split()[-1]
                heard.set()
        heard.set()

    threading.Thread(target=read_lines, daemon=True).start()
    try:
        assert heard.wait(300) and server.url, "\n".join(server.lines)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(120)  # only against hanging; a server has 30 s for what runs
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[Running]]:
    """``started``, for tests that need a server of their own."""
    return started


@pytest.fixture(scope="session")
def server(model_folder: Path) -> Iterator[Running]:
    """One server for all tests that leave it unchanged."""
    with started("--model", str(model_folder), *LIMITS, FLUXSR_API_KEY=KEY) as running:
        yield running
    assert "Traceback" not in "\n".join(running.lines), "\n".join(running.lines)


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Return an image file of noise."""

    def made(width: int = 20, height: int = 16, kind: str = "PNG", seed: int = 0, **options: Any) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        return file.getvalue()

    return made


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Ask until the answer is truthy; the limit is only against hanging."""

    def asked(question: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while not (answer := question()):
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.02)
        return answer

    return asked


@pytest.fixture(scope="session")
def metric() -> Callable[[httpx.Client, str], float]:
    """Return a number of /metrics by its whole name with labels."""

    def read(client: httpx.Client, name: str) -> float:
        for line in client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
        return 0.0

    return read


class Gate:
    """Wraps the model and can hold it between two tiles.

    Attributes:
        tiles: tiles that went in since ``hold``.
        at_once: largest number that was ever in together.
        held: set while a tile waits.
    """

    def __init__(self, step: Any) -> None:
        self.step, self.tiles, self.at_once = step, 0, 0
        self.held, self.open = threading.Event(), threading.Event()
        self._after, self._inside, self._lock = 0, 0, threading.Lock()
        self.open.set()

    def hold(self, after: int) -> None:
        """Let this many tiles through and hold the next one."""
        self.tiles, self._after = 0, after
        self.held.clear()
        self.open.clear()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with self._lock:
            self.tiles += 1
            self._inside += 1
            self.at_once = max(self.at_once, self._inside)
        try:
            if self.tiles > self._after:
                self.held.set()
                assert self.open.wait(120), "a test left the gate closed"
            return self.step(*arguments, **options)
        finally:
            with self._lock:
                self._inside -= 1


@pytest.fixture(scope="session")
def gate(pipeline: FluxSRPipeline) -> Gate:
    return Gate(pipeline.one_step)


@pytest.fixture(scope="session")
def service(pipeline: FluxSRPipeline, gate: Gate) -> Any:
    """Two names of one model, with many tiles for each image, behind a gate."""
    from fluxsr.serving.service import UpscaleService

    config = replace(pipeline.adapter_config, tile_size=64)
    gated = FluxSRPipeline(pipeline.transformer, pipeline.vae, pipeline.prompt, **config.registered)
    gated.name = "tiny"
    gated.one_step = gate  # type: ignore[method-assign]
    return UpscaleService({"tiny": gated, "other": gated}, max_pixels=40_000, max_output_pixels=160_000)


@dataclass
class Site:
    """The page while it is served."""

    url: str
    store: Any
    gate: Gate

    def running(self, kind: str) -> Any:
        """Return the only job of a kind that has not ended."""
        (job,) = (job for job in self.store._jobs.values() if job.owner[1] == kind and not job.finished.done())
        return job


@pytest.fixture(scope="session")
def site(service: Any, gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from fluxsr.serving.jobs import JobStore
    from fluxsr.serving.limits import WebLimits
    from fluxsr.serving.server import address_of, listen
    from fluxsr.serving.web_server import page_server

    store, limits = JobStore(tmp_path_factory.mktemp("web"), time_limit=300), WebLimits(batch_limit=3)
    server, listener = page_server(service, store, limits, local=True), listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield Site(f"{address_of(listener)}/", store, gate)
    gate.open.set()
    store.close()
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="session")
def browser(site: Site, chromium: Any) -> Any:
    """The Chromium, started after the site."""
    return chromium


@pytest.fixture
def visit(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """Open the page for one more visitor. A request of the page to another server fails the test."""
    contexts, requested = [], []

    def opened(**options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        contexts[-1].set_default_timeout(60_000)  # only against hanging
        page = contexts[-1].new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.goto(site.url)
        page.wait_for_selector("#one-start")
        return page

    yield opened
    site.gate.open.set()
    for context in contexts:
        context.close()
    assert requested and not [url for url in requested if not url.startswith((site.url, "data:", "blob:"))]


@pytest.fixture
def tab(visit: Callable[..., Any]) -> Any:
    """The page as a desktop shows it."""
    return visit()


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A JPEG of 48 x 32 pixels with EXIF."""
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    path = tmp_path / "photo.jpg"
    Image.linear_gradient("L").resize((48, 32)).convert("RGB").save(path, exif=exif)
    return path

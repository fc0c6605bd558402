"""A page that is served by this process with a tiny random model, and a Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxsr.pipeline import FluxSRPipeline
from fluxsr.serving.web.desk import Desk
from fluxsr.serving.web.limits import Limits
from fluxsr.serving.web.work import Studio

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
]


class Gate:
    """Stands before the model and can hold it between two tiles.

    Attributes:
        tiles: that went in since ``hold``.
        at_once: how many were ever in together.
        held: set while one waits.
    """

    def __init__(self, step: Any) -> None:
        self.step, self.tiles, self.at_once = step, 0, 0
        self.held, self.open = threading.Event(), threading.Event()
        self._after, self._inside, self._lock = 0, 0, threading.Lock()
        self.open.set()

    def hold(self, after: int) -> None:
        """Let so many tiles through and hold the next."""
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
def studio(pipeline: FluxSRPipeline, gate: Gate) -> Studio:
    """Two models that are one, with many tiles to a picture, behind a gate."""
    config = replace(pipeline.adapter_config, tile_size=64)
    gated = FluxSRPipeline(pipeline.transformer, pipeline.vae, pipeline.prompt, **config.registered)
    gated.name = "tiny"
    gated.one_step = gate  # type: ignore[method-assign]
    return Studio({"tiny": gated, "other": gated}, Limits(max_pixels=40_000, max_output_pixels=160_000, batch_limit=3))


@dataclass
class Site:
    url: str
    desk: Desk
    gate: Gate


@pytest.fixture(scope="session")
def site(studio: Studio, gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from fluxsr.serving.web.server import bound, server_of

    desk = Desk(tmp_path_factory.mktemp("web"), seconds=300)
    server, door = server_of(studio, desk, local=True), bound("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    yield Site(f"http://127.0.0.1:{door.getsockname()[1]}/", desk, gate)
    gate.open.set()
    desk.close()
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="session")
def browser(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium that knows no host but this one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = os.environ.get("FLUXSR_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
        program = program or playwright.chromium.executable_path
        if not os.path.exists(program):
            pytest.skip("no Chromium: run 'playwright install chromium', or set FLUXSR_CHROMIUM to the path of one")
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """Opens the page for one more visitor; a request of the page's to another server fails the test."""
    contexts, foreign = [], []

    def opened(**options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        contexts[-1].set_default_timeout(60_000)  # against hanging only: a busy machine is no error
        page = contexts[-1].new_page()
        page.on("request", lambda asked: foreign.append(asked.url))
        page.goto(site.url)
        page.wait_for_selector("#one-start")
        return page

    yield opened
    site.gate.open.set()
    for context in contexts:
        context.close()
    assert foreign and not [url for url in foreign if not url.startswith((site.url, "data:", "blob:"))]


@pytest.fixture
def tab(visit: Callable[..., Any]) -> Any:
    """The page, as a desktop sees it."""
    return visit()


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A JPEG of 48 x 32 pixels with EXIF."""
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    path = tmp_path / "photo.jpg"
    Image.linear_gradient("L").resize((48, 32)).convert("RGB").save(path, exif=exif)
    return path

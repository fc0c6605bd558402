"""The picture of docs/web.md: what a Chromium shows of ``fluxsr web`` once an example is upscaled.

python examples/web_page.py docs/images/web.png [WIDTH]

Needs `pip install "fluxsr[web]" playwright` and a Chromium in PATH. A width of 390 shows a phone's view.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import fluxsr
from fluxsr.serving.web.desk import Desk
from fluxsr.serving.web.limits import Limits
from fluxsr.serving.web.server import bound, server_of
from fluxsr.serving.web.work import Studio

PICTURE = Path(__file__).with_name("building_lr.jpg")


def main(out: Path, width: int) -> None:
    studio = Studio({"bundled": fluxsr.load("bundled")}, Limits())
    with tempfile.TemporaryDirectory() as folder, bound("127.0.0.1", 0) as door:
        server = server_of(studio, Desk(Path(folder), 600))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            shoot(f"http://127.0.0.1:{door.getsockname()[1]}", out, width)
        finally:
            server.should_exit = True
            thread.join()
    with Image.open(out) as image:
        image.convert("RGB").quantize(255, dither=Image.Dither.FLOYDSTEINBERG).save(out, optimize=True)


def shoot(url: str, out: Path, width: int) -> None:
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 960})
        page.set_default_timeout(600_000)  # a busy machine is no error
        page.goto(url)
        page.set_input_files("#one-file input[type=file]", str(PICTURE))
        page.wait_for_selector("#one-told >> text=pixels")
        page.click("#one-start")
        page.wait_for_selector("#one-load", state="visible")
        page.wait_for_function("[...document.querySelectorAll('#one-slider img')].every(image => image.naturalWidth)")
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)  # what fades in, has
        page.screenshot(path=out, full_page=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1280)

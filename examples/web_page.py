"""Make the screenshot of docs/web.md: ``fluxsr web`` in a Chromium, after an example was upscaled.

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
from fluxsr.serving.jobs import JobStore
from fluxsr.serving.limits import WebLimits
from fluxsr.serving.server import address_of, listen
from fluxsr.serving.service import UpscaleService
from fluxsr.serving.web_server import page_server

IMAGE = Path(__file__).with_name("building_lr.jpg")


def main(out: Path, width: int) -> None:
    limits = WebLimits()
    service = UpscaleService({"bundled": fluxsr.load("bundled")}, limits.max_pixels, limits.max_output_pixels)
    with tempfile.TemporaryDirectory() as folder, listen("127.0.0.1", 0) as listener:
        server = page_server(service, JobStore(Path(folder)), limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            take_screenshot(address_of(listener), out, width)
        finally:
            server.should_exit = True
            thread.join()
    with Image.open(out) as image:
        image.convert("RGB").quantize(255, dither=Image.Dither.FLOYDSTEINBERG).save(out, optimize=True)


def take_screenshot(url: str, out: Path, width: int) -> None:
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 960})
        page.set_default_timeout(600_000)  # only against hanging
        page.goto(url)
        page.set_input_files("#one-file input[type=file]", str(IMAGE))
        page.wait_for_selector("#one-report >> text=pixels")
        page.click("#one-start")
        page.wait_for_selector("#one-load", state="visible")
        page.wait_for_function("[...document.querySelectorAll('#one-slider img')].every(image => image.naturalWidth)")
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)  # until everything has faded in
        page.screenshot(path=out, full_page=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1280)

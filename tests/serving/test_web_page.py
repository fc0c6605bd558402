"""The page in a real browser."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

TOAST = "[data-testid=toast-body]"


def send(tab: Any, *paths: Path, place: str = "one-file") -> None:
    tab.set_input_files(f"#{place} input[type=file]", [str(path) for path in paths])


def downloaded(tab: Any, button: str) -> tuple[str, bytes]:
    tab.wait_for_selector(f"#{button}", state="visible")
    with tab.expect_download() as waiting:
        tab.click(f"#{button}")
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_an_image_is_upscaled_downloaded_with_its_exif_compared_and_zoomed(tab: Any, photograph: Path) -> None:
    send(tab, photograph)
    tab.wait_for_selector("#one-report >> text=48 × 32 pixels, JPEG")
    tab.click("#one-start")
    slider = tab.wait_for_selector("#one-slider", state="visible")
    pictures = [tab.wait_for_selector(f"#one-slider img >> nth={k}", state="visible") for k in (0, 1)]
    sizes = [picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") for picture in pictures]
    assert sizes == [[192, 128], [192, 128]]
    shown = [picture.bounding_box() for picture in pictures]
    assert shown[0] == shown[1] and shown[0]["width"] > 200 and slider.bounding_box()["height"] > 100
    name, data = downloaded(tab, "one-load")
    with Image.open(io.BytesIO(data)) as image:
        assert (name, image.format, image.size) == ("photo_x4.jpg", "JPEG", (192, 128))
        assert image.getexif()[0x010F] == "a camera"

    box = pictures[0].bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)  # beside the line
    for _ in range(8):
        tab.mouse.wheel(0, -100)
    tab.wait_for_function(
        "([picture, width]) => picture.getBoundingClientRect().width > 1.2 * width", arg=[pictures[0], box["width"]]
    )


@pytest.mark.slow
def test_a_size_is_exact_and_what_is_painted_everywhere_needs_no_model(tab: Any, site: Any, photograph: Path) -> None:
    send(tab, photograph)
    tab.wait_for_selector("#one-report >> text=48 × 32 pixels, JPEG")
    tab.click("text=A size instead of the scale")
    tab.get_by_label("Longer side").first.fill("100")
    tab.click("text=Keep parts of it plain")
    canvas = tab.wait_for_selector("canvas.brush")
    tab.wait_for_function("document.querySelector('canvas.brush').style.pointerEvents == 'auto'")
    box = canvas.bounding_box()
    for part in (0.05 + 0.1 * k for k in range(10)):
        tab.mouse.move(box["x"] + 1, box["y"] + part * box["height"])
        tab.mouse.down()
        tab.mouse.move(box["x"] + box["width"] - 2, box["y"] + part * box["height"])
        tab.mouse.up()
    assert tab.input_value("#one-strokes textarea").count("[0.1,") == 10
    site.gate.hold(after=1000)
    tab.click("#one-start")
    name, data = downloaded(tab, "one-load")
    assert (name, Image.open(io.BytesIO(data)).size) == ("photo_longest100.jpg", (100, 67))
    assert site.gate.tiles == 0
    tab.click("text=Paint more")  # brings the strokes back
    tab.wait_for_selector("#one-before canvas.brush")
    assert tab.input_value("#one-strokes textarea").count("[0.1,") == 10
    tab.click("#one-clear")
    tab.click("#one-start")
    downloaded(tab, "one-load")
    assert site.gate.tiles > 0


def test_progress_shows_and_stop_stops_between_tiles(tab: Any, site: Any, photograph: Path) -> None:
    send(tab, photograph)
    site.gate.hold(after=3)
    tab.click("#one-start")
    assert site.gate.held.wait(60)
    tab.wait_for_selector("#one-report >> text=photo.jpg")  # of 15 tiles, 3 are done
    tab.wait_for_selector("#one-report >> text=20.0%")
    tab.click("#one-stop")
    assert site.running("one").cancel_requested.wait(60)
    site.gate.open.set()
    tab.wait_for_selector("#one-report >> text=Stopped")
    assert site.gate.tiles == 4 and not tab.is_visible("#one-slider")
    tab.click("#one-start")  # and it works again
    tab.wait_for_selector("#one-load", state="visible")


def test_an_example_is_taken_by_a_click_and_errors_are_one_line(tab: Any, site: Any, tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "large.png")
    (tmp_path / "b<b>ad.jpg").write_text("not a picture")
    tab.click("#one-start")
    tab.wait_for_selector(f"{TOAST} >> text=Choose an image first")
    tab.click("button.gallery-item >> nth=0")
    tab.wait_for_selector("#one-report >> text=pixels, JPEG")
    tab.click("#one-file button[aria-label=Clear]")
    send(tab, tmp_path / "large.png")
    tab.wait_for_selector("#one-report >> text=200 × 200 pixels, PNG")
    tab.click("#one-start")
    text = tab.wait_for_selector(f"{TOAST} >> text=the result would have 800x800 pixels").inner_text()
    assert "choose scale up to 2" in text
    tab.click("#one-file button[aria-label=Clear]")
    send(tab, tmp_path / "b<b>ad.jpg")
    text = tab.wait_for_selector(f"{TOAST} >> text=ad.jpg is not an image that can be read").inner_text()
    assert "Traceback" not in text and str(site.store.folder) not in text
    assert tab.locator("#one-before img").count() == 0  # the previous image is not shown under its name


def test_a_batch_comes_as_a_zip_and_a_bad_file_does_not_stop_it(tab: Any, tmp_path: Path, photograph: Path) -> None:
    (tmp_path / "bad.png").write_text("not a picture")
    Image.new("RGB", (32, 24), "teal").save(tmp_path / "other.png")
    tab.click("button[role=tab] >> text=Batch")
    send(tab, photograph, tmp_path / "bad.png", tmp_path / "other.png", place="batch-files")
    tab.click("#batch-start")
    name, data = downloaded(tab, "batch-load")
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        sizes = {one: Image.open(file.open(one)).size for one in file.namelist()}
    assert name == "fluxsr.zip" and sizes == {"photo_x4.jpg": (192, 128), "other_x4.png": (128, 96)}
    text = tab.inner_text("#batch-report")
    assert "2 done, 1 failed" in text and "is not an image" in text


@pytest.mark.slow
def test_a_stopped_batch_keeps_what_is_done(tab: Any, site: Any, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)  # a tile each
    tab.click("button[role=tab] >> text=Batch")
    send(tab, tmp_path / "a.png", tmp_path / "b.png", place="batch-files")
    site.gate.hold(after=1)
    tab.click("#batch-start")
    assert site.gate.held.wait(60)
    tab.click("#batch-stop")
    assert site.running("batch").cancel_requested.wait(60)
    site.gate.open.set()
    _, data = downloaded(tab, "batch-load")
    assert zipfile.ZipFile(io.BytesIO(data)).namelist() == ["a_x4.png"]
    assert "1 done, 1 left" in tab.inner_text("#batch-report")


@pytest.mark.slow
def test_two_visitors_are_served_one_after_the_other(visit: Any, site: Any, photograph: Path) -> None:
    site.gate.at_once = 0
    site.gate.hold(after=0)
    first, second = visit(), visit()
    for visitor in (first, second):
        send(visitor, photograph)
        visitor.wait_for_selector("#one-report >> text=48 × 32")
        visitor.click("#one-start")
    assert site.gate.held.wait(60)
    second.wait_for_selector("#one-report >> text=queue")
    site.gate.open.set()
    for visitor in (first, second):
        visitor.wait_for_selector("#one-load", state="visible")
    assert site.gate.at_once == 1


@pytest.mark.slow
def test_results_are_deleted_when_the_tab_is_closed(visit: Any, site: Any, photograph: Path, until: Any) -> None:
    known = set(site.store._jobs)
    tab = visit()
    send(tab, photograph)
    tab.click("#one-start")
    tab.wait_for_selector("#one-load", state="visible")
    (id,) = (id for id, job in site.store._jobs.items() if id not in known and any(job.folder.iterdir()))
    folder = site.store._jobs[id].folder
    tab.close()
    until(lambda: not folder.exists())
    assert id not in site.store._jobs


@pytest.mark.slow
def test_a_phone_scrolls_one_way_only(visit: Any, photograph: Path) -> None:
    tab = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    send(tab, photograph)
    tab.tap("#one-start")
    box = tab.wait_for_selector("#one-slider img >> nth=0", state="visible").bounding_box()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert tab.wait_for_selector("#one-start").bounding_box()["height"] >= 40  # a thumb's

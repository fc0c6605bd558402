"""The page holds everything, and loads nothing."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from fluxsr.evaluation.comparison import diagnose
from fluxsr.evaluation.page import line_chart, page
from fluxsr.evaluation.tables import Table


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.fixture
def folders(tmp_path):
    draw = np.random.default_rng(0)
    hr = draw.integers(0, 256, (128, 136, 3), dtype=np.uint8)
    for name, shift in (("old", 1), ("new", 2), ("HR", 0)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.roll(hr, shift, 1)).save(tmp_path / name / "a.png")
    Image.fromarray(hr).resize((34, 32)).save(tmp_path / "low.png")
    return {name: tmp_path / name for name in ("old", "new", "HR")}


TABLE = Table(["name", "psnr ↑"], [["<old>", "29.50"]], ["a note & more"])


def test_the_page_is_complete_and_self_contained(folders, tmp_path):
    text = page(
        "old & new",
        [TABLE],
        diagnose(folders, ["a"], side=64),
        folders,
        truth="HR",
        lr={"a": tmp_path / "low.png"},
        similarity={"double": [0.5, 0.7]},
    )
    elements = Elements()
    elements.feed(text)
    images = [attributes for tag, attributes in elements.found if tag == "img"]
    assert len(images) == 3 + 4 + 2, "3 under the slider, LR and 3 crops, 2 differences"
    for image in images:
        data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", image["src"])
        assert data and image["alt"]
        Image.open(io.BytesIO(base64.b64decode(data[2]))).verify()
    low = next(image for image in images if image["alt"] == "LR")
    assert Image.open(io.BytesIO(base64.b64decode(low["src"].split(",")[1]))).size == (16, 16)
    assert len([1 for tag, _ in elements.found if tag == "svg"]) == 3
    assert not [attributes for tag, attributes in elements.found if tag in ("link", "iframe") or "href" in attributes]
    assert "http" not in re.sub(r"data:image/[^\"]+", "", text)
    assert "&lt;old&gt;" in text and "a note &amp; more" in text and "<old>" not in text


def test_without_ground_truth_there_are_no_differences(folders):
    two = {name: folders[name] for name in ("old", "new")}
    text = page("t", [TABLE], diagnose(two, ["a"], side=64), two)
    assert text.count("<img") == 2 + 2 and text.count("<svg") == 2
    assert not re.search(r'alt="[^"]*x4"', text)


def test_every_series_is_a_line_within_the_frame():
    root = ElementTree.fromstring(line_chart({"a<b": [(0, -3.2), (1, 4), (2, 7.7)], "c": [(0, 0), (2, 1)]}, "x", "y"))
    lines = root.findall("polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 2]
    for line in lines:
        for point in line.attrib["points"].split():
            across, down = map(float, point.split(","))
            assert 52 <= across <= 548 and 48 <= down <= 256
    texts = [text.text for text in root.findall("text")]
    assert {"a<b", "c", "x", "y", "-5", "10"} <= set(texts)
    for value in (0.0, 5.0, -1e-6):  # a flat line has an axis too
        root = ElementTree.fromstring(line_chart({"a": [(0, value), (1, value + 1)]}, "x", "y", marks=True))
        low, high = (float(circle.attrib["cy"]) for circle in root.findall("circle"))
        assert high < low
        assert not re.search("nan|inf", line_chart({"a": [(0, value), (1, value)]}, "x", "y"))

"""Charts as SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from fluxsr.evaluation.charts import line_chart


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


def test_larger_values_stand_higher_and_marks_are_points():
    root = ElementTree.fromstring(line_chart({"a": [(0, 1), (1, 2)]}, "x", "y", marks=True))
    low, high = (float(circle.attrib["cy"]) for circle in root.findall("circle"))
    assert high < low


@pytest.mark.parametrize("value", [0.0, 5.0, -1e-6])
def test_a_flat_line_has_an_axis(value):
    text = line_chart({"a": [(0, value), (1, value)]}, "x", "y")
    assert not re.search("nan|inf", text) and ElementTree.fromstring(text).find("polyline") is not None

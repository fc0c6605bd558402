"""Tables of reports in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest

from fluxsr.evaluation import Report, markdown, table_of, to_json
from fluxsr.evaluation.tables import latex, to_csv, turned


@pytest.fixture
def reports() -> list[Report]:
    image = {"psnr": 30.5, "ssim": 0.72949}
    return [
        Report("a_b|c", 4, {**image, "peak16": 0.126}, {"x": image, "y": image}),
        Report("HR", 4, {"piqe": 9.0}, {"x": {"piqe": 9.0}}),
    ]


def test_markdown_has_a_row_a_report_and_the_protocols(reports):
    head, rule, first, second, _, *notes = markdown(table_of(reports)).splitlines()
    assert head == "| name | n | psnr ↑ | ssim ↑ | piqe ↓ | peak16 →0 |"
    assert head.count("|") == rule.count("|") == second.count("|")
    assert first == "| a_b\\|c | 2 | 30.50 | 0.7295 | - | 0.13 |"
    assert second == "| HR | 1 | - | - | 9.00 | - |"
    assert len(notes) == 4 and "border of 4 px cropped" in notes[0]


def test_turned_twice_is_the_same(reports):
    table = table_of(reports)
    assert turned(table).head == ["name", "a_b|c", "HR"] and turned(table).rows[1] == ["psnr ↑", "30.50", "-"]
    assert turned(turned(table)) == table


def test_latex_escapes_and_keeps_arrows(reports):
    text = latex(table_of(reports))
    assert r"a\_b|c & 2 & 30.50 & 0.7295 & - & 0.13 \\" in text
    assert r"psnr $\uparrow$" in text and r"peak16 $\to 0$" in text
    assert r"\begin{tabular}{lrrrrr}" in text and text.count(r"\\" + "\n") == 3


def test_csv_is_read_back(reports):
    head, first, second = csv.reader(io.StringIO(to_csv(table_of(reports))))
    assert head[0] == "name" and first[:3] == ["a_b|c", "2", "30.50"] and second[4] == "9.00"


def test_json_holds_every_image_and_protocol(reports):
    found = json.loads(to_json(reports, protocol="drealsr"))
    assert found["protocol"] == "drealsr"
    first = found["reports"][0]
    assert first["per_image"]["x"]["psnr"] == 30.5 and first["crop"] == 4
    assert "luma" in first["protocols"]["psnr"]

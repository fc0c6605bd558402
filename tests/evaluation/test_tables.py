"""Tables of reports in every format."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from fluxsr.errors import InputError
from fluxsr.evaluation import Report, markdown, table_of, to_json
from fluxsr.evaluation.tables import interval, intervals, latex, paired, paired_table, to_csv, turned, with_intervals


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


def report(name: str, crop: int = 4, **columns: list[float]) -> Report:
    count = len(next(iter(columns.values())))
    per_image = {f"i{k}": {key: values[k] for key, values in columns.items()} for k in range(count)}
    return Report(name, crop, {key: float(np.mean(values)) for key, values in columns.items()}, per_image)


def test_the_interval_is_that_of_the_normal_law():
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_the_seed_is_all_its_chance():
    values = np.random.default_rng(0).normal(0, 1, 40).tolist()
    assert interval(values) == interval(values) != interval(values, seed=1)
    assert interval([3.0, 3, 3]) == (3, 3)


def test_a_constant_gain_is_certain_however_much_images_differ():
    hard = list(np.random.default_rng(3).normal(25, 5, 30))
    first, second = report("a", psnr=[v + 0.1 for v in hard]), report("b", psnr=hard)
    assert intervals(first)["psnr"][0] < second.mean["psnr"], "the single intervals overlap"
    (one,) = paired(first, second)
    assert one.decided and one.difference == pytest.approx(0.1) and one.win_rate == 1
    assert (one.low, one.high) == pytest.approx((0.1, 0.1))


def test_wins_follow_the_direction_and_ties_count_half():
    first = report("a", psnr=[2.0, 2, 2, 1], gmsd=[0.1, 0.1, 0.3, 0.2], hf_db=[-1.0, 3, 0, 1])
    second = report("b", psnr=[1.0, 3, 2, 2], gmsd=[0.2, 0.2, 0.2, 0.3], hf_db=[2.0, -2, 1, -1])
    rates = {one.column: one.win_rate for one in paired(first, second)}
    assert rates == {"psnr": 1.5 / 4, "gmsd": 3 / 4, "hf_db": 2.5 / 4}


def test_only_the_same_images_and_crop_are_compared():
    with pytest.raises(InputError, match="not scored on the same images"):
        paired(report("a", psnr=[1.0]), report("b", psnr=[1.0, 2]))
    with pytest.raises(InputError, match="crop 4, b with 0"):
        paired(report("a", psnr=[1.0]), report("b", crop=0, psnr=[1.0]))


def test_tables_show_bounds_and_comparison():
    first, second = report("a", psnr=[30.0, 31]), report("b", psnr=[29.0, 30])
    table = with_intervals(table_of([first, second]), [first, second])
    assert table.rows[0][2] == "30.50 [30.00, 31.00]"
    assert "95% interval" in table.notes[0] and "seed 0" in table.notes[0]
    (row,) = paired_table(first, second).rows
    assert row == ["psnr ↑", "30.50", "29.50", "+1.00", "+1.00", "+1.00", "100%", "leaves out 0"]

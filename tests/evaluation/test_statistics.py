"""Intervals and comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from fluxsr.errors import InputError
from fluxsr.evaluation import Report, table_of
from fluxsr.evaluation.statistics import interval, intervals, paired, paired_table, with_intervals


def report(name: str, crop: int = 4, **columns: list[float]) -> Report:
    count = len(next(iter(columns.values())))
    per_image = {f"i{k}": {key: values[k] for key, values in columns.items()} for k in range(count)}
    return Report(name, crop, {key: float(np.mean(values)) for key, values in columns.items()}, per_image)


def test_the_interval_is_that_of_the_normal_law():
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = interval(draw.exponential(1, 60), samples=300)
        hits += low <= 1 <= high
    assert 0.88 <= hits / 200 <= 0.98


def test_the_seed_is_all_its_chance():
    values = np.random.default_rng(0).normal(0, 1, 40).tolist()
    assert interval(values) == interval(values) != interval(values, seed=1)
    assert interval([3.0, 3, 3]) == (3, 3)


@pytest.mark.parametrize(("values", "level"), [([], 0.95), ([1.0], 1.0)])
def test_what_cannot_be_resampled_is_refused(values, level):
    with pytest.raises(InputError, match="cannot bootstrap"):
        interval(values, level=level)


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

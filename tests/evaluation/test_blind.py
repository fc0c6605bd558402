"""Blind comparisons: hidden sides, people's choices, and what follows from them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.evaluation.blind import preference, wilson, write_pairs


@pytest.fixture
def methods(tmp_path: Path) -> dict[str, Path]:
    """Two methods of ten images: one has even values, the other odd ones."""
    draw = np.random.default_rng(0)
    for number in range(10):
        even = draw.integers(0, 100, (80, 96, 3)) * 2
        for name, pixels in (("even", even), ("odd", even + 1)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"image{number}.png")
    return {name: tmp_path / name for name in ("even", "odd")}


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_those_of_newcombe_1998(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_a_pair_is_two_crops_at_300_percent_whose_sides_are_in_the_key(methods, tmp_path):
    write_pairs(methods, tmp_path / "blind", seed=3, count=6, side=40)
    key = json.loads((tmp_path / "blind" / "key.json").read_text())
    assert key["seed"] == 3 and len({pair["stem"] for pair in key["pairs"].values()}) == 6
    assert [pair["first"] for pair in key["pairs"].values()].count("left") == 3
    for number, pair in key["pairs"].items():
        panel = np.asarray(Image.open(tmp_path / "blind" / f"{number}.png"))
        assert panel.shape == (3 * 40, 3 * (40 + 8 + 40), 3)
        native = panel[1::3, 1::3]
        assert (np.repeat(np.repeat(native, 3, 0), 3, 1) == panel).all()
        whole = np.asarray(Image.open(methods["even"] / f"{pair['stem']}.png"))
        crop = whole[pair["top"] : pair["top"] + 40, pair["left"] : pair["left"] + 40]
        assert (crop == (native[:, :40] if pair["first"] == "left" else native[:, 48:])).all()
    again = write_pairs(methods, tmp_path / "again", seed=3, count=6, side=40).parent
    assert (again / "key.json").read_bytes() == (tmp_path / "blind" / "key.json").read_bytes()


def judge(folder: Path, name: str, decide) -> Path:
    """Write the choices of a judge who decides by the pair's entry in the key."""
    pairs = json.loads((folder / "key.json").read_text())["pairs"]
    path = folder.parent / f"{name}.json"
    path.write_text(json.dumps({number: decide(number, pair) for number, pair in pairs.items()}))
    return path


def test_a_simulated_judge_is_understood(methods, tmp_path):
    folder = write_pairs(methods, tmp_path / "blind").parent
    fan = judge(folder, "fan", lambda number, pair: pair["first"])
    critic = judge(folder, "critic", lambda number, pair: {"left": "right", "right": "left"}[pair["first"]])
    lefty = judge(folder, "lefty", lambda number, pair: "left")
    unsure = judge(folder, "unsure", lambda number, pair: "tie")
    found = preference(folder, fan)
    assert (found.pairs, found.wins, found.ties, found.losses, found.share, found.high) == (10, 10, 0, 0, 1, 1)
    assert found.low == pytest.approx(wilson(10, 10)[0])
    assert "even is preferred to odd in 100% of 10 pairs, 95 % interval 72% to 100%" in found.line()
    assert preference(folder, critic).share == 0
    assert preference(folder, lefty).share == preference(folder, unsure).share == 0.5, "a side wins nothing"
    both = preference(folder, fan, unsure)
    assert (both.pairs, both.wins, both.ties, both.share) == (10, 10, 10, 0.75), "two judges of one pair are one trial"


def test_the_interval_holds_the_truth_95_times_in_100():
    draw = np.random.default_rng(0)
    choices = draw.choice([1, 0.5, 0], p=[0.6, 0.1, 0.3], size=(2000, 40))
    bounds = [wilson(row.sum(), 40) for row in choices]
    assert np.mean([low <= 0.65 <= high for low, high in bounds]) >= 0.94


def test_what_cannot_be_judged_is_said(methods, tmp_path):
    folder = write_pairs(methods, tmp_path / "blind", count=2, side=40).parent
    for content, message in (
        ('{"009": "left"}', "pair '009' has the choice 'left'"),
        ('{"001": "up"}', "expected left, right or tie"),
        ("[]", "does not hold choices"),
        ("{}", "there are no choices"),
        ("{", "cannot read"),
    ):
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(InputError, match=message):
            preference(folder, tmp_path / "c.json")
    with pytest.raises(InputError, match="is in use"):
        write_pairs(methods, folder)
    Image.new("RGB", (90, 90)).save(methods["odd"] / "image0.png")
    with pytest.raises(InputError, match="image0: the two methods' images differ in size"):
        write_pairs(methods, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="needs two methods; there are 1"):
        write_pairs({"even": methods["even"]}, tmp_path / "new")


def test_the_page_agrees_with_python(methods, tmp_path, chromium):
    page_file = write_pairs(methods, tmp_path / "blind", side=64)
    page = chromium.new_page(viewport={"width": 300, "height": 600})
    page.goto(page_file.as_uri())
    positions = (
        "[...document.querySelectorAll('.pane')].map(p => p.style.backgroundPosition.split('px ').map(parseFloat))"
    )
    before = page.evaluate(positions)
    box = page.locator(".pane").first.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 50, box["y"] + 57)
    page.mouse.up()
    after = page.evaluate(positions)
    assert [new[0] - old[0] for new, old in zip(after, before, strict=True)] == [-10, -10], "both sides move"
    assert after[0][0] - after[1][0] == 3 * (64 + 8)
    page.keyboard.press("z")
    assert "1 of 10, 100 %" in page.inner_text("#progress")
    for key in ("ArrowLeft", "ArrowRight", "Backspace", "ArrowDown", *["ArrowLeft"] * 7):
        page.keyboard.press(key)
    with page.expect_download() as download:
        page.click("button[value=right]")
        shown = page.inner_text("#result")
        page.click("#save")
    download.value.save_as(tmp_path / "choices.json")
    page.close()
    saved = json.loads((tmp_path / "choices.json").read_text())
    assert list(saved["choices"].values()) == ["left", "tie", *["left"] * 7, "right"]
    found = preference(tmp_path / "blind", tmp_path / "choices.json")
    assert saved["result"] == pytest.approx(asdict(found), abs=1e-4)
    assert shown.replace(" %", "%") == found.line().replace(" %", "%")

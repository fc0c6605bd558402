"""The built-in prompts: many, distinct, seeded, sharp and without contradictions."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from fluxsr.errors import InputError
from fluxsr.pairs.composer import CAMERA, KINDS, LIGHT, LOOK, capacity, compose

PROMPTS = compose(10_000, 0)
# What a target for super-resolution must not ask for.
SOFT = (
    "shallow|bokeh|blur|defocus|soft focus|mist|fog|haze|smoke|grain|film|night|moon|dusk|candle|neon|dark|"
    "long exposure|motion"
)
SHARP = re.compile("deep focus|everything in focus|front to back|to the corners|tack sharp")


def test_ten_thousand_are_distinct_and_reach_every_part() -> None:
    assert len(set(PROMPTS)) == 10_000
    parts = [part for subjects, places in KINDS.values() for part in (*subjects, *(place for place, _ in places))]
    text = "\n".join(PROMPTS)
    assert all(part in text for part in (*parts, *LIGHT["indoors"], *LIGHT["outdoors"], *CAMERA, *LOOK))


def test_every_prompt_asks_for_a_sharp_photograph() -> None:
    assert [prompt for prompt in PROMPTS if re.search(SOFT, prompt)] == []
    assert all(SHARP.search(prompt) for prompt in PROMPTS)


def test_the_kinds_are_equally_frequent() -> None:
    """Each of the eleven kinds has 9 %; prompts that show letters are more."""
    subjects = {subject: kind for kind, (found, _) in KINDS.items() for subject in found}
    counted = Counter(next(kind for subject, kind in subjects.items() if f"of {subject} " in p) for p in PROMPTS)
    assert {"people", "text", "plants", "buildings", "food", "fabric", "animals", "interiors"} < counted.keys()
    assert all(0.08 < count / len(PROMPTS) < 0.1 for count in counted.values()), counted
    letters = re.compile("sign|poster|letter|print|plaque|menu|label|inscription|timetable|typewrit|kiosk|advert|book")
    assert sum(bool(letters.search(prompt)) for prompt in PROMPTS) > 0.1 * len(PROMPTS)


def test_no_prompt_contradicts_itself() -> None:
    """Each prompt has the light of its place, and no place names a light, a lens or a look itself."""
    rooms = {place for _, places in KINDS.values() for place, where in places if where == "indoors"}
    yards = {place for _, places in KINDS.values() for place, where in places if where == "outdoors"}
    assert not rooms & yards
    for prompt in PROMPTS:
        inside = any(light in prompt for light in LIGHT["indoors"])
        outside = any(light in prompt for light in LIGHT["outdoors"])
        assert inside != outside, prompt
        assert any(f" {place}, " in prompt for place in (rooms if inside else yards)), prompt
    assert not any(re.search("sun|overcast|rain|shade", light) for light in LIGHT["indoors"])
    assert not any(re.search("window|studio|ceiling|skylight", light) for light in LIGHT["outdoors"])
    assert not any(re.search("sun|light|lens|colour", place) for place in rooms | yards)


def test_a_longer_list_begins_with_the_shorter() -> None:
    assert compose(50, 3)[:20] == compose(20, 3)
    assert compose(20, 3) != compose(20, 4)


def test_more_than_there_are() -> None:
    with pytest.raises(InputError, match="use prompts=FILE"):
        compose(capacity(), 0)

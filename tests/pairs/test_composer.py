"""The built-in prompts: many, distinct, seeded."""

from __future__ import annotations

import pytest

from fluxsr.errors import InputError
from fluxsr.pairs.composer import CAMERA, KINDS, LIGHT, LOOK, capacity, compose


def test_ten_thousand_are_distinct_and_reach_every_part() -> None:
    prompts = compose(10_000, 0)
    assert len(set(prompts)) == 10_000
    parts = [part for subjects, places in KINDS.values() for part in (*subjects, *places)]
    text = "\n".join(prompts)
    assert all(part in text for part in (*parts, *LIGHT, *CAMERA, *LOOK))


def test_a_longer_list_begins_with_the_shorter() -> None:
    assert compose(50, 3)[:20] == compose(20, 3)
    assert compose(20, 3) != compose(20, 4)


def test_more_than_there_are() -> None:
    with pytest.raises(InputError, match="use prompts=FILE"):
        compose(capacity(), 0)

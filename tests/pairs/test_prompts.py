"""Prompts from files of several forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fluxsr.errors import InputError
from fluxsr.pairs.composer import compose
from fluxsr.pairs.prompts import read_captions, read_prompts


def test_a_line_is_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("# mine\na fox\n\n  an owl \n", encoding="utf-8")
    assert read_prompts(str(path), 0, 0) == ["a fox", "an owl"]


@pytest.mark.parametrize(
    "content",
    [["a fox", "an owl"], [{"prompt": "a fox"}, {"prompt": "an owl", "id": 2}], {"prompts": ["a fox", "an owl"]},
     {"one": "a fox", "two": "an owl"}],
)  # fmt: skip
def test_json_of_any_usual_form(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_prompts(str(path), 0, 0) == ["a fox", "an owl"]
    assert read_captions(str(path)) == (content if isinstance(content, dict) and "one" in content else {})


def test_the_composer_needs_a_count() -> None:
    assert read_prompts("composer", 4, 1) == compose(4, 1)
    with pytest.raises(InputError, match="count is 0; the composer needs"):
        read_prompts("composer", 0, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.txt", None, "cannot read prompts .*absent.txt"),
        ("empty.txt", "\n# only this\n", "no prompts in .*empty.txt"),
        ("broken.json", "[1,", "cannot read prompts .*broken.json"),
        ("number.json", "[1]", "has '1' for a prompt"),
        ("text.json", '"a fox"', "holds a str; expected a list"),
    ],
)
def test_what_is_wrong_is_a_line(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_prompts(str(tmp_path / name), 0, 0)

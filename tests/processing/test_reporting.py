"""What is told of a file is one line, whatever the file is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxsr.errors import InputError
from fluxsr.names import printable
from fluxsr.processing.reporting import reason_of


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("a.png is empty"), "a.png is empty"),
        (InputError("is wrong"), "a.png: is wrong"),
        (MemoryError(), "out of memory; buy more"),
        (KeyError("x\ny"), "unexpected KeyError"),
    ],
)
def test_reasons_are_one_line_with_the_name(error: Exception, words: str) -> None:
    line = reason_of(error, Path("a.png"), "buy more")
    assert words in line and line.startswith("a.png") and "\n" not in line


def test_names_that_would_break_a_line_or_colour_a_terminal_are_escaped() -> None:
    name = "two\nlines\x1b[31m\u202eé.png"
    line = reason_of(InputError(f"{name} is empty"), Path(name), "")
    assert line == "two\\nlines\\x1b[31m\\u202eé.png is empty" == f"{printable(name)} is empty"

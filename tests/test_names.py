"""Foreign text can be printed on one line, and stored wherever UTF-8 is asked for."""

from __future__ import annotations

import os

import pytest

from fluxsr.names import printable, raw, storable

NAMES = ["caf\udce9.png", "two\nlines.png", "\x1b[31mred\x07.png", "right\u202eleft", "J\u00f6rg \u732b.png"]


@pytest.mark.parametrize("name", NAMES)
def test_printable_text_stays_on_its_line_and_can_be_encoded(name: str) -> None:
    line = printable(name)
    assert line.isprintable() and line.encode()
    assert printable(line) == line


@pytest.mark.parametrize("name", NAMES)
def test_storable_text_changes_only_what_utf_8_cannot_hold(name: str) -> None:
    assert storable(name).encode()
    assert (storable(name) == name) == ("\udce9" not in name)


def test_raw_gives_the_bytes_of_the_file_system() -> None:
    assert raw("caf\udce9") == b"caf\xe9" and raw("caf\u00e9") == "caf\u00e9".encode()
    assert os.fsdecode(raw("caf\udce9")) == "caf\udce9"

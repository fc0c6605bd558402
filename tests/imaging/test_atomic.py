"""Texts are written in one piece, whatever is in them."""

from __future__ import annotations

from pathlib import Path

from fluxsr.imaging.atomic import write_text


def test_a_text_with_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    write_text("caf\udce9 caf\u00e9\n", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\\udce9 caf\xc3\xa9\n"

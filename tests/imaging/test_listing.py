"""Nothing hidden is walked, and what was not looked at is counted and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluxsr.imaging.listing import PassedOver, hidden_part, images_below, is_hidden


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def names(folder: Path, passed: PassedOver | None = None) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in images_below(folder, (".png",), passed)]


HIDDEN = [".trash", ".git", ".thumbnails", "@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found"]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_hidden_folders_and_those_of_servers_are_not_walked(tmp_path: Path, hidden: str) -> None:
    make(tmp_path, "a.png", f"deep/{hidden}/b.png", f"{hidden}/deep/c.png")
    passed = PassedOver()
    assert names(tmp_path, passed) == ["a.png"]
    assert passed.hidden == [str(tmp_path / hidden), str(tmp_path / "deep" / hidden)]
    assert hidden_part(f"deep/{hidden}/b.png") == f"deep/{hidden}"


def test_a_hidden_folder_that_is_named_is_walked(tmp_path: Path) -> None:
    make(tmp_path, ".trash/a.png")
    assert names(tmp_path / ".trash") == ["a.png"]


def test_what_is_not_looked_at_is_counted_and_named(tmp_path: Path) -> None:
    make(
        tmp_path, "a.png", "b.PNG", "c.dng", "d.DNG", "e.txt", "noending", "._a.png", ".fluxsr-runs.jsonl", "deep/f.png"
    )
    (tmp_path / "link").symlink_to(tmp_path / "deep")
    (tmp_path / "lost.png").symlink_to(tmp_path / "gone")
    passed = PassedOver()
    assert names(tmp_path, passed) == ["a.png", "b.PNG", "deep/f.png"]
    line = passed.line()
    for part in ("2 .dng", "1 .txt", "1 without an ending", f"1 linked folders ({tmp_path / 'link'})"):
        assert part in line
    assert f"1 hidden ({tmp_path / '._a.png'})" in line, "records of fluxsr itself are not told"
    assert f"1 neither file nor folder ({tmp_path / 'lost.png'})" in line


def test_many_are_counted_and_some_named() -> None:
    assert PassedOver(hidden=list("abcde")).line() == "not looked at: 5 hidden (a, b, c and 2 more)"
    assert PassedOver().line() == ""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    make(tmp_path, "closed/a.png")
    (tmp_path / "closed").chmod(0)
    passed = PassedOver()
    assert names(tmp_path, passed) == [] and passed.unreadable == [str(tmp_path / "closed")]
    (tmp_path / "closed").chmod(0o700)


def test_the_folder_that_is_left_out_is_not_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "out/a.png", "out/b.txt")
    passed = PassedOver()
    assert images_below(tmp_path, (".png",), passed, (tmp_path / "out").resolve()) == [tmp_path / "a.png"]
    assert passed.line() == ""


def test_the_folder_above_is_not_hidden() -> None:
    assert not is_hidden("..") and not hidden_part("../a/./b.png") and is_hidden(".a")

"""Files whole or not at all, on disks and in stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxsr.cluster.storage import STATE, Storage, opened, safe, stamp_of
from fluxsr.errors import InputError, OutputError


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, store: Storage) -> Storage:
    return Storage(str(tmp_path / "out")) if request.param == "disk" else store


def test_what_is_written_is_found_read_and_removed(place: Storage, tmp_path: Path) -> None:
    assert place.find() == {} and place.size("a/b.txt") is None
    place.check_writable()
    assert place.find() == {}
    place.write("a/b.txt", b"one")
    with place.scratch() as folder:
        (folder / "x").write_bytes(b"four")
        place.put(folder / "x", "a/c.txt")
    assert {name: info["size"] for name, info in place.find().items()} == {"a/b.txt": 3, "a/c.txt": 4}
    assert place.read(["a/b.txt", "a/c.txt", "none"]) == {"a/b.txt": b"one", "a/c.txt": b"four"}
    assert set(place.find("a")) == {"a/b.txt", "a/c.txt"}
    before = stamp_of(place.find()["a/b.txt"])
    place.write("a/b.txt", b"three")
    assert place.size("a/b.txt") == 5 and stamp_of(place.find()["a/b.txt"]) != before
    place.remove(["a/b.txt", "a/c.txt", "none"])
    assert place.find() == {}


@pytest.mark.parametrize("name", ["a.txt", "a [1]*.txt", "b?c/ä.txt"])
def test_urls_lead_back(place: Storage, name: str) -> None:
    place.write(name, b"one")
    fs, path = opened(place.url(name))
    assert fs.cat_file(path) == b"one" and place.read([name]) == {name: b"one"} and set(place.find()) == {name}
    place.remove([name])
    assert not place.find()
    assert "://" in place.url() or place.local


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    place = Storage(str(tmp_path))
    with place.scratch() as mine:
        dead = mine.with_name(mine.name.replace(mine.name.split(".")[-2], "99999999"))
        elsewhere = mine.with_name("other.1.abc")
        for folder in (dead, elsewhere):
            folder.mkdir()
        place.clear_scratch()
        assert mine.is_dir() and elsewhere.is_dir() and not dead.exists()


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png", "", f"{STATE}/a.png", "c:\\a.png", "a\\b.png"])
def test_names_that_lead_out_are_not_safe(name: str) -> None:
    assert not safe(name) and safe("a/b.png") and safe("..a/b")


def test_a_link_out_of_the_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(OutputError, match="link out of"):
        Storage(str(tmp_path / "out")).put(tmp_path / "x", "sub/x")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nonsense://x: Protocol not known"):
        Storage("nonsense://x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        Storage(str(tmp_path / "file")).check_writable()
    with pytest.raises(OutputError, match="cannot be written"), Storage(str(tmp_path / "file")).scratch():
        pass

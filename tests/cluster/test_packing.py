"""Results of a shard become a shard of the same keys."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from fluxsr.cluster.packing import pack
from fluxsr.cluster.storage import STATE, Storage
from fluxsr.errors import OutputError

MADE = {"a/1.jpg": "000/a/1.webp", "a/2.png": "000/a/2.png"}


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def staged(out: Storage, **results: bytes) -> None:
    for member, data in results.items():
        out.write(f"{STATE}/staged/000/a/{member.replace('_', '.')}", data)


@pytest.fixture
def out(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "out"))


def test_keys_and_what_is_no_image_stay(shard: Path, out: Storage) -> None:
    staged(out, **{"1_webp": b"first", "2_png": b"second"})
    pack(str(shard), out.url(), "000", MADE)
    found = members(Path(out.at("000.tar")))
    assert list(found) == ["a/1.webp", "a/1.json", "a/2.png", "a/2.mask.png", "a/2.txt"]
    assert found["a/1.webp"] == b"first" and found["a/2.png"] == b"second" and found["a/2.txt"] == b"two"
    assert found["a/2.mask.png"] == members(shard)["a/2.mask.png"]
    assert set(out.find()) == {"000.tar"}, "nothing stays staged"
    before = out.read(["000.tar"])
    staged(out, **{"1_webp": b"first", "2_png": b"second"})
    pack(str(shard), out.url(), "000", MADE)
    assert out.read(["000.tar"]) == before, "the same results give the same bytes"


def test_one_that_comes_later_joins_the_others(shard: Path, out: Storage) -> None:
    staged(out, **{"1_webp": b"first"})
    pack(str(shard), out.url(), "000", {"a/1.jpg": "000/a/1.webp"})
    assert "a/2.png" not in members(Path(out.at("000.tar"))), "it failed"
    staged(out, **{"2_png": b"second"})
    pack(str(shard), out.url(), "000", MADE)
    found = members(Path(out.at("000.tar")))
    assert found["a/1.webp"] == b"first" and found["a/2.png"] == b"second"


def test_a_result_that_is_gone(shard: Path, out: Storage) -> None:
    with pytest.raises(OutputError, match="is missing; run the same command with --overwrite"):
        pack(str(shard), out.url(), "000", MADE)
    assert "000.tar" not in out.find()

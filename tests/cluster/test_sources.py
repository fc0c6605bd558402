"""What a batch works on, and what it calls the outputs: as ``fluxsr upscale`` does."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from fluxsr.cluster.sources import listing, with_masks
from fluxsr.cluster.storage import Storage
from fluxsr.errors import InputError
from fluxsr.processing.inputs import plan


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def pairs(source: str | Path, out: str | Path, **options: Any) -> dict[str, str]:
    return {item.source: item.name for item in listing(str(source), Storage(str(out)), **options).items}


@pytest.mark.parametrize(("ending", "suffix"), [(None, ""), (".png", "_x4")])
def test_a_folder_gives_the_names_that_upscale_gives(tmp_path: Path, ending: str | None, suffix: str) -> None:
    source = touched(tmp_path / "in", "a.jpg", "a.png", "b/c.heic", "b/.hidden.png", "notes.txt", "d.GIF", "d.webp")
    out = tmp_path / "out"
    jobs = plan([str(source)], out, as_file=False, ending=ending, suffix=suffix).jobs
    assert pairs(source, out, ending=ending, suffix=suffix) == {
        str(job.source): job.target.relative_to(out).as_posix() for job in jobs
    }


def test_outputs_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    source = touched(tmp_path, "a.png", "out/a.png", "outer/b.png")
    assert set(pairs(source, tmp_path / "out").values()) == {"a.png", "outer/b.png"}
    with pytest.raises(InputError, match="is both input and output"):
        pairs(tmp_path, tmp_path)
    touched(tmp_path, "out/in/x.png", "out/in/in/x.png")
    with pytest.raises(InputError, match="would replace an input"):
        pairs(tmp_path / "out" / "in", tmp_path / "out")


@pytest.mark.parametrize("where", ["disk", "store"])
def test_hidden_files_are_skipped_and_reported(tmp_path: Path, store: Storage, where: str) -> None:
    source, out = (
        (str(tmp_path / "in"), str(tmp_path / "out")) if where == "disk" else ("memory://b/in", "memory://b/out")
    )
    place = Storage(source)
    for name in ("a.jpe", "b.dng", "c.DNG", ".trash/d.png", ".trash/e.png", "deep/@eaDir/f.jpg", "._a.jpg"):
        place.write(name, b"x")
    found = listing(source, Storage(out))
    assert [item.name for item in found.items] == ["a.jpe"]
    assert found.items[0].source == place.url("a.jpe") and found.items[0].stamp
    assert found.passed.endings == {".dng": 2}
    hidden = (".trash", "._a.jpg", "deep/@eaDir")
    assert sorted(found.passed.hidden) == sorted(place.url(name) for name in hidden)


def test_results_of_earlier_runs_are_no_inputs(tmp_path: Path) -> None:
    source = touched(tmp_path / "out" / "in", "a.png", "b.png")
    found = listing(str(source), Storage(str(tmp_path / "out")), suffix="_x", own=lambda name: name == "in/b.png")
    assert [item.name for item in found.items] == ["a_x.png"]
    assert "1 results of earlier runs are left out" in found.notes[0]


def test_hidden_members_of_a_shard_are_no_images(tmp_path: Path, image: Callable[..., bytes]) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("./a.png", "._a.png", "__MACOSX/._a.png", ".thumbnails/a.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(image())
            tar.addfile(entry, io.BytesIO(image()))
    found = listing(str(tmp_path / "0.tar"), Storage(str(tmp_path / "out")))
    assert [item.member for item in found.items] == ["./a.png"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_manifest(tmp_path: Path, kind: str) -> None:
    touched(tmp_path, "data/a.jpg", "data/b/a.jpg", "c.png")
    table = {
        "file": ["a.jpg", "b/a.jpg", str(tmp_path / "c.png"), "a.jpg", "s3://x/y.png"],
        "output": ["first.png", None, "deep/c", "first.png", ""],
    }
    source = tmp_path / "data" / f"m.{kind}"
    if kind == "csv":
        rows = zip(table["file"], table["output"], strict=True)
        source.write_text("file,output\n" + "".join(f"{path},{output or ''}\n" for path, output in rows))
    else:
        parquet.write_table(pa.table(table), source)
    assert pairs(source, tmp_path / "out", columns=("file", "")) == {
        str(tmp_path / "data" / "a.jpg"): "first.png",
        str(tmp_path / "data" / "b" / "a.jpg"): "a.jpg",
        str(tmp_path / "c.png"): "deep/c.png",
        "s3://x/y.png": "y.png",
    }


def test_names_are_texts_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"path,output,comment\ncaf\xe9.png,,\xff\n1e3,007,\n002,,\n")
    names = {"caf\udce9.png": "caf\udce9.png", "1e3": "007.png", "002": "002.png"}
    assert pairs(tmp_path / "m.csv", tmp_path / "out") == {str(tmp_path / path): name for path, name in names.items()}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file\na.png\n", "has no column 'path'; it has file .see --column"),
        ("path\n", "has no rows"),
        ("path,output\na.png,../x.png\n", "row 1: '../x.png' cannot be an output"),
        ("path,output\na.png,x.exe\n", "row 1: 'x.exe' cannot be an output"),
        ("path,output\na.png,x.png\nb.png,X.png\n", "two images have the output X.png"),
        ("path,output\na.png,x.png\na.png,y.png\n", "row 2: a.png occurs earlier with another output"),
        ("path,output\n,x.png\n", "row 1 has no path"),
        ("path,output\na.png\n", "cannot be read"),
    ],
)
def test_a_manifest_that_cannot_be(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=reason):
        pairs(tmp_path / "m.csv", tmp_path / "out")


def test_shards_have_images_where_their_bytes_are(shard: Path, tmp_path: Path, image: Callable[..., bytes]) -> None:
    found = listing(f"{shard.parent}/*.tar", Storage(str(tmp_path / "out")))
    assert [(item.name, item.label) for item in found.items] == [
        ("000/a/1.jpg", f"{shard}::a/1.jpg"),
        ("000/a/2.png", f"{shard}::a/2.png"),
    ]
    one = found.items[1]
    assert shard.read_bytes()[one.start : one.start + one.size] == image("PNG", 2)
    assert found.shards == {"000": str(shard)}
    assert listing(str(shard), Storage(str(tmp_path)), ending=".webp").items[0].name == "000/a/1.webp"
    with pytest.raises(InputError, match="would replace"):
        pairs(shard, shard.parent)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none/*.tar", "nothing matches"),
        ("x.tar", "does not exist"),
        ("x.tar.gz", "is compressed"),
        ("broken.tar", "is damaged"),
        ("none", "none does not exist"),
        ("a.png", "is a file; name a folder"),
        ("*.png", "patterns are for shards"),
        ("none.csv", "does not exist"),
        (".", "no image in this folder .*; it holds 1 shards, which './\\*.tar' names"),
    ],
)
def test_a_source_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str) -> None:
    monkeypatch.chdir(touched(tmp_path / "here", "a.png" if name == "a.png" else "a.txt", "broken.tar"))
    with pytest.raises(InputError, match=reason):
        pairs(name, tmp_path / "out")


def test_masks_are_found_by_name_in_a_local_folder(tmp_path: Path, shard: Path) -> None:
    source = touched(tmp_path / "in", "a.jpg", "b/c.png", "d.png", "masks/a.png", "masks/b/c.tif", "masks/e.png")
    out, masks = Storage(str(tmp_path / "out")), source / "masks"
    found = with_masks(listing(str(source), out), str(source), masks)
    assert {item.name: item.mask for item in found.items} == {
        "a.jpg": str(masks / "a.png"),
        "b/c.png": str(masks / "b" / "c.tif"),
        "d.png": "",
    }
    assert found.notes == [f"1 of 3 inputs have no mask in {masks}: full strength"]
    before = {item.name: item.stamp for item in found.items}
    (masks / "a.png").write_bytes(b"changed")
    again = with_masks(listing(str(source), out), str(source), masks).items
    assert [item.name for item in again if item.stamp != before[item.name]] == ["a.jpg"]
    with pytest.raises(InputError, match="is no folder of this machine, which --mask needs"):
        with_masks(listing(str(shard), out), str(shard), masks)

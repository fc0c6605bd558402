"""The road of one image: the same bytes as ``fluxsr upscale``, and a row whatever happens."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxsr.cluster.items import Item
from fluxsr.cluster.report import COLUMNS, DONE, FAILED, Report, journal_name
from fluxsr.cluster.sources import listing
from fluxsr.cluster.storage import STATE, Full, Storage
from fluxsr.errors import OutputError
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing import inputs, upscale_file

Make = Callable[..., Any]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_outputs_are_those_of_upscale_byte_for_byte(
    worker: Make, store: Storage, tmp_path: Path, image: Make, kind: str
) -> None:
    name = f"a [1]::*.{kind.lower()}"  # what patterns and chains of stores are made of
    there = name.replace("::", "")  # in a URL fsspec takes it for a chain
    (tmp_path / name).write_bytes(image(kind))
    store.write(f"in/{there}", image(kind))
    worker(str(tmp_path / "out")).upscale(Item(name, str(tmp_path / name)), "made")
    worker("memory://bucket/out").upscale(Item(there, "memory://bucket/in/" + there), "made")
    upscale_file.run(
        inputs.plan([str(tmp_path / name)], tmp_path / "up", as_file=False), ModelOptions(), UpscaleOptions()
    )
    expected = (tmp_path / "up" / name).read_bytes()
    assert (tmp_path / "out" / name).read_bytes() == expected
    assert store.read([f"out/{there}"])[f"out/{there}"] == expected
    assert (tmp_path / "out" / name).stat().st_mtime_ns == (tmp_path / name).stat().st_mtime_ns
    assert not list((tmp_path / "out" / STATE / "work").iterdir())


def test_a_mask_counts_as_in_upscale(worker: Make, tmp_path: Path, image: Make) -> None:
    (tmp_path / "a.png").write_bytes(image())
    Image.new("L", (32, 32)).save(tmp_path / "mask.png")  # black
    worker(str(tmp_path / "out")).upscale(
        Item("a.png", str(tmp_path / "a.png"), mask=str(tmp_path / "mask.png")), "made"
    )
    plan = inputs.plan([str(tmp_path / "a.png")], tmp_path / "up", as_file=False, mask=tmp_path / "mask.png")
    upscale_file.run(plan, ModelOptions(), UpscaleOptions())
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "up" / "a.png").read_bytes()


def test_the_row_tells_of_the_image(worker: Make, store: Storage, image: Make) -> None:
    store.write("a.png", image(side=33))
    row = worker("memory://bucket/out", scale=2).upscale(Item("a.png", "memory://bucket/a.png"), "made")
    assert set(row) == set(COLUMNS) and row["status"] == DONE and row["error"] is None
    assert (row["width_in"], row["height_in"], row["width_out"], row["height_out"]) == (33, 33, 66, 66)
    assert row["bytes_in"] == len(image(side=33)) and row["bytes_out"] == store.size("out/a.png")
    assert all(row[f"{what}_seconds"] >= 0 for what in ("read", "model", "write", "measure"))
    assert json.loads(store.read([f"out/{journal_name('a.png')}"]).popitem()[1]) == row


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"nonsense", "is not an image"), (b"", "is empty"), (None, "does not exist"), ("bomb", "is too large: 32x32")],
)
@pytest.mark.parametrize("where", ["memory://bucket/in/a.png", "disk"])
def test_a_bad_image_is_a_row_that_names_it(
    worker: Make, store: Storage, tmp_path: Path, image: Make, where: str, data: bytes | str | None, reason: str
) -> None:
    data = image() if data == "bomb" else data
    source = str(tmp_path / "a.png") if where == "disk" else where
    if data is not None:
        (tmp_path / "a.png").write_bytes(data) if where == "disk" else store.write("in/a.png", data)
    row = worker("memory://bucket/out", max_pixels=1000).upscale(Item("a.png", source), "made")
    assert row["status"] == FAILED and row["error"].startswith(f"{source} {reason}")
    assert store.size("out/a.png") is None and store.size(f"out/{journal_name('a.png')}")


def test_a_member_of_a_shard(worker: Make, shard: Path, tmp_path: Path) -> None:
    out = Storage(str(tmp_path / "out"))
    item = listing(str(shard), out).items[0]
    row = worker(out.url()).upscale(item, "made")
    assert row["status"] == DONE and row["input"] == f"{shard}::a/1.jpg"
    assert set(out.find(f"{STATE}/staged")) == {f"{STATE}/staged/000/a/1.jpg"}


def test_work_whose_worker_was_lost_before_it_told_is_not_done_again(worker: Make, tmp_path: Path, image: Make) -> None:
    (tmp_path / "a.png").write_bytes(image())
    item, out = Item("a.png", str(tmp_path / "a.png")), tmp_path / "out"
    row = worker(str(out)).upscale(item, "made")
    inode = (out / "a.png").stat().st_ino
    assert worker(str(out)).upscale(item, "made", 2) == row and (out / "a.png").stat().st_ino == inode
    (out / "a.png").unlink()
    again = worker(str(out)).upscale(item, "made", 3)
    assert again["attempts"] == 3 and (out / "a.png").exists()


def test_a_full_disk_is_no_fault_of_the_image(
    worker: Make, tmp_path: Path, image: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(image())
    one = worker(str(tmp_path / "out"))

    def fails(number: int) -> Callable[..., None]:
        def write(*_: Any) -> None:
            error = OSError(number, "no")
            raise OutputError("cannot be written") from error

        return write

    monkeypatch.setattr(one.out, "write", fails(errno.ENOSPC))
    with pytest.raises(Full):
        one.upscale(Item("a.png", str(tmp_path / "a.png")), "made")
    monkeypatch.setattr(one.out, "write", fails(errno.ETIMEDOUT))
    with pytest.raises(OutputError) as caught:
        one.upscale(Item("a.png", str(tmp_path / "a.png")), "made")
    assert not isinstance(caught.value, Full)


def test_names_of_any_bytes_have_their_pictures_and_rows(worker: Make, tmp_path: Path, image: Make) -> None:
    names = ["caf\udce9.png", "\udcff/two\nlines.png", "broken\udce9.png"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"no picture" if "broken" in name else image())
    out = Storage(str(tmp_path / "out"))
    found, report, one = listing(str(tmp_path / "in"), out), Report(out, {}), worker(out.url())
    for item in found.items:
        report.add(one.upscale(item, report.fingerprint(item)))
    assert report.publish() == 3
    again = Report(out, {})
    assert {item.name: again.status(item) for item in found.items} == dict(
        zip(names, [DONE, DONE, FAILED], strict=True)
    )
    assert all((tmp_path / "out" / name).exists() for name in names[:2])

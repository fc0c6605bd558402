"""Benchmark folders: recognised by what is in them, and never taken for another."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.evaluation.protocols import PROTOCOLS, open_benchmark


def put(path: Path, width: int = 128, height: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("1", (width, height)).save(path)


def pairs(folder: Path, stems: list[str], side: int = 128, low: str = "LR", high: str = "HR") -> Path:
    for stem in stems:
        put(folder / low / f"{stem}.png", side, side)
        put(folder / high / f"{stem}.png", 4 * side, 4 * side)
    return folder


DREALSR = [f"sony_{k}_x1" for k in range(93)]


def test_crops_and_full_size_are_told_apart_by_size(tmp_path):
    crops, full = pairs(tmp_path / "a", DREALSR), pairs(tmp_path / "b", DREALSR, side=132, low="lq", high="gt")
    assert open_benchmark(crops).protocol is PROTOCOLS["drealsr-crops"]
    assert open_benchmark(full).protocol is PROTOCOLS["drealsr"]
    with pytest.raises(InputError, match=r"is not drealsr .*: all LR images are 128x128, which is drealsr-crops"):
        open_benchmark(crops, "drealsr")
    with pytest.raises(InputError, match="an LR image is 132x132, not 128x128"):
        open_benchmark(full, "drealsr-crops")


def test_a_part_is_not_the_whole(tmp_path):
    folder = pairs(tmp_path, DREALSR[:92])
    found = open_benchmark(folder)
    assert found.protocol is None
    assert found.line() == "no known protocol: 92 images with ground truth (92 of 128x128)"
    with pytest.raises(InputError, match="it has 92 images, not 93"):
        open_benchmark(folder, "drealsr-crops")


def test_other_pictures_of_the_same_number_and_size_are_not_the_benchmark(tmp_path):
    folder = pairs(tmp_path, [f"mine{k}" for k in range(93)])
    assert open_benchmark(folder).protocol is None
    with pytest.raises(InputError, match="a file mine0, which that benchmark has not"):
        open_benchmark(folder, "drealsr-crops")


def test_realsr_side_by_side(tmp_path):
    for k in range(100):
        put(tmp_path / f"Nikon_{k:03}_LR4.png", 100, 80)
        put(tmp_path / f"Nikon_{k:03}_HR.png", 400, 320)
    found = open_benchmark(tmp_path)
    assert found.protocol is PROTOCOLS["realsr"]
    first = found.pictures[0]
    assert first.stem == "Nikon_000" and first.lr and first.hr
    assert (first.lr.stem, first.hr.stem) == ("Nikon_000_LR4", "Nikon_000_HR")


def test_what_nothing_but_a_count_tells_must_be_named(tmp_path):
    for k in range(65):
        put(tmp_path / f"{k}.png", 20 + k, 30)
    found = open_benchmark(tmp_path)
    assert found.protocol is None and "if it is realset65, say so with --protocol" in found.line()
    assert "and others" in found.line()
    assert open_benchmark(tmp_path, "realset65").protocol is PROTOCOLS["realset65"]
    with pytest.raises(InputError, match="it has 65 images, not 250"):
        open_benchmark(tmp_path, "reallq250")


def test_div2k_is_ground_truth_whose_partners_are_made(tmp_path):
    for k in range(801, 901):
        put(tmp_path / f"{k:04}.png", 204, 102)
    found = open_benchmark(tmp_path, "div2k-val")
    assert found.paired and all(picture.lr is None for picture in found.pictures)
    assert found.lr_sizes == {(51, 25): 100}


@pytest.mark.parametrize("spoil", ["size", "partner", "folder", "unreadable"])
def test_what_does_not_fit_is_said(tmp_path, spoil):
    pairs(tmp_path, ["a", "b"])
    if spoil == "size":
        put(tmp_path / "HR" / "a.png", 128, 128)
        message = "a: HR is 128x128, LR 128x128; HR must be 4 times as large"
    elif spoil == "partner":
        put(tmp_path / "LR" / "c.png")
        message = "1 images have no partner, such as c"
    elif spoil == "folder":
        (tmp_path / "HR").rename(tmp_path / "else")
        message = "has a folder LR but none called HR"
    else:
        (tmp_path / "LR" / "a.png").write_bytes(b"no image")
        message = r"cannot read .*a\.png"
    with pytest.raises(InputError, match=message):
        open_benchmark(tmp_path)


def test_names_of_protocols_are_known(tmp_path):
    with pytest.raises(InputError, match="no protocol is called 'set5'; known are realsr, "):
        open_benchmark(tmp_path, "set5")
    with pytest.raises(InputError, match="no such folder"):
        open_benchmark(tmp_path / "absent")

"""Photographs in folders and tars: found in order, named once, measured without decoding, read when wanted."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.photographs import list_photographs, read_photographs, whole_tokens


def random_photo(seed: int, height: int, width: int) -> Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def png(photo: Tensor) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(photo.permute(1, 2, 0).numpy())).save(data, "png")
    return data.getvalue()


def test_photographs_from_folders_tars_and_files(tmp_path: Path) -> None:
    photos = [random_photo(k, *size) for k, size in enumerate(((9, 12), (11, 9), (16, 10)))]
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "b.png").write_bytes(png(photos[0]))
    (tmp_path / "folder" / "deep" / "c.PNG").write_bytes(png(photos[1]))
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    with tarfile.open(tmp_path / "shard-0.tar", "w") as tar:
        for name, data in (("deep/d.png", png(photos[2])), ("deep/d.json", b"{}")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    sources = [str(tmp_path / "shard-*.tar"), str(tmp_path / "folder"), str(tmp_path / "folder" / "b.png")]
    names, images = read_photographs(sources)
    assert names == ["d", "b", "c", "b~2"]  # names stay unique: a pair is found by its photograph's
    for image, photo in zip(images, [photos[2], photos[0], photos[1], photos[0]], strict=True):
        assert image.dtype == torch.uint8 and torch.equal(image, photo)
    assert read_photographs(sources, limit=2)[0] == ["d", "b"]


def test_grey_and_transparent_photographs_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (5, 4), 7).save(tmp_path / "grey.png")
    Image.new("RGBA", (5, 4), (1, 2, 3, 255)).save(tmp_path / "rgba.png")
    _, (grey, rgba) = read_photographs([str(tmp_path)])
    assert grey.shape == rgba.shape == (3, 4, 5)
    assert grey.unique().tolist() == [7] and rgba[:, 0, 0].tolist() == [1, 2, 3]


def test_what_holds_no_photograph_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such photographs: .*absent"):
        read_photographs([str(tmp_path / "absent")])
    with pytest.raises(InputError, match=f"no image found in {tmp_path}"):
        read_photographs([str(tmp_path)])
    with pytest.raises(InputError, match="no photographs given; set data.shards"):
        read_photographs([])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match="cannot read photograph broken"):
        read_photographs([str(tmp_path)])


def test_sizes_come_from_the_header(tmp_path: Path) -> None:
    whole = png(random_photo(0, 40, 60))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("cut.png")
        member.size = len(whole) // 2  # the pixels are cut off, the header is there
        tar.addfile(member, io.BytesIO(whole[: member.size]))
    (photo,) = list_photographs([str(tmp_path / "a.tar")])
    assert photo.size() == (40, 60)
    with pytest.raises(InputError, match="cannot read photograph cut of .*a.tar"):
        photo.read()


def test_a_compressed_tar_is_refused_in_a_line(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(InputError, match="cannot read .*a.tar: .*plain .tar"):
        list_photographs([str(tmp_path / "a.tar")])


def test_whole_tokens_are_multiples_of_sixteen() -> None:
    assert whole_tokens(torch.zeros(3, 47, 32)).shape == (3, 32, 32)


def test_what_is_hidden_is_no_photograph(tmp_path: Path) -> None:
    for name in ("in/a.png", "in/._a.png", "in/.trash/b.png", "in/@eaDir/a.png/c.jpg", "in/deep/d.jpe"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [photo.name for photo in list_photographs([str(tmp_path / "in")])] == ["a", "d"]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "in", "in")
    assert sorted(photo.name for photo in list_photographs([str(tmp_path / "a.tar")])) == ["a", "d"]

"""The contact sheet of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fluxsr.errors import InputError, OutputError
from fluxsr.pairs.show import contact_sheet
from fluxsr.pairs.store import PairStore, TeacherPair


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    found = PairStore(tmp_path / "store")
    found.write_shard(0, [TeacherPair(str(k), torch.zeros(4, 4, 4), torch.full((4, 4, 4), float(k))) for k in range(3)])
    return found


def test_latents_stand_over_their_noise(store: PairStore, vae: Any, tmp_path: Path) -> None:
    contact_sheet(store, vae, tmp_path / "sheet.png", 3)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (96, 64)
        assert [image.getpixel((32 * k, 40)) for k in range(3)] == [(128 + 40 * k,) * 3 for k in range(3)]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["sheet.png"]


@pytest.mark.parametrize(("name", "kind"), [("sheet.jpg", "JPEG"), ("sheet.webp", "WEBP"), ("sheet.PNG", "PNG")])
def test_the_suffix_is_the_format(store: PairStore, vae: Any, tmp_path: Path, name: str, kind: str) -> None:
    contact_sheet(store, vae, tmp_path / name, 2)
    with Image.open(tmp_path / name) as image:
        assert image.format == kind
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]


def test_nothing_to_show_and_nowhere_to_write(store: PairStore, vae: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pairs in"):
        contact_sheet(PairStore(tmp_path / "absent"), vae, tmp_path / "sheet.png")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/sheet.png cannot be written"):
        contact_sheet(store, vae, tmp_path / "file" / "sheet.png")
    for name in ("sheet", "sheet.xyz"):
        with pytest.raises(OutputError, match=f"{name} cannot be written: unknown file extension"):
            contact_sheet(store, vae, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]

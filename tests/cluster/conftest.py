"""Places, images, and a worker of this process."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fluxsr.cluster.storage import Storage
from fluxsr.cluster.worker import Worker
from fluxsr.options import ModelOptions, UpscaleOptions


def picture(kind: str = "PNG", seed: int = 0, side: int = 32) -> bytes:
    """A small image file."""
    pixels = torch.rand(side, side, 3, generator=torch.Generator().manual_seed(seed))
    file = io.BytesIO()
    Image.fromarray((pixels * 255).byte().numpy()).save(file, kind)
    return file.getvalue()


@pytest.fixture
def image() -> Callable[..., bytes]:
    return picture


@pytest.fixture
def store() -> Any:
    """A Storage of a store that is no disk, below which nothing is."""
    place = Storage("memory://bucket")
    place.fs.store.clear()
    place.fs.pseudo_dirs[:] = [""]
    return place


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A WebDataset shard: two images with captions, one with a mask."""
    path = tmp_path / "in" / "000.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("a/1.jpg", picture("JPEG", 1)),
            ("a/1.json", b"{}"),
            ("a/2.png", picture("PNG", 2)),
            ("a/2.mask.png", picture("PNG", 3)),
            ("a/2.txt", b"two"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(data), 1_700_000_000
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def worker(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Worker]:
    """Makes workers with the tiny pipeline."""
    monkeypatch.setattr("fluxsr.single.load", lambda model, **_: pipeline)

    def made(out: str, **options: Any) -> Worker:
        one = Worker(ModelOptions(), UpscaleOptions(**options), out)
        one.load()
        return one

    return made

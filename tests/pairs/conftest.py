"""Options for tiny teachers, and photographs of several sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fluxsr.pairs.config import PairsConfig


@pytest.fixture(scope="session")
def options(model_folder: Path) -> Callable[..., PairsConfig]:
    """options(mode=..., ...): one Euler step of the tiny teacher on windows of 32 px; three pairs in shards of two."""

    def make(**changes: Any) -> PairsConfig:
        values: dict[str, Any] = {
            "base": str(model_folder), "mode": "sample", "count": 3, "steps": 1, "solver": "euler", "window": 4,
            "crop": 64, "batch": 2, "shard": 2, "device": "cpu", "precision": "fp32",
        }  # fmt: skip
        return PairsConfig(**values | changes)

    return make


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder: one picture of exactly one crop, one with room for two, one of a window, and one too small."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name, (height, width) in {"a": (64, 64), "b": (70, 140), "c": (40, 50), "d": (16, 64)}.items():
        pixels = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(ord(name)))
        Image.fromarray((pixels * 255).byte().numpy()).save(folder / f"{name}.png")
    return folder

"""What the tests of training share: the toy stage, and photographs that say where each pixel stood."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """tests/training/toy.py as a module."""
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def coordinates(index: int, height: int, width: int) -> Tensor:
    """(3,height,width) uint8: red is the row, green the column, blue the photograph's number."""
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8).expand(height, width)
    return torch.stack([rows, columns, torch.full((height, width), index, dtype=torch.uint8)])


@pytest.fixture(scope="session")
def photos() -> list[Tensor]:
    """Three coded photographs of different sizes."""
    return [coordinates(0, 96, 128), coordinates(1, 112, 96), coordinates(2, 160, 100)]

"""LPIPS (VGG): a failed download says where the file may be put by hand. The package lpips is a stand-in here."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import pytest
import torch

from fluxsr.errors import InputError
from fluxsr.losses import lpips_vgg
from fluxsr.losses.lpips_vgg import VGG, load_lpips_vgg


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where VGG16 belongs, in an empty cache; with a stand-in for the package lpips."""
    stand_in: Any = ModuleType("lpips")
    stand_in.__spec__ = ModuleSpec("lpips", None)
    stand_in.LPIPS = lambda **_: torch.nn.Linear(1, 1)
    monkeypatch.setitem(sys.modules, "lpips", stand_in)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints" / "vgg16-397923af.pth"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError(OSError(-3, "Temporary failure in name resolution")), "Temporary failure in name resolution"),
        (TimeoutError("timed out"), "timed out"),
        (RuntimeError('invalid hash value (expected "397923af", got "00")'), "invalid hash value"),
    ],
)
def test_a_download_that_fails_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(InputError, match=reason) as caught:
        load_lpips_vgg()
    message = str(caught.value)
    assert "\n" not in message and f"put {VGG} into {place.parent}, or set perceptual to a file" in message


def test_what_is_there_is_not_downloaded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(_url: str, to: str, hash_prefix: str) -> None:
        asked.append(hash_prefix)
        Path(to).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert not any(parameter.requires_grad for parameter in load_lpips_vgg().parameters())
    assert asked == ["397923af"] and place.is_file()


def test_a_fault_of_lpips_itself_stays_what_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise FileNotFoundError("weights/v0.1/vgg.pth")

    monkeypatch.setattr(lpips_vgg, "_download", lambda _place: None)
    monkeypatch.setattr(sys.modules["lpips"], "LPIPS", broken)
    with pytest.raises(FileNotFoundError):
        load_lpips_vgg()

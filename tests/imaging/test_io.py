"""Files in, files out: what is kept, what is refused, and that no half file is ever left."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.errors import InputError, OutputError
from fluxsr.imaging import io
from fluxsr.imaging.atomic import check_writable
from fluxsr.imaging.formats import ENDINGS


def photograph(width: int = 24, height: int = 18) -> Image.Image:
    pixels = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0))
    return Image.fromarray((pixels * 255).byte().numpy())


def test_tensor_round_trip_is_exact() -> None:
    image = photograph()
    tensor = io.to_tensor(image)
    assert tensor.shape == (1, 3, 18, 24) and tensor.dtype == torch.float32
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert np.array_equal(np.asarray(io.to_pil(tensor)), np.asarray(image))


def test_to_pil_rounds_and_clamps() -> None:
    values = torch.tensor([-0.5, 0.4999 / 255, 0.5001 / 255, 2.0]).expand(3, 1, 4)
    assert np.asarray(io.to_pil(values))[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_every_format_is_written_and_read(tmp_path: Path, ending: str) -> None:
    io.write(photograph(), tmp_path / "new" / f"a{ending}")
    back = io.read(tmp_path / "new" / f"a{ending}").image
    assert back.mode == "RGB" and back.size == (24, 18)
    if ending in (".png", ".tif", ".bmp"):
        assert np.array_equal(np.asarray(back), np.asarray(photograph()))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes_become_rgb(mode: str) -> None:
    image = io.to_rgb(photograph().convert("L").convert("RGB").convert(mode))
    assert image.mode == "RGB"
    if mode in ("L", "LA", "RGBA"):
        assert np.array_equal(np.asarray(image)[..., 0], np.asarray(photograph().convert("L")))


def test_floating_point_pixels() -> None:
    image = io.to_rgb(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)))
    assert np.asarray(image)[0, :, 2].tolist() == [0, 128, 255]
    with pytest.raises(InputError, match=r"from 0 to 9; expected \[0,1\]"):
        io.to_rgb(Image.fromarray(np.array([[0.0, 9.0]], dtype=np.float32)))


def test_a_failed_write_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="a.png cannot be written: No space left on device"):
        io.write(photograph(), target)
    assert target.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        io.write(photograph(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places_are_output_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write '.xyz' files; use one of .png"):
        io.write(photograph(), tmp_path / "a.xyz")
    for check in (check_writable, lambda path: io.write(photograph(), path)):
        with pytest.raises(OutputError, match="cannot be written"):
            check(tmp_path / "file" / "a.png")
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        with pytest.raises(OutputError, match="cannot be written"):
            check(tmp_path / "folder.png")
    check_writable(tmp_path / "deep" / "er" / "a.png")
    assert list((tmp_path / "deep" / "er").iterdir()) == []


def test_a_formats_own_limit_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        io.write(Image.new("RGB", (17000, 1)), tmp_path / "a.webp")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_outputs_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    io.write(photograph(), tmp_path / "a.png")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "a.png")]
    assert modes[0] == modes[1]

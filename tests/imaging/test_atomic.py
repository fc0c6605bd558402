"""Outputs that are whole or not there, and whose failure is it when they are not."""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from fluxsr.errors import OutputError
from fluxsr.imaging import io
from fluxsr.imaging.atomic import replaced, write_text
from fluxsr.options import UpscaleOptions
from fluxsr.processing.runner import no_room

ENDINGS = (".png", ".tif", ".jpg", ".webp", ".avif", ".bmp")


@pytest.mark.parametrize(
    "mistake", [ValueError("a bug"), struct.error("a bug"), OSError("another file"), FileNotFoundError(2, "gone")]
)
def test_what_the_block_raises_passes_as_it_is(tmp_path: Path, mistake: Exception) -> None:
    with pytest.raises(type(mistake)) as found, replaced(tmp_path / "a.txt") as file:
        file.write(b"half")
        raise mistake
    assert found.value is mistake
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("mistake", [ValueError("a bug"), OSError("a file of the model")])
def test_a_model_that_fails_while_rows_are_written_is_no_output_error(
    tmp_path: Path, ending: str, mistake: Exception
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "in.png")

    def bands() -> Iterator[Tensor]:
        yield torch.zeros(1, 3, 16, 32)
        raise mistake

    with pytest.raises(type(mistake)) as found:
        io.write_enlarged(io.read(tmp_path / "in.png"), bands(), (32, 32), tmp_path / f"out{ending}", UpscaleOptions())
    assert found.value is mistake
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_disk_that_takes_no_more_is_an_output_error_with_its_reason(tmp_path: Path, ending: str) -> None:
    noise = torch.rand(300, 300, 3, generator=torch.Generator().manual_seed(0))
    with largest_file(4096), pytest.raises(OutputError, match=f"a{ending} cannot be written: File too large") as found:
        io.write(Image.fromarray((noise * 255).byte().numpy()), tmp_path / f"a{ending}")
    assert isinstance(found.value.__cause__, OSError) and found.value.__cause__.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_recognised_in_every_format(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    (tmp_path / f"a{ending}").write_bytes(b"before")
    with pytest.raises(OutputError, match=f"a{ending} cannot be written: No space left on device") as found:
        io.write(Image.new("RGB", (16, 16)), tmp_path / f"a{ending}")
    assert no_room(found.value) and (tmp_path / f"a{ending}").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse files of this process that grow beyond a size."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_text_with_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    write_text("caf\udce9 caf\u00e9\n", tmp_path / "new" / "a.txt")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"caf\\udce9 caf\xc3\xa9\n"

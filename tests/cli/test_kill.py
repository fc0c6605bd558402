"""kill -9 at random moments of a batch: what is resumed is what an undisturbed run gives, byte for byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fluxsr.processing.resume import NAME

STUB = Path(__file__).parents[1] / "stub_pipeline.py"
IMAGES = 40
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 small images of several formats, in two folders."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = rng.integers(0, 256, (20 + number, 40, 3), dtype=np.uint8)
        path = folder / f"{number % 2}" / f"{number:02}{('.png', '.jpg', '.tif', '.webp')[number % 4]}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def started(photographs: Path, output: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(STUB), "upscale", str(photographs), "-o", str(output)],
        env={**os.environ, "STUB_SECONDS": "0.02"},
        stderr=subprocess.DEVNULL,
    )


def outputs(folder: Path) -> dict[str, bytes]:
    """All files but the ledger, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }


def finished(folder: Path) -> int:
    return sum(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))


def killed(photographs: Path, output: Path, rng: random.Random) -> bool:
    """Kill a run at a random moment after its first output; whether it had not ended before."""
    before, process = finished(output), started(photographs, output)
    while finished(output) == before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def batches_killed(photographs: Path, folder: Path, kills: int) -> None:
    """Kill as many runs, checking every output folder at its end."""
    undisturbed = folder / "undisturbed"
    assert started(photographs, undisturbed).wait() == 0
    expected = outputs(undisturbed)
    assert len(expected) == IMAGES
    rng, done, number = random.Random(0), 0, 0
    while done < kills:
        number += 1
        output = folder / f"run{number}"
        while done < kills and finished(output) < IMAGES:
            done += killed(photographs, output, rng)
            for name, data in outputs(output).items():
                assert Path(name).name.startswith(".") or data == expected[name], "whole, or hidden"
        assert started(photographs, output).wait() == 0
        assert outputs(output) == expected


@pytest.mark.slow
def test_ten_kills(photographs: Path, tmp_path: Path) -> None:
    batches_killed(photographs, tmp_path, 10)


def test_nothing_is_done_twice_and_asked_to_stop_it_leaves_no_half_file(photographs: Path, tmp_path: Path) -> None:
    killed(photographs, tmp_path, random.Random(1))
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg", ".tif")}
    count = finished(tmp_path)
    process = started(photographs, tmp_path)
    while finished(tmp_path) <= count and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert 0 < count < finished(tmp_path) < IMAGES and not [
        name for name in outputs(tmp_path) if name.endswith(".part")
    ]
    assert all(path.stat().st_ino == inode for path, inode in before.items() if not path.name.startswith("."))

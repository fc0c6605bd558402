"""Whatever bytes the reader gets: a picture or one line, soon, and never anything else."""

from __future__ import annotations

import runpy
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxsr.errors import InputError
from fluxsr.imaging import io

WHOLE: dict[str, bytes] = runpy.run_path(str(Path(__file__).parents[1] / "corpus.py"))["whole"]()
SECONDS = 60  # more is a hang, also on a machine that is busy
MEGABYTES = 700  # by which all of it may raise what the process has held at most
pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of what is odd in a file


def peak() -> float:
    """Megabytes that this process has held at most."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 1e6
    import resource

    unit = 1_000_000 if sys.platform == "darwin" else 1000  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def outcome(path: Path) -> str:
    """ "read" or "refused"; anything else is an error of the test."""
    start = time.perf_counter()
    try:
        picture = io.read(path, max_pixels=1_000_000)
        assert torch.isfinite(picture.lr).all() and picture.lr.min() >= 0 and picture.lr.max() <= 1
        assert picture.lr.shape[:2] == (1, 3) and picture.lr.numel() <= 3_000_000
        found = "read"
    except InputError as error:
        assert str(error).startswith(str(path)) and len(str(error)) < len(str(path)) + 300
        found = "refused"
    assert time.perf_counter() - start < SECONDS, path.name
    return found


def test_the_corpus(corpus: Path) -> None:
    files, before = sorted(corpus.iterdir()), peak()
    counts = Counter(outcome(path) for path in files)
    assert len(files) > 200 and sum(counts.values()) == len(files)
    assert counts["read"] > 50 and counts["refused"] > 100, "both roads are gone"
    assert peak() - before < MEGABYTES
    print(f"{len(files)} files: {dict(counts)}")


def test_whole_files_are_read(tmp_path: Path) -> None:
    for name, data in WHOLE.items():
        (tmp_path / name).write_bytes(data)
        assert outcome(tmp_path / name) == "read", name


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_bytes_turned_cut_and_put_in(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(whole)))
        whole[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
    path = tmp_path / "file.bin"
    path.write_bytes(whole[: data.draw(st.integers(1, 2 * len(whole) + 1))])
    if path.stat().st_size:
        outcome(path)

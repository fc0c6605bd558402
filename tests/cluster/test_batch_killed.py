"""``fluxsr batch`` on a real local Ray cluster: workers and drivers are killed, and nothing is lost or done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from ray import cluster_utils

SCRIPT = Path(__file__).parent / "fragile_batch.py"
IMAGES = 24
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """24 small images of several formats, in two folders."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        path = tmp_path / "in" / f"{number % 2}" / f"{number:02}{('.png', '.jpg', '.tif', '.webp')[number % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + number, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path


def started(archive: Path, *more: str, seconds: float = 0.1) -> subprocess.Popen[str]:
    """A run with two workers, in a process group of its own, as a terminal would have it."""
    arguments = ["batch", str(archive / "in"), "-o", str(archive / "out"), "--workers", "2", *more]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "LOG": str(archive / "log"), "SECONDS": str(seconds)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=os.setpgrp,
    )


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What it said."""
    said = process.communicate(timeout=180)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said
    return said


def lines(archive: Path, word: str) -> list[list[str]]:
    log = archive / "log"
    return [line.split() for line in log.read_text().splitlines() if line.startswith(word)] if log.exists() else []


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 300  # Ray and torch start slowly on a busy machine
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def rows(archive: Path) -> list[dict[str, Any]]:
    return parquet.read_table(archive / "out" / "report.parquet").to_pylist()


def outputs(archive: Path) -> dict[str, bytes]:
    """All but the report; of what is hidden only unfinished files, of which there are none."""
    out = archive / "out"
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "report.parquet"
    }


def expected(archive: Path) -> dict[str, bytes]:
    """Of an undisturbed run."""
    other = archive / "undisturbed"
    other.mkdir()
    (other / "in").symlink_to(archive / "in")
    ended(started(other, seconds=0))
    assert len(outputs(other)) == IMAGES
    return outputs(other)


def test_a_worker_is_killed_and_nothing_is_lost_or_done_twice(archive: Path) -> None:
    process = started(archive)
    wait_for(lambda: len(lines(archive, "ended")) >= 4)
    victim = int(lines(archive, "begun")[-1][2])
    os.kill(victim, signal.SIGKILL)
    said = ended(process)
    assert "is retried: its worker was lost" in said and f"{IMAGES} upscaled" in said
    found = rows(archive)
    assert len(found) == len({row["output"] for row in found}) == IMAGES
    assert {row["status"] for row in found} == {"done"}
    assert sorted(row["attempts"] for row in found) == [1] * (IMAGES - 1) + [2]
    done = Counter(name for _, name, _ in lines(archive, "ended"))
    assert len(done) == IMAGES and max(done.values()) == 1
    workers = {row["worker"].split("/")[1] for row in found}
    assert len(workers) >= 2 and workers - {str(victim)}
    assert outputs(archive) == expected(archive)


def test_what_kills_its_worker_is_given_up_and_the_others_are_done(archive: Path) -> None:
    Image.new("RGB", (32, 32)).save(archive / "in" / "poison.png")
    (archive / "in" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    said = ended(started(archive, seconds=0), 1)
    assert "poison.png: given up after 3 attempts; its worker was lost" in said
    failed = {row["output"]: row for row in rows(archive) if row["status"] == "failed"}
    assert set(failed) == {"poison.png", "broken.jpg"} and failed["poison.png"]["attempts"] == 3
    assert len(outputs(archive)) == IMAGES and len(rows(archive)) == IMAGES + 2
    begun = Counter(name for _, name, _ in lines(archive, "begun"))
    assert begun.pop("poison.png") == 3 and set(begun.values()) == {1}
    said = ended(started(archive), 1)
    assert f"{IMAGES} finished before" in said and "2 failed before" in said
    assert len(lines(archive, "begun")) == IMAGES + 4, "a second run does nothing"


def test_the_driver_is_killed_and_the_next_run_goes_on(archive: Path) -> None:
    runs = 0
    while len(lines(archive, "ended")) < IMAGES - 6:
        before, process = len(lines(archive, "ended")), started(archive)
        wait_for(lambda before=before: len(lines(archive, "ended")) >= before + 5)
        process.kill()
        process.wait()
        wait_for(lambda: not list((archive / "out").glob("*/*.part")))
        time.sleep(3)  # Ray's workers notice that their driver is gone
        runs += 1
    said = ended(started(archive))
    assert runs >= 2 and "finished before" in said
    found = rows(archive)
    assert len(found) == len({row["output"] for row in found}) == IMAGES
    assert {row["status"] for row in found} == {"done"} and all(row["model_seconds"] >= 0 for row in found)
    done = Counter(name for _, name, _ in lines(archive, "ended"))
    assert max(done.values()) == 1, "what has a row is not done again"
    assert outputs(archive) == expected(archive)


def test_ctrl_c_finishes_what_is_begun(archive: Path) -> None:
    process = started(archive, seconds=0.5)
    wait_for(lambda: len(lines(archive, "ended")) >= 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: Ray's processes get it, too
    said = ended(process, 130)
    assert " left; " in said
    begun, done = ({name for _, name, _ in lines(archive, word)} for word in ("begun", "ended"))
    assert begun == done and len(done) < IMAGES
    assert {row["output"] for row in rows(archive)} == done == set(outputs(archive))


def test_a_machine_of_a_cluster_is_lost(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LOG", str(archive / "log")), ("SECONDS", "1")):
        monkeypatch.setenv(name, value)  # workers have the environment of their machine, not of the command
    machines = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        other = machines.add_node(num_cpus=1)
        process = started(archive, "--address", machines.address)
        wait_for(lambda: len({pid for _, _, pid in lines(archive, "ended")}) == 2)
        machines.remove_node(other, allow_graceful=False)
        said = ended(process)
    finally:
        machines.shutdown()
    assert "is retried: its worker was lost" in said and f"{IMAGES} upscaled" in said
    found = rows(archive)
    assert len(found) == len({row["output"] for row in found}) == IMAGES == len(outputs(archive))
    assert max(Counter(name for _, name, _ in lines(archive, "ended")).values()) == 1

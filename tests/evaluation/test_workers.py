"""Processes are as many as the cores and the memory allow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from fluxsr.evaluation import benchmark, workers

GB = 1_000_000_000


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """64 cores and 1000 GB; gives the folder in which its kernel tells of limits."""
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000 * GB))
    monkeypatch.setattr(workers, "_CGROUP", tmp_path)
    return tmp_path


def test_where_memory_is_plenty_cores_decide(machine: Path) -> None:
    assert workers.workers_for(1_000_000) == 64


def test_a_container_s_memory_bounds_them(machine: Path) -> None:
    (machine / "memory.max").write_text(f"{8 * GB}\n")
    (machine / "memory.current").write_text(f"{4 * GB}\n")
    assert workers.free_memory() == 4 * GB
    assert workers.workers_for(8_000_000) == 1 and 1 < workers.workers_for(100_000) < 8
    (machine / "memory.max").write_text("max\n")
    assert workers.free_memory() == 1000 * GB


def test_older_containers_tell_it_elsewhere(machine: Path) -> None:
    (machine / "memory").mkdir()
    (machine / "memory" / "memory.limit_in_bytes").write_text(f"{3 * GB}\n")
    (machine / "memory" / "memory.usage_in_bytes").write_text(f"{GB}\n")
    assert workers.free_memory() == 2 * GB


def test_one_is_always_left(machine: Path) -> None:
    (machine / "memory.max").write_text("1000")
    (machine / "memory.current").write_text("2000")
    assert workers.free_memory() == 0 and workers.workers_for(10**9) == 1


def test_larger_images_get_fewer(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: SimpleNamespace(available=16 * GB))
    counts = [workers.workers_for(pixels) for pixels in (10_000, 1_000_000, 4_000_000, 40_000_000)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[2] >= counts[3] == 1


def test_scores_ask_how_many_fit_the_largest_image(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(benchmark, "workers_for", lambda pixels: asked.append(pixels) or 1)
    benchmark.score_folders(*folders, metrics=["psnr"], workers=None)
    assert asked == [203 * 181]

"""Checkpoints: whole or absent, the newest kept, nothing run on reading."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from fluxsr.errors import InputError
from fluxsr.training import checkpoint


def test_round_trip(tmp_path: Path) -> None:
    state = {"step": 3, "modules": {"net": {"w": torch.arange(3.0)}}, "average": [torch.ones(2)]}
    path = checkpoint.save(tmp_path / "new", 3, state, keep=2)
    loaded = checkpoint.load(path)
    assert loaded["step"] == 3 and torch.equal(loaded["modules"]["net"]["w"], torch.arange(3.0))


def test_newest_are_kept_in_the_order_of_steps(tmp_path: Path) -> None:
    for step in (1, 9, 10, 100_000_000, 100_000_001):  # beyond eight digits names no longer sort as text
        checkpoint.save(tmp_path, step, {"step": step}, keep=2)
    assert [checkpoint.load(path)["step"] for path in checkpoint.listing(tmp_path)] == [100_000_000, 100_000_001]


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoint.save(tmp_path, step, {"step": step}, keep=1, best=2 if step > 2 else None)
    assert [path.name for path in checkpoint.listing(tmp_path)] == ["step-00000002.pt", "step-00000005.pt"]
    assert checkpoint.best(tmp_path).name == "step-00000005.pt", "nothing was scored"
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "val/psnr": 20.0}\n', encoding="utf-8")
    assert checkpoint.best(tmp_path).name == "step-00000002.pt"


def test_one_is_always_kept(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {}, keep=0)
    assert checkpoint.listing(tmp_path) == [path]


def test_listing_sees_whole_checkpoints_only(tmp_path: Path) -> None:
    for name in ("step-00000004.partial", "step-x.pt", "model.pt", "step-00000002.pt.bak"):
        (tmp_path / name).touch()
    assert checkpoint.listing(tmp_path) == []
    assert checkpoint.listing(tmp_path / "absent") == []


def test_a_failing_write_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full half way through, at a new step and over an old one."""
    checkpoint.save(tmp_path, 1, {"step": 1}, keep=1)

    def full(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    for step in (1, 2):
        with pytest.raises(OSError, match="no space"):
            checkpoint.save(tmp_path, step, {"step": step}, keep=1)
        (only,) = checkpoint.listing(tmp_path)
        assert checkpoint.load(only) == {"step": 1}


def test_a_torn_file_says_what_to_do(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {"w": torch.zeros(1000)}, keep=1)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="step-00000001.pt cannot be read .*delete it to use an older one"):
        checkpoint.load(path)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a checkpoint ran')",)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.pt"
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.load(path)

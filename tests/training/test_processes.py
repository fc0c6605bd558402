"""Several processes train what one would have trained, stop together, and write once."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import fluxsr
from fluxsr.errors import InputError
from fluxsr.training import checkpoint, loop
from fluxsr.training import processes as processes_module
from fluxsr.training.processes import Processes, is_distributed, main_first

HERE = Path(__file__).parent
TOLERANCE = 3e-5  # of weights that a few steps moved by up to 0.05: sums over processes round otherwise


two_processes = pytest.mark.slow  # a launcher and two processes, which import torch


def launch(script: str, *arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    if sys.platform == "win32":
        pytest.skip("torchrun's rendezvous is not in every Windows wheel of torch")
    environment = {**os.environ, "PYTHONPATH": str(Path(fluxsr.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*launcher, str(HERE / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def alone() -> ModuleType:
    """tests/training/together.py as a module."""
    spec = importlib.util.spec_from_file_location("together", HERE / "together.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which two processes on the CPU (gloo) have run together.py."""
    out = tmp_path_factory.mktemp("together")
    done = launch("together.py", str(out))
    assert done.returncode == 0, done.stderr
    return out


def weights(out: Path) -> dict[str, torch.Tensor]:
    modules = checkpoint.load(checkpoint.listing(out)[-1])["modules"]
    return {f"{name}.{key}": value for name, own in modules.items() for key, value in own.items()}


def records(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds_per_step"} for line in lines]


def assert_close(a: Path, b: Path) -> None:
    one, two = weights(a), weights(b)
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(
            one[key], two[key], rtol=0, atol=TOLERANCE, msg=lambda text, key=key: f"{key}: {text}"
        )


@two_processes
def test_two_processes_train_the_adapter_of_one(together: Path, alone: ModuleType, tmp_path: Path) -> None:
    """The real stage, the same batch in all; LoRA's B starts at zero, so it is all the work of training."""
    alone.distill(tmp_path)
    assert max(float(v.abs().max()) for k, v in weights(tmp_path).items() if "lora_B" in k) > 100 * TOLERANCE
    assert_close(tmp_path, together / "distill")


@two_processes
def test_two_processes_log_what_one_logs(together: Path, alone: ModuleType, tmp_path: Path) -> None:
    """Means over samples, also of terms that only some samples have (FTD by bins of t)."""
    alone.distill(tmp_path)
    one, two = records(tmp_path), records(together / "distill")
    assert [row["step"] for row in one] == [row["step"] for row in two] == [2, 4, 4]  # validated at the end
    assert any(name.startswith("log/ftd/") for name in one[0])
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert b == pytest.approx(a, abs=1e-4, rel=1e-4)


@two_processes
def test_two_processes_with_two_modules_and_ema(together: Path, alone: ModuleType, tmp_path: Path) -> None:
    loop.run(alone.toy.ToyStage(), alone.toy.config(), tmp_path)
    assert_close(tmp_path, together / "toy")
    assert records(together / "toy")[-1] == pytest.approx(records(tmp_path)[-1], abs=1e-5)
    means = [checkpoint.load(checkpoint.listing(out)[-1])["average"] for out in (tmp_path, together / "toy")]
    torch.testing.assert_close(*means, rtol=0, atol=TOLERANCE)


@two_processes
def test_two_processes_of_two_micro_batches(together: Path, alone: ModuleType, tmp_path: Path) -> None:
    loop.run(alone.toy.ToyStage(), alone.toy.config(), tmp_path)
    assert_close(tmp_path, together / "accumulated")


@two_processes
def test_one_that_is_asked_to_stop_stops_all(together: Path, alone: ModuleType, tmp_path: Path) -> None:
    """SIGTERM at the second process: both leave after the same step, and go on to where none was stopped."""
    log = (together / "stopped" / "run.log").read_text(encoding="utf-8")
    assert "ended: KeyboardInterrupt" in log and "resuming from" in log and "step-00000005.pt" in log
    assert {(together / "stopped" / f"ended-{rank}.txt").read_text() for rank in (0, 1)} == {"done"}
    loop.run(alone.toy.ToyStage(), alone.toy.config(), tmp_path)
    assert_close(tmp_path, together / "stopped")


@pytest.mark.slow
def test_fsdp2_trains_the_adapter_of_one(alone: ModuleType, tmp_path: Path) -> None:
    """Sharded parameters, a checkpoint half way, EMA, and a validation of the main process alone; then a base in
    bfloat16 under a LoRA in float32, as at full size, whose blocks are computed again."""
    done = launch("together.py", str(tmp_path / "two"), "fsdp")
    assert done.returncode == 0, done.stderr
    alone.distill(tmp_path / "one" / "half", ema=0.5)
    half = [tmp_path / name / "half" for name in ("one", "two")]
    assert_close(*half)
    means = [checkpoint.load(checkpoint.listing(out)[-1])["average"] for out in half]
    torch.testing.assert_close(*means, rtol=0, atol=TOLERANCE)
    assert records(half[1])[-1] == pytest.approx(records(half[0])[-1], abs=1e-4)
    alone.distill(tmp_path / "one" / "bf16", base=torch.bfloat16, precision="bf16", gradient_checkpointing=True)
    bf16 = [tmp_path / name / "bf16" for name in ("one", "two")]
    assert records(bf16[1])[-1] == pytest.approx(records(bf16[0])[-1], rel=0.03, abs=1e-3)
    assert all(value.dtype == torch.float32 for key, value in weights(bf16[1]).items() if "lora" in key)


@two_processes
def test_validation_is_the_main_process_alone(together: Path) -> None:
    validated = [row for row in records(together / "stopped") if "val/main" in row]
    assert validated == [{"step": step, "val/main": 1.0} for step in (3, 6, 8)]


@two_processes
def test_nonsense_on_one_stops_all(together: Path) -> None:
    told = {(together / "nan" / f"ended-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(told) == 1 and "Diverged loss is not finite at step 4 (square=nan" in told.pop()
    assert checkpoint.listing(together / "nan")[-1].name == "step-00000003.pt"


@pytest.mark.parametrize("fails", [False, True])
def test_one_process_of_a_machine_goes_first(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads in place of processes. Where the first one fails the other goes on, and fails for itself."""
    barrier, order, here = threading.Barrier(2), [], threading.local()
    monkeypatch.setattr(processes_module, "is_distributed", lambda: True)
    monkeypatch.setattr(processes_module, "PartialState", lambda: here.state)

    def process(main: bool) -> None:
        here.state = SimpleNamespace(is_local_main_process=main, wait_for_everyone=lambda: barrier.wait(10))
        with suppress(OSError), main_first():
            order.append(main)
            if fails:
                raise OSError("no network")

    threads = [threading.Thread(target=process, args=(main,)) for main in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert order == [True, False] and not barrier.broken


def test_a_process_takes_whole_runs_of_neighbours() -> None:
    processes = Processes("cpu")
    assert not is_distributed() and processes.main and processes.count == 1 and not processes.sharded
    assert processes.shares(4, 1) == [[0, 1, 2, 3]] and processes.shares(4, 2) == [[0, 1], [2, 3]]
    processes.count, processes.index = 2, 1
    assert processes.shares(8, 2) == [[4, 5], [6, 7]]


@pytest.mark.parametrize("batch, accumulate", [(6, 2), (2, 2), (0, 1), (4, 0)])
def test_a_batch_that_does_not_split_is_refused(batch: int, accumulate: int) -> None:
    processes = Processes("cpu")
    processes.count = 2
    with pytest.raises(InputError, match=f"run.batch is {batch}; it must be a multiple of .*2 processes x"):
        processes.shares(batch, accumulate)

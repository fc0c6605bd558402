"""The benchmark of plans: what is equal is called equal, and every plan that can be had here has its row."""

from __future__ import annotations

import importlib.util
import json
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fluxsr.backbone import compiling

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "plans.py"


@pytest.fixture(scope="module")
def plans() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plans", SCRIPT)
    assert spec and spec.loader
    sys.modules["plans"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_gguf_rounds_the_weights_alone(plans: ModuleType) -> None:
    pytest.importorskip("gguf")
    torch.manual_seed(0)
    linear, worst = torch.nn.Linear(64, 8), []
    for kind in ("Q8_0", "Q4_0"):
        rounded = deepcopy(linear)
        plans.round_as_gguf(torch.nn.Sequential(rounded), kind)
        assert torch.equal(rounded.bias, linear.bias)
        worst.append(float((rounded.weight.data - linear.weight.data).abs().max() / linear.weight.data.abs().max()))
    assert 0 < worst[0] < 1 / 200 < worst[1] < 1 / 7  # half a step of 127, and of 8, levels


def test_difference(plans: ModuleType) -> None:
    one = torch.full((3, 4, 4), 0.5)
    assert plans.difference(one, one.clone()) == (None, 0.0)
    psnr, worst = plans.difference(one, one + 0.1)
    assert psnr == pytest.approx(20) and worst == pytest.approx(25.5)
    assert plans.difference(one + 1, one + 2) == (None, 0.0), "beyond white is white"


@pytest.mark.slow
def test_every_plan_of_a_cpu(
    plans: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = partial(compiling.compile_, backend="eager")  # no code made: seconds instead of minutes
    monkeypatch.setattr(compiling, "compile_", traced)
    assert plans.main(["--side", "16", "--json", str(tmp_path / "plans.json")]) == 0
    rows = {(row["model"], row["plan"]): row for row in json.loads((tmp_path / "plans.json").read_text())}
    printed = capsys.readouterr()
    assert "left out: nf4 weights, bf16" in printed.err and "| bundled | fp32 |" in printed.out
    for model in ("bundled", "random"):
        assert rows[model, "fp32, unfolded"]["psnr"] is None
        assert rows[model, "fp32"]["worst"] < 0.01, "folding is exact"
        assert rows[model, "bf16, offloaded"]["psnr_bf16"] is None, "so is offload"
        assert rows[model, "bf16"]["psnr"] > 35
        assert rows[model, "bf16, compiled"]["psnr_bf16"] is None, "traced, the same operations run"
        assert rows[model, "fp32"]["megabytes"] < 0.8 * rows[model, "fp32, unfolded"]["megabytes"]

"""recipes/tiny/average.py: weight by weight the mean, all else the first model's."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

SCRIPT = Path(__file__).parents[1] / "recipes" / "tiny" / "average.py"


def model(folder: Path, value: float, name: str = "w") -> Path:
    (folder / "transformer").mkdir(parents=True)
    save_file({name: torch.full((2, 3), value).bfloat16()}, folder / "transformer/diffusion_pytorch_model.safetensors")
    (folder / "fluxsr_config.json").write_text(json.dumps({"strength": value}), encoding="utf-8")
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the script; what it exits with, empty where all went well."""

    def run(*arguments: Path) -> str:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as end:
            return str(end.code or "")
        return ""

    return run


def test_the_mean_of_the_weights_and_the_rest_of_the_first(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(out, model(tmp_path / "a", 1.0), model(tmp_path / "b", 4.0)) == ""
    mean = load_file(out / "transformer/diffusion_pytorch_model.safetensors")["w"]
    assert mean.dtype == torch.bfloat16 and bool((mean == 2.5).all())
    assert json.loads((out / "fluxsr_config.json").read_text(encoding="utf-8")) == {"strength": 1.0}


def test_models_of_different_shapes_are_refused(run: Callable[..., str], tmp_path: Path) -> None:
    found = run(tmp_path / "out", model(tmp_path / "a", 1.0), model(tmp_path / "b", 1.0, "other"))
    assert "different shapes" in found and not (tmp_path / "out").exists()
    wide = model(tmp_path / "c", 1.0)
    save_file({"w": torch.zeros(2, 4).bfloat16()}, wide / "transformer/diffusion_pytorch_model.safetensors")
    assert "different shapes" in run(tmp_path / "out", tmp_path / "a", wide)


def test_a_student_with_a_lora_is_refused_and_so_is_an_empty_folder(run: Callable[..., str], tmp_path: Path) -> None:
    one, adapted, empty = model(tmp_path / "a", 1.0), model(tmp_path / "b", 1.0), tmp_path / "empty"
    save_file({"w": torch.zeros(1)}, adapted / "pytorch_lora_weights.safetensors")
    empty.mkdir()
    for other in (adapted, empty):
        found = run(tmp_path / "out", one, other)
        assert f"{other} is not a student trained as a whole" in found

"""``fluxsr train``: what stands on the command line is what runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fluxsr.cli.train import train
from fluxsr.training import distillation


@pytest.mark.parametrize(
    "given, resume", [([], "none"), (["--resume-from-checkpoint", "runs/a b: c.pt"], "runs/a b: c.pt")]
)
def test_resume_stands_before_the_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: list[str], resume: str
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(distillation, "train_distill", lambda config, out: seen.append((config, out)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("stage: distill\nrank: 4\nrun: {resume: none}\n", encoding="utf-8")
    arguments = ["distill", "--recipe", str(recipe), "--out", str(tmp_path / "out"), *given, "run.lr=1e-5"]
    done = CliRunner().invoke(train, arguments)
    assert done.exit_code == 0, done.output
    ((config, out),) = seen
    assert (config.run.resume, config.rank, config.run.lr, out) == (resume, 4, 1e-5, tmp_path / "out")

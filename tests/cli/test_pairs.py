"""``fluxsr pairs``: recipes in, exit codes and lines out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from fluxsr.cli.main import app
from fluxsr.errors import InputError


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def recipe(model_folder: Path, tmp_path: Path) -> Path:
    values = {
        "base": str(model_folder), "count": 3, "steps": 1, "window": 4, "crop": 32, "shard": 2, "device": "cpu",
        "precision": "fp32", "licence": "ours",
    }  # fmt: skip
    path = tmp_path / "pairs.yaml"
    path.write_text(yaml.safe_dump({"stage": "pairs", **values}), encoding="utf-8")
    return path


def test_generate_verify_show(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = run("pairs", "generate", "--recipe", recipe, "--out", out, "seed=4")
    assert made.exit_code == 0 and "3 pairs in 2 shards" in made.stdout and "bytes per pair" in made.stdout
    checked = run("pairs", "verify", out, "--sample", "2", "--device", "cpu")
    assert checked.exit_code == 0, checked.output
    assert "seed-4: eps leads to z_0 within" in checked.stdout
    assert "3 pairs, mode sample, teacher's licence: ours; 0 faults" in checked.stdout
    screened = run("pairs", "screen", out, "--device", "cpu", "--detail", "1")
    assert screened.exit_code == 0 and "seed-4: " in screened.stdout, screened.output
    assert "kept 0 of 3 pairs; dropped " in screened.stdout and (out / "screened.json").is_file()
    shown = run("pairs", "show", out, "-o", tmp_path / "sheet.png", "--device", "cpu")
    assert shown.exit_code == 0 and (tmp_path / "sheet.png").is_file()


def test_a_fault_is_a_line_and_exit_code_one(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("pairs", "generate", "--recipe", recipe, "--out", out)
    (out / "shard-00001.safetensors").unlink()
    checked = run("pairs", "verify", out)
    assert checked.exit_code == 1
    assert [line[:40] for line in checked.stderr.splitlines()] == ["error: shard-00001.safetensors is missin"]
    assert checked.stdout.endswith("1 faults\n")


def test_the_command_sets_the_mode(recipe: Path, tmp_path: Path) -> None:
    result = run("pairs", "invert", "--recipe", recipe, "--out", tmp_path / "out")
    assert isinstance(result.exception, InputError) and "no photographs given" in str(result.exception)


def test_a_recipe_of_the_other_mode_is_refused(recipe: Path, tmp_path: Path) -> None:
    def refused(command: str, *overrides: str) -> str:
        result = run("pairs", command, "--recipe", recipe, "--out", tmp_path / "out", *overrides)
        assert isinstance(result.exception, InputError) and not (tmp_path / "out").exists()
        return str(result.exception)

    line = "mode is sample in the recipe, but this is `fluxsr pairs invert`; run `fluxsr pairs generate`"
    assert line in refused("invert", "mode=sample")
    recipe.write_text(recipe.read_text(encoding="utf-8") + "mode: invert\n", encoding="utf-8")
    assert "mode is invert in the recipe, but this is `fluxsr pairs generate`" in refused("generate")


def test_no_store(tmp_path: Path) -> None:
    for command in ("verify", "show"):
        result = run("pairs", command, tmp_path)
        assert isinstance(result.exception, InputError) and "no manifest.json" in str(result.exception)

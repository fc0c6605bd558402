"""The search: its variants are recipes, small runs go from nothing to a table, and what is finished stays."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from fluxsr import recipe
from fluxsr.backbone import latents
from fluxsr.training.config import TeacherConfig

FOLDER = Path(__file__).parents[2] / "benchmarks"
RUN = ["run.steps=1", "run.batch=1", "run.crop=32", "run.warmup=0", "ftd_every=1", "degradation_group=1"]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)  # as running the script does
    return importlib.import_module("search")


@pytest.fixture
def small(search: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Arguments of runs that take no time; two groups with one small variant each, two photographs, small tiles."""
    for name in ("a", "b"):
        Image.effect_noise((384, 384), 40).convert("RGB").save(tmp_path / f"{name}.png")
    its = search.groups()
    autoencoder = ["widths=[8,8,8]", "layers=[0,1,1]", "latent_channels=4"]
    tiny = {
        "autoencoder": replace(its["autoencoder"], variants={"f4": autoencoder}),
        "tokens": replace(
            its["tokens"],
            patches={"16px": 4},
            variants={"16px": ["autoencoder={out}/autoencoder/f4/0", "num_single_layers=1", "num_attention_heads=1"]},
        ),
    }  # fmt: skip
    monkeypatch.setattr(search, "groups", lambda: tiny)
    monkeypatch.setattr(importlib.import_module("costs"), "TILE", 32)
    monkeypatch.setattr(latents, "PATCH", latents.PATCH)  # put back, for runs change it
    monkeypatch.setattr(importlib.import_module("scores"), "MIDDLE", slice(0, 128))
    photos = [f"data.shards=[{tmp_path / 'a.png'}]", f"data.validation=[{tmp_path / 'b.png'}]"]
    return ["--out", str(tmp_path / "out"), *photos, *RUN[:4]]


def test_every_variant_is_a_recipe(search: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[TeacherConfig] = []
    monkeypatch.setattr(search, "random_base", lambda shape, folder: shapes.append(shape))
    for group in search.groups().values():
        configs = [search.configured(group, name, tmp_path / "0", [], tmp_path) for name in group.variants]
        made = [recipe.flatten(config) for config in (shapes if group.shapes else configs)]
        runs = {(json.dumps(one), group.patches.get(name)) for one, name in zip(made, group.variants, strict=True)}
        assert len(runs) == len(configs)  # no two variants are the same run
        assert set(group.plane) <= set(group.columns)
        shapes.clear()


def test_what_is_unknown_is_one_line(search: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search.main(["--out", str(tmp_path), "--only", "student/rank_17"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --only has 'student/rank_17'; known are autoencoder, ")


def test_runs_are_asked_for_by_group_name_and_seed(search: ModuleType) -> None:
    options = search.parse(["--out", "x", "--seeds", "1,2", "--only", "tokens,student/full", "run.steps=3"])
    names = [*(("tokens", name) for name in search.groups()["tokens"].variants), ("student", "full")]
    assert search.planned(options) == [(*name, seed) for seed in (1, 2) for name in names]
    assert options.overrides == ["run.steps=3"]


def test_from_photographs_to_a_table(
    search: ModuleType, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out = Path(small[1])
    assert search.main([*small, "--only", "autoencoder"]) == 0
    assert search.main([*small, "--only", "tokens", *RUN[4:]]) == 0
    text = (out / "search.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.endswith(text) and "| f4 | 1 |" in text and "| 16px | 1 |" in text
    assert (out / "search.png").read_bytes()[:4] == b"\x89PNG"
    scores = json.loads((out / "tokens" / "16px" / "0" / "scores.json").read_text(encoding="utf-8"))
    assert 0 < scores["psnr"] < 60 and "camera_psnr" not in scores  # no column of this group asks for it
    costs = json.loads((out / "tokens" / "16px" / "0" / "costs.json").read_text(encoding="utf-8"))
    assert min(costs[name] for name in ("s_bf16", "s_fp32", "MB", "TFLOP")) > 0 and scores["s_train"] > 0

    def never(*_: Any) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(search, "train_autoencoder", never)
    monkeypatch.setattr(search, "train_distill", never)
    assert search.main([*small, "--only", "autoencoder"]) == 0
    assert search.main([*small[:2], "--report"]) == 0 and capsys.readouterr().out.endswith(text)
    assert search.main([*small, "--only", "autoencoder", "edge_weight=2"]) == 1
    assert "edge_weight 0.5 there, 2.0 here; give another --out" in capsys.readouterr().err


def test_seeds_give_deviations_and_differences(search: ModuleType, tmp_path: Path) -> None:
    """Luck that both variants share drops out of their difference."""
    row = dict.fromkeys(search.groups()["student"].columns, 1.0)
    for name, gain in {"full": 0.0, "ftd_0": 0.5, "ftd_1": 0.0}.items():
        for seed, psnr in enumerate((30.0, 31.0)[: 1 if name == "ftd_1" else 2]):
            run = tmp_path / "student" / name / str(seed)
            run.mkdir(parents=True)
            (run / "scores.json").write_text(json.dumps(row | {"psnr": psnr + gain}), encoding="utf-8")
    means, differences = search.report(tmp_path).split("seed by seed:")
    assert "| full | 2 | 30.500 ± 0.707 | 1.000 ± 0.000 |" in means and "| ftd_1 | 1 | 30.000 | 1.000 |" in means
    assert "| ftd_0 | 2 | 0.500 ± 0.000 | 0.000 ± 0.000 |" in differences and "ftd_1" not in differences

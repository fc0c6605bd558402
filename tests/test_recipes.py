"""Every shipped recipe loads and begins with its launch command, and the launchers fit accelerate and the recipes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import diffusers.models.transformers.transformer_flux as flux
import pytest
from accelerate.commands.config.config_args import load_config_from_file

from fluxsr import recipe
from fluxsr.degradation import DegradationSettings
from fluxsr.training.config import STAGES
from fluxsr.training.dataset import PairCrops

SCHEMAS = {**STAGES, "degradation": DegradationSettings}
ROOT = Path(__file__).parents[1]
LAUNCHERS = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))  # files of accelerate, not recipes
RECIPES = sorted(set((ROOT / "recipes").rglob("*.yaml")) - set(LAUNCHERS))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("path", RECIPES, ids=relative)
def test_recipe_loads_and_begins_with_its_launch_command(path: Path) -> None:
    recipe.load(SCHEMAS[recipe.read(path)["stage"]], path)
    assert first_line(path).startswith("# ") and "fluxsr " in first_line(path) and relative(path) in first_line(path)


def test_accelerate_reads_the_launchers() -> None:
    """They have known keys only, leave the precision to the loop, and shard the blocks of FLUX."""
    for path in LAUNCHERS:
        config = load_config_from_file(str(path))
        assert config.mixed_precision == "no"  # bf16 would autocast a second time, and FSDP2 would widen the LoRA
        assert config.num_processes % config.num_machines == 0
        assert first_line(path).startswith(f"# accelerate launch --config_file {relative(path)} ")
        assert " -m fluxsr train distill " in first_line(path)
        if config.distributed_type == "FSDP":
            blocks = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
            assert all(hasattr(flux, block) for block in blocks) and config.fsdp_config["fsdp_version"] == 2


def test_no_tile_of_inference_is_larger_than_the_training_crop() -> None:
    for path in RECIPES:
        if recipe.read(path).get("stage") != "distill":
            continue
        options = recipe.load(STAGES["distill"], path)
        assert options.tile_size <= options.run.crop, path


def test_a_smaller_crop_has_its_smaller_tile() -> None:
    for path in [*LAUNCHERS, ROOT / "docs" / "training.md"]:
        words = path.read_text(encoding="utf-8").replace("#", " ").split()
        after = {words[k + 1].strip(".`,") for k, word in enumerate(words) if word == "run.crop=512"}
        assert after <= {"tile_size=512"}, path


def test_the_full_size_recipe_fits_its_launchers() -> None:
    """Its batch divides evenly among the processes of every launcher."""
    path = ROOT / "recipes" / "flux" / "train.yaml"
    options = recipe.load(STAGES["distill"], path)
    assert options.rank == 64 and options.export == "adapter" and options.run.gradient_checkpointing
    for launcher in LAUNCHERS:
        overrides = [word for word in first_line(launcher).split() if word.startswith("run.")]
        batch = recipe.load(STAGES["distill"], path, overrides).run.batch
        assert batch % load_config_from_file(str(launcher)).num_processes == 0, launcher.name


@pytest.mark.skipif(os.name == "nt", reason="needs bash")
def test_every_variant_of_the_gate_changes_one_known_option() -> None:
    def variants(names: str) -> subprocess.CompletedProcess[str]:
        command, environment = ["bash", str(ROOT / "recipes/flux/gate.sh"), names], os.environ | {"DRY_RUN": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)

    gate = ROOT / "recipes" / "flux" / "gate.yaml"
    plain = recipe.flatten(recipe.load(STAGES["distill"], gate))
    assert (plain["run.steps"], plain["run.crop"], plain["run.ema"], plain["ftd_weight"]) == (1000, 512, 0.999, 1.0)
    for line in variants("all").stdout.splitlines():
        name, *overrides = line.split()
        changed = recipe.flatten(recipe.load(STAGES["distill"], gate, overrides))
        different = [key for key in plain if changed[key] != plain[key]]
        assert len(different) == (name != "paper"), (name, different)
    assert len(variants("all").stdout.splitlines()) == 9
    assert variants("no_ftd,no_adl").stdout.split() == ["no_ftd", "ftd_weight=0", "no_adl", "adl_weight=0"]
    assert "unknown variant 'x'; choose from: paper no_ftd" in variants("x").stderr


def test_a_pair_of_flux_has_many_places_for_a_crop() -> None:
    pairs, train = (recipe.read(ROOT / "recipes" / "flux" / f"{name}.yaml") for name in ("pairs", "train"))
    assert pairs["crop"] == 8 * pairs["window"]
    assert (pairs["crop"] - train["run"]["crop"] - 2 * PairCrops.MARGIN) // 16 + 1 == 9

"""Every recipe that is shipped loads, and opens with the command that launches it."""

from __future__ import annotations

from dataclasses import is_dataclass
from pathlib import Path

import pytest

from fluxsr import recipe
from fluxsr.degradation import DegradationSettings
from fluxsr.training.config import STAGES

SCHEMAS = {**STAGES, "degradation": DegradationSettings}
ROOT = Path(__file__).parents[1]
LAUNCHERS = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))  # for accelerate, not for us
RECIPES = sorted(set((ROOT / "recipes").rglob("*.yaml")) - set(LAUNCHERS))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", RECIPES, ids=relative)
def test_recipe_loads_and_opens_with_its_launch_command(path: Path) -> None:
    stage = recipe.stage_of(path)
    assert stage in SCHEMAS, f"stage is {stage!r}, expected one of {sorted(SCHEMAS)}"
    assert is_dataclass(recipe.load(SCHEMAS[stage], path, []))
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("#"), "the first line must be a comment with the launch command"
    assert "fluxsr " in first and relative(path) in first


@pytest.mark.parametrize("path", LAUNCHERS, ids=relative)
def test_accelerate_reads_its_configuration(path: Path) -> None:
    """Known keys only, our own precision, and FSDP2 in the blocks of FLUX."""
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no"  # bf16 here would autocast a second time, and FSDP2 would widen the LoRA
    assert config.num_processes % config.num_machines == 0
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert (
        first.startswith(f"# accelerate launch --config_file {relative(path)} ")
        and " -m fluxsr train distill " in first
    )
    if config.distributed_type == "FSDP":
        blocks = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
        import diffusers.models.transformers.transformer_flux as flux

        assert all(hasattr(flux, block) for block in blocks) and config.fsdp_config["fsdp_version"] == 2


@pytest.mark.parametrize("path", [path for path in RECIPES if recipe.stage_of(path) == "distill"], ids=relative)
def test_no_tile_of_inference_is_larger_than_what_was_trained_on(path: Path) -> None:
    options = recipe.load(STAGES["distill"], path)
    crops = [options.run.crop]
    if options.base.endswith("distill/model"):  # a student that goes on has seen what it was trained on before
        crops.append(recipe.load(STAGES["distill"], path.with_name("distill.yaml")).run.crop)
    assert options.tile_size <= max(crops)


@pytest.mark.parametrize("path", [*LAUNCHERS, ROOT / "docs" / "training.md"], ids=relative)
def test_a_smaller_crop_has_its_smaller_tile(path: Path) -> None:
    words = path.read_text(encoding="utf-8").replace("#", " ").split()
    after = {words[k + 1].strip(".`,") for k, word in enumerate(words) if word == "run.crop=512"}
    assert after <= {"tile_size=512"}


def test_the_full_size_recipe_fits_its_launchers() -> None:
    """Its batch splits over the processes of every launcher; what is open in the paper is said to be ours."""
    from accelerate.commands.config.config_args import load_config_from_file

    path = ROOT / "recipes" / "flux" / "train.yaml"
    options = recipe.load(STAGES["distill"], path)
    assert options.rank == 64 and options.export == "adapter" and options.run.gradient_checkpointing
    for launcher in LAUNCHERS:
        line = launcher.read_text(encoding="utf-8").splitlines()[0]
        overrides = [word for word in line.split() if word.startswith("run.")]
        batch = recipe.load(STAGES["distill"], path, overrides).run.batch
        assert batch % load_config_from_file(str(launcher)).num_processes == 0, launcher.name

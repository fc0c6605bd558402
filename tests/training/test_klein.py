"""FLUX.2 [klein] from prompts to a published adapter by the commands, on a tiny random model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import fluxsr
from fluxsr.backbones.places import WEIGHTS_FILE
from fluxsr.cli.main import app

BASE = "black-forest-labs/FLUX.2-klein-base-4B"


def fluxsr_command(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.fixture
def recipes(klein_folder: Path, lpips_weights: Path, tmp_path: Path) -> Path:
    """A folder with a base, pairs.yaml and train.yaml, and the pairs."""
    (base := tmp_path / "klein").mkdir()
    for entry in klein_folder.iterdir():
        (base / entry.name).symlink_to(entry)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    pairs = {
        "stage": "pairs", "base": str(base), "mode": "sample", "count": 4, "prompts": "composer", "text_tokens": 9,
        "steps": 2, "solver": "euler", "shift": "dynamic", "guidance": 4.0, "window": 4, "batch": 2, "shard": 2,
        "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    run = {"steps": 2, "batch": 2, "crop": 32, "warmup": 0, "device": "cpu", "tracker": "none", "precision": "fp32"}
    train = {
        "stage": "distill", "name": BASE, "base": str(base), "pairs": str(tmp_path / "pairs"), "rank": 2, "alpha": 4.0,
        "perceptual": str(lpips_weights), "tile_size": 32, "export": "adapter",
        "run": run,
    }  # fmt: skip
    (tmp_path / "pairs.yaml").write_text(yaml.safe_dump(pairs))
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(train))
    fluxsr_command("pairs", "generate", "--recipe", tmp_path / "pairs.yaml", "--out", tmp_path / "pairs")
    return tmp_path


def test_the_whole_way(recipes: Path, fake_hub: Any) -> None:
    fluxsr_command("pairs", "verify", recipes / "pairs", "--device", "cpu")
    train = ("train", "distill", "--recipe", recipes / "train.yaml", "--out")
    fluxsr_command(*train, recipes / "run", "run.stop=1")
    fluxsr_command(*train, recipes / "run")  # resumes
    fluxsr_command(*train, recipes / "unbroken")
    adapter = recipes / "run" / "model"
    trained = [load_file(folder / WEIGHTS_FILE) for folder in (adapter, recipes / "unbroken" / "model")]
    assert trained[0].keys() == trained[1].keys()
    assert all(torch.equal(weight, trained[1][name]) for name, weight in trained[0].items())

    exported, on_cpu = recipes / "exported", ("--device", "cpu")
    fluxsr_command("export", "--model", recipes / "klein", "--adapter", adapter, "-o", exported, *on_cpu)
    draw = np.random.default_rng(0)
    for name, shape in (("LR", (16, 24, 3)), ("HR", (64, 96, 3))):
        (recipes / name).mkdir()
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(recipes / name / "a.png")
    fluxsr_command("upscale", recipes / "LR", "-o", recipes / "SR", "--model", exported, "--tile-overlap", 16, *on_cpu)
    assert Image.open(recipes / "SR" / "a.png").size == (96, 64)
    table = fluxsr_command("evaluate", recipes / "SR", recipes / "HR", "--metrics", "psnr", "--workers", 1)
    assert "psnr" in table

    fluxsr_command("push", adapter, "--repo-id", "somebody/klein-adapter")
    files = fake_hub.repositories["somebody/klein-adapter"]
    head = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["base_model"] == BASE
    assert "apache-2.0" in files["NOTICE"].decode() and "LICENSE.md" not in files
    assert not any(b"non-commercial" in content.lower() for content in (files["NOTICE"], files["README.md"]))
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    local, pulled = (
        fluxsr.load(recipes / "klein", adapter=source, device="cpu", dtype="fp32")(
            image, tile_overlap=16, output_type="pt"
        ).images
        for source in (adapter, "somebody/klein-adapter")
    )
    assert torch.equal(local, pulled)


@pytest.mark.slow  # a launcher and two processes, which import torch
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's rendezvous is not in every Windows wheel of torch")
def test_two_processes_train_the_adapter_of_one(recipes: Path) -> None:
    train = ("train", "distill", "--recipe", str(recipes / "train.yaml"), "--out")
    fluxsr_command(*train, recipes / "one")
    environment = {**os.environ, "PYTHONPATH": str(Path(fluxsr.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "fluxsr"]
    command = [*launcher, *train, str(recipes / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(recipes / name / "model" / WEIGHTS_FILE) for name in ("one", "two"))
    # Sums over processes are rounded otherwise. Where a gradient is nearly zero, AdamW turns that into a full step of a
    # single weight, so whole matrices are compared. They are written in bfloat16.
    for name, weight in one.items():
        assert float((two[name].float() - weight.float()).norm()) <= 1e-2 * float(weight.float().norm()), name

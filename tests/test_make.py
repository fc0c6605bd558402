"""recipes/tiny/make.sh: a model that upscales, in one command that goes on where it stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fluxsr

ROOT = Path(__file__).parents[1]
SHORT = ["run.steps=2", "run.stop=0", "run.batch=4", "run.crop=64", "run.save_every=2", "run.workers=0", "data.limit=4"]


def network() -> bytes:
    """The weights of a random RRDBNet, the shape of Real-ESRGAN x4plus, in ncnn's layout."""
    random, parts = np.random.default_rng(0), []
    dense = [(64 + 32 * k, 32 if k < 4 else 64) for k in range(5)]
    for inputs, outputs in [(3, 64), *dense * 3 * 23, *[(64, 64)] * 4, (64, 3)]:
        weight = random.normal(0, 1 / (9 * inputs) ** 0.5, (outputs, inputs, 3, 3))
        parts += [np.zeros(1), weight, np.zeros(outputs)]
    return b"".join(part.astype(np.float32).tobytes() for part in parts)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_one_command_makes_a_model_from_nothing_and_again_makes_nothing_new(
    tmp_path: Path, lpips_weights: Path
) -> None:
    shutil.copytree(ROOT / "recipes" / "tiny", tmp_path / "recipes" / "tiny")
    photos = tmp_path / "data" / "photos"
    for shard in ("train-000", "val-000"):
        (photos / shard).mkdir(parents=True)
        for k in range(4):
            pixels = np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC).save(photos / shard / f"{k}.png")
        subprocess.run(["tar", "cf", photos / f"{shard}.tar", "-C", photos / shard, "."], check=True)
    for folder, side in (("LR", 32), ("HR", 128)):
        (tmp_path / "data/guides" / folder).mkdir(parents=True)
        image = Image.open(photos / "train-000/0.png").resize((side, side))
        image.save(tmp_path / "data/guides" / folder / "0.png")
    (tmp_path / "data/perceptual").mkdir()
    shutil.copy(lpips_weights, tmp_path / "data/perceptual")
    (tmp_path / "data/realesrgan-x4plus.bin").write_bytes(network())
    bin_folder = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def make() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", tmp_path / "recipes/tiny/make.sh", *SHORT],
            env={**os.environ, "PATH": bin_folder}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = make()
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("model: runs/tiny/distill/model\n")
    weights = tmp_path / "runs/tiny/distill/model/transformer/diffusion_pytorch_model.safetensors"
    first = weights.read_bytes()
    pipeline = fluxsr.load(str(tmp_path / "runs/tiny/distill/model"))
    assert pipeline(Image.new("RGB", (16, 16), "teal")).images[0].size == (64, 64)

    assert make().returncode == 0
    assert weights.read_bytes() == first

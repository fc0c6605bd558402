"""FLUX.2 [klein] from prompts to an adapter that can be published, on a tiny random model."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

import fluxsr
from fluxsr.hub.contents import contents
from fluxsr.imaging.settings import Settings
from fluxsr.options import UpscaleOptions
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.make import make_pairs
from fluxsr.pairs.store import PairStore
from fluxsr.pairs.verify import faults, reintegrate
from fluxsr.training import distillation
from fluxsr.training.config import DataConfig, DistillConfig, RunConfig


def test_the_whole_way(klein_folder: Path, lpips_weights: Path, tmp_path: Path) -> None:
    base = tmp_path / "klein"
    base.symlink_to(klein_folder)
    pairs = PairsConfig(
        DataConfig(), str(base), "sample", 3, "composer", 9, steps=2, solver="euler", shift="dynamic", guidance=4.0,
        window=4, batch=2, shard=2, device="cpu", precision="fp32", licence="apache-2.0",
    )  # fmt: skip
    make_pairs(pairs, tmp_path / "pairs")
    store = PairStore(tmp_path / "pairs")
    assert not list(faults(store)) and not reintegrate(store, 2, device="cpu")[0]
    assert store.manifest()["licence"]["name"] == "apache-2.0"

    run = RunConfig(steps=2, batch=2, crop=32, save_every=2, warmup=0, device="cpu", tracker="none", precision="fp32")
    config = DistillConfig(
        run, DataConfig(), base=str(base), pairs=str(tmp_path / "pairs"), rank=2, alpha=4.0, export="adapter",
        perceptual=str(lpips_weights), tile_size=32, name="black-forest-labs/FLUX.2-klein-base-4B",
    )  # fmt: skip
    distillation.train_distill(config, tmp_path / "run")
    adapter = tmp_path / "run" / "model"

    pipe = fluxsr.load(base, adapter=adapter, device="cpu", dtype="fp32")
    high = pipe.upscale_tensor(torch.rand(1, 3, 16, 24), Settings(UpscaleOptions(tile_overlap=16)))
    assert high.shape == (1, 3, 64, 96) and bool(high.isfinite().all())

    files = contents(adapter, "somebody/klein-adapter")
    card = files["README.md"]
    head = yaml.safe_load((card if isinstance(card, bytes) else card.read_bytes()).decode().split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["base_model"] == config.name
    notice = files["NOTICE"]
    words = (notice if isinstance(notice, bytes) else notice.read_bytes()).decode()
    assert "apache-2.0" in words and "non-commercial" not in words.lower() and "LICENSE.md" not in files

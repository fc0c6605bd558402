"""A LoRA on the encoder: gradients reach it, targets do not change with it, and it is kept, averaged and exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fluxsr.backbones import latents
from fluxsr.backbones.encoder_lora import read_encoder_lora
from fluxsr.backbones.loading import load
from fluxsr.backbones.parts import load_part
from fluxsr.backbones.places import ENCODER_FILE
from fluxsr.backbones.prompts import FixedPrompt
from fluxsr.degradation import load_settings
from fluxsr.errors import InputError
from fluxsr.imaging.photographs import DataConfig
from fluxsr.training import batches, checkpoint
from fluxsr.training.config import DistillConfig, RunConfig
from fluxsr.training.distillation import train_distill
from fluxsr.training.steps.distill import DistillStage, encode_batch
from fluxsr.training.student import build_student, export_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(params=["flux", "klein"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> DistillConfig:
    """FLUX.1 in bfloat16, written as a model; klein in float32, written as an adapter. Both without teacher pairs."""
    flux = request.param == "flux"
    base, widths = (
        request.getfixturevalue("text_model_folder" if flux else "klein_folder"),
        (16, 16) if flux else (24, 0),
    )
    draw = torch.Generator().manual_seed(0)
    FixedPrompt(torch.randn(1, 3, widths[0], generator=draw), torch.randn(1, widths[1], generator=draw)).save(tmp_path)
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((128, 128), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    run = RunConfig(
        steps=2, batch=2, crop=32, warmup=0, ema=0.5, save_every=1, device="cpu", tracker="none",
        precision="bf16" if flux else "fp32", decoder_checkpointing=flux,
    )  # fmt: skip
    return DistillConfig(
        run, DataConfig([str(tmp_path / "photo.png")]), base=str(base), prompt_folder=str(tmp_path), rank=2, alpha=4.0,
        guidance=1.0 if flux else None, train_encoder_lora=True, eps_source="fresh", tv_lpips_weight=0.0,
        export="model" if flux else "adapter",
    )  # fmt: skip


def student_of(config: DistillConfig) -> Any:
    """A student whose LoRAs act."""
    student = build_student(config, 4, CPU)
    for part in (student.transformer, student.vae.encoder):
        for k, (name, parameter) in enumerate(part.named_parameters()):
            if "lora_B" in name:
                parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(k))
    return student


def test_gradients_reach_it_and_targets_are_the_base_s(config: DistillConfig, tmp_path: Path) -> None:
    config = replace(config, run=replace(config.run, precision="fp32"))
    student, plain = student_of(config), load_part(Path(config.base), "vae", torch.float32)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    _, z_l, z_0, _ = encode_batch(student.vae, image, image, torch.zeros(2, 0), torch.zeros(2, 0))
    expected = latents.encode(plain, image).detach()
    torch.testing.assert_close(z_0, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(z_l, expected, atol=1e-2) and z_l.requires_grad and not z_0.requires_grad

    settings = load_settings("bicubic")
    crops = batches.pair_crops(config, student.vae, settings, tmp_path / "targets")
    stage = DistillStage(config, student, batches.prepared(config, student.vae, crops), None, CPU)
    found = stage.losses(0, [0, 1])
    torch.stack([value for name, value in found.items() if not name.startswith("log/")]).sum().backward()
    for name, parameter in student.vae.named_parameters():
        trained = name.startswith("encoder.") and "lora_" in name
        assert (parameter.grad is not None and bool(parameter.grad.any())) == trained, name


def test_it_is_resumed_averaged_and_exported(config: DistillConfig, tmp_path: Path) -> None:
    train_distill(config, tmp_path / "unbroken")
    train_distill(replace(config, run=replace(config.run, stop=1)), tmp_path / "run")
    train_distill(config, tmp_path / "run")
    files = [tmp_path / name / "model" / ENCODER_FILE for name in ("unbroken", "run")]
    assert files[0].read_bytes() == files[1].read_bytes()
    export_checkpoint(tmp_path / "run", tmp_path / "exported", "cpu")
    assert (tmp_path / "exported" / ENCODER_FILE).read_bytes() == files[0].read_bytes()

    held = checkpoint.load(checkpoint.listing(tmp_path / "run")[-1])
    assert len(held["average"]) == sum("lora_" in key for part in held["modules"].values() for key in part)
    assert any("lora_B" in key for key in held["modules"]["encoder"])
    pairs = read_encoder_lora(files[1])
    assert "conv_in" in pairs and all(bool(up.any()) for _, up in pairs.values())

    whole = config.export == "model"
    name = Path("vae", "diffusion_pytorch_model.safetensors")
    if whole:  # the LoRA lies beside an autoencoder that did not change
        before, after = (load_file(folder / name) for folder in (Path(config.base), files[1].parent))
        assert before.keys() == after.keys() and all(torch.equal(v.bfloat16(), after[k]) for k, v in before.items())
    loaded = load(files[1].parent if whole else config.base, None if whole else files[1].parent, "cpu", "fp32")
    image = torch.rand(1, 3, 32, 32)
    plain = load_part(Path(config.base), "vae", torch.float32)
    with torch.no_grad():
        assert not torch.equal(latents.encode(loaded.vae, image), latents.encode(plain, image))


def test_it_needs_a_rank(config: DistillConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train_encoder_lora is on, but rank is 0; set rank"):
        train_distill(replace(config, rank=0, export="model"), tmp_path / "run")

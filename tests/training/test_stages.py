"""The whole recipe in seconds: photographs in, a model folder out, every stage from the files of the last."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fluxsr import recipe
from fluxsr.backbones import latents
from fluxsr.backbones.adapter import AdapterConfig, load_config
from fluxsr.backbones.loading import Backbone
from fluxsr.backbones.parts import load_part
from fluxsr.backbones.prompts import load_prompt, random_prompt
from fluxsr.backbones.tiny import build_autoencoder, build_transformer
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import FluxSRError, InputError
from fluxsr.pairs.make import make_pairs
from fluxsr.pairs.store import PairStore
from fluxsr.training import checkpoint, distillation, stages, student
from fluxsr.training.config import (
    AutoencoderConfig,
    DataConfig,
    DistillConfig,
    PairsConfig,
    RestorerConfig,
    RunConfig,
    TeacherConfig,
)


def run(**changes: int | str) -> RunConfig:
    values = {
        "steps": 2,
        "batch": 2,
        "crop": 32,
        "save_every": 2,
        "log_every": 1,
        "warmup": 0,
        "device": "cpu",
        "tracker": "none",
    }
    return RunConfig(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Three smooth photographs of 128x128."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(3):
        coarse = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((128, 128), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return DataConfig(shards=[str(folder)], validation=[str(folder / "0.png")])


@pytest.fixture(scope="module")
def runs(data: DataConfig, lpips_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which all stages but the restorer have run."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs")
    shutil.copy(lpips_weights, out / "lpips.safetensors")
    stages.train_autoencoder(
        AutoencoderConfig(run(), data, widths=[8, 8, 8, 16], layers=[0, 1, 1, 1], latent_channels=4),
        out / "autoencoder",
    )
    stages.train_teacher(
        TeacherConfig(
            run(),
            data,
            str(out / "autoencoder"),
            num_layers=1,
            num_single_layers=1,
            num_attention_heads=1,
            text_tokens=2,
            text_dim=8,
        ),
        out / "teacher",
    )
    base = str(out / "teacher" / "base")
    pairs = pairs_config(data, base)
    make_pairs(pairs, out / "pairs")
    make_pairs(PairsConfig(**{**vars(pairs), "mode": "sample", "count": 2}), out / "sampled")
    distillation.train_distill(distill_config(data, out), out / "distill")
    return out


def pairs_config(data: DataConfig, base: str) -> PairsConfig:
    return PairsConfig(
        data, base, steps=2, window=8, shard=2, check=2, device="cpu", precision="fp32", licence="terms of the teacher"
    )


def distill_config(data: DataConfig, out: Path, pairs: str = "pairs") -> DistillConfig:
    return DistillConfig(
        run(optimizer="adamw"), data, base=str(out / "teacher" / "base"), pairs=str(out / pairs), rank=2, alpha=2.0,
        perceptual=str(out / "lpips.safetensors"),
    )  # fmt: skip


def test_autoencoder_scale_is_fitted(runs: Path) -> None:
    config = json.loads((runs / "autoencoder" / "vae" / "config.json").read_text(encoding="utf-8"))
    assert config["_class_name"] == "AutoencoderDC" and config["scaling_factor"] not in (None, 1.0)
    assert (runs / "autoencoder" / "reconstructions.png").is_file()


def test_an_autoencoder_needs_no_photographs_to_be_scored_on(data: DataConfig, tmp_path: Path) -> None:
    config = AutoencoderConfig(run(), replace(data, validation=[]), [8, 8, 8], [0, 1, 1], latent_channels=4)
    stages.train_autoencoder(config, tmp_path)
    assert (tmp_path / "vae").is_dir() and not (tmp_path / "reconstructions.png").exists()
    assert "val/" not in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")


def test_pairs_belong_to_their_photographs_and_say_how_they_were_made(runs: Path) -> None:
    store = PairStore(runs / "pairs")
    assert [pair.name for pair in store] == ["0", "1", "2"]
    manifest = store.manifest()
    assert manifest["count"] == 3 and manifest["mode"] == "invert"
    assert 0 < manifest["round_trip_rmse"] < manifest["fresh_noise_rmse"]
    assert [pair.name for pair in PairStore(runs / "sampled")] == ["seed-0", "seed-1"]


def test_a_lost_shard_is_made_again_the_same(data: DataConfig, runs: Path) -> None:
    path = runs / "pairs" / "shard-00001.safetensors"
    before, kept = load_file(path), (runs / "pairs" / "shard-00000.safetensors").stat().st_mtime_ns
    path.with_suffix(".json").unlink()
    base = str(runs / "teacher" / "base")
    make_pairs(pairs_config(data, base), runs / "pairs")
    after = load_file(path)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (runs / "pairs" / "shard-00000.safetensors").stat().st_mtime_ns == kept


def test_the_student_loads_and_its_adapter_counts(runs: Path) -> None:
    from fluxsr.backbones.loading import load

    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = runs / "distill" / "model"
    with_adapter, without = (
        distillation.step_image(load(model, adapter, "cpu", "fp32", folded=False), image, "fp32")
        for adapter in (None, False)
    )
    assert with_adapter.shape == (1, 3, 32, 32) and bool(torch.isfinite(with_adapter).all())
    assert not torch.equal(with_adapter, without)


def test_a_restorer_is_trained_and_the_student_starts_from_it(data: DataConfig, runs: Path, tmp_path: Path) -> None:
    config = RestorerConfig(
        run(),
        data,
        str(runs / "teacher" / "base"),
        width=4,
        growth=2,
        blocks=1,
        perceptual=str(runs / "lpips.safetensors"),
    )
    stages.train_restorer(config, tmp_path / "restorer")
    before, after = (
        load_part(folder, "vae", torch.float32) for folder in (config.base, tmp_path / "restorer" / "base")
    )
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    assert after.restorer.last.weight.any()
    assert (tmp_path / "restorer" / "restored.png").is_file()
    distilled = replace(distill_config(data, runs), base=str(tmp_path / "restorer" / "base"), export="model", rank=0)
    distillation.train_distill(distilled, tmp_path / "distill")
    student = load_part(tmp_path / "distill" / "model", "vae", torch.bfloat16)
    assert torch.equal(student.restorer.last.weight, after.restorer.last.weight.bfloat16())


def test_validation_takes_tiles_of_whole_tokens_whatever_the_autoencoder() -> None:
    vae = build_autoencoder([8] * 5, [0, 1, 1, 1, 1], 4).eval()  # 16 pixels a latent, 32 a token
    prompt = random_prompt(4, 32, torch.Generator().manual_seed(0))
    base = Backbone(build_transformer(4, 1, 0, 1, 32), vae, prompt, AdapterConfig(tile_size=128))
    image = torch.rand(1, 3, 176, 96)  # tiles that are balanced on a lattice of 16 would have 112 rows
    assert distillation._upscaled(base, image, torch.device("cpu"), "fp32").shape == image.shape


@pytest.mark.slow
def test_a_cut_run_in_bfloat16_ends_as_an_unbroken_one(data: DataConfig, runs: Path, tmp_path: Path) -> None:
    """To the bit, though the first batch after a cut is made where autocast is on."""
    config = distill_config(DataConfig(data.shards), runs)
    config.run = run(steps=4, precision="bf16", optimizer="adamw")
    distillation.train_distill(config, tmp_path / "whole")
    distillation.train_distill(replace(config, run=replace(config.run, stop=2)), tmp_path / "cut")
    distillation.train_distill(config, tmp_path / "cut")
    weights = [load_file(tmp_path / name / "model" / "pytorch_lora_weights.safetensors") for name in ("whole", "cut")]
    states = [checkpoint.load(tmp_path / name / "step-00000004.pt")["modules"]["adapter"] for name in ("whole", "cut")]
    for whole, cut in (weights, states):
        assert whole and all(torch.equal(value, cut[key]) for key, value in whole.items())


def test_the_teachers_terms_go_with_the_student(runs: Path) -> None:
    notice = (runs / "distill" / "model" / "NOTICE").read_text(encoding="utf-8")
    assert "under: terms of the teacher" in notice and str(runs) not in notice, "no paths of ours"
    recorded = load_config(runs / "distill" / "model").licences
    assert [entry["name"] for entry in recorded] == ["terms of the teacher"]


@pytest.mark.slow
def test_they_go_with_what_is_trained_on_from_it(data: DataConfig, runs: Path, tmp_path: Path) -> None:
    """Without the pairs, whose manifest told them, the student's own config and notice still do."""
    student = str(runs / "distill" / "model")
    config = replace(distill_config(data, runs), pairs="", start=student, eps_source="fresh")
    distillation.train_distill(config, tmp_path)
    assert load_config(tmp_path / "model").licences == load_config(student).licences
    assert "under: terms of the teacher" in (tmp_path / "model" / "NOTICE").read_text(encoding="utf-8")


def test_validation_is_recorded(runs: Path) -> None:
    lines = (runs / "distill" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    names = {name for line in lines for name in json.loads(line)}
    assert {"ftd", "mse", "tv_lpips", "adl", "val/psnr", "val/grid16"} < names
    assert (runs / "distill" / "validation-000002.png").is_file()


@pytest.mark.slow
def test_sampled_pairs_train_too(data: DataConfig, runs: Path, tmp_path: Path) -> None:
    config = distill_config(data, runs, pairs="sampled")
    config.prompt_folder = str(tmp_path)
    replace(load_prompt(runs / "teacher" / "base"), text="a sharp photograph").save(tmp_path)
    config.data = DataConfig([], data.validation)  # the images are what the latents decode to
    distillation.train_distill(config, tmp_path)
    assert (tmp_path / "model" / "pytorch_lora_weights.safetensors").is_file()
    assert load_config(tmp_path / "model").prompt == "a sharp photograph"


def contents(folder: Path) -> dict[str, Any]:
    """Files by name: bytes, or for safetensors, whose header has its entries in any order, their values."""
    tensors = {p.name: {k: v.tolist() for k, v in load_file(p).items()} for p in folder.glob("*.safetensors")}
    return {p.name: p.read_bytes() for p in folder.iterdir()} | tensors


def test_pairs_are_scored_and_any_checkpoint_becomes_an_adapter(data: DataConfig, runs: Path, tmp_path: Path) -> None:
    """With EMA, the exported weights are the averaged ones; the end of the run exports the same."""
    from fluxsr.training.student import export_checkpoint

    Image.open(data.validation[0]).save(tmp_path / "hr.png")
    for name, size in (("LR", 40), ("HR", 160)):
        (tmp_path / "camera" / name).mkdir(parents=True)
        Image.open(tmp_path / "hr.png").resize((size, size)).save(tmp_path / "camera" / name / "a.png")
    config = distill_config(data, runs)
    config.export, config.validation_pairs, config.data = "adapter", [str(tmp_path / "camera")], DataConfig(data.shards)
    config.run = run(ema=0.5, save_every=1, lr=0.1)  # type: ignore[arg-type]
    out = tmp_path / "run"
    distillation.train_distill(config, out)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    scored = [row for row in rows if "val/camera/psnr" in row]
    assert [row["step"] for row in scored] == [1, 2] and {"val/camera/ssim", "val/camera/grid16"} < scored[0].keys()
    assert [row["targets_seen"] for row in rows if "targets_seen" in row] == [0.6667, 1.3333]
    assert Image.open(out / "validation-camera-000002.png").width == 256
    name = "pytorch_lora_weights.safetensors"
    export_checkpoint(out / "step-00000002.pt", tmp_path / "last", "cpu")
    assert contents(tmp_path / "last") == contents(out / "model")
    export_checkpoint(out / "step-00000001.pt", tmp_path / "first", "cpu")
    first, last = (load_file(tmp_path / which / name) for which in ("first", "last"))
    assert first.keys() == last.keys() and any(not torch.equal(first[key], last[key]) for key in first)
    with pytest.raises(FluxSRError, match="last already exists and is not empty; choose another -o"):
        export_checkpoint(out / "step-00000001.pt", tmp_path / "last", "cpu")
    with pytest.raises(InputError, match="is a checkpoint of stage autoencoder; only those of distill"):
        export_checkpoint(runs / "autoencoder", tmp_path / "other", "cpu")
    assert export_checkpoint(out, tmp_path / "best", "cpu") == checkpoint.best(out)


def test_an_adapter_alone_is_a_folder_for_any_copy_of_its_base(data: DataConfig, runs: Path, tmp_path: Path) -> None:
    """Other targets, no validation, blocks computed again: options that a base of 24 GB asks for. And another scale."""
    from fluxsr.backbones.loading import load

    (tmp_path / "two.yaml").write_text("{preset: bicubic, scale: 2}", encoding="utf-8")
    config = replace(distill_config(data, runs), degradation=str(tmp_path / "two.yaml"))
    config.export, config.targets, config.data = "adapter", ["attn.to_q", "attn.to_v"], DataConfig(data.shards)
    config.run.gradient_checkpointing, config.run.accumulate = True, 2
    distillation.train_distill(config, tmp_path)
    folder = tmp_path / "model"
    files = {path.name for path in folder.iterdir()}
    assert files == {"pytorch_lora_weights.safetensors", "fluxsr_config.json", "prompt_embeds.safetensors", "NOTICE"}
    keys = load_file(folder / "pytorch_lora_weights.safetensors")
    assert keys and all("attn.to_q" in key or "attn.to_v" in key for key in keys)
    assert recipe.load(DistillConfig, tmp_path / "recipe.yaml") == config
    assert load_config(folder).scale == 2 and load_config(runs / "distill" / "model").scale == 4
    assert load_config(folder).train_dtype == config.run.precision
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    base = config.base
    loaded = load(base, folder, "cpu", "fp32", folded=False)
    assert bool(torch.isfinite(distillation.step_image(loaded, image, "fp32")).all())


@pytest.mark.slow
def test_a_trained_decoder_travels_with_the_model(data: DataConfig, runs: Path, tmp_path: Path) -> None:
    """The encoder, and so the latents that the teacher knows, stays as it was; processes make the batches."""
    config = replace(distill_config(data, runs), train_decoder=True, rank=0)
    config.run = replace(config.run, workers=1)
    distillation.train_distill(config, tmp_path)
    name = Path("vae", "diffusion_pytorch_model.safetensors")
    before, after = (load_file(folder / name) for folder in (runs / "teacher" / "base", tmp_path / "model"))
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"decoder"}


def test_options_that_cannot_work_are_refused_at_once(
    data: DataConfig, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(message: str, **changes: Any) -> None:
        config = replace(distill_config(data, runs), **changes)
        with pytest.raises(FluxSRError, match=message):
            distillation.train_distill(config, tmp_path)

    refused("export is adapter, but rank is 0", rank=0, export="adapter")
    refused("train_decoder is on, but an adapter does not contain the decoder", train_decoder=True, export="adapter")
    refused("a base in nf4 cannot be trained or exported; set rank and export", quantize_base="nf4")
    refused("tv_lpips_weight is 1.0, but perceptual is empty; give lpips", perceptual="")
    refused("no LPIPS weights at .*absent.safetensors; name", perceptual=str(tmp_path / "absent.safetensors"))
    refused("perceptual is 'efficientnet'; give lpips .VGG. or a .safetensors file", perceptual="efficientnet")
    refused("the recipe says strength = -1; it must be 0 or more", strength=-1)
    refused("the recipe says t_l = 1.0; it must lie between 0 and 1", t_l=1.0)
    student = str(runs / "distill" / "model")
    refused(f"base is {student}, which has a LoRA beside its transformer; .* set base to the model", base=student)
    refused("cannot adapt attn.to_x", targets=["attn.to_x"], export="adapter")
    refused("nf4 needs a GPU, but the device is 'cpu'", quantize_base="nf4", export="adapter")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    refused("export: model needs whole weights, but FSDP shards them")


def test_what_the_base_needs_is_said_before_it_is_read(
    data: DataConfig, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = distill_config(data, runs)
    shutil.copytree(config.base, tmp_path / "base")
    path = tmp_path / "base" / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "guidance_embeds": True}))
    config.base = str(tmp_path / "base")
    monkeypatch.setattr(student, "load_base", lambda *_: pytest.fail("read"))
    with pytest.raises(InputError, match="base embeds a guidance scale; set guidance .FLUX.1-dev: 3.5."):
        distillation.train_distill(config, tmp_path / "out")


def test_validation_follows_the_precision_of_training(runs: Path) -> None:
    from fluxsr.backbones.loading import load

    model = load(runs / "distill" / "model", None, "cpu", "fp32", folded=False)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact, rounded = (distillation.step_image(model, image, precision) for precision in ("fp32", "bf16"))
    with torch.no_grad():
        z_l = latents.encode(model.vae, image)
        z_0 = z_l - 0.25 * velocity(model.transformer, z_l, 0.25, model.prompt)
    torch.testing.assert_close(exact, latents.decode(model.vae, z_0).detach().clamp(0, 1))
    assert not torch.equal(exact, rounded)
    model.config = replace(model.config, strength=0.0)
    unchanged = latents.decode(model.vae, z_l).detach().clamp(0, 1)
    torch.testing.assert_close(distillation.step_image(model, image, "fp32"), unchanged)


def test_what_is_missing_is_named(data: DataConfig, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no manifest.json in .*none; make pairs with `fluxsr pairs invert`"):
        distillation.train_distill(distill_config(data, runs, pairs="none"), tmp_path)
    config = distill_config(data, runs)
    config.degradation = "harsh"
    with pytest.raises(InputError, match="degradation 'harsh' is not known; choose from "):
        distillation.train_distill(config, tmp_path)

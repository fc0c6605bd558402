"""The pipeline as its users know pipelines of diffusers: loaded, rebuilt, offloaded and watched in the usual ways."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save

import fluxsr
from fluxsr.backbones.adapter import AdapterConfig, load_config
from fluxsr.backbones.flux1 import FoldedFluxTransformer2DModel
from fluxsr.backbones.places import COMPONENT_FILE
from fluxsr.backbones.prompts import PromptEmbeddings, load_prompt, random_prompt
from fluxsr.errors import InputError, ModelError
from fluxsr.pipeline import FluxSRPipeline

LR = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))


def picture(pipe: Any, **options: Any) -> torch.Tensor:
    return pipe(LR, 2, output_type="pt", **options).images


@pytest.fixture
def saved(pipeline: Any, tmp_path: Path) -> Path:
    """The tiny pipeline with settings that are none of the defaults, in a folder of the test's own."""
    licences = [{"model": "a/b", "name": "mit"}]
    config = AdapterConfig(t_l=0.5, strength=0.7, tile_size=96, base="a/b", rank=3, licences=licences)
    pipe = FluxSRPipeline(pipeline.transformer, pipeline.vae, pipeline.prompt, **config.registered)
    pipe.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


# Loading


def test_the_settings_are_declared_as_the_adapter_s() -> None:
    """Names and defaults of the constructor are those of `AdapterConfig`."""
    parameters = list(signature(FluxSRPipeline.__init__).parameters.values())[4:]
    found = {parameter.name: parameter.default for parameter in parameters}
    assert found == {**AdapterConfig().registered, "origin": None}
    config = AdapterConfig(t_l=0.3, guidance=3.5, licences=[{"model": "m", "name": "n"}], prompt="sharp")
    assert AdapterConfig.of(config.registered, "sharp") == config


@pytest.mark.parametrize("kind", [DiffusionPipeline, FluxSRPipeline])
def test_diffusers_loads_what_was_saved(kind: Any, saved: Path) -> None:
    loaded, expected = kind.from_pretrained(saved), fluxsr.load(saved, device="cpu", dtype="fp32")
    assert type(loaded) is FluxSRPipeline and loaded.name == str(saved)
    assert loaded.adapter_config == expected.adapter_config and loaded.adapter_config.t_l == 0.5
    assert loaded.adapter_config.licences == [{"model": "a/b", "name": "mit"}]
    torch.testing.assert_close(picture(loaded), picture(expected), rtol=0, atol=1e-4)


def test_a_folded_pipeline_is_loaded_by_diffusers(saved: Path, tmp_path: Path) -> None:
    folded = fluxsr.load(saved, device="cpu", dtype="fp32")
    folded.save_pretrained(tmp_path / "folded")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "folded")
    assert isinstance(loaded.transformer, FoldedFluxTransformer2DModel)
    torch.testing.assert_close(picture(loaded), picture(folded), rtol=0, atol=1e-4)


def test_components_and_settings_are_replaced(saved: Path, vae: Any) -> None:
    loaded = DiffusionPipeline.from_pretrained(saved, vae=vae, strength=0.25, dtype=torch.bfloat16)
    assert loaded.vae is vae and loaded.config.strength == 0.25 and loaded.config.tile_size == 96
    assert loaded.transformer.dtype == loaded.dtype == torch.bfloat16


def test_a_variant_comes_back(pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path, variant="fp16")
    assert not (tmp_path / COMPONENT_FILE).exists()
    loaded = DiffusionPipeline.from_pretrained(tmp_path, variant="fp16")
    torch.testing.assert_close(picture(loaded), picture(pipeline), rtol=0, atol=1e-4)


def test_from_the_hub_at_a_revision_with_a_token_into_a_cache(pipeline: Any, fake_hub: Any, tmp_path: Path) -> None:
    pipeline.push_to_hub("owner/name", license="mit")
    options = {"revision": "main", "token": "hf_fake", "cache_dir": tmp_path / "mine"}
    for kind in (DiffusionPipeline, FluxSRPipeline):
        loaded = kind.from_pretrained("owner/name", **options)
        torch.testing.assert_close(picture(loaded), picture(pipeline), rtol=0, atol=1e-4)
    assert (tmp_path / "mine/models--owner--name").is_dir()
    fake_hub.repositories.clear()
    assert DiffusionPipeline.from_pretrained("owner/name", local_files_only=True, **options).config.t_l == 0.25


def test_an_older_save_is_replaced_whole(pipeline: Any, tmp_path: Path) -> None:
    """Its prompt and settings lay beside the folders and would be read in place of the new ones."""
    pipeline.save_pretrained(tmp_path)
    random_prompt(3, 16, torch.Generator().manual_seed(9)).save(tmp_path)
    AdapterConfig(t_l=0.5).save(tmp_path)
    pipeline.save_pretrained(tmp_path)
    assert load_config(tmp_path).t_l == 0.25
    assert torch.equal(load_prompt(tmp_path).prompt_embeds, pipeline.prompt.prompt_embeds)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"adapter": "a/b"}, r"has no option adapter; call fluxsr.load\(model, adapter=...\)"),
        ({"device": "cpu"}, "has no option device; call fluxsr.load"),
        ({"memory": "8gb"}, "has no option memory; call fluxsr.load"),
        ({"dtype": "fp32"}, "dtype is 'fp32'; pass a torch.dtype, or call fluxsr.load"),
    ],
)
def test_what_only_load_takes_is_refused(saved: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        FluxSRPipeline.from_pretrained(saved, **options)


def test_what_needs_load_says_so(
    saved: Path, text_model_folder: Path, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    for model in ("bundled", str(tmp_path), str(text_model_folder)):
        with pytest.raises(ModelError, match=r"call fluxsr.load\('" + model):
            FluxSRPipeline.from_pretrained(model)
    AdapterConfig(t_l=0.5, strength=0.1).save(saved)
    with pytest.raises(ModelError, match="fluxsr_config.json and model_index.json in .* differ; call fluxsr.load"):
        FluxSRPipeline.from_pretrained(saved)
    shutil.copytree(make_adapter(), saved, dirs_exist_ok=True)
    with pytest.raises(ModelError, match="must be fused, .* call fluxsr.load"):
        FluxSRPipeline.from_pretrained(saved)


# Rebuilding


def test_a_pipeline_is_made_from_another_s_components(pipeline: Any) -> None:
    for made in (
        FluxSRPipeline(**pipeline.components, **pipeline.parameters),
        FluxSRPipeline.from_pipe(pipeline),
        FluxSRPipeline.from_pipe(DiffusionPipeline.from_pipe.__get__(FluxSRPipeline)(pipeline)),
    ):
        assert made.transformer is pipeline.transformer and made.adapter_config == pipeline.adapter_config
        assert torch.equal(picture(made), picture(pipeline))
    changed = FluxSRPipeline.from_pipe(pipeline, strength=0.25)
    assert torch.equal(picture(changed), picture(pipeline, strength=0.25)) and pipeline.config.strength == 1.0


def test_from_pipe_keeps_the_number_format(model_folder: Path) -> None:
    pipe = fluxsr.load(model_folder, device="cpu", dtype="bf16")
    assert FluxSRPipeline.from_pipe(pipe).dtype == pipe.transformer.dtype == torch.bfloat16


def test_a_flux_pipeline_lends_its_components(text_model_folder: Path) -> None:
    from diffusers import FluxPipeline

    flux = FluxPipeline.from_pretrained(text_model_folder)
    prompt = random_prompt(3, 16, torch.Generator().manual_seed(0))
    made = FluxSRPipeline.from_pipe(flux, prompt=PromptEmbeddings.of(prompt), guidance=3.5)
    assert made.transformer is flux.transformer and picture(made).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"strength": 3.0}, InputError, "strength = 3.0; it must be 2 or less"),
        ({"t_l": 1.5}, InputError, "t_l = 1.5"),
        ({"train_dtype": "int8"}, InputError, "train_dtype = 'int8'"),
        ({"t_l": 0.5}, ModelError, "folded at t, guidance = .0.25, None., but the pipeline needs .0.5, None."),
        ({"prompt": random_prompt(3, 16, torch.Generator().manual_seed(9))}, ModelError, "folded with another prompt"),
        ({"prompt": random_prompt(3, 8, torch.Generator())}, ModelError, "has widths .8, 8.; this transformer needs"),
    ],
)
def test_settings_and_components_that_cannot_be(
    model_folder: Path, settings: dict[str, Any], kind: type[Exception], words: str
) -> None:
    folded = fluxsr.load(model_folder, device="cpu", dtype="fp32")
    with pytest.raises(kind, match=words):
        FluxSRPipeline(**{**folded.components, **settings})


# The prompt


def test_the_prompt_moves_and_keeps_its_numbers(saved: Path) -> None:
    """A folded transformer knows its prompt by them."""
    loaded = DiffusionPipeline.from_pretrained(saved, dtype=torch.float16)
    for cast in (loaded, loaded.to(torch.bfloat16), loaded.to("cpu")):
        assert cast.prompt.prompt_embeds.dtype == torch.float32
        assert torch.equal(cast.prompt.pooled_prompt_embeds, load_prompt(saved).pooled_prompt_embeds)
    assert loaded.dtype == torch.bfloat16 and loaded.device.type == "cpu"
    assert loaded.prompt.to("meta").prompt_embeds.is_meta


def test_the_text_of_the_prompt_is_in_its_config(pipeline: Any, prompt: Any, tmp_path: Path) -> None:
    spoken = replace(prompt, text="a sharp photograph")
    FluxSRPipeline(pipeline.transformer, pipeline.vae, spoken).save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    assert loaded.prompt.config.text == loaded.adapter_config.prompt == load_prompt(tmp_path).text == spoken.text


# LoRA


def test_a_lora_is_loaded_beside_the_weights_and_taken_away(
    model_folder: Path, make_adapter: Callable[..., Path]
) -> None:
    folder = make_adapter()
    loaded = FluxSRPipeline.from_pretrained(model_folder)
    before, fused = picture(loaded), picture(fluxsr.load(model_folder, adapter=folder, device="cpu", dtype="fp32"))
    assert not torch.allclose(before, fused, atol=1e-3)
    file = folder / "pytorch_lora_weights.safetensors"
    for source in (folder, str(file)):
        loaded.load_lora_weights(source, adapter_name="mine")
        assert loaded.get_active_adapters() == ["mine"]
        torch.testing.assert_close(picture(loaded), fused, rtol=0, atol=1e-4)
        loaded.unload_lora_weights()
        torch.testing.assert_close(picture(loaded), before, rtol=0, atol=1e-5)
    for prefix in ("", "transformer."):  # PEFT names layers without diffusers' prefix
        loaded.load_lora_weights({key.removeprefix(prefix): value for key, value in load_file(file).items()})
        assert not torch.allclose(picture(loaded), before, atol=1e-3)
        loaded.unload_lora_weights()


def test_a_lora_that_would_do_something_else_is_refused(model_folder: Path, make_adapter: Callable[..., Path]) -> None:
    folded = fluxsr.load(model_folder, device="cpu", dtype="fp32")
    with pytest.raises(ModelError, match=r"so no LoRA can be attached; call fluxsr.load\(model, adapter=...\)"):
        folded.load_lora_weights(make_adapter("one"))
    with pytest.raises(ModelError, match="was trained at t, guidance = .0.5, None., but the pipeline uses .0.25"):
        FluxSRPipeline.from_pretrained(model_folder).load_lora_weights(make_adapter("two", t_l=0.5))


def test_a_lora_on_the_hub_is_checked_as_one_in_a_folder(
    model_folder: Path, make_adapter: Callable[..., Path], fake_hub: Any
) -> None:
    loaded, own = FluxSRPipeline.from_pretrained(model_folder), make_adapter("own")
    files = {path.name: path.read_bytes() for path in own.iterdir() if path.is_file()}
    weights = files["pytorch_lora_weights.safetensors"]
    later = {path.name: path.read_bytes() for path in make_adapter("later", t_l=0.5).iterdir() if path.is_file()}
    spoilt = load_file(own / "pytorch_lora_weights.safetensors")
    spoilt["transformer.proj_out.dora_scale"] = torch.ones(1)
    fake_hub.repositories |= {
        "me/own": files,
        "me/plain": {"mine.safetensors": weights},
        "me/below": {"a/x.safetensors": weights, "a/y.safetensors": weights},
        "me/later": later,
        "me/encoder": files | {"vae_encoder_lora.safetensors": b""},
        "me/dora": {"mine.safetensors": save(spoilt)},
    }
    before = picture(loaded)
    for source, options in (
        ("me/own", {}),
        ("me/plain", {}),
        ("me/below", {"subfolder": "a", "weight_name": "x.safetensors"}),
    ):
        loaded.load_lora_weights(source, **options)
        assert not torch.allclose(picture(loaded), before, atol=1e-3)
        loaded.unload_lora_weights()
    for source, words in (
        ("me/later", "adapter me/later was trained at t, guidance = .0.5, None."),
        ("me/encoder", "adapter me/encoder changes the autoencoder too"),
        ("me/dora", "DoRA is not supported"),
        ("me/below", "must hold the safetensors file of one LoRA, but holds none"),
        ("me/gone", "me/gone is neither a folder here nor a model on the Hub"),
    ):
        with pytest.raises(ModelError, match=words):
            loaded.load_lora_weights(source)


# Running


def test_the_bar_and_the_progress_callback_are_told_of_every_tile(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = FluxSRPipeline.from_pretrained(saved)
    capsys.readouterr()
    tiles: list[tuple[int, int]] = []
    options = {"tile_size": 64, "tile_overlap": 16, "batch_size": 1}
    loaded(LR, 4, **options, progress=lambda *done: tiles.append(done))
    assert tiles == [(1, 2), (2, 2)]
    assert "2/2" in capsys.readouterr().err
    loaded.set_progress_bar_config(disable=True)
    loaded(LR, 4, **options)
    assert not capsys.readouterr().err


def test_a_callback_sees_and_replaces_the_latents_after_each_step(saved: Path) -> None:
    loaded = FluxSRPipeline.from_pretrained(saved)
    options: dict[str, Any] = {"tile_size": 64, "tile_overlap": 16, "batch_size": 1, "color_fix": "none"}
    calls: list[Any] = []

    def erase(pipe: Any, step: int, t: float, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        calls.append((pipe is loaded, step, t, {name: tuple(z.shape) for name, z in tensors.items()}))
        return {name: torch.zeros_like(z) for name, z in tensors.items()}

    erased = loaded(LR, 4, output_type="pt", callback_on_step_end=erase, **options).images
    assert calls == [(True, number, 0.5, {"latents": (1, 4, 8, 6)}) for number in range(2)]
    plain = loaded(LR, 4, output_type="pt", callback_on_step_end=lambda *_: {}, **options).images
    assert torch.equal(plain, loaded(LR, 4, output_type="pt", **options).images) and not torch.allclose(plain, erased)
    untouched = {"callback_on_step_end": erase, "callback_on_step_end_tensor_inputs": []}
    assert torch.equal(loaded(LR, 4, output_type="pt", **untouched, **options).images, plain)
    with pytest.raises(InputError, match="tensor_inputs names prompt_embeds; the only tensor is latents"):
        loaded(LR, callback_on_step_end=erase, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"])


def test_offloaded_the_transformer_leaves_before_the_autoencoder_decodes(saved: Path) -> None:
    """The decoder takes the most memory of all steps, so that is when the transformer's saves most."""
    loaded = FluxSRPipeline.from_pretrained(saved)
    expected = picture(loaded)
    loaded.enable_model_cpu_offload(device="cpu")
    assert loaded.vae._hf_hook.prev_module_hook.model is loaded.transformer
    torch.testing.assert_close(picture(loaded), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_offloaded_in_groups_it_computes_the_same(kind: str, saved: Path) -> None:
    loaded = FluxSRPipeline.from_pretrained(saved)
    expected = picture(loaded)
    blocks = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    loaded.enable_group_offload(torch.device("cpu"), offload_type=kind, **blocks)
    torch.testing.assert_close(picture(loaded), expected, rtol=0, atol=1e-4)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxsr.backbones.adapter import load_config
from fluxsr.backbones.places import WEIGHTS_FILE
from fluxsr.comfyui import adapters
from fluxsr.errors import InputError, ModelError


def test_adapters_are_the_folders_with_a_prompt() -> None:
    files = ["style.safetensors", "b/pytorch_lora_weights.safetensors", "b/prompt_embeds.safetensors"]
    files += ["a/old/t5_embedding.pth", "a/old/clip_embedding.pth", "c/other.safetensors", "prompt_embeds.safetensors"]
    assert adapters.adapter_names(files) == [str(Path("a/old")), "b"]


def test_a_folder_is_looked_for_under_every_root(tmp_path: Path) -> None:
    roots = [str(tmp_path / "one"), str(tmp_path / "two")]
    (tmp_path / "two" / "mine").mkdir(parents=True)
    assert adapters.folder_of("mine", roots) == tmp_path / "two" / "mine"
    with pytest.raises(InputError, match="no adapter folder 'yours'; put it into .*one or .*two"):
        adapters.folder_of("yours", roots)


def test_conditioning_is_comfyuis_and_carries_the_config(adapter: Path, tiny: Any) -> None:
    condition = adapters.conditioning(adapter)
    [[states, extras]] = condition
    assert torch.equal(states, tiny.prompt.prompt_embeds)
    assert torch.equal(extras["pooled_output"], tiny.prompt.pooled_prompt_embeds)
    assert extras["guidance"] == 3.504  # 3.5 as the training in bfloat16 saw it
    assert adapters.config_in(condition) == load_config(adapter)
    with pytest.raises(InputError, match="has 2 entries, 1 of a FluxSR adapter"):
        adapters.config_in(condition + [[torch.zeros(1), {}]])
    with pytest.raises(InputError, match="has 0 entries"):
        adapters.config_in([])
    replace(load_config(adapter), guidance=None).save(adapter)
    assert "guidance" not in adapters.conditioning(adapter)[0][1]


def test_lora_strength_is_what_comfyui_cannot_know(adapter: Path) -> None:
    assert adapters.lora_strength(adapter) == 3.0  # alpha 6, rank 2, in the header
    file = adapter / WEIGHTS_FILE
    layers = load_file(file)
    save_file(layers, file)  # no header: alpha is the rank
    assert adapters.lora_strength(adapter) == 1.0
    alphas = {f"{key.split('.lora_A')[0]}.alpha": torch.tensor(8.0) for key in layers if "lora_A" in key}
    save_file(layers | alphas, file)  # tensors, which ComfyUI reads itself
    assert adapters.lora_strength(adapter) == 1.0
    file.unlink()  # a base with the adapter fused
    assert adapters.lora_strength(adapter) == 1.0


def test_a_lora_that_comfyui_would_read_wrongly_is_refused(adapter: Path) -> None:
    from diffusers import FluxPipeline

    state = load_file(adapter / WEIGHTS_FILE)
    layers = {key.removeprefix("transformer."): value for key, value in state.items()}
    name = next(iter(state)).rsplit(".lora_", 1)[0]
    save_file(state | {f"{name}.lora_magnitude_vector": torch.ones(1)}, adapter / WEIGHTS_FILE)
    with pytest.raises(ModelError, match="lora_magnitude_vector', which is not one of LoRA's"):
        adapters.lora_strength(adapter)
    header = {"r": 2, "lora_alpha": 2, "alpha_pattern": {"x_embedder": 4}, "target_modules": ["x_embedder"]}
    FluxPipeline.save_lora_weights(adapter, transformer_lora_layers=layers, transformer_lora_adapter_metadata=header)
    with pytest.raises(ModelError, match="layer by layer"):
        adapters.lora_strength(adapter)

"""The ways FLUX's LoRA are written, with their real names and shapes, through the loader that everyone uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from fluxsr.backbones.folding import fold
from fluxsr.backbones.lora import attach_lora, fuse_lora, lora_file, read_lora
from fluxsr.backbones.parts import part_config, skeleton
from fluxsr.backbones.places import WEIGHTS_FILE
from fluxsr.backbones.single_file import flux_dev
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import ModelError

W = 3072
RANK = 1
DOUBLES, SINGLES = range(19), range(38)

# BFL's layers and their widths (in, out); what diffusers makes of each
DOUBLE = {
    "attn.qkv": (W, 3 * W), "attn.proj": (W, W), "mlp.0": (W, 4 * W), "mlp.2": (4 * W, W), "mod.lin": (W, 6 * W),
}  # fmt: skip
SINGLE = {"linear1": (W, 7 * W), "linear2": (5 * W, W), "modulation.lin": (W, 3 * W)}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return part_config(str(flux_dev()), "transformer")


@pytest.fixture
def flux(config: dict[str, Any]) -> Any:
    return skeleton(config)


def pair(name: str, widths: tuple[int, int], a: str = "lora_A", b: str = "lora_B") -> dict[str, torch.Tensor]:
    return {
        f"{name}.{a}.weight": torch.ones(RANK, widths[0], dtype=torch.bfloat16),
        f"{name}.{b}.weight": torch.ones(widths[1], RANK, dtype=torch.bfloat16),
    }


def bfl_layers(join: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """("double_blocks.0.img_attn.qkv", widths) ..., with another character for the dots."""
    for i in DOUBLES:
        for side in ("img", "txt"):
            yield from ((f"double_blocks.{i}.{side}_{name}".replace(".", join), size) for name, size in DOUBLE.items())
    for i in SINGLES:
        yield from ((f"single_blocks.{i}.{name}".replace(".", join), size) for name, size in SINGLE.items())


def kohya() -> dict[str, torch.Tensor]:
    """sd-scripts: lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight, .alpha."""
    state: dict[str, torch.Tensor] = {}
    for name, widths in bfl_layers("_"):
        state |= pair(f"lora_unet_{name}", widths, "lora_down", "lora_up")
        state[f"lora_unet_{name}.alpha"] = torch.tensor(float(RANK))
    return state


def bfl_in_peft() -> dict[str, torch.Tensor]:
    """base_model.model.double_blocks.0.img_attn.qkv.lora_A.weight, as trainers on BFL's own code write it."""
    state: dict[str, torch.Tensor] = {}
    for name, widths in bfl_layers("."):
        state |= pair(f"base_model.model.{name}", widths)
    return state | pair("base_model.model.final_layer.linear", (W, 64))  # theirs always have it


def diffusers(prefix: str) -> dict[str, torch.Tensor]:
    """transformer.transformer_blocks.0.attn.to_q.lora_A.weight, all linears of the blocks."""
    model = skeleton(part_config(str(flux_dev()), "transformer"))
    state: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "blocks" in name:
            state |= pair(f"{prefix}{name}", (module.in_features, module.out_features))
    return state


LAYOUTS = {
    "Kohya": kohya,
    "BFL's names, PEFT's keys": bfl_in_peft,
    "diffusers, ai-toolkit": lambda: diffusers("transformer."),
    "no prefix": lambda: diffusers(""),
    "PEFT": lambda: diffusers("base_model.model."),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layer_of_every_block_finds_its_place(layout: str, flux: Any, tmp_path: Path) -> None:
    save_file(LAYOUTS[layout](), tmp_path / WEIGHTS_FILE)
    matrices = attach_lora(flux, tmp_path)
    hit = {name for name, module in flux.named_modules() if hasattr(module, "lora_A")}
    assert len(hit - {"proj_out"}) == 19 * 14 + 38 * 6
    places = {name: x.shape for name, x in flux.state_dict().items() if "lora_" in name}
    assert {name: x.shape for name, x in matrices.items()} == places


@pytest.mark.slow
def test_the_modulation_of_every_layout_is_refused_on_a_folded_model(flux: Any, tmp_path: Path) -> None:
    folded = fold(flux, 0.25, 3.5, torch.zeros(1, 768, device="meta"))
    for layout in LAYOUTS.values():
        save_file(layout(), tmp_path / WEIGHTS_FILE)
        with pytest.raises(ModelError, match="the transformer is folded, use the unfolded model"):
            attach_lora(folded, tmp_path)


def test_kohya_s_alpha_is_in_its_matrices(tmp_path: Path) -> None:
    state = pair("lora_unet_single_blocks_3_linear2", SINGLE["linear2"], "lora_down", "lora_up")
    save_file(state | {"lora_unet_single_blocks_3_linear2.alpha": torch.tensor(0.5)}, tmp_path / WEIGHTS_FILE)
    matrices, alphas, _ = read_lora(tmp_path / WEIGHTS_FILE)
    a, b = (matrices[f"transformer.single_transformer_blocks.3.proj_out.lora_{x}.weight"] for x in "AB")
    assert not alphas and float((b @ a)[0, 0]) == 0.5


def test_a_control_lora_of_bfl_is_more_than_lora_and_refused(flux: Any, tmp_path: Path) -> None:
    state = pair("double_blocks.0.img_attn.qkv", DOUBLE["attn.qkv"])
    state["double_blocks.0.img_attn.norm.query_norm.scale"] = torch.ones(128)
    save_file(state, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ModelError) as caught:
        attach_lora(flux, tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_folder_of_peft_keeps_its_alpha(build: Callable[..., Any], prompt: Any, latents: Any, tmp_path: Path) -> None:
    wrapped = get_peft_model(build(), LoraConfig(r=2, lora_alpha=6, target_modules=["to_q", "proj_mlp"]))
    for i, (name, parameter) in enumerate(wrapped.named_parameters()):
        if "lora_B" in name:
            parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(i))
    wrapped.save_pretrained(tmp_path)
    assert lora_file(tmp_path) == tmp_path / "adapter_model.safetensors"
    with torch.no_grad():
        expected = velocity(wrapped.base_model.model, latents, 0.25, prompt)
        fuse_lora(fused := build(), tmp_path)
        torch.testing.assert_close(velocity(fused, latents, 0.25, prompt), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(velocity(build(), latents, 0.25, prompt), expected, atol=1e-2)


def test_doras_magnitudes_are_not_left_out_in_silence(tmp_path: Path) -> None:
    state = kohya()
    name = next(key.split(".lora_down")[0] for key in state if ".lora_down" in key)
    save_file(state | {f"{name}.dora_scale": torch.ones(1)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ModelError, match="dora_scale'; DoRA is not supported, merge it into the base first"):
        read_lora(tmp_path / WEIGHTS_FILE)

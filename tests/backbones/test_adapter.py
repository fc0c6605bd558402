from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fluxsr.backbones.adapter import AdapterConfig, load_config
from fluxsr.backbones.folding import fold
from fluxsr.backbones.loading import ADAPTER_FILES
from fluxsr.backbones.lora import add_lora, fuse_lora, save_lora
from fluxsr.backbones.places import CONFIG_FILE, WEIGHTS_FILE
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import ModelError

NAME = "transformer_blocks.0.attn.to_q"


@pytest.fixture
def trained(build: Callable[..., Any]) -> Any:
    """A transformer with an adapter that does something, alpha twice the rank."""
    transformer = build()
    add_lora(transformer, rank=4, alpha=8)
    for i, (name, parameter) in enumerate(transformer.named_parameters()):
        if "lora_B" in name:
            parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(i))
    return transformer


def pair(name: str = NAME, rank: int = 2, width: int = 32, prefix: str = "transformer.") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{prefix}{name}.lora_A.weight": torch.randn(rank, width, generator=generator),
        f"{prefix}{name}.lora_B.weight": torch.randn(32, rank, generator=generator),
    }


def fused_weight(build: Callable[..., Any], folder: Path, state: dict[str, torch.Tensor], name: str = NAME) -> Any:
    """What an adapter file adds to the weight of a module."""
    save_file(state, folder / WEIGHTS_FILE)
    before, after = build(), build()
    fuse_lora(after, folder)
    return after.get_submodule(name).weight - before.get_submodule(name).weight


def error_of(build: Callable[..., Any], folder: Path, state: dict[str, torch.Tensor], **config: Any) -> str:
    save_file(state, folder / WEIGHTS_FILE)
    with pytest.raises(ModelError) as caught:
        fuse_lora(build(**config), folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_the_adapter_is_trained_and_in_float32_on_a_bfloat16_base(build: Callable[..., Any]) -> None:
    transformer = build(dtype=torch.bfloat16)
    add_lora(transformer, rank=4, alpha=4)
    trained = {name: p for name, p in transformer.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())


@torch.no_grad()
def test_an_adapter_with_alpha_unlike_rank_survives_save_and_fuse(
    trained: Any, build: Callable[..., Any], prompt: Any, latents: torch.Tensor, tmp_path: Path
) -> None:
    save_lora(trained, tmp_path, torch.float32)
    fused = build()
    plain = velocity(fused, latents, 0.25, prompt)
    fuse_lora(fused, tmp_path)
    wrapped = velocity(trained, latents, 0.25, prompt)
    torch.testing.assert_close(velocity(fused, latents, 0.25, prompt), wrapped, rtol=1e-4, atol=1e-4)
    assert (wrapped - plain).abs().max() > 0.05
    assert fused.state_dict().keys() == build().state_dict().keys(), "nothing of peft is left"


def test_keys_and_header_are_diffusers_own(trained: Any, tmp_path: Path) -> None:
    save_lora(trained, tmp_path)
    with safe_open(tmp_path / WEIGHTS_FILE, "pt") as file:
        names, header = list(file.keys()), json.loads(file.metadata()["lora_adapter_metadata"])
        assert {file.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    layers = [name for name, _ in trained.named_modules() if hasattr(trained.get_submodule(name), "lora_A")]
    assert sorted(names) == sorted(f"transformer.{name}.lora_{x}.weight" for name in layers for x in "AB")
    assert (header["transformer.r"], header["transformer.lora_alpha"]) == (4, 8)


def test_diffusers_itself_loads_what_we_save(
    trained: Any, build: Callable[..., Any], prompt: Any, latents: torch.Tensor, tmp_path: Path
) -> None:
    save_lora(trained, tmp_path, torch.float32)
    theirs = build()
    theirs.load_lora_adapter(tmp_path, use_safetensors=True)
    with torch.no_grad():
        torch.testing.assert_close(
            velocity(theirs, latents, 0.25, prompt), velocity(trained, latents, 0.25, prompt), rtol=1e-5, atol=1e-5
        )


@torch.no_grad()
def test_a_file_without_prefix_is_not_dropped_silently(
    trained: Any, build: Callable[..., Any], prompt: Any, latents: torch.Tensor, tmp_path: Path
) -> None:
    trained.save_lora_adapter(tmp_path)  # diffusers' own, which writes neither "transformer." nor FluxPipeline's header
    assert (tmp_path / WEIGHTS_FILE).is_file()
    fused = build()
    fuse_lora(fused, tmp_path)
    torch.testing.assert_close(
        velocity(fused, latents, 0.25, prompt), velocity(trained, latents, 0.25, prompt), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_without_a_word_on_alpha_it_is_the_rank(prefix: str, build: Callable[..., Any], tmp_path: Path) -> None:
    state = pair(prefix=prefix)
    a, b = state.values()
    torch.testing.assert_close(fused_weight(build, tmp_path, state), b @ a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_alpha_tensors_are_honoured(prefix: str, build: Callable[..., Any], tmp_path: Path) -> None:
    state = pair(prefix=prefix)
    a, b = state.values()
    delta = fused_weight(build, tmp_path, state | {f"{prefix}{NAME}.alpha": torch.tensor(6.0)})
    torch.testing.assert_close(delta, 3 * b @ a, rtol=1e-4, atol=1e-5)


def test_kohya_s_names_and_alpha_are_read(build: Callable[..., Any], tmp_path: Path) -> None:
    a, b = pair().values()
    name = "lora_unet_double_blocks_0_img_attn_proj"
    kohya = {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b, f"{name}.alpha": torch.tensor(1.0)}
    delta = fused_weight(build, tmp_path, kohya, "transformer_blocks.0.attn.to_out.0")
    torch.testing.assert_close(delta, b @ a / 2, rtol=1e-4, atol=1e-5)


def test_a_text_encoder_s_part_is_left_out(build: Callable[..., Any], tmp_path: Path) -> None:
    state = pair()
    a, b = state.values()
    extra = pair("encoder.layers.0.self_attn.q_proj", prefix="text_encoder.")
    torch.testing.assert_close(fused_weight(build, tmp_path, state | extra), b @ a, rtol=1e-4, atol=1e-5)


def test_an_unknown_module_is_named(build: Callable[..., Any], tmp_path: Path) -> None:
    message = error_of(build, tmp_path, pair("transformer_blocks.9.attn.to_q"))
    assert "adapts 'transformer_blocks.9.attn.to_q', which this transformer does not have" in message
    assert "which this transformer does not have" in error_of(build, tmp_path, pair("transformer_blocks.0"))


def test_a_wrong_width_is_shown_on_either_side(build: Callable[..., Any], tmp_path: Path) -> None:
    assert "lora_A [2, 48]" in error_of(build, tmp_path, pair(width=48))
    state = pair()
    state[f"transformer.{NAME}.lora_B.weight"] = torch.zeros(48, 2)
    assert "lora_B [48, 2]" in error_of(build, tmp_path, state)
    state[f"transformer.{NAME}.lora_B.weight"] = torch.zeros(32, 3)  # not lora_A's rank
    assert "lora_B [32, 3]" in error_of(build, tmp_path, state)


def test_half_a_pair_is_incomplete(build: Callable[..., Any], tmp_path: Path) -> None:
    state = pair()
    del state[f"transformer.{NAME}.lora_B.weight"]
    assert f"lacks lora_B of '{NAME}'" in error_of(build, tmp_path, state)


def test_a_file_without_lora_says_so(build: Callable[..., Any], tmp_path: Path) -> None:
    assert "no LoRA weights for the transformer" in error_of(build, tmp_path, {})
    only_text = pair("encoder.layers.0.self_attn.q_proj", prefix="text_encoder.")
    assert "no LoRA weights for the transformer" in error_of(build, tmp_path, only_text)


def test_weights_other_than_lora_are_not_ignored(build: Callable[..., Any], tmp_path: Path) -> None:
    state = pair() | {"transformer.transformer_blocks.0.attn.norm_q.weight": torch.ones(16)}
    assert "not one of LoRA's two matrices" in error_of(build, tmp_path, state)


@pytest.mark.parametrize("end", ["lora_magnitude_vector", "lora_B.bias"])
def test_dora_and_biases_are_refused_rather_than_dropped(end: str, build: Callable[..., Any], tmp_path: Path) -> None:
    state = pair() | {f"transformer.{NAME}.{end}": torch.ones(32)}
    assert f"contains 'transformer.{NAME}.{end}', which is not one of LoRA's" in error_of(build, tmp_path, state)


@pytest.mark.parametrize("name", ["transformer_blocks.0.norm1.linear", "time_text_embed.text_embedder.linear_1"])
def test_an_adapter_of_the_modulation_does_not_fit_a_folded_model(
    name: str, build: Callable[..., Any], prompt: Any, tmp_path: Path
) -> None:
    def folded() -> Any:
        return fold(build(), 0.25, None, prompt.pooled_prompt_embeds)

    assert "the transformer is folded, use the unfolded model" in error_of(folded, tmp_path, pair(name))


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\xff" * 100], ids=["empty", "text", "bytes"])
def test_an_unreadable_file_is_one_line(content: bytes, build: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(ModelError, match=r"adapter weights .* cannot be read") as caught:
        fuse_lora(build(), tmp_path)
    assert "\n" not in str(caught.value)


def test_config_survives_its_file(tmp_path: Path) -> None:
    config = AdapterConfig(t_l=0.4, strength=0.9, guidance=3.5, prompt="näh", rank=64, alpha=32.0, base="owner/name")
    config.save(tmp_path)
    assert load_config(tmp_path) == config


@pytest.mark.parametrize(
    ("train_dtype", "t_l", "expected"),
    [
        ("bf16", 0.25, (0.25, 3.504)),
        ("fp16", 0.25, (0.25, 3.5)),
        ("fp32", 0.25, (0.25, 3.5)),
        ("bf16", 0.333, (0.332, 3.504)),
        ("fp32", 0.333, (0.333, 3.5)),
    ],
)
def test_time_and_guidance_are_those_that_training_saw(
    train_dtype: str, t_l: float, expected: tuple[float, float]
) -> None:
    config = AdapterConfig(t_l=t_l, guidance=3.5, train_dtype=train_dtype)
    assert config.condition == pytest.approx(expected, abs=1e-6)
    assert AdapterConfig().condition == (0.25, None)


def test_what_records_no_number_format_was_trained_in_bfloat16(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text('{"guidance": 3.5}')
    assert load_config(tmp_path).train_dtype == "bf16"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        ("\udcff", "cannot be read"),
        ('{"t_1": 0.25}', "unknown keys t_1; known keys are .*t_l"),
        ('{"t_l": 0}', "t_l = 0; it must lie between 0 and 1"),
        ('{"t_l": 1.0}', "t_l = 1.0"),
        ('{"t_l": NaN}', "t_l = nan"),
        ('{"t_l": "0.25"}', "cannot be read"),
        ('{"strength": "much"}', "strength = 'much'; it must be a number"),
        ('{"strength": null}', "strength = None"),
        ('{"strength": 2.5}', "strength = 2.5; it must be 2 or less"),
        ('{"strength": -1}', "strength = -1; it must be 0 or more"),
        ('{"strength": NaN}', "strength = nan; it must be 0 or more"),
        ('{"tile_size": 512.0}', "tile_size = 512.0; it must be a whole number of pixels"),
        ('{"guidance": "3.5"}', "guidance = '3.5'"),
        ('{"train_dtype": "float32"}', "train_dtype = 'float32'; it must be one of bf16, fp16, fp32"),
        ('{"train_dtype": null}', "train_dtype = None; it must be one of"),
    ],
)
def test_a_bad_config_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match=message) as caught:
        load_config(tmp_path)
    assert "\n" not in str(caught.value) and CONFIG_FILE in str(caught.value)


def test_a_missing_config_says_where(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"no {CONFIG_FILE} in "):
        load_config(tmp_path)


def test_the_example_in_the_docs_is_complete_and_loads(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "inference.md").read_text(encoding="utf-8")
    example = text.split("```json\n")[1].split("```")[0]
    (tmp_path / CONFIG_FILE).write_text(example)
    assert list(json.loads(example)) == [field.name for field in fields(AdapterConfig)]
    assert load_config(tmp_path).guidance == 3.5
    assert all(f"`{name}`" in text for name in ADAPTER_FILES)

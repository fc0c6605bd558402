"""FLUX.1-dev as published, without its weights: our code path at full size on the meta device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fluxsr.backbones import latents
from fluxsr.backbones.attention import attend_by_chunks
from fluxsr.backbones.flux1 import Flux1, FoldedFluxTransformer2DModel
from fluxsr.backbones.folding import fold
from fluxsr.backbones.lora import add_lora, check_lora
from fluxsr.backbones.parts import part_config, skeleton
from fluxsr.backbones.prompts import FixedPrompt
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import ModelError

# transformer/config.json and vae/config.json of black-forest-labs/FLUX.1-dev
TRANSFORMER = {
    "_class_name": "FluxTransformer2DModel",
    "_diffusers_version": "0.30.0.dev0",
    "_name_or_path": "../checkpoints/flux-dev/transformer",
    "attention_head_dim": 128,
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "patch_size": 1,
    "pooled_projection_dim": 768,
    "axes_dims_rope": [16, 56, 56],
}
VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.30.0.dev0",
    "_name_or_path": "../checkpoints/flux-dev",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 16,
    "latents_mean": None,
    "latents_std": None,
    "layers_per_block": 2,
    "mid_block_add_attention": True,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
PARAMETERS = 11_901_408_320
FOLDED = 8_622_754_880  # 8,621,698,112 parameters and 1,056,768 constants
CONSTANTS = (19 * 2 * 6 + 38 * 3 + 2) * 3072


def published_names() -> Iterator[str]:
    """Names in FLUX.1-dev's diffusion_pytorch_model.safetensors.index.json, by pattern."""

    def linear(*names: str) -> Iterator[str]:
        return (f"{name}.{kind}" for name in names for kind in ("weight", "bias"))

    yield from linear("x_embedder", "context_embedder", "norm_out.linear", "proj_out")
    for part in ("timestep_embedder", "guidance_embedder", "text_embedder"):
        yield from linear(f"time_text_embed.{part}.linear_1", f"time_text_embed.{part}.linear_2")
    for i in range(19):
        block = f"transformer_blocks.{i}"
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            yield from linear(f"{block}.attn.{name}")
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            yield f"{block}.attn.{name}.weight"
        for name in ("ff", "ff_context"):
            yield from linear(f"{block}.{name}.net.0.proj", f"{block}.{name}.net.2")
        yield from linear(f"{block}.norm1.linear", f"{block}.norm1_context.linear")
    for i in range(38):
        block = f"single_transformer_blocks.{i}"
        yield from linear(*(f"{block}.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v")))
        yield from linear(f"{block}.norm.linear", f"{block}.proj_mlp", f"{block}.proj_out")
        yield from (f"{block}.attn.{name}.weight" for name in ("norm_q", "norm_k"))


def from_config(part: str, folder: Path, config: dict[str, Any]) -> Any:
    """As load_part goes: config.json -> class by its name -> model; only memory is left out."""
    (folder / part).mkdir()
    (folder / part / "config.json").write_text(json.dumps(config))
    return skeleton(part_config(folder, part), part)


def size(model: Any) -> int:
    return sum(x.numel() for x in model.state_dict().values())


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The whole transformer; read only."""
    return from_config("transformer", tmp_path_factory.mktemp("flux"), TRANSFORMER)


@pytest.fixture(scope="module")
def folded() -> FoldedFluxTransformer2DModel:
    """The folded transformer; read only."""
    return fold(skeleton(TRANSFORMER), 0.25, 3.5, torch.zeros(1, 768, device="meta"))


def test_published_names_are_the_transformer_s(flux: Any) -> None:
    names = list(published_names())
    assert len(names) == len(set(names)) == 19 * 32 + 38 * 14 + 20
    assert set(flux.state_dict()) == set(names)


def test_published_shapes_and_size(flux: Any) -> None:
    assert size(flux) == sum(p.numel() for p in flux.parameters()) == PARAMETERS
    shapes = {name: tuple(x.shape) for name, x in flux.state_dict().items()}
    assert shapes["x_embedder.weight"] == (3072, 64) and shapes["proj_out.weight"] == (64, 3072)
    assert shapes["context_embedder.weight"] == (3072, 4096)
    assert shapes["time_text_embed.text_embedder.linear_1.weight"] == (3072, 768)
    assert shapes["transformer_blocks.18.norm1_context.linear.weight"] == (6 * 3072, 3072)
    assert shapes["single_transformer_blocks.37.proj_out.weight"] == (3072, 5 * 3072)


def test_folding_removes_the_modulation_and_nothing_else(flux: Any, folded: Any) -> None:
    before = {name: x.shape for name, x in flux.state_dict().items()}
    after = {name: x.shape for name, x in folded.state_dict().items()}
    gone, new = set(before) - set(after), set(after) - set(before)
    assert all(name.startswith(("time_text_embed.", "norm_out.")) or ".norm" in name for name in gone)
    assert len(gone) == 2 * (6 + 1 + 19 * 2 + 38)
    assert len(new) == 19 * 2 + 38 + 1 and all(name.endswith(".modulation") for name in new)
    assert all(before[name] == after[name] for name in set(before) & set(after))


def test_folding_leaves_the_expected_size(folded: Any) -> None:
    assert CONSTANTS == 1_056_768
    assert sum(x.numel() for x in folded.buffers()) == CONSTANTS
    assert sum(p.numel() for p in folded.parameters()) == FOLDED - CONSTANTS == 8_621_698_112
    assert size(folded) == FOLDED
    assert PARAMETERS - FOLDED == 3_278_653_440


def test_the_folded_config_builds_the_folded_model(folded: Any) -> None:
    with torch.device("meta"):
        again = FoldedFluxTransformer2DModel.from_config(dict(folded.config))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in folded.state_dict().items()}
    assert (again.config.folded_t, again.config.folded_guidance) == (0.25, 3.5)


@pytest.mark.slow
def test_the_lora_hits_every_linear_but_modulation_and_conditions() -> None:
    flux = skeleton(TRANSFORMER)
    add_lora(flux, rank=64, alpha=64)
    hit = {name for name, module in flux.named_modules() if hasattr(module, "lora_A")}
    linears = {name for name, m in flux.named_modules() if isinstance(m, torch.nn.Linear) and "lora_" not in name}
    linears = {name.removesuffix(".base_layer") for name in linears}
    left_out = {name for name in linears - hit if "norm" not in name and "time_text_embed" not in name}
    assert left_out == {"context_embedder"}
    assert not [name for name in hit if "norm" in name or "time_text_embed" in name]
    assert len(hit) == 19 * 12 + 38 * 5 + 2 == 420
    assert {"x_embedder", "proj_out"} <= hit
    trained = sum(p.numel() for p in flux.parameters() if p.requires_grad)
    assert trained == 64 * sum(sum(flux.get_submodule(f"{name}.base_layer").weight.shape) for name in hit)


def test_check_lora_accepts_an_adapter_of_these_widths_on_either_form(flux: Any, folded: Any) -> None:
    def state(name: str, width: int, out: int) -> dict[str, torch.Tensor]:
        a, b = torch.empty(64, width, device="meta"), torch.empty(out, 64, device="meta")
        return {f"transformer.{name}.lora_A.weight": a, f"transformer.{name}.lora_B.weight": b}

    good = state("single_transformer_blocks.37.proj_out", 5 * 3072, 3072) | state("x_embedder", 64, 3072)
    modulation = state("transformer_blocks.3.norm1.linear", 3072, 6 * 3072)
    check_lora(flux, good | modulation, Path("x"))
    check_lora(folded, good, Path("x"))
    with pytest.raises(ModelError, match="the transformer is folded"):
        check_lora(folded, modulation, Path("x"))
    assert len(Flux1.lora_targets) == len(set(Flux1.lora_targets))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("folds", [False, True], ids=["whole", "folded"])
def test_the_velocity_of_a_1024_pixel_image_has_its_shape(folds: bool, chunked: bool) -> None:
    flux = skeleton(TRANSFORMER | {"num_layers": 1, "num_single_layers": 1})
    prompt = FixedPrompt(torch.zeros(1, 512, 4096, device="meta"), torch.zeros(1, 768, device="meta"))
    model = fold(flux, 0.25, 3.5, prompt.pooled_prompt_embeds) if folds else flux
    if chunked:
        attend_by_chunks(model)
    v = velocity(model, torch.zeros(1, 16, 128, 128, device="meta"), 0.25, prompt, 3.5)
    assert v.shape == (1, 16, 128, 128)


def test_published_autoencoder(tmp_path: Path) -> None:
    vae = from_config("vae", tmp_path, VAE)
    names = set(vae.state_dict())
    assert size(vae) == 83_819_683
    assert not [name for name in names if "quant_conv" in name]
    assert {
        "encoder.conv_in.weight", "encoder.conv_norm_out.weight", "encoder.conv_out.bias",
        "encoder.down_blocks.0.resnets.1.conv2.weight", "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
        "encoder.down_blocks.2.downsamplers.0.conv.weight", "encoder.mid_block.attentions.0.to_q.weight",
        "encoder.mid_block.attentions.0.group_norm.bias", "encoder.mid_block.attentions.0.to_out.0.weight",
        "decoder.conv_in.weight", "decoder.up_blocks.0.upsamplers.0.conv.weight",
        "decoder.up_blocks.3.resnets.2.norm1.weight", "decoder.conv_out.weight",
    } <= names  # fmt: skip
    assert vae.state_dict()["encoder.conv_out.weight"].shape[0] == 2 * 16
    assert latents.pixel_multiple(vae) == 16
    z = latents.encode(vae, torch.zeros(1, 3, 64, 48, device="meta"))
    assert z.shape == (1, 16, 8, 6) and latents.decode(vae, z).shape == (1, 3, 64, 48)
    one = torch.ones(1)
    torch.testing.assert_close(latents.normalise(vae, one), (one - 0.1159) * 0.3611)


@pytest.mark.slow
@torch.no_grad()
def test_one_double_and_one_single_block_run_at_full_width(tmp_path: Path) -> None:
    config = TRANSFORMER | {"num_layers": 1, "num_single_layers": 1}
    model = from_config("transformer", tmp_path, config).to(torch.bfloat16).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1 << 20, generator=generator).bfloat16()
    for name, parameter in model.named_parameters():
        fan = parameter.shape[-1] if parameter.ndim == 2 else 1e4
        flat = noise.repeat(-(-parameter.numel() // len(noise)) + 1)[len(name) * 7919 :][: parameter.numel()]
        parameter.copy_(flat.view_as(parameter) * fan**-0.5 if "attn.norm" not in name else torch.ones(()))
    z = torch.randn(1, 16, 16, 16, generator=generator)
    prompt = FixedPrompt(torch.randn(1, 8, 4096, generator=generator), torch.randn(1, 768, generator=generator))
    v = velocity(model, z, 0.25, prompt, 3.5)
    assert v.isfinite().all() and v.std() > 0
    folded = fold(model, 0.25, 3.5, prompt.pooled_prompt_embeds)
    assert torch.equal(velocity(folded, z, 0.25, prompt, 3.5), v)
    attend_by_chunks(folded)
    assert (velocity(folded, z, 0.25, prompt, 3.5) - v).norm() / v.norm() < 0.05

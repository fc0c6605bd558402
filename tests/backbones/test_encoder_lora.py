"""The LoRA of an autoencoder's encoder: equal to PEFT's own merge, at every place where an adapter goes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fluxsr.backbones import latents
from fluxsr.backbones.encoder_lora import (
    add_encoder_lora,
    check_encoder_lora,
    encoder_file,
    encoder_lora,
    fuse_encoder_lora,
    read_encoder_lora,
    remove_encoder_lora,
    save_encoder_lora,
)
from fluxsr.backbones.identity import contents_of
from fluxsr.backbones.loading import load
from fluxsr.backbones.parts import part_config, skeleton
from fluxsr.backbones.places import ENCODER_FILE
from fluxsr.backbones.single_file import flux_dev
from fluxsr.cli.main import app
from fluxsr.errors import InputError, ModelError, OutputError
from fluxsr.hub.contents import CardOverrides, contents
from fluxsr.pipeline import FluxSRPipeline

# The layers that OMGSR adapts, by the ends of their names.
TARGETS = ["conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out", "to_k", "to_q", "to_v", "to_out.0"]
IMAGE = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def attentive() -> AutoencoderKL:
    """An autoencoder with all kinds of layers that FLUX's encoder has: shortcuts, strides and attention."""
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    ).eval()


def in_peft(vae: Any, folder: Path, **config: Any) -> Any:
    """Wrap the encoder in PEFT with random matrices, save its files, and return the wrapped encoder."""
    encoder = get_peft_model(deepcopy(vae.encoder), LoraConfig(**{"r": 3, "target_modules": TARGETS, **config}))
    for i, (name, parameter) in enumerate(encoder.named_parameters()):
        if "lora_B" in name:
            parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(i))
    encoder.save_pretrained(folder)
    return encoder


@pytest.mark.parametrize(
    "config", [{"lora_alpha": 3}, {"lora_alpha": 5, "use_rslora": True, "alpha_pattern": {"conv_in": 8}}]
)
def test_the_merge_is_peft_s_for_convolutions_and_linear_layers(
    attentive: Any, tmp_path: Path, config: dict[str, Any]
) -> None:
    expected = in_peft(attentive, tmp_path, **config).merge_and_unload().state_dict()
    pairs = read_encoder_lora(tmp_path / "adapter_model.safetensors")
    assert {len(down.shape) for down, _ in pairs.values()} == {2, 4}, "linear layers and convolutions"
    save_encoder_lora(pairs, tmp_path)
    fuse_encoder_lora(attentive, tmp_path / ENCODER_FILE)
    found = attentive.encoder.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, atol=1e-6), name


def test_alphas_of_a_wrapped_autoencoder_name_the_encoder(tmp_path: Path) -> None:
    matrices = {"lora_A": torch.ones(4, 3, 3, 3), "lora_B": torch.ones(8, 4, 1, 1)}
    names = {f"base_model.model.encoder.conv_in.{name}.weight": value for name, value in matrices.items()}
    save_file(names, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 4, "alpha_pattern": {"encoder.conv_in": 8}}')
    _, up = read_encoder_lora(tmp_path / "adapter_model.safetensors")["conv_in"]
    assert up.unique().tolist() == [2.0]  # alpha / rank = 8 / 4


def test_in_bfloat16_the_sum_is_rounded_once(attentive: Any, tmp_path: Path) -> None:
    in_peft(attentive, tmp_path)
    path, before = tmp_path / "adapter_model.safetensors", attentive.bfloat16().encoder.conv_in.weight.float()
    down, up = read_encoder_lora(path)["conv_in"]
    expected = before + torch.einsum("orxy,rikl->oikl", up, down)
    fuse_encoder_lora(attentive, path)
    assert torch.equal(attentive.encoder.conv_in.weight, expected.bfloat16())


def test_it_fits_flux_1_s_autoencoder_at_its_true_size() -> None:
    vae = skeleton(part_config(str(flux_dev()), "vae"), "vae")
    pairs = {}
    for name, module in vae.encoder.named_modules():
        if any(name == end or name.endswith(f".{end}") for end in TARGETS):
            size = module.weight.shape
            one = (1, 1) if len(size) == 4 else ()
            pairs[name] = torch.empty(64, *size[1:], device="meta"), torch.empty(size[0], 64, *one, device="meta")
    check_encoder_lora(vae, pairs, "here")
    assert len(pairs) == 31
    assert sum(down.numel() + up.numel() for down, up in pairs.values()) == 5_910_208


def test_training_adapts_every_layer_of_flux_1_s_encoder() -> None:
    vae, plain = (skeleton(part_config(str(flux_dev()), "vae"), "vae") for _ in range(2))
    add_encoder_lora(vae, rank=4, alpha=8.0)
    pairs = encoder_lora(vae)
    check_encoder_lora(plain, pairs, "here")
    layers = [
        name for name, layer in plain.encoder.named_modules() if getattr(layer, "weight", torch.empty(0)).ndim > 1
    ]
    assert sorted(pairs) == sorted(layers) and {
        pairs[n][0].ndim for n in ("conv_in", "mid_block.attentions.0.to_q")
    } == {2, 4}
    remove_encoder_lora(vae)
    assert not encoder_lora(vae) and vae.encoder.state_dict().keys() == plain.encoder.state_dict().keys()


@pytest.fixture
def adapted(make_adapter: Callable[..., Path], vae: Any, tmp_path: Path) -> Path:
    """An adapter of the tiny model with a LoRA of its encoder."""
    folder, peft = make_adapter(), tmp_path / "peft"
    in_peft(vae, peft, target_modules=["conv1", "conv_in"])
    save_encoder_lora(read_encoder_lora(peft / "adapter_model.safetensors"), folder)
    return folder


def encoded(parts: Any) -> torch.Tensor:
    with torch.no_grad():
        return latents.encode(parts.vae, IMAGE)


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether latents are equal but for the rounding of another memory format."""
    return torch.allclose(one, other, atol=1e-5)


def test_an_adapter_carries_it(model_folder: Path, adapted: Path, vae: Any, tmp_path: Path) -> None:
    own = deepcopy(vae)
    fuse_encoder_lora(own, adapted / ENCODER_FILE)
    with torch.no_grad():
        expected, plain = latents.encode(own, IMAGE), latents.encode(vae, IMAGE)
    parts = load(model_folder, adapted, "cpu", torch.float32)
    assert alike(encoded(parts), expected) and not torch.allclose(expected, plain, atol=1e-3)
    assert alike(encoded(load(model_folder, adapted, "cpu", torch.float32, fused=False)), plain)
    FluxSRPipeline.of(parts).save_pretrained(tmp_path / "whole")  # merged, as the transformer's is
    assert alike(encoded(load(tmp_path / "whole", None, "cpu", torch.float32)), expected)
    with pytest.raises(OutputError, match="would be fused a second time"):
        (tmp_path / "whole" / ENCODER_FILE).write_bytes((adapted / ENCODER_FILE).read_bytes())
        FluxSRPipeline.of(parts).save_pretrained(tmp_path / "whole")


@pytest.mark.parametrize("fuse", ["--fuse", "--no-fuse"])
def test_an_export_and_a_push_carry_it(fuse: str, model_folder: Path, adapted: Path, tmp_path: Path) -> None:
    expected, out = encoded(load(model_folder, adapted, "cpu", torch.float32)), tmp_path / "out"
    options = ["--adapter", adapted, "-o", out, "--dtype", "fp32", "--device", "cpu", fuse]
    result = CliRunner().invoke(app, ["export", "--model", *map(str, [model_folder, *options])])
    assert result.exit_code == 0, result.output
    assert alike(encoded(load(out, None, "cpu", torch.float32)), expected)
    card = CardOverrides(base_model="bundled")
    assert (ENCODER_FILE in contents(out, "a/b", card)) == (out / ENCODER_FILE).is_file() == (fuse == "--no-fuse")
    assert ENCODER_FILE in contents(adapted, "a/b", card)
    assert any(ENCODER_FILE in name for name in contents_of("bundled", str(adapted))), "it is part of the fingerprint"


def test_where_it_cannot_be_applied_a_line_says_so(model_folder: Path, adapted: Path) -> None:
    pipeline = FluxSRPipeline.of(load(model_folder, None, "cpu", torch.float32, folded=False))
    with pytest.raises(ModelError, match=r"changes the autoencoder too; call fluxsr\.load"):
        pipeline.load_lora_weights(adapted)
    from fluxsr.comfyui.adapters import conditioning
    from fluxsr.training.config import DistillConfig
    from fluxsr.training.distillation import _check

    with pytest.raises(ModelError, match="use fluxsr upscale"):
        conditioning(adapted)
    with pytest.raises(InputError, match="training does not read"):
        _check(DistillConfig(base=str(model_folder), start=str(adapted), export="model"))


def test_a_file_that_does_not_fit(attentive: Any, adapted: Path, tmp_path: Path) -> None:
    path = adapted / ENCODER_FILE
    state = load_file(path)
    with pytest.raises(ModelError, match="the encoder's layer has the weight"):
        fuse_encoder_lora(attentive, path)
    for change, words in (
        ({"encoder.elsewhere.lora_A.weight": "encoder.conv_in.lora_A.weight"}, "lacks 'encoder.elsewhere.lora_B"),
        ({"encoder.conv_in.lora_magnitude": "encoder.conv_in.lora_A.weight"}, "only pairs of lora_A and lora_B"),
    ):
        save_file(state | {new: state[old].clone() for new, old in change.items()}, tmp_path / "changed.safetensors")
        with pytest.raises(ModelError, match=words):
            read_encoder_lora(tmp_path / "changed.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="cannot be read"):
        read_encoder_lora(tmp_path / "broken.safetensors")
    assert encoder_file(tmp_path) is None

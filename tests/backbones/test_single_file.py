"""Files as people pass them around: FLUX's real names and shapes, and small ones where no width is hard-wired."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxsr.backbones import loading
from fluxsr.backbones.adapter import AdapterConfig, load_config
from fluxsr.backbones.flux1 import Flux1
from fluxsr.backbones.parts import part_config, skeleton
from fluxsr.backbones.places import CONFIG_FILE, WEIGHTS_FILE
from fluxsr.backbones.prompts import load_prompt
from fluxsr.backbones.quantize import is_quantized
from fluxsr.backbones.single_file import flux_dev
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import InputError, ModelError

WIDTH = 3072


def bfl_shapes(blocks: int = 19, singles: int = 38) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in BFL's flux1-dev.safetensors."""

    def linear(name: str, out: int, width: int = WIDTH) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (out, width)
        yield f"{name}.bias", (out,)

    yield from linear("img_in", WIDTH, 64)
    yield from linear("txt_in", WIDTH, 4096)
    for name, width in (("time_in", 256), ("vector_in", 768), ("guidance_in", 256)):
        yield from linear(f"{name}.in_layer", WIDTH, width)
        yield from linear(f"{name}.out_layer", WIDTH)
    for i in range(blocks):
        for side in ("img", "txt"):
            name = f"double_blocks.{i}.{side}"
            yield from linear(f"{name}_mod.lin", 6 * WIDTH)
            yield from linear(f"{name}_attn.qkv", 3 * WIDTH)
            yield from linear(f"{name}_attn.proj", WIDTH)
            yield from linear(f"{name}_mlp.0", 4 * WIDTH)
            yield from linear(f"{name}_mlp.2", WIDTH, 4 * WIDTH)
            yield from ((f"{name}_attn.norm.{part}_norm.scale", (128,)) for part in ("query", "key"))
    for i in range(singles):
        yield from linear(f"single_blocks.{i}.modulation.lin", 3 * WIDTH)
        yield from linear(f"single_blocks.{i}.linear1", 7 * WIDTH)
        yield from linear(f"single_blocks.{i}.linear2", WIDTH, 5 * WIDTH)
        yield from ((f"single_blocks.{i}.norm.{part}_norm.scale", (128,)) for part in ("query", "key"))
    yield from linear("final_layer.adaLN_modulation.1", 2 * WIDTH)
    yield from linear("final_layer.linear", 64)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_bfl_s_names_are_flux_s_whole(prefix: str) -> None:
    weights = {prefix + name: torch.empty(shape, device="meta") for name, shape in bfl_shapes()}
    assert len(weights) == 780 and sum(x.numel() for x in weights.values()) == 11_901_408_320
    if prefix:  # an all-in-one checkpoint
        weights |= {
            f"{other}.weight": torch.empty(1) for other in ("vae.encoder.conv_in", "text_encoders.t5xxl.shared")
        }
    ours = Flux1().convert(weights)
    wanted = skeleton(part_config(str(flux_dev()), "transformer")).state_dict()
    assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in wanted.items()}


# Small files, in diffusers' names


@pytest.fixture
def file(model_folder: Path, tmp_path: Path) -> Path:
    """The tiny transformer as a file, with prompt and config of an adapter beside it."""
    shutil.copy(model_folder / "transformer/diffusion_pytorch_model.safetensors", tmp_path / "tiny.safetensors")
    load_config(model_folder).save(tmp_path)
    load_prompt(model_folder).save(tmp_path)
    return tmp_path / "tiny.safetensors"


def load(model: Any, **options: Any) -> loading.Backbone:
    return loading.load(model, device="cpu", dtype="fp32", **options)


def step(parts: loading.Backbone) -> torch.Tensor:
    channels = parts.transformer.config.in_channels // 4
    z = torch.randn(1, channels, 4, 6, generator=torch.Generator().manual_seed(0)).to(parts.transformer.dtype)
    with torch.no_grad():
        return velocity(parts.transformer, z, parts.config.t_l, parts.prompt, parts.config.guidance)


def test_a_file_with_a_configuration_is_its_model(file: Path, model_folder: Path) -> None:
    one, other = load(file, config_folder=model_folder), load(model_folder)
    assert torch.equal(step(one), step(other)) and type(one.transformer) is type(other.transformer)
    assert one.vae.state_dict().keys() == other.vae.state_dict().keys()
    assert loading.plan_for(file, None, torch.device("cpu"), torch.float32, "auto", model_folder).tile_size == 512


def test_bfl_s_autoencoder_beside_the_file(file: Path, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    shutil.copytree(model_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(
        ModelError, match=r"no autoencoder for tiny.safetensors; put FLUX.1-dev's ae.safetensors beside"
    ):
        load(file, config_folder=folder)
    vae = load_file(model_folder / "vae/diffusion_pytorch_model.safetensors")
    save_file({in_bfl_s(name): tensor for name, tensor in vae.items()}, file.with_name("ae.safetensors"))
    read = load(file, config_folder=folder).vae.state_dict()
    assert read.keys() == vae.keys() and all(torch.equal(read[name], tensor) for name, tensor in vae.items())


def in_bfl_s(name: str) -> str:
    """A name of AutoencoderKL in BFL's ae.safetensors."""
    side, *rest = name.split(".")
    name = ".".join(rest).replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    for i in range(4):
        name = name.replace(f"down_blocks.{i}.", f"down.{i}.").replace(f"up_blocks.{i}.", f"up.{3 - i}.")
        name = name.replace(f"mid_block.resnets.{i}", f"mid.block_{i + 1}")
    name = name.replace("samplers.0.conv", "sample.conv").replace(".resnets.", ".block.")
    return f"{side}.{name}"


def test_what_is_wrong_is_one_line(file: Path, model_folder: Path) -> None:
    weights = load_file(file)
    with pytest.raises(InputError, match="bundled is not a single file; leave --config"):
        load("bundled", config_folder=model_folder)
    with pytest.raises(ModelError, match="no model folder .*gone.gguf; pass an existing folder or file"):
        load(file.with_name("gone.gguf"))
    save_file({name: x for name, x in weights.items() if name != "x_embedder.weight"}, file)
    with pytest.raises(ModelError, match="tiny.safetensors lacks 1 weights, the first is 'x_embedder.weight'"):
        load(file, config_folder=model_folder)
    save_file(weights | {"x_embedder.scale_weight": torch.ones(1)}, file)
    with pytest.raises(ModelError, match="holds scaled 8-bit weights .*; use bf16 or GGUF"):
        load(file, config_folder=model_folder)


def test_gguf_needs_its_package_and_a_good_file(file: Path, model_folder: Path, uninstall: Callable[..., None]) -> None:
    (gguf := file.with_suffix(".gguf")).write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot load transformer of .*tiny.gguf") as caught:
        load(gguf, config_folder=model_folder)
    assert "\n" not in str(caught.value)
    uninstall("gguf")
    with pytest.raises(InputError, match=r'tiny.gguf needs gguf; pip install "fluxsr\[gguf\]"'):
        load(gguf, config_folder=model_folder)


# FLUX's width, one block of each kind


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, vae: Any) -> Path:
    """flux1.safetensors in BFL's names, bfloat16, 1 + 1 blocks; configurations; an adapter in Kohya's names."""
    from fluxsr.backbones.prompts import FixedPrompt

    folder = tmp_path_factory.mktemp("wide")
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    save_file(
        {
            name: _cut(noise, number, shape) if len(shape) == 2 else torch.ones(shape, dtype=torch.bfloat16) / 4
            for number, (name, shape) in enumerate(bfl_shapes(1, 1))
        },
        folder / "flux1.safetensors",
    )
    config = json.loads((flux_dev() / "transformer/config.json").read_text())
    (folder / "transformer").mkdir()
    (folder / "transformer/config.json").write_text(json.dumps(config | {"num_layers": 1, "num_single_layers": 1}))
    vae.save_pretrained(folder / "vae")
    generator = torch.Generator().manual_seed(1)
    FixedPrompt(torch.randn(1, 8, 4096, generator=generator), torch.randn(1, 768, generator=generator)).save(folder)
    AdapterConfig(guidance=3.5, rank=4).save(folder)
    lora = {}
    for name, width, out in (
        ("double_blocks_0_img_attn_qkv", WIDTH, 3 * WIDTH),
        ("single_blocks_0_linear2", 5 * WIDTH, WIDTH),
    ):
        lora[f"lora_unet_{name}.lora_down.weight"] = torch.randn(4, width, generator=generator) * 0.02
        lora[f"lora_unet_{name}.lora_up.weight"] = torch.randn(out, 4, generator=generator) * 0.1
        lora[f"lora_unet_{name}.alpha"] = torch.tensor(4.0)
    (folder / "lora").mkdir()
    for name in (CONFIG_FILE, "prompt_embeds.safetensors"):
        shutil.copy(folder / name, folder / "lora")
    save_file(lora, folder / "lora" / WEIGHTS_FILE)
    return folder


def _cut(noise: torch.Tensor, seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """A random matrix; the same numbers again and again, for speed."""
    count = shape[0] * shape[1]
    flat = noise.roll(seed * 7919).repeat(-(-count // len(noise)))[:count]
    return (flat.view(shape) * shape[1] ** -0.5).bfloat16()


@pytest.fixture(scope="module")
def wide_load(wide: Path) -> Callable[..., loading.Backbone]:
    return lambda file="flux1.safetensors", **options: loading.load(
        wide / file, device="cpu", dtype="bf16", config_folder=wide, **options
    )


@pytest.mark.slow
def test_bfl_s_file_at_full_width(wide: Path, wide_load: Callable[..., loading.Backbone]) -> None:
    """The split weights are where diffusers has them, and folding at this size changes no bit."""
    theirs = load_file(wide / "flux1.safetensors")
    plain, folded = wide_load(folded=False), wide_load()
    ours = plain.transformer.state_dict()
    qkv = theirs["double_blocks.0.txt_attn.qkv.weight"]
    assert torch.equal(ours["transformer_blocks.0.attn.add_k_proj.weight"], qkv[WIDTH : 2 * WIDTH])
    assert torch.equal(
        ours["single_transformer_blocks.0.proj_mlp.weight"], theirs["single_blocks.0.linear1.weight"][3 * WIDTH :]
    )
    shift, scale = theirs["final_layer.adaLN_modulation.1.weight"].chunk(2)
    assert torch.equal(ours["norm_out.linear.weight"], torch.cat([scale, shift]))
    v = step(plain)
    assert v.isfinite().all() and v.std() > 0.01 and torch.equal(step(folded), v)


@pytest.mark.slow
def test_a_gguf_file_is_folded_and_takes_a_lora_unfused(wide: Path, wide_load: Callable[..., loading.Backbone]) -> None:
    import gguf

    writer = gguf.GGUFWriter(wide / "flux1-q8.gguf", "flux")
    for name, tensor in load_file(wide / "flux1.safetensors").items():
        kind = gguf.GGMLQuantizationType.Q8_0 if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    exact, exact_lora = step(wide_load()), step(wide_load(adapter=wide / "lora"))
    assert (exact_lora - exact).norm() / exact.norm() > 0.1
    small = wide_load("flux1-q8.gguf")
    assert is_quantized(small.transformer) and small.transformer.config.folded_t == 0.25
    size = sum(x.numel() * x.element_size() for x in small.transformer.state_dict().values())
    assert size < 0.4 * (wide / "flux1.safetensors").stat().st_size
    assert (step(small) - exact).norm() / exact.norm() < 0.03
    adapted = wide_load("flux1-q8.gguf", adapter=wide / "lora")
    assert (step(adapted) - exact_lora).norm() / exact_lora.norm() < 0.03
    with pytest.raises(ModelError, match="is already quantized; use quantize none"):
        wide_load("flux1-q8.gguf", quantize="int8")

"""FLUX.2 [klein] on tiny random models of diffusers' classes, and its real sizes without memory."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

import fluxsr
from fluxsr.backbones import latents, lora
from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.attention import attend_by_chunks
from fluxsr.backbones.families import FAMILIES, family_of, family_of_layers
from fluxsr.backbones.features import attention_taps
from fluxsr.backbones.folding import fold
from fluxsr.backbones.loading import load, load_base, plan_for
from fluxsr.backbones.parts import in_flight, parameter_count, skeleton
from fluxsr.backbones.prompts import FixedPrompt, load_prompt
from fluxsr.backbones.quantize import is_quantized
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import ModelError
from fluxsr.imaging.settings import Settings
from fluxsr.options import UpscaleOptions

KLEIN_4B = {
    "_class_name": "Flux2Transformer2DModel",
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
KLEIN_9B = KLEIN_4B | {
    "num_layers": 8,
    "num_single_layers": 24,
    "num_attention_heads": 32,
    "joint_attention_dim": 12288,
}
SINGLE = "single_transformer_blocks.0.attn"


def noise(seed: int = 0, batch: int = 2, channels: int = 16) -> Tensor:
    return torch.randn(batch, channels, 3, 2, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def prompt(klein_folder: Path) -> FixedPrompt:
    return load_prompt(klein_folder)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def adapter(klein: Any, prompt: FixedPrompt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of all layers that changes much, with an alpha that is not its rank."""
    folder, wrapped = tmp_path_factory.mktemp("adapter"), deepcopy(klein.transformer)
    torch.manual_seed(0)
    lora.add_lora(wrapped, rank=2, alpha=4)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    lora.save_lora(wrapped, folder, torch.float32)
    AdapterConfig(rank=2, alpha=4, train_dtype="fp32").save(folder)
    prompt.save(folder)
    return folder


@pytest.fixture(scope="module")
def fused(klein: Any, adapter: Path) -> Any:
    """The adapter merged by diffusers itself."""
    pipe = Flux2KleinPipeline(None, None, None, None, deepcopy(klein.transformer))
    pipe.load_lora_weights(adapter)
    pipe.fuse_lora(components=["transformer"])
    pipe.unload_lora_weights()
    return pipe.transformer


@pytest.mark.parametrize(
    ("config", "count", "folded"),
    [
        (KLEIN_4B, 3_875_544_576, 3_704_941_056),
        (KLEIN_9B, 9_078_581_248, 8_775_612_416),
        ({"_class_name": "Flux2Transformer2DModel"}, 32_223_281_152, 31_503_013_888),
    ],
    ids=["klein-4B", "klein-9B", "dev"],
)
def test_real_sizes(config: dict[str, Any], count: int, folded: int) -> None:
    assert parameter_count(skeleton(config)) == count
    empty = skeleton(config | {"_class_name": "FoldedFlux2Transformer2DModel"})
    assert parameter_count(empty) == folded
    width = empty.inner_dim
    assert sum(buffer.numel() for buffer in empty.buffers()) == 17 * width  # 52,224 for klein-4B
    family = family_of(empty)
    assert family.prompt_widths(empty.config) == (config.get("joint_attention_dim", 15360), 0)
    assert family.classifier_free(empty.config) == ("guidance_embeds" in config)
    if config is KLEIN_4B:
        assert in_flight(empty) == 3_704_941_056 - 3 * 245_367_296 - 20 * 122_683_648


@pytest.mark.parametrize(
    ("targets", "count"),
    [((), 96_337_920), (("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj", "attn.to_out"), 66_846_720)],
    ids=["all layers of the blocks", "diffusers' list"],
)
def test_real_adapter_sizes(targets: tuple[str, ...], count: int) -> None:
    transformer = skeleton(KLEIN_4B)
    with torch.device("meta"):
        lora.add_lora(transformer, 64, 64, targets)
    adapted = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in adapted) == count


def test_latents_are_those_of_diffusers(klein: Any) -> None:
    image = torch.rand(1, 3, 48, 32, generator=torch.Generator().manual_seed(1))
    z = latents.encode(klein.vae, image)
    assert z.shape == (1, 16, 3, 2) and latents.pixel_multiple(klein.vae) == 16
    assert latents.channels(klein.transformer) == 16
    torch.testing.assert_close(z, klein._encode_vae_image(image * 2 - 1, torch.Generator()), atol=1e-5, rtol=1e-5)
    plain = klein.vae.decode(klein.vae.encode(image * 2 - 1).latent_dist.mode()).sample / 2 + 0.5
    torch.testing.assert_close(latents.decode(klein.vae, z), plain, atol=1e-5, rtol=1e-5)


def direct(pipe: Any, transformer: Any, z: Tensor, t: float, embeds: Tensor) -> Tensor:
    """The transformer called as Flux2KleinPipeline calls it."""
    tokens, ids = pipe.prepare_latents(2, 4, 48, 32, z.dtype, z.device, None, z)
    embeds = embeds.expand(2, -1, -1).to(transformer.dtype)
    out = transformer(
        hidden_states=tokens.to(transformer.dtype),
        timestep=torch.full((2,), t),
        guidance=None,
        encoder_hidden_states=embeds,
        txt_ids=pipe._prepare_text_ids(embeds),
        img_ids=ids,
        return_dict=False,
    )[0]
    return pipe._unpack_latents_with_ids(out.float(), ids, 3, 2)


def test_the_call_is_that_of_the_pipeline(klein: Any, prompt: FixedPrompt) -> None:
    found = velocity(klein.transformer, noise(), 0.3, prompt)
    assert torch.equal(found, direct(klein, klein.transformer, noise(), 0.3, prompt.prompt_embeds))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 0.0)], ids=str)
def test_folding_is_exact(klein: Any, prompt: FixedPrompt, dtype: torch.dtype, error: float) -> None:
    whole = deepcopy(klein.transformer).to(dtype)
    for z in (noise(), noise(batch=1)):
        wanted = velocity(whole, z, 0.25, prompt)
        folded = fold(deepcopy(whole), 0.25, None, prompt.pooled_prompt_embeds)
        assert (velocity(folded, z, 0.25, prompt) - wanted).abs().max() <= error
    names = [name for name, _ in folded.named_modules()]
    assert not [name for name in names if "embed.time" in name or "modulation.linear" in name]


def test_attention_by_chunks_is_the_same(klein: Any, prompt: FixedPrompt) -> None:
    chunked = deepcopy(klein.transformer)
    attend_by_chunks(chunked)
    assert type(chunked.single_transformer_blocks[0].attn.processor).__name__.startswith("Chunked")
    wanted = velocity(klein.transformer, noise(), 0.25, prompt)
    torch.testing.assert_close(velocity(chunked, noise(), 0.25, prompt), wanted, atol=1e-5, rtol=1e-5)


def test_dev_embeds_its_guidance(prompt: FixedPrompt) -> None:
    sizes = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1, "attention_head_dim": 16}
    torch.manual_seed(0)
    dev = Flux2Transformer2DModel(in_channels=16, joint_attention_dim=24, axes_dims_rope=(4, 4, 4, 4), **sizes)
    wanted = velocity(dev, noise(), 0.25, prompt, 4.0)
    assert not torch.equal(wanted, velocity(dev, noise(), 0.25, prompt, 1.0))
    folded = fold(dev, 0.25, 4.0, prompt.pooled_prompt_embeds)
    torch.testing.assert_close(velocity(folded, noise(), 0.25, prompt, 4.0), wanted, atol=1e-6, rtol=0)


def test_an_adapter_fuses_as_in_diffusers(klein: Any, adapter: Path, fused: Any) -> None:
    ours = deepcopy(klein.transformer)
    lora.fuse_lora(ours, adapter)
    for name, weight in fused.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, atol=1e-6, rtol=1e-6, msg=name)
    assert not torch.equal(fused.proj_out.weight, fused.x_embedder.weight)
    changed = [
        name for name, weight in klein.transformer.state_dict().items() if not ours.state_dict()[name].equal(weight)
    ]
    assert len(changed) == 2 * 12 + 2 * 2, "all layers of both kinds of blocks"


@pytest.mark.parametrize("style", ["peft", "bfl"])
def test_key_styles(klein: Any, adapter: Path, fused: Any, style: str, tmp_path: Path) -> None:
    state = {
        key.removeprefix("transformer."): value
        for key, value in load_file(adapter / "pytorch_lora_weights.safetensors").items()
    }
    if style == "peft":
        save_file(
            {f"base_model.model.{key}": value for key, value in state.items()}, tmp_path / "adapter_model.safetensors"
        )
        (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 4, "target_modules": ["to_q"]}')
        wanted = fused
    else:  # BFL's names have no alpha in a header: the scale is 1
        names = {f"{SINGLE}.to_qkv_mlp_proj": "single_blocks.0.linear1", f"{SINGLE}.to_out": "single_blocks.0.linear2"}
        names["transformer_blocks.1.ff.linear_in"] = "double_blocks.1.img_mlp.0"
        named = {f"diffusion_model.{names[key.split('.lora')[0]]}.lora{key.split('.lora')[1]}": value
                 for key, value in state.items() if key.split(".lora")[0] in names}  # fmt: skip
        save_file(named, tmp_path / "pytorch_lora_weights.safetensors")
        wanted = deepcopy(klein.transformer)
        for name in names:
            wanted.get_submodule(name).weight += state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
    ours = deepcopy(klein.transformer)
    lora.fuse_lora(ours, tmp_path)
    for name, weight in wanted.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, atol=1e-6, rtol=1e-6, msg=name)
    file = lora.lora_file(tmp_path)
    assert file and set(lora.read_lora(file)[0]) == set(lora.read_lora(file, FAMILIES[1])[0]), "without the transformer"


def test_a_file_s_family_is_told_by_its_layers() -> None:
    def named(name: str, rows: int, columns: int) -> dict[str, list[int]]:
        return {f"{name}.lora_A.weight": [4, columns], f"{name}.lora_B.weight": [rows, 4]}

    for shapes in (
        named(f"transformer.{SINGLE}.to_out", 32, 128),
        named("diffusion_model.double_blocks.0.img_mlp.0", 192, 32),
        named("diffusion_model.single_blocks.0.linear1", 288, 32),
    ):
        assert family_of_layers(shapes) is FAMILIES[1], shapes
    for shapes in (
        named("transformer.transformer_blocks.0.attn.to_out.0", 32, 32),
        named("double_blocks.0.img_mlp.0", 128, 32),
        named("single_blocks.0.linear1", 224, 32),
        named("diffusion_model.final_layer.adaLN_modulation.1", 64, 32),
    ):
        assert family_of_layers(shapes) is FAMILIES[0], shapes


def test_a_modulation_is_refused_on_a_folded_model(klein: Any, adapter: Path, prompt: FixedPrompt) -> None:
    folded = fold(deepcopy(klein.transformer), 0.25, None, prompt.pooled_prompt_embeds)
    name = "transformer.single_stream_modulation.linear.lora_A.weight"
    with pytest.raises(ModelError, match="the transformer is folded, use the unfolded model"):
        lora.check_lora(folded, {name: torch.zeros(2, 32)}, adapter)


def test_taps_give_the_attention_of_image_tokens(klein: Any, prompt: FixedPrompt) -> None:
    with attention_taps(klein.transformer, 5) as taps:
        velocity(klein.transformer, noise(), 0.25, prompt)
    assert [tuple(tap.shape) for tap in taps] == [(2, 6, 32)] * 4
    attn = klein.transformer.single_transformer_blocks[0].attn
    projected, seen = [], []
    handles = [
        attn.to_qkv_mlp_proj.register_forward_hook(lambda _m, _i, output: projected.append(output)),
        attn.register_forward_pre_hook(lambda _m, _a, options: seen.append(options), with_kwargs=True),
    ]
    with attention_taps(klein.transformer, 5, (), (0,)) as taps:
        velocity(klein.transformer, noise(), 0.25, prompt)
    [handle.remove() for handle in handles]
    from diffusers.models.embeddings import apply_rotary_emb

    query, key, value = (x.unflatten(-1, (2, 16)) for x in projected[0][..., :96].chunk(3, dim=-1))
    ids = seen[0]["image_rotary_emb"]
    query, key = (apply_rotary_emb(x, ids, sequence_dim=1) for x in (attn.norm_q(query), attn.norm_k(key)))
    wanted = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
    torch.testing.assert_close(taps[0], wanted.transpose(1, 2).flatten(2)[:, 5:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_an_image_through_every_way_of_loading(
    klein_folder: Path, adapter: Path, fused: Any, klein: Any, prompt: FixedPrompt, quantize: str, tmp_path: Path
) -> None:
    if quantize == "int8":
        pytest.importorskip("torchao")
    pipe = fluxsr.FluxSRPipeline.of(load(klein_folder, adapter, "cpu", "fp32", quantize=quantize))
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe.transformer).__name__ == "FoldedFlux2Transformer2DModel"
    low = torch.rand(1, 3, 20, 17, generator=torch.Generator().manual_seed(2))
    settings = Settings(UpscaleOptions(tile_size=64))
    high = pipe.upscale_tensor(low, settings)
    assert high.shape == (1, 3, 80, 68)
    z = noise()
    exact = velocity(fused, z, 0.25, prompt)
    error = 1e-5 if quantize == "none" else 0.03
    assert (velocity(pipe.transformer, z, 0.25, prompt) - exact).norm() <= error * exact.norm()
    up = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(3))
    unchanged = latents.decode(klein.vae, latents.encode(klein.vae, up))
    torch.testing.assert_close(pipe.one_step(up, 0.0), unchanged, atol=1e-5, rtol=1e-5)
    pipe.save_pretrained(tmp_path)
    for again in (
        fluxsr.FluxSRPipeline.from_pretrained(tmp_path),
        fluxsr.load(str(tmp_path), device="cpu", dtype="fp32"),
    ):
        again.set_progress_bar_config(disable=True)
        error = 1e-4 if quantize == "none" else 0.03  # diffusers loads 8-bit weights with the rest in bfloat16
        torch.testing.assert_close(again.upscale_tensor(low, settings), high, atol=error, rtol=0)


def test_training_starts_from_the_folder(klein_folder: Path, klein: Any) -> None:
    base = load_base(klein_folder, torch.device("cpu"), torch.float32)
    assert base.prompt.pooled_prompt_embeds.shape == (1, 0)
    found = velocity(base.transformer, noise(), 0.5, base.prompt)
    assert torch.equal(found, velocity(klein.transformer, noise(), 0.5, base.prompt))
    assert plan_for(klein_folder, None, torch.device("cpu"), torch.float32, "auto").quantize == "none"


def in_bfl_s_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A transformer's weights under the names of Black Forest Labs' files."""
    names = {
        "x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear",
        "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
        "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
        "norm_out.linear": "final_layer.adaLN_modulation.1", "modulation_img.linear": "modulation_img.lin",
        "modulation_txt.linear": "modulation_txt.lin", "stream_modulation.linear": "stream_modulation.lin",
        "single_transformer_blocks": "single_blocks", "transformer_blocks": "double_blocks",
        "attn.to_qkv_mlp_proj": "linear1", "attn.to_out.0": "img_attn.proj", "attn.to_out": "linear2",
        "attn.to_add_out": "txt_attn.proj", "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
        "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale", "ff.linear_in": "img_mlp.0",
        "ff.linear_out": "img_mlp.2", "ff_context.linear_in": "txt_mlp.0", "ff_context.linear_out": "txt_mlp.2",
    }  # fmt: skip
    found: dict[str, Tensor] = {}
    for name, weight in state.items():
        if name.endswith(("to_k.weight", "to_v.weight", "add_k_proj.weight", "add_v_proj.weight")):
            continue
        new = name
        for ours, theirs in names.items():
            new = new.replace(ours, theirs)
        stream = "norm" if "single" in new else "img_attn.norm"
        new = new.replace("attn.norm_q.weight", f"{stream}.query_norm.scale")
        new = new.replace("attn.norm_k.weight", f"{stream}.key_norm.scale")
        for first, stream in (("to_q", "img_attn.qkv"), ("add_q_proj", "txt_attn.qkv")):
            if f"attn.{first}." in new:
                keys = (first, first.replace("q", "k"), first.replace("q", "v"))
                weight = torch.cat([state[name.replace(first, key)] for key in keys])
                new = new.replace(f"attn.{first}", stream)
        found[new] = weight.roll(len(weight) // 2, 0).contiguous() if "adaLN" in new else weight
    return found


def write_gguf(file: Path, weights: dict[str, Tensor]) -> None:
    """Write weights as a GGUF file, in 8 bits where a row has whole blocks of 32."""
    gguf = pytest.importorskip("gguf")
    writer, kinds = gguf.GGUFWriter(file, "flux"), gguf.GGMLQuantizationType
    for name, weight in weights.items():
        kind = kinds.Q8_0 if weight.ndim == 2 and weight.shape[1] % 32 == 0 else kinds.F32
        writer.add_tensor(name, gguf.quants.quantize(weight.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(params=["safetensors", "gguf"])
def single(request: pytest.FixtureRequest, klein: Any, prompt: FixedPrompt, tmp_path: Path) -> Path:
    """The transformer as a file in BFL's names, with a prompt and settings beside it."""
    write = save_file if request.param == "safetensors" else lambda weights, file: write_gguf(file, weights)
    write(in_bfl_s_names(klein.transformer.state_dict()), file := tmp_path / f"klein.{request.param}")
    prompt.save(tmp_path)
    AdapterConfig(train_dtype="fp32").save(tmp_path)
    return file


def test_a_single_file_with_its_configuration(
    klein: Any, klein_folder: Path, prompt: FixedPrompt, single: Path, adapter: Path, fused: Any
) -> None:
    for lora_folder, transformer in ((None, klein.transformer), (adapter, fused)):
        parts = load(single, lora_folder, "cpu", "fp32", config_folder=klein_folder)
        assert type(parts.transformer).__name__ == "FoldedFlux2Transformer2DModel"
        assert is_quantized(parts.transformer) == (single.suffix == ".gguf")
        exact, error = velocity(transformer, noise(), 0.25, prompt), 0.03 if single.suffix == ".gguf" else 1e-5
        assert (velocity(parts.transformer, noise(), 0.25, prompt) - exact).norm() <= error * exact.norm()
    needs = plan_for(single, None, torch.device("cpu"), torch.float32, "auto", klein_folder)
    assert needs.quantize == "none"


def test_a_single_file_without_its_configuration(single: Path) -> None:
    for loader in (load, fluxsr.load):
        with pytest.raises(ModelError, match="holds a Flux2Transformer2DModel, but the configuration is of a Flux"):
            loader(single)

"""FluxSR Upscale is FluxSRPipeline: the same weights in ComfyUI's objects give the same pixels."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fluxsr.backbones.adapter import load_config
from fluxsr.backbones.lora import fuse_lora
from fluxsr.backbones.places import WEIGHTS_FILE
from fluxsr.backbones.prompts import FixedPrompt
from fluxsr.comfyui import adapters
from fluxsr.errors import InputError, ModelError
from fluxsr.imaging.resize import bicubic
from fluxsr.pipeline import FluxSRPipeline


def photographs(count: int = 1, height: int = 24, width: int = 32) -> torch.Tensor:
    return 0.3 + 0.4 * torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def upscale(comfyui: Any) -> Any:
    from fluxsr.comfyui.upscaling import upscale

    return upscale


def by_pipeline(
    tiny: Any, folder: Path, images: torch.Tensor, scale: float, lora: bool, **options: Any
) -> torch.Tensor:
    transformer = copy.deepcopy(tiny.transformer)
    if lora:
        fuse_lora(transformer, folder)
    pipe = FluxSRPipeline(transformer, tiny.vae, tiny.prompt, **load_config(folder).registered)
    return pipe(images.movedim(-1, 1), scale, output_type="pt", **options).images.movedim(1, -1)


@pytest.mark.parametrize(
    ("count", "scale", "options"),
    [
        (1, 2, {"color_fix": "none"}),  # one tile: 48 x 64
        (1, 2, {"color_fix": "none", "wrap": True}),
        (2, 4, {"tile_overlap": 16}),  # tiles of the adapter's size, its strength
        (1, 3.3, {"strength": 1.0, "tile_size": 80, "tile_overlap": 16, "batch_size": 3, "color_fix": "adain"}),
        (1, 4, {"strength": 0.0, "tile_size": 128}),
    ],
)
def test_it_is_the_pipeline(
    upscale: Any, tiny: Any, adapter: Path, count: int, scale: float, options: dict[str, Any]
) -> None:
    images = photographs(count)
    with_alpha = torch.cat([images, torch.rand(count, 24, 32, 1)], -1)  # a channel that is ignored
    out = upscale(tiny.comfy_model, tiny.comfy_vae, adapters.conditioning(adapter), with_alpha, scale, **options)
    expected = by_pipeline(tiny, adapter, images, scale, lora=False, **options)
    if options.get("color_fix") == "none":  # where ComfyUI's autoencoder clamps nothing
        assert expected.min() > 0.005 and expected.max() < 0.995
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=0)


def test_t_l_is_the_adapter_s(upscale: Any, tiny: Any, adapter: Path) -> None:
    images, before = photographs(), by_pipeline(tiny, adapter, photographs(), 4, lora=False)
    replace(load_config(adapter), t_l=0.6).save(adapter)
    out = upscale(tiny.comfy_model, tiny.comfy_vae, adapters.conditioning(adapter), images)
    torch.testing.assert_close(out, by_pipeline(tiny, adapter, images, 4, lora=False), atol=2e-5, rtol=0)
    assert (out - before).abs().max() > 1e-3


@pytest.mark.parametrize("train_dtype", ["bf16", "fp32"])
def test_the_model_sees_time_and_guidance_as_training_did(
    upscale: Any, tiny: Any, adapter: Path, train_dtype: str, comfyui: Any
) -> None:
    """Time too: 0.333 was 0.332 in bfloat16. The step goes all the way from t_l, as in training."""
    images = photographs()
    replace(load_config(adapter), t_l=0.333, train_dtype=train_dtype).save(adapter)
    transformer = copy.deepcopy(tiny.transformer)
    transformer.time_text_embed.guidance_embedder.linear_1.weight.data *= 5
    loud = SimpleNamespace(**{**vars(tiny), "transformer": transformer})
    out = upscale(comfyui.model(transformer), tiny.comfy_vae, adapters.conditioning(adapter), images)
    torch.testing.assert_close(out, by_pipeline(loud, adapter, images, 4, lora=False), atol=2e-5, rtol=0)
    replace(load_config(adapter), train_dtype={"bf16": "fp32", "fp32": "bf16"}[train_dtype]).save(adapter)
    assert (out - by_pipeline(loud, adapter, images, 4, lora=False)).abs().max() > 1e-3


def test_a_lora_of_comfyui_at_lora_strength_is_the_fused_adapter(
    comfyui: Any, upscale: Any, tiny: Any, adapter: Path
) -> None:
    images, strength = photographs(), adapters.lora_strength(adapter)
    assert strength == 3.0
    model = comfyui.with_lora(tiny.comfy_model, adapter / WEIGHTS_FILE, strength)
    out = upscale(model, tiny.comfy_vae, adapters.conditioning(adapter), images, color_fix="none")
    expected = by_pipeline(tiny, adapter, images, 4, lora=True, color_fix="none")
    torch.testing.assert_close(out, expected, atol=5e-5, rtol=0)
    without = by_pipeline(tiny, adapter, images, 4, lora=False, color_fix="none")
    assert (expected - without).abs().max() > 1e-3


def test_one_graph_for_each_family(
    comfyui: Any, upscale: Any, tiny: Any, adapter: Path, klein: Any, klein_folder: Path, tmp_path: Path
) -> None:
    """FLUX.1 and FLUX.2, each with an adapter of its own, side by side."""
    if not hasattr(comfyui, "model2"):
        pytest.skip("FLUX.2's objects are the stand-in's")
    write = partial(torch.randn, generator=torch.Generator().manual_seed(2))
    layers = {"lora_A.weight": write(2, 32), "lora_B.weight": 0.3 * write(64 + 32 + 2 * 96, 2)}
    name, own = "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", tmp_path / "own"
    config = replace(load_config(klein_folder), t_l=0.4, strength=0.7, tile_size=64)
    prompt = FixedPrompt(write(1, 512, 24), torch.zeros(1, 0))
    own.mkdir()
    config.save(own)
    prompt.save(own)
    save_file({f"{name}.{key}": value for key, value in layers.items()}, own / WEIGHTS_FILE)
    klein_vae = copy.deepcopy(klein.vae)
    klein_vae.decoder.conv_out.weight.data *= 0.1
    second = SimpleNamespace(transformer=klein.transformer, vae=klein_vae, prompt=prompt)
    graphs = [
        (tiny, comfyui.with_lora(tiny.comfy_model, adapter / WEIGHTS_FILE, 3.0), tiny.comfy_vae, adapter),
        (second, comfyui.with_lora(comfyui.model2(klein.transformer), own / WEIGHTS_FILE, 1.0),
         comfyui.vae2(klein_vae), own),
    ]  # fmt: skip
    for models, model, vae, folder in (*graphs, graphs[0]):
        out = upscale(model, vae, adapters.conditioning(folder), photographs(), color_fix="none")
        expected = by_pipeline(models, folder, photographs(), 4, lora=True, color_fix="none")
        torch.testing.assert_close(out, expected, atol=5e-5, rtol=0)


def test_model_and_autoencoder_take_turns_once(
    upscale: Any, tiny: Any, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxsr.comfyui.upscaling import OneStep

    turns: list[str] = []

    def noted(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def outer(*args: Any, **options: Any) -> Any:
            turns.append(name)
            return inner(*args, **options)

        monkeypatch.setattr(owner, name, outer)

    noted(tiny.comfy_vae, "encode")
    noted(tiny.comfy_vae, "decode")
    sample = OneStep.sample
    monkeypatch.setattr(OneStep, "sample", lambda self, *args: (turns.append("step"), sample(self, *args))[1])
    upscale(tiny.comfy_model, tiny.comfy_vae, adapters.conditioning(adapter), photographs(2), tile_overlap=16)
    count = len(turns) // 3
    assert count > 4 and turns == ["encode"] * count + ["step"] * count + ["decode"] * count


def test_the_progress_bar_reaches_its_end_unless_interrupted(upscale: Any, tiny: Any, adapter: Path) -> None:
    from comfy import model_management
    from comfy.utils import set_progress_bar_global_hook

    told: list[tuple[int, int]] = []
    set_progress_bar_global_hook(lambda value, total, preview, **_: told.append((value, total)))
    try:
        upscale(tiny.comfy_model, tiny.comfy_vae, adapters.conditioning(adapter), photographs(), batch_size=4)
    finally:
        set_progress_bar_global_hook(None)
    values = [value for value, _ in told]
    assert len(told) > 3 and values == sorted(values) and told[-1][0] == told[-1][1]
    model_management.interrupt_current_processing(True)
    with pytest.raises(model_management.InterruptProcessingException):
        upscale(tiny.comfy_model, tiny.comfy_vae, adapters.conditioning(adapter), photographs())


def test_what_does_not_go_together_is_said(upscale: Any, tiny: Any, adapter: Path) -> None:
    condition = adapters.conditioning(adapter)
    sd_vae = SimpleNamespace(latent_channels=4)
    with pytest.raises(InputError, match="vae has 4 latent channels, the model 16; load the autoencoder of this FLUX"):
        upscale(tiny.comfy_model, sd_vae, condition, photographs())
    no_flow = SimpleNamespace(model=SimpleNamespace(model_sampling=None))
    with pytest.raises(InputError, match="which is no flow model"):
        upscale(no_flow, tiny.comfy_vae, condition, photographs())
    with pytest.raises(InputError, match="connect FluxSR Conditioning"):
        upscale(tiny.comfy_model, tiny.comfy_vae, [[torch.zeros(1, 3, 16), {}]], photographs())
    condition[0][0] = condition[0][0] * float("inf")
    with pytest.raises(ModelError, match="not finite"):
        upscale(tiny.comfy_model, tiny.comfy_vae, condition, photographs(), guard=False)


def test_a_broken_tile_is_replaced_and_told(upscale: Any, tiny: Any, adapter: Path, caplog: Any) -> None:
    condition, lr = adapters.conditioning(adapter), photographs()
    condition[0][0] = condition[0][0] * float("inf")
    found = upscale(tiny.comfy_model, tiny.comfy_vae, condition, lr, color_fix="none")
    expected = bicubic(lr[..., :3].movedim(-1, 1), found.shape[1:3]).clamp(0, 1).movedim(1, -1)
    assert torch.allclose(found, expected, atol=1e-5) and "not finite, replaced by the plain enlargement" in caplog.text

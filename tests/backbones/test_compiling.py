from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

import fluxsr
from fluxsr.backbones import compiling, latents, loading
from fluxsr.backbones.compiling import ProductsAttnProcessor, SummedGroupNorm
from fluxsr.backbones.memory import Plan
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import InputError
from fluxsr.imaging.settings import Settings
from fluxsr.options import UpscaleOptions
from fluxsr.pipeline import FluxSRPipeline


@pytest.fixture(scope="module")
def deep_vae() -> Any:
    """An AutoencoderKL whose attentions have a head too deep for GPU kernels, as FLUX's have."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 288),
        latent_channels=16,
        layers_per_block=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return vae.eval().requires_grad_(False)


def round_trip(vae: Any, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(batch, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    z = latents.encode(vae, images)
    return z, latents.decode(vae, z)


def test_attention_by_products_is_the_same_function_whatever_the_slice(
    deep_vae: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, vae = round_trip(deep_vae), deepcopy(deep_vae)
    monkeypatch.setattr(compiling, "ROWS", 50)  # of 192 queries
    compiling.attend_by_products(vae)
    processors = [module.processor for module in vae.modules() if hasattr(module, "to_q")]
    assert [type(processor) for processor in processors] == [ProductsAttnProcessor] * 2
    torch.testing.assert_close(round_trip(vae), expected, rtol=1e-4, atol=1e-5)


def test_heads_that_gpus_have_kernels_for_keep_their_attention(deep_vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = deepcopy(deep_vae)
    monkeypatch.setattr(compiling, "DEEP", 288)
    compiling.attend_by_products(vae)
    assert not any(isinstance(getattr(m, "processor", None), ProductsAttnProcessor) for m in vae.modules())


@pytest.mark.parametrize("shape", [(2, 12, 5, 7), (1, 12, 9)])  # convolutions' and attention's
@pytest.mark.parametrize("offset", [0.0, 30.0])  # a mean far from zero, in deviations
def test_summed_norm_is_group_norm(shape: tuple[int, ...], offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = SummedGroupNorm(4, 12, eps=1e-6)
    nn.init.normal_(norm.weight, generator=generator)
    nn.init.normal_(norm.bias, generator=generator)
    x = torch.randn(shape, generator=generator) + offset
    torch.testing.assert_close(norm.summed(x), nn.GroupNorm.forward(norm, x), rtol=1e-3, atol=1e-3)
    assert norm.summed(x.bfloat16()).dtype == torch.bfloat16


def test_uniform_pixels_are_no_division_by_zero() -> None:
    norm = SummedGroupNorm(2, 4, eps=1e-6)
    assert norm.summed(torch.full((1, 4, 3, 3), 0.1)).abs().max() < 0.1


def test_norms_are_replaced_with_their_weights_and_eager_they_are_pytorch_s(deep_vae: Any) -> None:
    vae, expected = deepcopy(deep_vae), round_trip(deep_vae)
    compiling.sum_norms(vae)
    assert all(type(m) is SummedGroupNorm for m in vae.modules() if isinstance(m, nn.GroupNorm))
    assert set(vae.state_dict()) == set(deep_vae.state_dict())
    torch.testing.assert_close(round_trip(vae), expected, rtol=0, atol=0)


@pytest.mark.slow
def test_all_is_compiled_in_few_graphs_and_gives_the_same(deep_vae: Any, transformer: Any) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    vae, model, expected = deepcopy(deep_vae), deepcopy(transformer), round_trip(deep_vae)
    compiling.compile_(model, vae, backend="eager")
    torch.testing.assert_close(round_trip(vae), expected, rtol=1e-4, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # encoder, decoder: whole, without a break
    assert vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
    assert blocks and all(block._compiled_call_impl is not None for block in blocks)
    compiling.compile_(None, nn.Identity())  # neither FLUX's autoencoder nor a transformer: nothing to do
    torch._dynamo.reset()


@pytest.mark.slow
def test_images_of_all_sizes_run_the_code_that_the_first_one_compiled(pipeline: Any) -> None:
    made: list[Any] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model, vae = deepcopy(pipeline.transformer), deepcopy(pipeline.vae)
    plan = Plan(torch.float32, "cpu", 64, batch_size=1, compiled=True)
    pipe = FluxSRPipeline(model, vae, pipeline.prompt, **pipeline.parameters)
    pipe.plan = plan
    images = [torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) for size in ((16, 16), (40, 27))]
    plain = [pipe.upscale_tensor(image, Settings()) for image in images]
    compiling.compile_(model, vae, backend=backend)
    first = pipe.upscale_tensor(images[0], Settings())
    assert len(made) == 4  # encoder, a block of each kind, decoder
    torch.testing.assert_close([first, pipe.upscale_tensor(images[1], Settings())], plain, rtol=1e-3, atol=1e-3)
    size, rows = pipe.upscale_streaming(
        images[1], Settings(UpscaleOptions(scale=1, color_fix="none"))
    )  # smaller than a tile
    assert torch.cat(list(rows), -2).shape[-2:] == size == (40, 27)
    assert len(made) == 4
    torch._dynamo.reset()


@pytest.mark.slow
def test_sizes_beyond_torch_s_own_limit_are_compiled_too_in_any_thread(
    transformer: Any, prompt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        made.append(graph)
        return graph.forward

    @torch.no_grad()
    def work() -> None:
        torch._dynamo.config.recompile_limit = 1
        for height in (4, 6):
            velocity(model, torch.zeros(1, 4, height, 4), 0.25, prompt)

    torch._dynamo.reset()
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)  # put back afterwards
    model = deepcopy(transformer)
    compiling.compile_(model, None, backend=backend)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    assert len(made) == 4  # a block of each kind for each size
    torch._dynamo.reset()


@pytest.mark.parametrize("offload", [False, True])
def test_what_is_loaded_compiled_is_ready_to_be_unless_its_blocks_come_and_go(
    model_folder: Path, offload: bool
) -> None:
    loaded = loading.load(model_folder, device="cpu", dtype="fp32", offload=offload, compiled=True)
    blocks = [*loaded.transformer.transformer_blocks, *loaded.transformer.single_transformer_blocks]
    assert {block._compiled_call_impl is None for block in blocks} == {offload}
    assert loaded.vae.encoder._compiled_call_impl is not None and loaded.vae.decoder._compiled_call_impl is not None


def test_without_a_gpu_compiling_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(InputError, match="needs a CUDA GPU, but the device is 'cpu'"):
        fluxsr.load("no such model", device="cpu", compile=True)

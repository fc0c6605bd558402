"""Tiny random models of the real classes: the code path of FLUX.1-dev with small configs.

torch is imported where it is used, because the process that only distributes tests reads this file, too.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # before torch is imported: a thread for each test process, and for its children
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    import torch

gc.disable()  # until everything is imported, of which nothing is garbage

LATENTS = 4
VAE_BLOCKS: dict[str, Any] = {  # of both families' autoencoders
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (8,) * 4,
    "layers_per_block": 1,
    "latent_channels": LATENTS,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
}
TEXT = 16
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
]


def pytest_collection_finish() -> None:
    """Search only among the objects that tests make for garbage. A search of all imported modules takes a second."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # tiny operations: a second thread only waits


@pytest.fixture(autouse=True)
def _only_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the output guard look for values that are not finite only: the tiny models are untrained, so it would
    repair all their tiles."""
    from fluxsr.extensions import guard

    found = guard.faults

    def faults(output: torch.Tensor, input: torch.Tensor, strength: float = 1.0) -> list[str]:
        return [fault * (fault == guard.NOT_FINITE) for fault in found(output, input, strength)]

    monkeypatch.setattr(guard, "faults", faults)


@pytest.fixture
def uninstall(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """uninstall("torchao", ...): these packages are not found any more."""
    find = importlib.util.find_spec

    def uninstall(*packages: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in packages else find(name, *a))

    return uninstall


@pytest.fixture(scope="session")
def lpips_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of LPIPS (squeeze) with the real shapes and random values."""
    import torch
    from safetensors.torch import save_file

    fires = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
    fires |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}
    shapes = {"0": (64, 3, 3, 3)}
    for layer, (inputs, squeeze, expand) in fires.items():
        shapes |= {f"{layer}.squeeze": (squeeze, inputs, 1, 1), f"{layer}.expand1x1": (expand, squeeze, 1, 1)}
        shapes[f"{layer}.expand3x3"] = (expand, squeeze, 3, 3)
    draw = torch.Generator().manual_seed(0)
    weights = {f"features.{name}.weight": torch.randn(shape, generator=draw) / 8 for name, shape in shapes.items()}
    weights |= {f"features.{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    for number, channels in enumerate((64, 128, 256, 384, 384, 512, 512)):
        weights[f"lin{number}.model.1.weight"] = torch.rand(1, channels, 1, 1, generator=draw)
    path = tmp_path_factory.mktemp("lpips") / "lpips_squeeze.safetensors"
    save_file(weights, path)
    return path


def tiny_transformer(seed: int = 0, guidance_embeds: bool = False) -> Any:
    """FluxTransformer2DModel, 1 double + 1 single block, one head of 16."""
    import torch
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(seed)
    return FluxTransformer2DModel(
        in_channels=4 * LATENTS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=TEXT,
        pooled_projection_dim=TEXT,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    ).eval()


def tiny_vae(seed: int = 0) -> Any:
    """AutoencoderKL, four levels of width 8, factor 8 as FLUX's."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        **VAE_BLOCKS,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    ).eval()


@pytest.fixture(scope="session")
def transformer() -> Any:
    return tiny_transformer()


@pytest.fixture(scope="session")
def vae() -> Any:
    return tiny_vae()


@pytest.fixture(scope="session")
def prompt() -> Any:
    import torch

    from fluxsr.backbones.prompts import random_prompt

    return random_prompt(3, TEXT, torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def adapter_config() -> Any:
    from fluxsr.backbones.adapter import AdapterConfig

    return AdapterConfig(t_l=0.25, strength=1.0)


@pytest.fixture(scope="session")
def pipeline(transformer: Any, vae: Any, prompt: Any, adapter_config: Any) -> Any:
    """FluxSRPipeline of the tiny models, float32, on the CPU."""
    from fluxsr.pipeline import FluxSRPipeline

    made = FluxSRPipeline(transformer, vae, prompt, **adapter_config.registered)
    made.name = "tiny"
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session")
def model_folder(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline saved as a model folder; read only."""
    folder = tmp_path_factory.mktemp("model")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model in diffusers' layout, CLIP, T5 and tokenizers included, of FLUX.1-dev's classes; read only."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789,."
    clip = {
        token: k
        for k, token in enumerate(["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)])
    }
    t5 = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), ("\u2581", -2.0), *((c, -2.0) for c in letters)]
    size = {"hidden_size": TEXT, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(3)
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=tiny_vae(),
        transformer=tiny_transformer(guidance_embeds=True),
        text_encoder=CLIPTextModel(CLIPTextConfig(vocab_size=len(clip), eos_token_id=1, bos_token_id=0, **size)),
        tokenizer=CLIPTokenizer(vocab=clip, merges=[], model_max_length=77),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=len(t5), d_model=TEXT, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
        ),
        tokenizer_2=T5TokenizerFast(vocab=t5, extra_ids=0, model_max_length=512),
    )
    folder = tmp_path_factory.mktemp("text_model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def klein() -> Any:
    """Flux2KleinPipeline, tiny and random, with Qwen3 and a tokenizer that knows letters; float32."""
    import torch
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

    end, *chat = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
    vocab = {token: k for k, token in enumerate([end, *chat, *"abcdefghijklmnopqrstuvwxyz0123456789,.", "\u0120"])}
    tokenizer = Qwen2TokenizerFast(vocab=vocab, merges=[], pad_token=end, unk_token=end)
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    torch.manual_seed(4)
    made = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=AutoencoderKLFlux2(
            **VAE_BLOCKS,
        ),
        text_encoder=Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(vocab),
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=28,
                num_attention_heads=1,
                num_key_value_heads=1,
                head_dim=8,
            )
        ),
        tokenizer=tokenizer,
        transformer=Flux2Transformer2DModel(
            in_channels=4 * LATENTS,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
    )
    bn = made.vae.bn
    bn.running_mean.normal_(std=0.1), bn.running_var.uniform_(0.5, 2.0)
    made.vae.eval(), made.transformer.eval(), made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session")
def klein_folder(klein: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny klein saved in diffusers' layout, with a fixed prompt and settings; read only."""
    import torch

    from fluxsr.backbones.adapter import AdapterConfig
    from fluxsr.backbones.prompts import FixedPrompt

    folder = tmp_path_factory.mktemp("klein")
    klein.save_pretrained(folder)
    draw = torch.Generator().manual_seed(0)
    FixedPrompt(torch.randn(1, 5, 24, generator=draw), torch.zeros(1, 0), "a photograph").save(folder)
    AdapterConfig(train_dtype="fp32").save(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of damaged image files, made by tests/corpus.py; read only."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, data in runpy.run_path(str(Path(__file__).with_name("corpus.py")))["damaged"]():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """tests/fake_hub.py running, an empty cache, and huggingface_hub logged in there."""
    from huggingface_hub import constants, hf_api

    made = runpy.run_path(str(Path(__file__).with_name("fake_hub.py")))
    with made["running"]() as hub:
        # read from the environment when huggingface_hub is imported: HF_ENDPOINT, HF_HUB_OFFLINE, HF_HUB_CACHE ...
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(hf_api.api, "endpoint", hub.url)  # of huggingface_hub's functions, which diffusers calls
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # storage of the Hub's own
        monkeypatch.setenv("HF_TOKEN", made["TOKEN"])
        yield hub


@pytest.fixture
def make_adapter(transformer: Any, prompt: Any, tmp_path: Path) -> Callable[..., Path]:
    """make_adapter(name, targets=..., t_l=..., ...): a folder with an adapter of the tiny model that changes much."""
    import torch

    from fluxsr.backbones import lora
    from fluxsr.backbones.adapter import AdapterConfig

    def make(name: str = "adapter", targets: Any = (), **config: Any) -> Path:
        folder, wrapped = tmp_path / name, deepcopy(transformer)
        folder.mkdir()
        torch.manual_seed(0)  # of lora_A
        lora.add_lora(wrapped, rank=2, alpha=4, targets=targets)
        for i, (key, parameter) in enumerate(wrapped.named_parameters()):
            if "lora_B" in key:
                parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(i))
        lora.save_lora(wrapped, folder, torch.float32)
        AdapterConfig(**{"t_l": 0.25, "rank": 2, "alpha": 4, **config}).save(folder)
        prompt.save(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A Chromium that knows no other host."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = os.environ.get("FLUXSR_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
        program = program or playwright.chromium.executable_path
        if not os.path.exists(program):
            pytest.skip("no Chromium: run 'playwright install chromium', or set FLUXSR_CHROMIUM to the path of one")
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()

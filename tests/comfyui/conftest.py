"""The nodes in ComfyUI itself, where FLUXSR_COMFYUI names its folder, else in ``stand_in.py``: the same tests for both.

    FLUXSR_COMFYUI=path/to/ComfyUI python -m pytest tests/comfyui

needs ComfyUI's requirements and fluxsr in one environment.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.places import WEIGHTS_FILE
from fluxsr.backbones.prompts import FixedPrompt, random_prompt

REAL = os.environ.get("FLUXSR_COMFYUI")
TEXT, LATENTS, WIDTH = 16, 16, 32


def load(name: str) -> Any:
    """A file beside this one as a module; pytest's importlib mode puts no folder on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class StandIn:
    """Makers of ComfyUI's objects, in the stand-in."""

    def __init__(self) -> None:
        self.stand_in = load("stand_in")
        self.stand_in.install()

    def model(self, transformer: Any) -> Any:
        return self.stand_in.ModelPatcher(self.stand_in.Flux(transformer))

    def vae(self, vae: Any) -> Any:
        return self.stand_in.VAE(vae)

    def model2(self, transformer: Any) -> Any:
        formats = SimpleNamespace(latent_channels=transformer.config.in_channels)
        return self.stand_in.ModelPatcher(self.stand_in.Flux2(transformer, latent_format=formats))

    def vae2(self, vae: Any) -> Any:
        return self.stand_in.VAE2(vae)

    def with_lora(self, model: Any, file: Path, strength: float) -> Any:
        """As ComfyUI merges a LoRA whose alpha is in the header alone: W + strength B A."""
        from safetensors.torch import load_file

        state, transformer = load_file(file), copy.deepcopy(model.model.transformer)
        for key in (key for key in state if "lora_A" in key):
            module = transformer.get_submodule(key.removeprefix("transformer.").split(".lora_A")[0])
            product = state[key.replace("lora_A", "lora_B")].float() @ state[key].float()
            module.weight.data += strength * product
        return self.stand_in.ModelPatcher(replace(model.model, transformer=transformer))

    def loras(self, root: Path) -> None:
        self.stand_in.roots[:] = [str(root)]


class ComfyUI:
    """Makers of ComfyUI's objects, in ComfyUI."""

    def __init__(self, folder: str) -> None:
        sys.path.insert(0, folder)
        import comfy.cli_args

        comfy.cli_args.args.cpu = True

    def model(self, transformer: Any) -> Any:
        import comfy.model_base
        import comfy.supported_models
        from comfy.model_detection import convert_diffusers_mmdit
        from comfy.model_patcher import ModelPatcher

        config = transformer.config
        flux = comfy.supported_models.Flux(
            dict(
                image_model="flux", in_channels=LATENTS, out_channels=LATENTS, patch_size=2, vec_in_dim=TEXT,
                context_in_dim=TEXT, hidden_size=16, mlp_ratio=4.0, num_heads=1, depth=1, depth_single_blocks=1,
                axes_dim=list(config.axes_dims_rope), theta=10000, qkv_bias=True, guidance_embed=config.guidance_embeds,
            )
        )  # fmt: skip
        flux.set_inference_dtype(torch.float32, None)
        state = {key: value.clone() for key, value in transformer.state_dict().items()}
        model = comfy.model_base.Flux(flux)
        model.load_model_weights(convert_diffusers_mmdit(state), "")
        return ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))

    def vae(self, vae: Any) -> Any:
        import comfy.sd

        sizes = dict(
            double_z=True, z_channels=LATENTS, resolution=256, in_channels=3, out_ch=3, ch=WIDTH, ch_mult=[1] * 4,
            num_res_blocks=1, attn_resolutions=[], dropout=0.0,
        )  # fmt: skip
        state = {key: value.clone() for key, value in vae.state_dict().items()}
        config = {"params": {"embed_dim": LATENTS, "ddconfig": sizes}}
        made = comfy.sd.VAE(sd=state, config=config, dtype=torch.float32)
        made.latent_channels = LATENTS  # its loader sets it by the weights, which are of no known size here
        return made

    def with_lora(self, model: Any, file: Path, strength: float) -> Any:
        import comfy.sd
        import comfy.utils

        return comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(file)), strength, 0)[0]

    def loras(self, root: Path) -> None:
        import folder_paths

        folder_paths.folder_names_and_paths["loras"] = ([str(root)], folder_paths.supported_pt_extensions)
        folder_paths.filename_list_cache.clear()


@pytest.fixture(scope="session")
def comfyui() -> Any:
    return ComfyUI(REAL) if REAL else StandIn()


@pytest.fixture(scope="session")
def tiny(comfyui: Any) -> Any:
    """A tiny FLUX of 16 latent channels with guidance, as diffusers' and as ComfyUI's objects, and a prompt for it."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=4 * LATENTS, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=1,
        joint_attention_dim=TEXT, pooled_projection_dim=TEXT, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    ).eval()  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(WIDTH,) * 4, layers_per_block=1, latent_channels=LATENTS, scaling_factor=0.3611,
        shift_factor=0.1159,
    ).eval()  # fmt: skip
    vae.decoder.conv_out.weight.data *= 0.1  # ComfyUI clamps at black and white what the pipeline does not yet
    prompt = random_prompt(3, TEXT, torch.Generator().manual_seed(0))
    made = SimpleNamespace(transformer=transformer, vae=vae, prompt=prompt)
    made.comfy_model, made.comfy_vae = comfyui.model(transformer), comfyui.vae(vae)
    return made


CONFIG = AdapterConfig(t_l=0.3, strength=0.8, guidance=3.5, tile_size=64)


def write_adapter(
    folder: Path, prompt: FixedPrompt, config: AdapterConfig = CONFIG, alpha: float | None = None
) -> Path:
    """An adapter folder; with a LoRA of rank 2 on three layers where an alpha is given."""
    folder.mkdir(parents=True)
    config.save(folder)
    prompt.save(folder)
    if alpha is not None:
        write_lora(folder / WEIGHTS_FILE, alpha)
    return folder


def write_lora(file: Path, alpha: float) -> None:
    """A LoRA as ``save_lora`` writes it: alpha in the header."""
    from diffusers import FluxPipeline

    generator = torch.Generator().manual_seed(1)
    widths = {
        "transformer_blocks.0.attn.to_k": (16, 16),
        "transformer_blocks.0.attn.add_v_proj": (16, 16),
        "single_transformer_blocks.0.proj_mlp": (16, 64),
        "single_transformer_blocks.0.proj_out": (80, 16),
        "x_embedder": (64, 16),
        "proj_out": (16, 64),
    }
    layers = {}
    for name, (wide_in, wide_out) in widths.items():
        layers[f"{name}.lora_A.weight"] = torch.randn(2, wide_in, generator=generator)
        layers[f"{name}.lora_B.weight"] = torch.randn(wide_out, 2, generator=generator)
    FluxPipeline.save_lora_weights(
        file.parent,
        transformer_lora_layers=layers,
        transformer_lora_adapter_metadata={"r": 2, "lora_alpha": alpha, "target_modules": sorted(widths)},
    )


@pytest.fixture
def adapter(tmp_path: Path, tiny: Any, comfyui: Any) -> Path:
    """An adapter folder "fluxsr/tiny" below ComfyUI's LoRAs, alpha three times the rank."""
    comfyui.loras(tmp_path / "loras")
    return write_adapter(tmp_path / "loras" / "fluxsr" / "tiny", tiny.prompt, alpha=6.0)

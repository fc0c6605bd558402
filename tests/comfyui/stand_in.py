"""A stand-in for the part of ComfyUI that the nodes call, written from its documentation, for tests without ComfyUI.

Its signatures are those of ``test_interface.py``, which checks them here and, where there is one, in ComfyUI. What a
model or an autoencoder computes is computed by diffusers' classes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from diffusers import Flux2KleinPipeline, FluxPipeline
from torch import Tensor

SCALE, SHIFT = 0.3611, 0.1159  # comfy.latent_formats.Flux


class InterruptProcessingException(Exception):
    pass


class CONST:
    pass


class Sampler:
    pass


@dataclass
class Flux:
    """comfy.model_base.Flux: it shifts and scales latents, and returns x - sigma v."""

    transformer: Any
    model_sampling: Any = field(default_factory=CONST)
    latent_format: Any = field(default_factory=lambda: SimpleNamespace(latent_channels=16))
    diffusion_model: Any = field(default_factory=lambda: SimpleNamespace(patch_size=2))  # comfy.ldm.flux.model.Flux

    def process_latent_in(self, latent: Tensor) -> Tensor:
        return (latent - SHIFT) * SCALE

    def process_latent_out(self, latent: Tensor) -> Tensor:
        return latent / SCALE + SHIFT

    def velocity(self, x: Tensor, sigma: Tensor, states: Tensor, extras: dict[str, Any]) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.transformer(
            hidden_states=FluxPipeline._pack_latents(x, batch, channels, height, width),
            encoder_hidden_states=states.expand(batch, -1, -1),
            pooled_projections=extras["pooled_output"].expand(batch, -1),
            timestep=sigma,
            guidance=torch.full((batch,), extras.get("guidance", 3.5)),
            img_ids=FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, x.device, x.dtype),
            txt_ids=torch.zeros(states.shape[1], 3),
        ).sample
        return FluxPipeline._unpack_latents(tokens, 8 * height, 8 * width, 8)


@dataclass
class Flux2(Flux):
    """comfy.model_base.Flux2: latents as its autoencoder gives them, texts padded at the left to 512 tokens."""

    diffusion_model: Any = field(default_factory=lambda: SimpleNamespace(patch_size=1))

    def process_latent_in(self, latent: Tensor) -> Tensor:
        return latent

    process_latent_out = process_latent_in

    def velocity(self, x: Tensor, sigma: Tensor, states: Tensor, extras: dict[str, Any]) -> Tensor:
        states = torch.nn.functional.pad(states, (0, 0, max(512 - states.shape[1], 0), 0)).expand(len(x), -1, -1)
        tokens = self.transformer(
            hidden_states=Flux2KleinPipeline._pack_latents(x),
            encoder_hidden_states=states,
            timestep=sigma,
            img_ids=(ids := Flux2KleinPipeline._prepare_latent_ids(x)),
            txt_ids=Flux2KleinPipeline._prepare_text_ids(states),
        ).sample
        return Flux2KleinPipeline._unpack_latents_with_ids(tokens, ids, *x.shape[-2:])


@dataclass
class ModelPatcher:
    model: Flux


class CFGGuider:
    def __init__(self, model_patcher: ModelPatcher) -> None:
        self.model_patcher = model_patcher
        self.cfg = 1.0

    def inner_set_conds(self, conds: dict[str, Any]) -> None:
        self.conds = conds

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Any = None, seed: Any = None) -> Tensor:
        assert sigma.shape == (len(x),), "ComfyUI wants one sigma per sample"
        [[states, extras]] = self.conds["positive"]
        velocity = self.model_patcher.model.velocity(x, sigma, states, extras)
        return x - sigma.view(-1, 1, 1, 1) * velocity

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Any = None,
        callback: Any = None,
        disable_pbar: bool = False,
        seed: Any = None,
    ) -> Tensor:
        model, extra = self.model_patcher.model, {"model_options": {}, "seed": seed}
        z = model.process_latent_in(latent_image)
        samples = sampler.sample(self, sigmas, extra, callback, noise, z, denoise_mask, disable_pbar)
        return model.process_latent_out(samples.to(torch.float32))


class VAE:
    """comfy.sd.VAE: images (B,H,W,3) in [0,1], clamped; latents neither shifted nor scaled."""

    latent_channels = 16

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def spacial_compression_encode(self) -> int:
        return 8

    @torch.no_grad()
    def encode(self, pixel_samples: Tensor) -> Tensor:
        return self.vae.encode(2 * pixel_samples.movedim(-1, 1) - 1).latent_dist.mode()

    @torch.no_grad()
    def decode(self, samples_in: Tensor, vae_options: Any = None) -> Tensor:
        return (self.vae.decode(samples_in).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1)


class VAE2(VAE):
    """comfy.sd.VAE of FLUX.2: patched latents, normalised by the autoencoder's statistics."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        self.latent_channels = vae.bn.num_features

    def spacial_compression_encode(self) -> int:
        return 16

    @torch.no_grad()
    def encode(self, pixel_samples: Tensor) -> Tensor:
        return self.vae.bn(Flux2KleinPipeline._patchify_latents(super().encode(pixel_samples)))

    @torch.no_grad()
    def decode(self, samples_in: Tensor, vae_options: Any = None) -> Tensor:
        mean, variance = (x.view(1, -1, 1, 1) for x in (self.vae.bn.running_mean, self.vae.bn.running_var))
        z = samples_in * (variance + self.vae.bn.eps).sqrt() + mean
        return super().decode(Flux2KleinPipeline._unpatchify_latents(z))


class ProgressBar:
    hook: Any = None

    def __init__(self, total: int, node_id: Any = None) -> None:
        self.total, self.current = total, 0

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        self.total, self.current = total or self.total, value
        if ProgressBar.hook:
            ProgressBar.hook(self.current, self.total, preview, node_id=None)

    def update(self, value: int) -> None:
        self.update_absolute(self.current + value)


def set_progress_bar_global_hook(function: Any) -> None:
    ProgressBar.hook = function


interrupted = False


def interrupt_current_processing(value: bool = True) -> None:
    global interrupted
    interrupted = value


def throw_exception_if_processing_interrupted() -> None:
    if interrupted:
        interrupt_current_processing(False)
        raise InterruptProcessingException


class Put:
    """An input or output of a schema."""

    def __init__(self, id: str | None = None, **options: Any) -> None:
        self.id, self.options = id, options
        self.default, self.tooltip = options.get("default"), options.get("tooltip")
        self.min, self.max = options.get("min"), options.get("max")


def kind(io_type: str) -> SimpleNamespace:
    return SimpleNamespace(
        **{way: type(f"{io_type}_{way}", (Put,), {"io_type": io_type}) for way in ("Input", "Output")}
    )


class NodeOutput:
    def __init__(self, *args: Any) -> None:
        self.args = args


class ComfyExtension:
    pass


roots: list[str] = []


def get_folder_paths(folder_name: str) -> list[str]:
    return list(roots)


def get_filename_list(folder_name: str) -> list[str]:
    files = [
        (root, file) for root in roots for file in Path(root).rglob("*") if file.suffix in (".safetensors", ".pth")
    ]
    return sorted(str(file.relative_to(root)) for root, file in files)


def install() -> None:
    """Put the stand-in's modules where ComfyUI has its own."""
    kinds = ("Model", "Vae", "Conditioning", "Image", "Mask", "Float", "Int", "Combo", "Boolean")
    io = {name: kind(name.upper()) for name in kinds}
    io |= {"Schema": SimpleNamespace, "NodeOutput": NodeOutput, "ComfyNode": object}
    contents: dict[str, dict[str, Any]] = {
        "comfy": {},
        "comfy.model_sampling": {"CONST": CONST},
        "comfy.samplers": {"CFGGuider": CFGGuider, "Sampler": Sampler},
        "comfy.sd": {"VAE": VAE},
        "comfy.utils": {"ProgressBar": ProgressBar, "set_progress_bar_global_hook": set_progress_bar_global_hook},
        "comfy.model_management": {
            "InterruptProcessingException": InterruptProcessingException,
            "interrupt_current_processing": interrupt_current_processing,
            "throw_exception_if_processing_interrupted": throw_exception_if_processing_interrupted,
            "get_torch_device": lambda: torch.device("cpu"),
        },
        "folder_paths": {"get_folder_paths": get_folder_paths, "get_filename_list": get_filename_list},
        "comfy_api": {},
        "comfy_api.latest": {"io": SimpleNamespace(**io), "ComfyExtension": ComfyExtension},
    }
    for name, content in contents.items():
        sys.modules[name] = module = ModuleType(name)
        vars(module).update(content)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)

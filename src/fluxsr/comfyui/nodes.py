"""The nodes, in ComfyUI's V3 schema. ComfyUI's own nodes load model, LoRA and autoencoder."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import folder_paths
import torch
from comfy import model_management
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyExtension, io

from fluxsr.comfyui import adapters, upscaling
from fluxsr.imaging.mask import as_masks
from fluxsr.options import SIZES, Option, UpscaleOptions, declared
from fluxsr.pipeline import FluxSRPipeline
from fluxsr.single import load

CATEGORY = "image/upscaling"
_UNSET = {"strength": -1.0, "tile_size": 0, **dict.fromkeys(SIZES[1:], 0)}
_MASK = "0 keeps the plain bicubic enlargement, 1 is full strength. One for all images, or one for each."


def settings() -> list[Any]:
    """Return the inputs that both upscalers have."""
    options = declared(UpscaleOptions)
    fix, wrap = options["color_fix"], options["wrap"]
    return [
        number(options["scale"], 0.1, UpscaleOptions().scale),
        number(options["strength"], 0.05, unset=_UNSET["strength"]),
        number(options["tile_size"], 16, unset=_UNSET["tile_size"]),
        number(options["tile_overlap"], 16),
        io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="Tiles per batch. More is faster on a large GPU."),
        io.Combo.Input("color_fix", options=list(fix.choices), tooltip=fix.help),
        # Last and optional, because saved workflows hold the values of widgets by position, and scripts by name.
        io.Boolean.Input("wrap", default=wrap.default, optional=True, tooltip=wrap.help),
        *(number(options[name], 0.1 if name == "megapixels" else 1, unset=_UNSET[name]) for name in SIZES[1:]),
    ]


def number(option: Option, step: float, default: float | None = None, unset: float | None = None) -> Any:
    """Return the input of a numeric option. ``default`` replaces the option's own.

    ``unset`` is a value below the option's range that stands for None, because a widget always holds a number.
    """
    kind = io.Int if option.type is int else io.Float
    return kind.Input(
        option.name,
        default=unset if unset is not None else option.default if default is None else default,
        min=option.minimum if unset is None else unset,
        max=option.maximum,
        step=step,
        optional=option.name in SIZES[1:],
        tooltip=option.help if unset is None else f"{option.help} {unset:g} leaves it unset.",
    )


def upscaler(node_id: str, name: str, description: str, *inputs: Any) -> io.Schema:
    """Return the schema of an upscaler, with its own inputs before the common ones."""
    return io.Schema(
        node_id=node_id,
        display_name=name,
        category=CATEGORY,
        description=description,
        inputs=[*inputs, io.Image.Input("image"), io.Mask.Input("mask", optional=True, tooltip=_MASK), *settings()],
        outputs=[io.Image.Output()],
    )


def chosen(**widgets: Any) -> dict[str, Any]:
    """Return the values of widgets as arguments, with None for unset ones. Another size replaces the scale."""
    values = {name: None if name in _UNSET and value == _UNSET[name] else value for name, value in widgets.items()}
    return values | {"scale": None} if any(values.get(name) for name in SIZES[1:]) else values


class FluxSRConditioning(io.ComfyNode):
    """Node that returns an adapter's fixed prompt and the strength for its LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxSRConditioning",
            display_name="FluxSR Conditioning",
            category=CATEGORY,
            description="Fixed prompt and settings of a FluxSR adapter. Put its folder into models/loras and press R.",
            inputs=[io.Combo.Input("adapter", options=adapters.adapter_names(folder_paths.get_filename_list("loras")))],
            outputs=[
                io.Conditioning.Output(display_name="conditioning"),
                io.Float.Output(display_name="lora_strength", tooltip="alpha / rank, for LoraLoaderModelOnly."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str) -> list[tuple[str, int]]:
        """Return a value that changes when a file of the adapter is replaced, so that the node runs again."""
        folder = adapters.folder_of(adapter, folder_paths.get_folder_paths("loras"))
        return sorted((file.name, file.stat().st_mtime_ns) for file in folder.iterdir())

    @classmethod
    def execute(cls, adapter: str) -> io.NodeOutput:
        folder = adapters.folder_of(adapter, folder_paths.get_folder_paths("loras"))
        return io.NodeOutput(adapters.conditioning(folder), adapters.lora_strength(folder))


class FluxSRUpscale(io.ComfyNode):
    """Node that upscales with ComfyUI's FLUX and a FluxSR adapter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return upscaler(
            "FluxSRUpscale",
            "FluxSR Upscale",
            "One-step super-resolution with FLUX.1-dev and a FluxSR adapter.",
            io.Model.Input("model", tooltip="FLUX.1-dev with the adapter's LoRA."),
            io.Vae.Input("vae", tooltip="FLUX's autoencoder, ae.safetensors."),
            io.Conditioning.Input("conditioning", tooltip="Output of FluxSR Conditioning."),
        )

    @classmethod
    def execute(
        cls, model: Any, vae: Any, conditioning: Any, image: torch.Tensor, mask: Any = None, **widgets: Any
    ) -> io.NodeOutput:
        return io.NodeOutput(upscaling.upscale(model, vae, conditioning, image, mask=mask, **chosen(**widgets)))


class FluxSRBundled(io.ComfyNode):
    """Node that upscales with the bundled model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return upscaler(
            "FluxSRBundled",
            "FluxSR Upscale (bundled model)",
            "One-step super-resolution with the small model that comes with fluxsr. Nothing is downloaded.",
        )

    @classmethod
    def execute(cls, image: torch.Tensor, mask: Any = None, **widgets: Any) -> io.NodeOutput:
        pipe, bar = bundled(model_management.get_torch_device()), ProgressBar(len(image))
        options, masks = chosen(**widgets), as_masks(mask, len(image))
        results = []
        for index, picture in enumerate(image[..., :3].movedim(-1, 1)):  # (3,h,w)

            def progress(done: int, tiles: int, before: int = index) -> None:
                model_management.throw_exception_if_processing_interrupted()
                bar.update_absolute(before * tiles + done, tiles * len(image))

            result = pipe(picture, **options, mask=masks[index], output_type="pt", progress=progress)
            results.append(result.images)
        return io.NodeOutput(torch.cat(results).movedim(1, -1))


@lru_cache(maxsize=1)
def bundled(device: torch.device) -> FluxSRPipeline:
    """Return the bundled model. It stays on the device, because 20 MB are not worth moving."""
    return load("bundled", device=device)


class FluxSRExtension(ComfyExtension):
    """ComfyUI's list of our nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [FluxSRConditioning, FluxSRUpscale, FluxSRBundled]


async def comfy_entrypoint() -> FluxSRExtension:
    """Return the extension; called by ComfyUI."""
    return FluxSRExtension()

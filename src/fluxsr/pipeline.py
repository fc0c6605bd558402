"""The road of inference: image -> LR latent -> one step -> HR image, in tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from numbers import Real
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from PIL import Image
from torch import Tensor

from fluxsr import flow
from fluxsr.backbone import hub, latents, loading
from fluxsr.backbone.adapter import AdapterConfig, lora_file
from fluxsr.backbone.device import best_device, best_dtype
from fluxsr.backbone.memory import Plan
from fluxsr.backbone.prompts import FixedPrompt
from fluxsr.backbone.velocity import velocity
from fluxsr.errors import InputError, ModelError
from fluxsr.imaging import bands, color, fitting, inputs, io, outputs, resize, tiles
from fluxsr.imaging.lattice import without_lattice

LEAST_SIDE = 16  # one token; smaller images hold nothing to enlarge


class FluxSRPipeline(DiffusionPipeline):
    """One-step super-resolution; a diffusers pipeline of two modules, without text encoders.

    Args:
        transformer: FluxTransformer2DModel, its LoRA fused.
        vae: AutoencoderDC (the bundled model) or AutoencoderKL (FLUX).
        prompt: the fixed condition of all images.
        config: t_l, strength and guidance of the model; kept as ``adapter_config``, because
            diffusers has a ``config`` of its own.
        name: what the model is called in messages.
        plan: tile and batch where none are asked for; None takes the model's own. Lowered where memory runs out.
    """

    model_cpu_offload_seq = "vae->transformer"  # each once: diffusers hooks a module per mention

    # prompt and config have defaults only because diffusers takes arguments without one for modules
    def __init__(
        self,
        transformer: Any,
        vae: Any,
        prompt: FixedPrompt | None = None,
        config: AdapterConfig | None = None,
        name: str = "",
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        if prompt is None or config is None:
            raise InputError("FluxSRPipeline needs a prompt and a config; see from_pretrained")
        self.register_modules(transformer=transformer, vae=vae)
        self.prompt = prompt
        self.adapter_config = config
        self.name = name
        self.plan = plan or Plan(transformer.dtype, transformer.device.type, config.tile_size)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        model: str | Path = "bundled",
        *,
        adapter: str | PathLike[str] | bool | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        torch_dtype: torch.dtype | None = None,
        memory: str = "auto",
        config_folder: str | Path | None = None,
    ) -> FluxSRPipeline:
        """Load a model, its adapter fused, ready to run.

        Only this class loads what it saves: ``DiffusionPipeline`` knows neither prompt nor adapter config.

        Args:
            model: "bundled", a folder in diffusers layout, a Hub id, or a transformer's file (GGUF, safetensors).
            adapter: folder, Hub id or ``fluxsr.Adapter``; None takes what comes with the model.
            device: "auto" takes the first there is of cuda, xpu, mps, cpu.
            dtype: "auto", "bf16", "fp16", "fp32" or a torch.dtype; torch_dtype is diffusers' name of it.
            memory: what a GPU may be filled with: "auto" (what is free), "8gb", "12gb", "16gb", "24gb" or "max". A
                model that does not fit whole is quantized, gets smaller tiles, or is offloaded; ``plan`` says how.
            config_folder: of a transformer's file: configuration and autoencoder; else FLUX.1-dev's.

        Raises:
            InputError: a device or dtype that there is not, or too little memory.
            ModelError: a model or adapter that cannot be used.
        """
        target = best_device(device)
        kind = best_dtype(target, dtype if torch_dtype is None else torch_dtype)
        plan = loading.plan_for(model, adapter, target, kind, memory, config_folder)
        parts = loading.load(
            *(model, adapter, target, plan.dtype),
            quantize=plan.quantize,
            offload=plan.offload,
            config_folder=config_folder,
        )
        return cls(parts.transformer, parts.vae, parts.prompt, parts.config, parts.name, plan)

    @torch.no_grad()  # not inference_mode: its tensors could not be worked on by the caller
    def __call__(
        self,
        image: Any,
        scale: float = 4,
        *,
        strength: float | None = None,
        tile_size: int | None = None,
        tile_overlap: int = 32,
        batch_size: int | None = None,
        color_fix: str = "wavelet",
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Enlarge one image or several, each on its own.

        The model works at the target size, on the bicubic enlargement of the image, whatever the
        scale; it was trained at x4, where it is at its best.

        Args:
            image: PIL image; array (H,W), (H,W,C) or (B,H,W,C); tensor (3,H,W) or (B,3,H,W); or a list
                of these, see imaging/inputs.py. Sides of 16 pixels or more.
            scale: 1 to 8; the target's sides are rounded to whole pixels.
            strength: share of the step, 0 to 1 (more exaggerates); None takes the model's own.
            tile_size: largest tile that autoencoder and transformer see, in output pixels; None takes the plan's,
                which is at most the size up to which the model is known to work.
            tile_overlap: least overlap of tiles, in output pixels.
            batch_size: tiles per forward pass; None takes the plan's, or 1 on a CPU and 4 elsewhere. Where memory
                runs out, it becomes 1, and then tiles half as large, with a warning.
            color_fix: "wavelet", "adain" or "none"; see imaging/color.py.
            generator: for the convention; the one step draws no random number.
            output_type: "pil", "pt" (B,3,H,W) or "np" (B,H,W,3), both float32 in [0,1]. Images of
                different sizes come as a list.
            return_dict: False returns ``(images,)``.
            progress: called with (tiles done, tiles in all) of the image at hand.

        Raises:
            InputError: an image or an argument that cannot be used.
            ModelError: the model gives values that are not finite.
            torch.OutOfMemoryError: not even a small tile fits.

        Returns:
            diffusers' ImagePipelineOutput, whose ``images`` has one entry per image.
        """
        if output_type not in outputs.TYPES:
            raise InputError(f"output_type is '{output_type}'; choose one of {', '.join(outputs.TYPES)}")
        if color_fix not in color.METHODS:
            raise InputError(f"color_fix is '{color_fix}'; choose one of {', '.join(color.METHODS)}")
        strength = _checked_strength(self.adapter_config.strength if strength is None else strength)

        images: list[Any] = []
        for lr in inputs.tensors(image):  # (1,3,h,w)
            size = resize.scaled_size(*_checked_size(lr), scale)
            lr_up = resize.bicubic(lr, size)  # (1,3,H,W)
            wanted = self._fit(tile_size, batch_size)
            step, multiple = partial(self.one_step, strength=strength), latents.pixel_multiple(self.vae)
            hr, *fitted = fitting.stream(lr_up, step, *wanted, tile_overlap, multiple, progress)
            if tuple(fitted) != wanted:  # the next image need not find out again
                self.plan = replace(self.plan, tile_size=fitted[0], batch_size=fitted[1])
            images.append(outputs.converted(color.fix_(hr, lr_up, color_fix), output_type))
        self.maybe_free_model_hooks()
        result = outputs.stacked(images)
        return ImagePipelineOutput(images=result) if return_dict else (result,)

    def rows(
        self,
        lr: Tensor,
        scale: float = 4,
        *,
        strength: float | None = None,
        tile_size: int | None = None,
        tile_overlap: int = 32,
        batch_size: int | None = None,
        color_fix: str = "wavelet",
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[tuple[int, int], Iterator[Tensor]]:
        """Enlarge one image from top to bottom, for results that are larger than the memory.

        Args:
            lr: (1,3,h,w), RGB in [0,1]; all else as in ``__call__``, but for the colour fix "adain".

        Returns:
            (height, width) of the result, and its rows as they come, each (1,3,rows,width), float32, about [0,1].

        Raises:
            InputError: an image or an argument that cannot be used.
            ModelError: while rows come, the model gives values that are not finite.
        """
        strength = _checked_strength(self.adapter_config.strength if strength is None else strength)
        tile_size, batch_size = self._fit(tile_size, batch_size)
        size = resize.scaled_size(*_checked_size(lr), scale)
        tiling = tiles.grid(*size, tile_size, tile_overlap, latents.pixel_multiple(self.vae))
        return size, bands.enlarged(
            lr,
            size,
            lambda batch: self.one_step(batch, strength),
            tiling,
            batch_size=batch_size,
            color_fix=color_fix,
            progress=progress,
        )

    def _fit(self, tile_size: int | None, batch_size: int | None) -> tuple[int, int]:
        """Tile and batch: what is asked for, else the plan's, else the model's and the device's own."""
        tile_size = tile_size or min(self.plan.tile_size, self.adapter_config.tile_size)
        return tile_size, batch_size or self.plan.batch_size or (1 if self._execution_device.type == "cpu" else 4)

    @torch.no_grad()
    def one_step(self, lr_up: Tensor, strength: float = 1.0) -> Tensor:
        """Images in one piece: x_hat = VAE.decode(z_l - strength t_l v(z_l, t_l)) (method.md, 4), less its lattice.

        Args:
            lr_up: (B,3,H,W), RGB in [0,1], sides multiples of ``latents.pixel_multiple``.
            strength: share of the step.

        Returns:
            (B,3,H,W), float32, about [0,1], on the model's device.

        Raises:
            ModelError: values that are not finite, such as a float16 overflow gives.
        """
        config, lr_up = self.adapter_config, lr_up.to(self._execution_device)
        z_l = latents.encode(self.vae, lr_up)
        v = velocity(self.transformer, z_l, config.t_l, self.prompt, config.guidance)
        hr = latents.decode(self.vae, flow.one_step(z_l, v, config.t_l, strength))
        hr = without_lattice(hr, lr_up, latents.pixel_multiple(self.vae), config.lattice_reach)
        if not hr.isfinite().all():
            raise ModelError("the model gave values that are not finite; try --dtype fp32")
        return hr

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # type: ignore[override]
        """Write a folder that ``from_pretrained`` of this class and ``--model`` take.

        Args:
            save_directory: made if need be.
            options: diffusers'; with ``push_to_hub`` those of ``push_to_hub`` here, ``repo_id`` among them.

        Raises:
            InputError: a variant, whose files ``from_pretrained`` would not look for.
        """
        if options.get("variant") is not None:
            raise InputError(f"variant is '{options['variant']}'; none is read back, save into a folder of its own")
        pushed = {key: options.pop(key) for key in hub.PUSH_OPTIONS if key in options}
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        # The adapter is in these weights already: one left there would be fused a second time on loading.
        while lora := lora_file(folder):
            lora.unlink()
        parts = loading.Backbone(self.transformer, self.vae, self.prompt, self.adapter_config, self.name)
        loading.save(parts, folder)
        to_hub = options.pop("push_to_hub", False)
        super().save_pretrained(str(folder), **options)
        if to_hub:
            hub.push_folder(folder, pushed.pop("repo_id", folder.name), **pushed)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # type: ignore[override]
        """Save the pipeline and put it on the Hub, with a model card, its licence and a notice.

        Args:
            repo_id: owner/name; made if it is not there.
            options: those of ``Adapter.push_to_hub``, and ``save_pretrained``'s.

        Returns:
            Address of the repository, or of the pull request.

        Raises:
            ModelError: made from FLUX.1-dev, and the licence's text was not found; give ``license_file``.
            OutputError: not reachable, or not allowed.
        """
        pushed = {key: options.pop(key) for key in hub.PUSH_OPTIONS if key in options}
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, **options)
            return hub.push_folder(folder, repo_id, **pushed)


def upscale(image: Any, scale: float = 4, **options: Any) -> Image.Image:
    """Enlarge one image with the bundled model, which is loaded once.

    Args:
        image: a path, or one image as ``FluxSRPipeline`` takes it; a file's colour profile and EXIF
            orientation are applied, a PIL image is taken as it is.
        scale, options: those of ``FluxSRPipeline.__call__``, but for ``output_type`` and ``return_dict``.

    Raises:
        InputError: an image or an argument that cannot be used, or several images.
        ModelError: the bundled model is missing, or gives values that are not finite.
    """
    for name in ("output_type", "return_dict"):
        if name in options:
            raise InputError(f"upscale gives one PIL image and takes no {name}; use FluxSRPipeline")
    if isinstance(image, (str, Path)):
        image = io.read(image).image
    images = inputs.tensors(image)
    if isinstance(image, (list, tuple)) or len(images) != 1:
        raise InputError(f"image is a {type(image).__name__} of {len(images)}; upscale takes one, FluxSRPipeline more")
    return _bundled()(images[0], scale, **options).images[0]


@lru_cache(maxsize=1)
def _bundled() -> FluxSRPipeline:
    return FluxSRPipeline.from_pretrained("bundled")


def _checked_strength(strength: Any) -> float:
    if not isinstance(strength, Real) or not math.isfinite(strength) or strength < 0:
        raise InputError(f"strength is {strength!r}; choose a number from 0 (no step) on, 1 is the whole step")
    return float(strength)


def _checked_size(lr: Tensor) -> tuple[int, int]:
    height, width = lr.shape[-2:]
    if min(height, width) < LEAST_SIDE:
        raise InputError(f"image is {width}x{height} pixels; sides of {LEAST_SIDE} or more are needed")
    return height, width

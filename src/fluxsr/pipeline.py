"""The road of inference: image -> LR latent -> one step -> HR image, in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from torch import Tensor

from fluxsr import flow
from fluxsr.backbones import latents, loading
from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.device import best_device, best_dtype
from fluxsr.backbones.memory import Plan
from fluxsr.backbones.prompts import FixedPrompt
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import InputError, ModelError
from fluxsr.hub import publish
from fluxsr.imaging import inputs, outputs, resize
from fluxsr.imaging.color.fix import fix_colors_
from fluxsr.imaging.postprocess import postprocess
from fluxsr.imaging.settings import Settings, checked_count
from fluxsr.imaging.tiling import bands
from fluxsr.imaging.tiling.plan import TilingPlan, rows_with_fallback, stream_with_fallback
from fluxsr.options import ColorFix, UpscaleOptions

_DEFAULT = UpscaleOptions()


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

    _plan: Plan
    _planned_for: tuple[torch.dtype, str]  # number format and device at which the plan was made

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

    @property
    def plan(self) -> Plan:
        """How the model runs; it follows ``to`` and diffusers' offloading."""
        now = (self.transformer.dtype, self._execution_device.type)
        if now != self._planned_for:
            self._plan, self._planned_for = self._plan.moved(*now), now
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan, self._planned_for = plan, (self.transformer.dtype, self._execution_device.type)

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
        compile: bool = False,
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
            compile: FLUX on a CUDA GPU runs faster, and the first image takes most of a minute more; for many images.
                All get tiles of one size, which are reflected past the ends of smaller ones.

        Raises:
            InputError: a device or dtype that there is not, too little memory, or no CUDA GPU to compile for.
            ModelError: a model or adapter that cannot be used.
        """
        target = best_device(device)
        kind = best_dtype(target, dtype if torch_dtype is None else torch_dtype)
        plan = loading.plan_for(model, adapter, target, kind, memory, config_folder, compile)
        parts = loading.load(
            *(model, adapter, target, plan.dtype),
            quantize=plan.quantize,
            offload=plan.offload,
            config_folder=config_folder,
            compiled=plan.compiled,
        )
        return cls(parts.transformer, parts.vae, parts.prompt, parts.config, parts.name, plan)

    @torch.no_grad()  # not inference_mode: its tensors could not be worked on by the caller
    def __call__(
        self,
        image: Any,
        scale: float = _DEFAULT.scale,
        *,
        strength: float | None = _DEFAULT.strength,
        tile_size: int | None = _DEFAULT.tile_size,
        tile_overlap: int = _DEFAULT.tile_overlap,
        batch_size: int | None = None,
        color_fix: ColorFix = _DEFAULT.color_fix,
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
            strength: share of the step, 0 to 2 (more than 1 exaggerates); None takes the model's own.
            tile_size: largest tile that autoencoder and transformer see, 64 to 4096 output pixels; None takes the
                plan's, which is at most the size up to which the model is known to work.
            tile_overlap: least overlap of tiles, in output pixels; at most half of tile_size.
            batch_size: tiles per forward pass; None takes the plan's, or 1 on a CPU and 4 elsewhere. Where memory
                runs out, it becomes 1, and then tiles half as large, with a warning.
            color_fix: "wavelet", "adain" or "none"; see imaging/color/fix.py.
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
        options = UpscaleOptions(
            scale=scale, strength=strength, tile_size=tile_size, tile_overlap=tile_overlap, color_fix=color_fix
        )
        how = Settings(options, batch_size, progress)
        lrs = inputs.tensors(image)
        if not lrs:
            raise InputError("image holds no image; pass one or more")
        images = [outputs.converted(self.upscale_tensor(lr, how), output_type) for lr in lrs]
        self.maybe_free_model_hooks()
        result = outputs.stacked(images)
        return ImagePipelineOutput(images=result) if return_dict else (result,)

    @torch.no_grad()
    def upscale_tensor(self, lr: Tensor, settings: Settings) -> Tensor:
        """Enlarge one image in one piece: (1,3,h,w) to (1,3,H,W), float32, about [0,1], on the CPU."""
        size, step, fit = self._prepared(lr, settings)
        lr_up = resize.bicubic(lr.float().cpu(), size)  # (1,3,H,W)
        hr, fitted = stream_with_fallback(lr_up, step, fit, settings.progress)
        self._keep(fit, fitted)
        return fix_colors_(hr, lr_up, settings.options.color_fix)

    def upscale_streaming(self, lr: Tensor, settings: Settings) -> tuple[tuple[int, int], Iterator[Tensor]]:
        """Enlarge one image from top to bottom, for results that are larger than the memory.

        Where memory runs out before the first rows are there, smaller tiles are tried, as in ``__call__``.

        Args:
            lr: (1,3,h,w), RGB in [0,1], on any device.
            settings: any but the colour fix "adain".

        Returns:
            (height, width) of the result, and its rows as they come, each (1,3,rows,width), float32, about [0,1], on
            the CPU, where the whole is held.

        Raises:
            InputError: an image or a setting that cannot be used.
            ModelError: while rows come, the model gives values that are not finite.
            torch.OutOfMemoryError: while rows come, not even a small tile fits, or others took the memory.
        """
        size, step, fit = self._prepared(lr, settings)
        enlarged = partial(bands.enlarged, lr.float().cpu(), size, step)
        start = partial(enlarged, color_fix=settings.options.color_fix, progress=settings.progress)
        return size, rows_with_fallback(start, size, fit, partial(self._keep, fit))

    def _prepared(
        self, lr: Tensor, settings: Settings
    ) -> tuple[tuple[int, int], Callable[[Tensor], Tensor], TilingPlan]:
        """The result's size, the model as a function of tiles, and the first way to cut.

        Tile and batch are what is asked for, else the plan's, else the model's and the device's own.
        """
        options = settings.options
        strength = self.adapter_config.strength if options.strength is None else options.strength
        size = resize.scaled_size(*inputs.checked_size(lr), options.scale)
        step = partial(settings.step or self.one_step, strength=strength)
        tile_size, batch_size = options.tile_size, settings.batch_size
        if tile_size is None:
            tile_size = min(self.plan.tile_size, self.adapter_config.tile_size)
        if batch_size is None:
            batch_size = self.plan.batch_size or (1 if self._execution_device.type == "cpu" else 4)
        batch_size, multiple = checked_count("batch_size", batch_size), latents.pixel_multiple(self.vae)
        return size, step, TilingPlan(tile_size, batch_size, options.tile_overlap, multiple, self.plan.compiled)

    def _keep(self, wanted: TilingPlan, fitted: TilingPlan) -> None:
        """Where memory ran out: the next image need not find out again."""
        if fitted != wanted:
            self.plan = replace(self.plan, tile_size=fitted.tile_size, batch_size=fitted.batch_size)

    @torch.no_grad()
    def one_step(self, lr_up: Tensor, strength: float = 1.0) -> Tensor:
        """Images in one piece: x_hat = VAE.decode(z_l - strength t_l v(z_l, t_l)) (method.md, 4). Where the config
        says so, v is a mean over cuts, and x_hat loses its lattice and some of its finest detail.

        Args:
            lr_up: (B,3,H,W), RGB in [0,1], sides multiples of ``latents.pixel_multiple``.
            strength: share of the step.

        Returns:
            (B,3,H,W), float32, about [0,1], on the model's device.

        Raises:
            ModelError: values that are not finite, such as a float16 overflow gives.
        """
        config, lr_up = self.adapter_config, lr_up.to(self._execution_device)
        (t, guidance), z_l = config.condition, latents.encode(self.vae, lr_up)
        v = velocity(self.transformer, z_l, t, self.prompt, guidance, config.token_cuts)
        hr = latents.decode(self.vae, flow.one_step(z_l, v, config.t_l, strength))
        hr = postprocess(hr, lr_up, latents.pixel_multiple(self.vae), **config.postprocess)
        if not hr.isfinite().all():
            raise ModelError("the model gave values that are not finite; try --dtype fp32")
        return hr

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # type: ignore[override]
        """Write a folder that ``from_pretrained`` of this class and ``--model`` take.

        Only an earlier save of this class is written over; nothing else in the folder is changed or deleted.

        Args:
            save_directory: made if need be.
            options: diffusers'; with ``push_to_hub`` those of ``push_to_hub`` here, ``repo_id`` among them.

        Raises:
            InputError: a variant, whose files ``from_pretrained`` would not look for.
            OutputError: the folder holds an adapter, or a model that this class did not save.
        """
        if options.get("variant") is not None:
            raise InputError(f"variant is '{options['variant']}'; none is read back, save into a folder of its own")
        pushed = {key: options.pop(key) for key in publish.PUSH_OPTIONS if key in options}
        folder = Path(save_directory)
        parts = loading.Backbone(self.transformer, self.vae, self.prompt, self.adapter_config, self.name)
        loading.check_free(folder, type(self).__name__)
        folder.mkdir(parents=True, exist_ok=True)
        loading.save(parts, folder)
        to_hub = options.pop("push_to_hub", False)
        super().save_pretrained(str(folder), **options)
        if to_hub:
            publish.push_folder(folder, pushed.pop("repo_id", folder.name), **pushed)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # type: ignore[override]
        """Save the pipeline and put it on the Hub, with a model card, its licence and a notice.

        Options are ``save_pretrained``'s and ``publish.push_folder``'s, whose are result and errors.
        """
        pushed = {key: options.pop(key) for key in publish.PUSH_OPTIONS if key in options}
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, **options)
            return publish.push_folder(folder, repo_id, **pushed)

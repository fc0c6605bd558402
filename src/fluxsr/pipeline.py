"""The road of inference: image -> LR latent -> one step -> HR image, in tiles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderDC, AutoencoderKL, DiffusionPipeline, FluxTransformer2DModel, ImagePipelineOutput
from diffusers.loaders import FluxLoraLoaderMixin
from torch import Tensor

from fluxsr import flow
from fluxsr.backbones import latents, loading
from fluxsr.backbones.adapter import CONFIG_FILE, AdapterConfig, load_config, read_adapter, unfit, unknown_dtype
from fluxsr.backbones.folding import FoldedFluxTransformer2DModel
from fluxsr.backbones.loading import Backbone
from fluxsr.backbones.lora_files import check_lora, lora_file
from fluxsr.backbones.memory import Plan
from fluxsr.backbones.places import BUNDLED, PROMPT_FILE
from fluxsr.backbones.prompts import FixedPrompt, PromptEmbeddings
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import InputError, ModelError
from fluxsr.extensions.postprocess import postprocess
from fluxsr.hub import publish
from fluxsr.imaging import io, resize
from fluxsr.imaging.color.fix import fix_colors_
from fluxsr.imaging.settings import Settings, checked_count
from fluxsr.imaging.tiling import bands
from fluxsr.imaging.tiling.plan import TilingPlan, rows_with_fallback, stream_with_fallback
from fluxsr.options import ColorFix, UpscaleOptions

_DEFAULT = UpscaleOptions()

_LOAD_OPTIONS = {"adapter", "device", "memory", "config_folder", "compile"}
_HUB_OPTIONS = {"cache_dir", "force_download", "proxies", "local_files_only", "token", "revision"}


class FluxSRPipeline(DiffusionPipeline, FluxLoraLoaderMixin):  # type: ignore[misc]
    """One-step super-resolution: a diffusers pipeline of three components, without text encoders and scheduler.

    All other arguments are registered in the pipeline's config, and `AdapterConfig` describes them. ``fluxsr.load``
    builds a pipeline from a model and an adapter. ``from_pretrained`` loads what ``save_pretrained`` wrote.

    Args:
        transformer: FLUX's, with or without a LoRA; folded or not.
        vae: AutoencoderDC (the bundled model) or AutoencoderKL (FLUX).
        prompt: the fixed condition of all images.
        origin: what the adapter was made from; see `adapter.ORIGIN`. It changes no pixel.

    Raises:
        InputError: a setting is out of range.
        ModelError: the components do not belong together.
    """

    # The transformer goes before the autoencoder decodes, which takes the most memory of all steps.
    model_cpu_offload_seq = "transformer->vae"
    _lora_loadable_modules = ["transformer"]

    name = ""  # what messages call the model

    def __init__(
        self,
        transformer: FluxTransformer2DModel | FoldedFluxTransformer2DModel,
        vae: AutoencoderKL | AutoencoderDC,
        prompt: PromptEmbeddings | FixedPrompt,
        t_l: float = 0.25,
        strength: float = 1.0,
        guidance: float | None = None,
        train_dtype: str = "bf16",
        scale: int = 4,
        tile_size: int = 512,
        token_cuts: int = 1,
        lattice_reach: float = 0.0,
        fine_strength: float = 1.0,
        flat_floor: float = 0.0,
        origin: dict[str, Any] | None = None,
    ) -> None:
        registered = {name: value for name, value in locals().items() if name in AdapterConfig().registered}
        super().__init__()
        prompt = PromptEmbeddings.of(prompt) if isinstance(prompt, FixedPrompt) else prompt
        self.register_modules(transformer=transformer, vae=vae, prompt=prompt)
        self.register_to_config(**registered)
        self._check()

    def _check(self) -> None:
        settings = self.adapter_config
        if fault := unfit(settings) or unknown_dtype(settings.train_dtype):
            raise InputError(fault)
        if self.transformer is not None and self.prompt is not None:
            loading.check_fit(self.transformer, self.prompt, settings, "the pipeline")

    @classmethod
    def of(cls, parts: Backbone, plan: Plan | None = None) -> FluxSRPipeline:
        """Return the pipeline of what ``backbones.loading.load`` returned, which runs by this plan."""
        prompt = PromptEmbeddings.of(parts.prompt, parts.config.prompt)
        made = cls(parts.transformer, parts.vae, prompt, **parts.config.registered)
        made.name = parts.name
        if plan is not None:
            made.plan = plan
        return made

    @property
    def adapter_config(self) -> AdapterConfig:
        """The registered settings; assign a changed copy to change them."""
        return AdapterConfig.of(self.config, "" if self.prompt is None else self.prompt.config.text)

    @adapter_config.setter
    def adapter_config(self, settings: AdapterConfig) -> None:
        self.register_to_config(**settings.registered)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the transformer; the prompt keeps its own."""
        return self.transformer.dtype

    @property
    def plan(self) -> Plan:
        """How the model runs; it follows ``to`` and diffusers' offloading."""
        now = (self.transformer.dtype, self._execution_device.type)
        plan, planned_for = self.__dict__.get("_planned") or (Plan(*now, self.config.tile_size), now)
        if now != planned_for:
            plan = plan.moved(*now)
        self._planned = (plan, now)
        return plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._planned = (plan, (self.transformer.dtype, self._execution_device.type))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **options: Any) -> FluxSRPipeline:
        """Load what ``save_pretrained`` wrote, as every pipeline of diffusers is loaded.

        The options are those of ``DiffusionPipeline.from_pretrained``: ``dtype``, ``revision``, ``variant``, components
        and settings to replace, and so on. ``fluxsr.load`` does the rest: it takes a base model and an adapter, and
        chooses device, number format and quantization.

        Args:
            pretrained_model_name_or_path: folder or Hub id.

        Raises:
            InputError: an option of ``fluxsr.load``.
            ModelError: what is there was not saved by this class, or an adapter has joined it.
        """
        source = str(pretrained_model_name_or_path)
        for name in _LOAD_OPTIONS & options.keys():
            raise InputError(f"from_pretrained takes no {name}; call fluxsr.load(model, {name}=...)")
        for name in ("dtype", "torch_dtype"):
            if isinstance(options.get(name), str):
                raise InputError(
                    f"{name} is '{options[name]}'; give a torch.dtype, or call fluxsr.load(model, dtype=...)"
                )
        if source == BUNDLED:
            raise ModelError(f"from_pretrained takes a folder or a Hub id; call fluxsr.load('{BUNDLED}')")
        if "prompt" not in options:
            _check_saved(source, cls, options)
        return super().from_pretrained(source, **options)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **options: Any) -> FluxSRPipeline:
        """Return a pipeline of another one's components; options replace components and settings.

        The number format stays as it is, where diffusers would cast the shared components to float32.
        """
        if not {"dtype", "torch_dtype"} & options.keys():
            options["dtype"] = pipeline.dtype
        made = super().from_pipe(pipeline, **options)
        if isinstance(pipeline, FluxSRPipeline):
            made.name = pipeline.name
        return made

    def load_lora_weights(  # type: ignore[override]
        self, source: str | PathLike[str] | dict[str, Tensor], adapter_name: str | None = None, **options: Any
    ) -> None:
        """Put a LoRA beside the transformer's weights, as diffusers' pipelines do; prompt and settings stay.

        Args:
            source: an adapter's folder, a LoRA's file or Hub id, or its tensors.
            adapter_name: what ``set_adapters`` and ``delete_adapters`` call it.
            options: diffusers', such as ``weight_name``, ``revision``, ``token`` or ``hotswap``.

        Raises:
            ModelError: the transformer is folded, or the LoRA does not fit it or was trained at another time or
                guidance.
        """
        if isinstance(self.transformer, FoldedFluxTransformer2DModel):
            raise ModelError("the transformer is folded and takes no LoRA; call fluxsr.load(model, adapter=...)")
        lora = read_adapter(source, self.adapter_config, **options)
        check_lora(self.transformer, lora.state, lora.name)
        self.load_lora_into_transformer(
            lora.state,
            lora.alphas,
            self.transformer,
            adapter_name,
            lora.metadata,
            _pipeline=self,
            hotswap=options.get("hotswap", False),
        )

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
        callback_on_step_end: Callable[..., Any] | None = None,
    ) -> Any:
        """Enlarge one image or several, each on its own.

        The model works at the target size, on the bicubic enlargement of the image, whatever the
        scale; it was trained at x4, where it is at its best.

        Args:
            image: PIL image; array (H,W), (H,W,C) or (B,H,W,C); tensor (3,H,W) or (B,3,H,W); or a list
                of these, see imaging/io.py. Sides of 16 pixels or more.
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
            callback_on_step_end: diffusers' form of it, called as (pipeline, index of the last tile done, t_l, {}).

        Raises:
            InputError: an image or an argument that cannot be used.
            ModelError: the model gives values that are not finite.
            torch.OutOfMemoryError: not even a small tile fits.

        Returns:
            diffusers' ImagePipelineOutput, whose ``images`` has one entry per image.
        """
        if output_type not in io.OUTPUT_TYPES:
            raise InputError(f"output_type is '{output_type}'; choose one of {', '.join(io.OUTPUT_TYPES)}")
        options = UpscaleOptions(
            scale=scale, strength=strength, tile_size=tile_size, tile_overlap=tile_overlap, color_fix=color_fix
        )
        how = Settings(options, batch_size, self._report(progress, callback_on_step_end))
        lrs = io.as_tensors(image)
        if not lrs:
            raise InputError("image holds no image; pass one or more")
        try:
            images = [io.as_output(self.upscale_tensor(lr, how), output_type) for lr in lrs]
        finally:
            self.maybe_free_model_hooks()
        result = io.stacked(images)
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

    def _report(
        self, progress: Callable[[int, int], None] | None, callback: Callable[..., Any] | None
    ) -> Callable[[int, int], None]:
        """Return a progress callback that moves diffusers' bar too, one bar for each image."""
        bar: Any = None

        def report(done: int, total: int) -> None:
            nonlocal bar
            bar = self.progress_bar(total=total) if bar is None else bar
            bar.total = total  # more tiles, where memory ran out
            bar.update(done - bar.n)
            if done == total:
                bar.close()
                bar = None
            if progress is not None:
                progress(done, total)
            if callback is not None:
                callback(self, done - 1, self.config.t_l, {})

        return report

    def _prepared(
        self, lr: Tensor, settings: Settings
    ) -> tuple[tuple[int, int], Callable[[Tensor], Tensor], TilingPlan]:
        """The result's size, the model as a function of tiles, and the first way to cut.

        Tile and batch are what is asked for, else the plan's, else the model's and the device's own.
        """
        options = settings.options
        strength = self.adapter_config.strength if options.strength is None else options.strength
        size = resize.scaled_size(*io.checked_size(lr), options.scale)
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
        """Write a folder that diffusers' ``from_pretrained``, ``fluxsr.load`` and ``--model`` take.

        Only an earlier save of this class is written over; nothing else in the folder is changed or deleted.

        Args:
            save_directory: made if need be.
            options: diffusers'; with ``push_to_hub`` those of ``push_to_hub`` here, ``repo_id`` among them. Only
                ``from_pretrained`` reads a ``variant``.

        Raises:
            OutputError: the folder holds an adapter, or a model that this class did not save.
        """
        pushed = {key: options.pop(key) for key in publish.PUSH_OPTIONS if key in options}
        folder = Path(save_directory)
        loading.check_free(folder, type(self).__name__)
        folder.mkdir(parents=True, exist_ok=True)
        self.adapter_config.save(folder)
        to_hub = options.pop("push_to_hub", False)
        super().save_pretrained(str(folder), **options)
        (folder / PROMPT_FILE).unlink(missing_ok=True)  # of an older save; it would hide prompt/
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


def _check_saved(source: str, cls: Any, options: dict[str, Any]) -> None:
    """Make sure that a pipeline of this class is there, complete, and that nothing has joined it.

    Raises:
        ModelError: it is not, and ``fluxsr.load`` has to be called.
    """
    folder, hint = Path(source), f"call fluxsr.load('{source}')"
    if folder.is_dir() and not (folder / cls.config_name).is_file():
        raise ModelError(f"{source} holds no {cls.config_name}, which diffusers' loading needs; {hint}")
    index = cls.load_config(source, **{key: options[key] for key in _HUB_OPTIONS & options.keys()})
    if index.get("_class_name") != cls.__name__ or "prompt" not in index:
        raise ModelError(
            f"{source} was not saved by {cls.__name__} with its prompt; {hint}, with adapter=... if need be"
        )
    if lora := lora_file(folder):
        raise ModelError(f"{lora} has to be fused first, which from_pretrained does not do; {hint}")
    if (folder / CONFIG_FILE).is_file() and load_config(folder).registered != AdapterConfig.of(index, "").registered:
        raise ModelError(f"{CONFIG_FILE} and {cls.config_name} in {source} differ; {hint}, which reads the former")


# diffusers has no registry. It looks for a pipeline's class in its own namespace, and for the package of a component
# on the Hub among its pipelines.
diffusers.FluxSRPipeline = FluxSRPipeline
diffusers.pipelines.fluxsr = sys.modules["fluxsr"]

"""FluxSRPipeline, a diffusers pipeline that upscales images in one step."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.loaders.lora_base import LoraBaseMixin
from torch import Tensor

from fluxsr.backbones import loading, pipeline_lora, saved
from fluxsr.backbones.adapter import AdapterConfig, invalid_setting, unknown_dtype
from fluxsr.backbones.families import Autoencoder, Transformer
from fluxsr.backbones.loading import Backbone
from fluxsr.backbones.memory import Plan
from fluxsr.backbones.places import CONFIG_FILE, PROMPT_FILE
from fluxsr.backbones.prompts import FixedPrompt, PromptEmbeddings
from fluxsr.errors import InputError
from fluxsr.extensions.guard import repair_notes
from fluxsr.hub import publish
from fluxsr.imaging import io
from fluxsr.imaging.mask import as_masks
from fluxsr.imaging.settings import Settings
from fluxsr.one_step import OneStep, latents_callback
from fluxsr.options import ColorFix, UpscaleOptions
from fluxsr.progress import with_bar

_DEFAULT = UpscaleOptions()


class FluxSRPipeline(OneStep, DiffusionPipeline, LoraBaseMixin):  # type: ignore[misc]
    """Diffusers pipeline for one-step super-resolution, without text encoders and scheduler.

    All arguments but the components are registered in the pipeline's config, and `AdapterConfig` describes them.
    ``fluxsr.load`` builds a pipeline from a model and an adapter. ``from_pretrained`` loads what ``save_pretrained``
    wrote.

    Args:
        transformer: transformer of a known family, folded or not, with or without a LoRA.
        vae: autoencoder of the same family.
        prompt: fixed prompt for all images.
        origin: base, rank, alpha and licences of the adapter (`adapter.ORIGIN`). Outputs do not depend on it.

    Raises:
        InputError: a setting is out of range.
        ModelError: the components do not fit together.
    """

    # The transformer is offloaded before the autoencoder decodes, which needs the most memory.
    model_cpu_offload_seq = "transformer->vae"
    _lora_loadable_modules = ["transformer"]
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        transformer: Transformer,
        vae: Autoencoder,
        prompt: PromptEmbeddings | FixedPrompt,
        t_l: float = 0.25,
        strength: float = 1.0,
        guidance: float | None = None,
        train_dtype: str = "bf16",
        scale: int = 4,
        tile_size: int = 512,
        origin: dict[str, Any] | None = None,
    ) -> None:
        registered = {name: value for name, value in locals().items() if name in AdapterConfig().registered}
        super().__init__()
        prompt = PromptEmbeddings.of(prompt) if isinstance(prompt, FixedPrompt) else prompt
        self.register_modules(transformer=transformer, vae=vae, prompt=prompt)
        self.register_to_config(**registered)
        if fault := invalid_setting(self.adapter_config) or unknown_dtype(train_dtype):
            raise InputError(fault)
        if transformer is not None and prompt is not None:
            loading.check_fit(transformer, prompt, self.adapter_config, "the pipeline")

    @classmethod
    def of(cls, parts: Backbone, plan: Plan | None = None) -> FluxSRPipeline:
        """Return a pipeline from the result of ``backbones.loading.load`` and its plan."""
        prompt = PromptEmbeddings.of(parts.prompt, parts.config.prompt)
        pipeline = cls(parts.transformer, parts.vae, prompt, **parts.config.registered)
        pipeline.name, pipeline.sources = parts.name, parts.sources
        if plan is not None:
            pipeline.plan = plan
        return pipeline

    @property
    def name(self) -> str:
        """Name of the model in messages."""
        return self.__dict__.get("_model_name") or str(self.config.get("_name_or_path") or type(self).__name__)

    @name.setter
    def name(self, name: str) -> None:
        self._model_name = name

    @property
    def adapter_config(self) -> AdapterConfig:  # type: ignore[override]
        """Registered settings. Assign a changed copy to change them."""
        return AdapterConfig.of(self.config, "" if self.prompt is None else self.prompt.config.text)

    @adapter_config.setter
    def adapter_config(self, settings: AdapterConfig) -> None:
        self.register_to_config(**settings.registered)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the transformer. The prompt may have another one."""
        return self.transformer.dtype

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **options: Any) -> FluxSRPipeline:
        """Load a pipeline that ``save_pretrained`` wrote.

        The options are those of ``DiffusionPipeline.from_pretrained``, such as ``dtype``, ``revision``, ``variant``,
        and components and settings to replace. Use ``fluxsr.load`` for a base model with an adapter. It also chooses
        device, number format and quantization.

        Raises:
            InputError: one of the options belongs to ``fluxsr.load``.
            ModelError: the source was not saved by this class, or has an adapter that must be fused.
        """
        source = str(pretrained_model_name_or_path)
        saved.check_saved(source, cls, options)
        return super().from_pretrained(source, **options)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **options: Any) -> FluxSRPipeline:
        """Return a pipeline with the components of another one. Options replace components and settings.

        The number format does not change. Diffusers would cast the shared components to float32.
        """
        if not {"dtype", "torch_dtype"} & options.keys():
            options["dtype"] = pipeline.dtype
        new = super().from_pipe(pipeline, **options)
        if isinstance(pipeline, FluxSRPipeline):
            new.name = pipeline.name
        return new

    def load_lora_weights(  # type: ignore[override]
        self, source: str | PathLike[str] | dict[str, Tensor], adapter_name: str | None = None, **options: Any
    ) -> None:
        """Attach a LoRA to the transformer, like diffusers' pipelines. Prompt and settings do not change.

        Args:
            source: folder of an adapter, file or Hub id of a LoRA, or its tensors.
            adapter_name: name of the LoRA in ``set_adapters`` and ``delete_adapters``.
            options: options of diffusers, such as ``weight_name``, ``revision``, ``token`` or ``hotswap``.

        Raises:
            ModelError: the transformer is folded, or the LoRA does not fit it or was trained at another time or
                guidance.
        """
        pipeline_lora.load_lora_weights(self, source, self.adapter_config, adapter_name, **options)

    @torch.no_grad()  # not inference_mode, whose tensors are restricted for the caller
    def __call__(
        self,
        image: Any,
        scale: float | None = None,
        *,
        width: int | None = _DEFAULT.width,
        height: int | None = _DEFAULT.height,
        longest: int | None = _DEFAULT.longest,
        megapixels: float | None = _DEFAULT.megapixels,
        strength: float | None = _DEFAULT.strength,
        tile_size: int | None = _DEFAULT.tile_size,
        tile_overlap: int = _DEFAULT.tile_overlap,
        batch_size: int | None = None,
        color_fix: ColorFix = _DEFAULT.color_fix,
        guard: bool = _DEFAULT.guard,
        wrap: bool = _DEFAULT.wrap,
        mask: Any = None,
        output_type: str = "pil",
        return_dict: bool = True,
        progress: Callable[[int, int], None] | None = None,
        callback_on_step_end: Callable[..., Any] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Upscale one image or several. Each image is processed separately.

        The image is first enlarged to the target size by bicubic interpolation, and the model works at that size. It
        was trained at x4, and works best at this scale.

        Args:
            image: PIL image, array (H,W), (H,W,C) or (B,H,W,C), tensor (3,H,W) or (B,3,H,W), or a list of these; see
                imaging/io.py. Sides below 16 pixels are extended by reflection, and the result is cut.
            scale: upscaling factor from 1 to 8. The output size is rounded to whole pixels. None is 4 without another
                size.
            width, height, longest, megapixels: size of the output instead of a scale, of which it must be 1 to 8 times
                the image. ``longest`` is the longer side. The aspect ratio is kept.
            strength: fraction of the step, 0 to 2. More than 1 exaggerates. None is the model's own.
            tile_size: largest tile, 64 to 4096 output pixels. None is the size in the plan, which is at most the
                largest size that was tested with the model.
            tile_overlap: minimum overlap of tiles in output pixels, at most half of tile_size.
            batch_size: tiles per forward pass. None is the number in the plan, or 1 on a CPU and 4 elsewhere. If memory
                runs out, a warning is shown and the batch size becomes 1. If that does not suffice, tiles are halved.
            color_fix: "wavelet", "adain" or "none"; see imaging/color/fix.py.
            guard: check every tile against its input, and repair the broken ones; see extensions/guard.py. A warning
                says what was repaired. Tiles are not repaired if there is a callback, which may change them on purpose.
            wrap: join opposite edges, for seamless textures.
            mask: where the result is used: 0 keeps the bicubic enlargement, white is full strength. It is scaled to the
                output by bicubic interpolation. Path, PIL image, array or tensor, one for all images or a list; see
                imaging/mask.py.
            output_type: "pil", "pt" (B,3,H,W) or "np" (B,H,W,3), the last two in float32 and [0,1]. Images of different
                sizes are returned as a list.
            return_dict: return an ImagePipelineOutput; False returns ``(images,)``.
            progress: called with (finished tiles, number of tiles) of the current image.
            callback_on_step_end: called as in diffusers after the step of every batch of tiles and before decoding,
                with (pipeline, number of the batch, t_l, {"latents": z_0}). The ``latents`` of the dict that
                it returns replace z_0.
            callback_on_step_end_tensor_inputs: names of the tensors for the callback, ``latents`` or none.

        Raises:
            InputError: an image or an argument cannot be used.
            ModelError: the model returns values that are not finite, and they are not repaired.
            torch.OutOfMemoryError: even a small tile does not fit into memory.

        Returns:
            diffusers' ImagePipelineOutput, whose ``images`` has one entry per image.
        """
        if output_type not in io.OUTPUT_TYPES:
            raise InputError(f"output_type is '{output_type}'; choose one of {', '.join(io.OUTPUT_TYPES)}")
        options = UpscaleOptions(
            scale=scale,
            width=width,
            height=height,
            longest=longest,
            megapixels=megapixels,
            strength=strength,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
            color_fix=color_fix,
            guard=guard and callback_on_step_end is None,
            wrap=wrap,
        )
        step: Any = self.one_step
        if callback_on_step_end is not None:
            changed = latents_callback(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
            step = partial(step, callback=changed)
        how = Settings(options, batch_size, with_bar(self.progress_bar, progress), step)
        lrs = io.as_tensors(image)
        if not lrs:
            raise InputError("image is empty; pass one or more images")
        masks = as_masks(mask, len(lrs))
        try:
            results = (self.upscale_tensor(lr, replace(how, mask=one)) for lr, one in zip(lrs, masks, strict=True))
            images = [io.as_output(hr, output_type) for hr in results]
        finally:
            self.maybe_free_model_hooks()
        for note in repair_notes(how.repairs):
            warnings.warn(f"the result {note}", stacklevel=3)  # of the caller, outside of no_grad
        result = io.stacked(images)
        return ImagePipelineOutput(images=result) if return_dict else (result,)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # type: ignore[override]
        """Write a model folder for ``from_pretrained``, ``fluxsr.load`` and ``--model``.

        An earlier save of this class is overwritten. Other files in the folder are not changed or deleted.

        Args:
            save_directory: folder, which is created if necessary.
            options: options of diffusers. ``push_to_hub=True`` also allows the options of ``push_to_hub`` below. A
                ``variant`` can only be loaded by ``from_pretrained``.

        Raises:
            OutputError: the folder holds an adapter, or a model that this class did not save.
        """
        pushed = {key: options.pop(key) for key in publish.PUSH_OPTIONS if key in options}
        folder = Path(save_directory)
        saved.check_free(folder, type(self).__name__)
        folder.mkdir(parents=True, exist_ok=True)  # diffusers would only log a failure
        to_hub = options.pop("push_to_hub", False)
        super().save_pretrained(str(folder), **options)
        for name in (PROMPT_FILE, CONFIG_FILE):  # files of older versions, which would be read first
            (folder / name).unlink(missing_ok=True)
        if to_hub:
            publish.push_folder(folder, pushed.pop("repo_id", folder.name), **pushed)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # type: ignore[override]
        """Save the pipeline and upload it to the Hub, with a model card, its licence and a notice.

        Options are those of ``save_pretrained`` and ``publish.push_folder``. The latter describes result and errors.
        """
        pushed = {key: options.pop(key) for key in publish.PUSH_OPTIONS if key in options}
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, **options)
            return publish.push_folder(folder, repo_id, **pushed)


# diffusers has no registry. It looks for pipeline classes in its own namespace, and for the package of a component on
# the Hub in ``diffusers.pipelines``.
diffusers.FluxSRPipeline = FluxSRPipeline
diffusers.pipelines.fluxsr = sys.modules["fluxsr"]

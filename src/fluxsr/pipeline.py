"""FluxSRPipeline: the one step as a pipeline of diffusers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
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

from fluxsr.backbones import loading, lora, saved
from fluxsr.backbones.adapter import AdapterConfig, invalid_setting, unknown_dtype
from fluxsr.backbones.families import Autoencoder, Transformer
from fluxsr.backbones.loading import Backbone
from fluxsr.backbones.memory import Plan
from fluxsr.backbones.places import CONFIG_FILE, PROMPT_FILE
from fluxsr.backbones.prompts import FixedPrompt, PromptEmbeddings
from fluxsr.errors import InputError
from fluxsr.hub import publish
from fluxsr.imaging import io
from fluxsr.imaging.settings import Settings
from fluxsr.one_step import OneStep, latents_callback
from fluxsr.options import ColorFix, UpscaleOptions
from fluxsr.progress import with_bar

_DEFAULT = UpscaleOptions()


class FluxSRPipeline(OneStep, DiffusionPipeline, LoraBaseMixin):  # type: ignore[misc]
    """One-step super-resolution: a diffusers pipeline of three components, without text encoders and scheduler.

    All other arguments are registered in the pipeline's config, and `AdapterConfig` describes them. ``fluxsr.load``
    builds a pipeline from a model and an adapter. ``from_pretrained`` loads what ``save_pretrained`` wrote.

    Args:
        transformer: transformer of a known family, with or without a LoRA; folded or not.
        vae: autoencoder of the same family.
        prompt: the fixed condition of all images.
        origin: what the adapter was made from; see `adapter.ORIGIN`. It changes no pixel.

    Raises:
        InputError: a setting is out of range.
        ModelError: the components do not belong together.
    """

    # The transformer goes before the autoencoder decodes, which takes the most memory of all steps.
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
        patch_offsets: int = 1,
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
        if fault := invalid_setting(self.adapter_config) or unknown_dtype(train_dtype):
            raise InputError(fault)
        if transformer is not None and prompt is not None:
            loading.check_fit(transformer, prompt, self.adapter_config, "the pipeline")

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
    def name(self) -> str:
        """The name of the model in messages."""
        return self.__dict__.get("_model_name") or str(self.config.get("_name_or_path") or type(self).__name__)

    @name.setter
    def name(self, name: str) -> None:
        self._model_name = name

    @property
    def adapter_config(self) -> AdapterConfig:  # type: ignore[override]
        """The registered settings; assign a changed copy to change them."""
        return AdapterConfig.of(self.config, "" if self.prompt is None else self.prompt.config.text)

    @adapter_config.setter
    def adapter_config(self, settings: AdapterConfig) -> None:
        self.register_to_config(**settings.registered)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the transformer; the prompt keeps its own."""
        return self.transformer.dtype

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **options: Any) -> FluxSRPipeline:
        """Load what ``save_pretrained`` wrote, as every pipeline of diffusers is loaded.

        The options are those of ``DiffusionPipeline.from_pretrained``: ``dtype``, ``revision``, ``variant``, components
        and settings to replace, and so on. ``fluxsr.load`` does the rest: it takes a base model and an adapter, and
        chooses device, number format and quantization.

        Raises:
            InputError: an option of ``fluxsr.load``.
            ModelError: what is there was not saved by this class, or an adapter has joined it.
        """
        source = str(pretrained_model_name_or_path)
        saved.check_saved(source, cls, options)
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
            adapter_name: its name in ``set_adapters`` and ``delete_adapters``.
            options: diffusers', such as ``weight_name``, ``revision``, ``token`` or ``hotswap``.

        Raises:
            ModelError: the transformer is folded, or the LoRA does not fit it or was trained at another time or
                guidance.
        """
        lora.load_lora_weights(self, source, self.adapter_config, adapter_name, **options)

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
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
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
            callback_on_step_end: called as diffusers does, after the step of every batch of tiles and before it is
                decoded, with (pipeline, number of the batch, t_l, {"latents": z_0}). It returns a dict, whose
                ``latents`` replace z_0.
            callback_on_step_end_tensor_inputs: ``latents`` or nothing.

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
        step: Any = self.one_step
        if callback_on_step_end is not None:
            changed = latents_callback(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
            step = partial(step, callback=changed)
        how = Settings(options, batch_size, with_bar(self.progress_bar, progress), step)
        lrs = io.as_tensors(image)
        if not lrs:
            raise InputError("image holds no image; pass one or more")
        try:
            images = [io.as_output(self.upscale_tensor(lr, how), output_type) for lr in lrs]
        finally:
            self.maybe_free_model_hooks()
        result = io.stacked(images)
        return ImagePipelineOutput(images=result) if return_dict else (result,)

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
        saved.check_free(folder, type(self).__name__)
        folder.mkdir(parents=True, exist_ok=True)  # diffusers only logs that it cannot be made
        to_hub = options.pop("push_to_hub", False)
        super().save_pretrained(str(folder), **options)
        for name in (PROMPT_FILE, CONFIG_FILE):  # of an older version; they would be read first
            (folder / name).unlink(missing_ok=True)
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


# diffusers has no registry. It looks for a pipeline's class in its own namespace, and for the package of a component
# on the Hub among its pipelines.
diffusers.FluxSRPipeline = FluxSRPipeline
diffusers.pipelines.fluxsr = sys.modules["fluxsr"]

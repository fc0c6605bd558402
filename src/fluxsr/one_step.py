"""Inference: image -> LR latent -> one step -> HR image, in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from fluxsr import flow
from fluxsr.backbones import latents
from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.memory import Plan
from fluxsr.backbones.precision import in_float32
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import InputError
from fluxsr.extensions.guard import Guard
from fluxsr.imaging import io, resize
from fluxsr.imaging.color.fix import fix_colors_
from fluxsr.imaging.extended import LEAST_SIDE, Extended
from fluxsr.imaging.mask import Mask
from fluxsr.imaging.settings import Settings, checked_count
from fluxsr.imaging.tiling import bands
from fluxsr.imaging.tiling.plan import TilingPlan, rows_with_fallback, stream_with_fallback


class OneStep:
    """The part of ``FluxSRPipeline`` that works on tensors; the class has the components and settings."""

    transformer: Any
    vae: Any
    prompt: Any
    adapter_config: AdapterConfig
    _execution_device: torch.device
    sources: tuple[str, str] = ("", "")  # see Backbone
    _planned: tuple[Plan, tuple[torch.dtype, str]] | None = None

    @property
    def plan(self) -> Plan:
        """How the model runs; it follows ``to`` and diffusers' offloading."""
        now = (self.transformer.dtype, self._execution_device.type)
        plan, planned_for = self._planned or (Plan(*now, self.adapter_config.tile_size), now)
        if now != planned_for:
            plan = plan.moved(*now)
        self._planned = (plan, now)
        return plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._planned = (plan, (self.transformer.dtype, self._execution_device.type))

    @torch.no_grad()
    def one_step(
        self,
        lr_up: Tensor,
        strength: float = 1.0,
        callback: Callable[[Tensor], Tensor] | None = None,
        exact: bool = False,
    ) -> Tensor:
        """Images in one piece: x_hat = VAE.decode(z_l - strength t_l v(z_l, t_l)) (method.md, 4).

        Args:
            lr_up: (B,3,H,W), RGB in [0,1], sides multiples of ``latents.pixel_multiple``.
            strength: share of the step.
            callback: function that replaces the latents after the step.
            exact: run in float32 what runs in 16 bits.

        Returns:
            (B,3,H,W), float32, about [0,1], on the model's device. Nothing is checked; see ``extensions.guard``.
        """
        if exact:
            with in_float32(self.transformer, self.vae, device=self._execution_device):
                return self.one_step(lr_up, strength, callback)
        config, start = self.adapter_config, latents.restored(self.vae, lr_up.to(self._execution_device))
        (t, guidance), z_l = config.condition, latents.encode(self.vae, start)
        v = velocity(self.transformer, z_l, t, self.prompt, guidance)
        z_0 = flow.one_step(z_l, v, config.t_l, strength)
        return latents.decode_step(self.vae, z_0 if callback is None else callback(z_0), z_l, start)

    @torch.no_grad()
    def upscale_tensor(self, lr: Tensor, settings: Settings) -> Tensor:
        """Enlarge one image in one piece: (1,3,h,w) to (1,3,H,W), float32, about [0,1], on the CPU."""
        size, step, tiling = self._prepared(lr, settings)
        extended = Extended(lr.float().cpu(), size, settings.options.wrap, settings.options.tile_overlap)
        lr_up = resize.bicubic(extended.image, extended.size)  # (1,3,H,W)
        mask = Mask.of(settings.mask, size, settings.options.color_fix)
        skip = mask if extended.size == size else None  # a mask has no margins
        hr, fitted = stream_with_fallback(lr_up, step, tiling, settings.progress, skip)
        self._keep(tiling, fitted)
        hr = extended.cut(fix_colors_(hr, lr_up, settings.options.color_fix))
        return hr if mask is None else mask.blend_(hr, extended.cut(lr_up))

    def upscale_streaming(self, lr: Tensor, settings: Settings) -> tuple[tuple[int, int], Iterator[Tensor]]:
        """Enlarge one image from top to bottom, for results that are larger than the memory.

        If memory runs out before the first rows are finished, smaller tiles are tried, as in ``upscale_tensor``. A
        texture whose edges are joined is computed as a whole, because its first rows depend on its last ones.

        Args:
            lr: (1,3,h,w), RGB in [0,1], on any device.
            settings: any but the colour fix "adain".

        Returns:
            (height, width) of the result, and an iterator of its rows, each (1,3,rows,width), float32, about [0,1], on
            the CPU.

        Raises:
            InputError: an image or a setting that cannot be used.
            ModelError: while rows are read, the model gives values that are not finite, and the guard is off.
            torch.OutOfMemoryError: while rows are read, not even a small tile fits, or others took the memory.
        """
        size, step, tiling = self._prepared(lr, settings)
        if settings.options.wrap or min(lr.shape[-2:]) < LEAST_SIDE:
            return size, (self.upscale_tensor(lr, settings) for _ in range(1))
        enlarged = partial(bands.enlarged, lr.float().cpu(), size, step)
        color_fix = settings.options.color_fix
        mask = Mask.of(settings.mask, size, color_fix)
        start = partial(enlarged, color_fix=color_fix, progress=settings.progress, mask=mask)
        return size, rows_with_fallback(start, size, tiling, partial(self._keep, tiling))

    def _prepared(
        self, lr: Tensor, settings: Settings
    ) -> tuple[tuple[int, int], Callable[[Tensor], Tensor], TilingPlan]:
        """Return the result's size, the model as a function of tiles, and the first tiling to try."""
        options, config = settings.options, self.adapter_config
        size = options.size_of(*io.checked_size(lr))
        strength = config.strength if options.strength is None else options.strength
        tile_size, batch_size = options.tile_size, settings.batch_size
        if tile_size is None:
            tile_size = min(self.plan.tile_size, config.tile_size)
        if batch_size is None:
            batch_size = self.plan.batch_size or (1 if self._execution_device.type == "cpu" else 4)
        batch_size, multiple = checked_count("batch_size", batch_size), latents.tile_multiple(self.vae)
        tiling = TilingPlan(tile_size, batch_size, options.tile_overlap, multiple, self.plan.compiled)
        repairs, exact = settings.repairs if options.guard else None, self.transformer.dtype != torch.float32
        return size, Guard(settings.step or self.one_step, strength, tiling, exact, repairs), tiling

    def _keep(self, tried: TilingPlan, fitted: TilingPlan) -> None:
        """Start the next image with the tiling that fitted, if memory ran out."""
        if fitted != tried:
            self.plan = replace(self.plan, tile_size=fitted.tile_size, batch_size=fitted.batch_size)


def latents_callback(pipeline: Any, callback: Callable[..., Any], names: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """Return diffusers' ``callback_on_step_end`` as a function of the latents, which it may replace.

    Args:
        names: diffusers' ``callback_on_step_end_tensor_inputs``.

    Raises:
        InputError: a tensor other than the latents is named.
    """
    names = getattr(callback, "tensor_inputs", names)
    if unknown := set(names) - {"latents"}:
        raise InputError(f"callback_on_step_end_tensor_inputs names {min(unknown)}; the only tensor is latents")
    number = count()

    def changed(z_0: Tensor) -> Tensor:
        tensors = dict.fromkeys(names, z_0)
        return (callback(pipeline, next(number), pipeline.config.t_l, tensors) or {}).get("latents", z_0)

    return changed

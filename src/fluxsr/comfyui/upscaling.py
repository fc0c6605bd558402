"""Upscale with ComfyUI's own model and autoencoder, including all patches that its loaders applied.

All tiles are encoded, then stepped, then decoded. If memory is short, ComfyUI therefore swaps model and autoencoder
once, not once per tile. The latents in between have a twelfth of the size of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from comfy import model_management
from comfy.model_sampling import CONST
from comfy.samplers import CFGGuider, Sampler
from comfy.utils import ProgressBar
from torch import Tensor

from fluxsr import flow
from fluxsr.comfyui.adapters import config_in
from fluxsr.errors import InputError, ModelError
from fluxsr.imaging import resize
from fluxsr.imaging.color.fix import fix_colors_
from fluxsr.imaging.settings import checked_count
from fluxsr.imaging.tiling import tiles
from fluxsr.options import UpscaleOptions

_DEFAULT = UpscaleOptions()


class OneStep(Sampler):
    """FluxSR's step as a ComfyUI sampler. It starts at the latent itself: no noise is added.

    Args:
        t_l: time at which the latent enters. The sigma that the model is asked at is t_l as training saw it.
        strength: share of the step.
    """

    def __init__(self, t_l: float, strength: float) -> None:
        self.t_l, self.strength = t_l, strength

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Return clean latents for latents (B,C,h,w), shifted and scaled, at sigmas[0]; the signature is ComfyUI's."""
        times = sigmas[:1].expand(len(latent_image))
        denoised = model_wrap(latent_image, times, **extra_args)
        velocity = (latent_image - denoised) / float(sigmas[0])  # ComfyUI's flow models give x - sigma v
        return flow.one_step(latent_image, velocity, self.t_l, self.strength)


@torch.no_grad()  # ComfyUI's server has switched gradients off already, a script may not
def upscale(
    model: Any,
    vae: Any,
    conditioning: Any,
    images: Tensor,
    scale: float = _DEFAULT.scale,
    *,
    batch_size: int = 1,
    **chosen: Any,
) -> Tensor:
    """Upscale images (B,h,w,3), RGB in [0,1], to (B,H,W,3), float32 in [0,1]; other channels are ignored.

    Args:
        model: ComfyUI's MODEL, a FLUX with the adapter's LoRA.
        vae: ComfyUI's VAE of FLUX.
        conditioning: result of ``adapters.conditioning``, with the adapter's settings.
        images: the images.
        batch_size: tiles per call of model and autoencoder.
        scale, chosen: options of ``fluxsr.options.UpscaleOptions``.

    Raises:
        InputError: the inputs do not fit each other, or an argument cannot be used.
        ModelError: the model returns values that are not finite.
    """
    check(model, vae)
    options, config = UpscaleOptions(scale=scale, **chosen), config_in(conditioning)
    strength = config.strength if options.strength is None else options.strength
    tile_size = options.tile_size or config.tile_size
    checked_count("batch_size", batch_size)
    lr = images[..., :3].movedim(-1, 1).float()  # (B,3,h,w)
    size = resize.scaled_size(lr.shape[-2], lr.shape[-1], options.scale)
    multiple = model.model.diffusion_model.patch_size * vae.spacial_compression_encode()
    grid = tiles.grid(*size, tile_size, options.tile_overlap, multiple)
    ups = [resize.bicubic(image[None], size) for image in lr]  # each (1,3,H,W)
    sampler = OneStep(config.t_l, strength)
    step = stepper(model, conditioning, config.condition[0], sampler)
    advance = progress(3 * len(grid) * len(ups))

    encoded = [advance(vae.encode(batch.movedim(1, -1))) for up in ups for batch in batches(up, grid, batch_size)]
    stepped = iter([advance(step(z)) for z in encoded])

    def decoded(_batch: Tensor) -> Tensor:
        return advance(vae.decode(next(stepped))).movedim(-1, 1).float()

    results = [
        fix_colors_(tiles.stream(up, decoded, grid, batch_size=batch_size), up, options.color_fix).clamp_(0, 1)
        for up in ups
    ]
    return torch.cat(results).movedim(1, -1)


def check(model: Any, vae: Any) -> None:
    """Raise an InputError if model or autoencoder is not FLUX's. Others would fail later, or not fail."""
    name = type(model.model).__name__
    if not isinstance(model.model.model_sampling, CONST):
        raise InputError(f"model is {name}, which is no flow model; FluxSR adapters are for FLUX")
    wanted = model.model.latent_format.latent_channels
    if vae.latent_channels != wanted:
        raise InputError(
            f"vae has {vae.latent_channels} latent channels, the model {wanted}; load the autoencoder of this FLUX"
        )


def stepper(model: Any, conditioning: Any, t: float, sampler: OneStep) -> Callable[[Tensor], Tensor]:
    """Return the step as a function from and to latents (B,C,h,w) of the autoencoder.

    ComfyUI's guider loads the model as far as it fits, applies patches, and shifts and scales latents.
    """
    guider = CFGGuider(model)
    guider.inner_set_conds({"positive": conditioning})  # no negative, because cfg 1 ignores it
    sigmas = torch.tensor([t, 0.0])

    def step(z: Tensor) -> Tensor:
        z = z.float()  # newer versions of ComfyUI may keep latents in half precision
        clean = guider.sample(torch.zeros_like(z), z, sampler, sigmas, disable_pbar=True, seed=0)
        if not clean.isfinite().all():
            raise ModelError("the model returned values that are not finite; load it with another weight_dtype")
        return clean

    return step


def batches(up: Tensor, grid: tiles.Grid, batch_size: int) -> Iterator[Tensor]:
    """Yield batches of tiles of an image (1,3,H,W), in the order of ``tiles.stream``."""
    places = grid.places()
    for first in range(0, len(places), batch_size):
        yield torch.cat([grid.cut(up, *place) for place in places[first : first + batch_size]])


def progress(total: int) -> Callable[[Tensor], Tensor]:
    """Return a function that advances ComfyUI's progress bar by a batch, and raises if the user interrupted."""
    bar = ProgressBar(total)

    def advance(batch: Tensor) -> Tensor:
        model_management.throw_exception_if_processing_interrupted()
        bar.update(len(batch))
        return batch

    return advance

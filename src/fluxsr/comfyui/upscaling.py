"""Upscale with ComfyUI's own model and autoencoder, including all patches that its loaders applied.

All tiles are encoded, then stepped, then decoded. If memory is short, ComfyUI therefore swaps model and autoencoder
once, not once per tile. The latents in between have a twelfth of the size of the pixels.
"""

from __future__ import annotations

import logging
from collections import Counter
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
from fluxsr.errors import InputError
from fluxsr.extensions.guard import Guard, repair_notes
from fluxsr.imaging import resize
from fluxsr.imaging.color.fix import fix_colors_
from fluxsr.imaging.extended import Extended
from fluxsr.imaging.mask import Mask, as_masks
from fluxsr.imaging.settings import checked_count
from fluxsr.imaging.tiling import tiles
from fluxsr.imaging.tiling.plan import TilingPlan
from fluxsr.options import UpscaleOptions

log = logging.getLogger(__name__)


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
    scale: float | None = None,
    *,
    batch_size: int = 1,
    mask: Tensor | None = None,
    **chosen: Any,
) -> Tensor:
    """Upscale images (B,h,w,3), RGB in [0,1], to (B,H,W,3), float32 in [0,1]; other channels are ignored.

    Args:
        model: ComfyUI's MODEL, a FLUX with the adapter's LoRA.
        vae: ComfyUI's VAE of FLUX.
        conditioning: result of ``adapters.conditioning``, with the adapter's settings.
        images: the images.
        batch_size: tiles per call of model and autoencoder.
        mask: ComfyUI's MASK (B,h,w), one for all images or one for each; see imaging/mask.py.
        scale, chosen: options of ``fluxsr.options.UpscaleOptions``.

    Raises:
        InputError: the inputs do not fit each other, or an argument cannot be used.
        ModelError: the model returns values that are not finite, and the guard is off.
    """
    check(model, vae)
    options, config = UpscaleOptions(scale=scale, **chosen), config_in(conditioning)
    strength = config.strength if options.strength is None else options.strength
    tile_size = options.tile_size or config.tile_size
    checked_count("batch_size", batch_size)
    lr = images[..., :3].movedim(-1, 1).float()  # (B,3,h,w)
    size = options.size_of(*lr.shape[-2:])
    multiple = model.model.diffusion_model.patch_size * vae.spacial_compression_encode()
    tiling = TilingPlan(tile_size, batch_size, options.tile_overlap, multiple)
    extended = [Extended(image[None], size, options.wrap, options.tile_overlap) for image in lr]
    grid = tiling.grid(*extended[0].size)
    ups = [resize.bicubic(one.image, one.size) for one in extended]  # each (1,3,H,W)
    masks = [Mask.of(one, size, options.color_fix) for one in as_masks(mask, len(ups))]
    skips = masks if extended[0].size == size else [None] * len(ups)  # a mask has no margins
    step = stepper(model, conditioning, config.condition[0], OneStep(config.t_l, strength))
    advance = progress(3 * len(grid) * len(ups))

    def decoded(z: Tensor) -> Tensor:
        return vae.decode(z).movedim(-1, 1).float()

    def whole(lr_up: Tensor, strength: float, *, exact: bool = False) -> Tensor:
        return decoded(step(vae.encode(lr_up.movedim(1, -1))))

    cut = (batch for up, one in zip(ups, skips, strict=True) for batch in batches(up, grid, batch_size, one))
    encoded = [advance(vae.encode(batch.movedim(1, -1))) for batch in cut]
    stepped = iter([advance(step(z)) for z in encoded])
    repairs = Counter[tuple[str, str]]()
    guard = Guard(whole, strength, tiling, False, repairs if options.guard else None)  # ComfyUI chooses the format

    def finished(batch: Tensor) -> Tensor:
        return guard.checked(advance(decoded(next(stepped))), batch)

    results = []
    for one, up, weights, skip in zip(extended, ups, masks, skips, strict=True):
        hr = tiles.stream(up, finished, grid, batch_size=batch_size, mask=skip)
        hr = one.cut(fix_colors_(hr, up, options.color_fix)).clamp_(0, 1)
        results.append(hr if weights is None else weights.blend_(hr, one.cut(up)))
    for note in repair_notes(repairs):
        log.warning("the result %s", note)
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
        return guider.sample(torch.zeros_like(z), z, sampler, sigmas, disable_pbar=True, seed=0)

    return step


def batches(up: Tensor, grid: tiles.Grid, batch_size: int, mask: Mask | None) -> Iterator[Tensor]:
    """Yield the batches of tiles of an image (1,3,H,W) that ``tiles.stream`` runs the model on, in its order."""
    places = grid.places()
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        if mask is None or mask.touches(grid, batch):
            yield torch.cat([grid.cut(up, *place) for place in batch])


def progress(total: int) -> Callable[[Tensor], Tensor]:
    """Return a function that advances ComfyUI's progress bar by a batch, and raises if the user interrupted."""
    bar = ProgressBar(total)

    def advance(batch: Tensor) -> Tensor:
        model_management.throw_exception_if_processing_interrupted()
        bar.update(len(batch))
        return batch

    return advance

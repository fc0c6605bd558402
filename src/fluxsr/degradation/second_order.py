"""The second-order degradation of Real-ESRGAN (arXiv 2107.10833): HR photograph -> LR photograph.

Twice blur, resize, noise, JPEG; the second time the resize goes to the LR size and a sinc filter
adds ringing before or after the last JPEG. Every sample has kernels, noise and JPEG quality of its
own.

Resizing makes images of different sizes, which cannot share a batch. The batch is therefore cut
into runs of neighbours; a group shares its resize factors and modes and the order of the last two
steps, and is processed as one batch. In the published code the whole batch shares them (and the
choices of noise and second blur, which are per sample here), and a queue of 180 samples mixes
batches afterwards.

Groups do not know each other. `degrade` cuts the groups itself; `degrade_samples` takes them from
the caller, each with its own generator, so that several processes make the batch that one would.
docs/degradation.md tells where this differs from the published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxsr.degradation.draws import choose, happens, spread, uniform, whole_number
from fluxsr.degradation.jpeg import jpeg
from fluxsr.degradation.kernels import draw_blur, draw_sinc, filter_images
from fluxsr.degradation.noise import add_gaussian, add_poisson
from fluxsr.degradation.settings import DegradationSettings, StageSettings
from fluxsr.errors import InputError


def degrade(hr: Tensor, settings: DegradationSettings, generator: torch.Generator) -> Tensor:
    """Make a low-resolution partner of every image.

    The same generator state gives the same bytes (on one device and one torch version). Random
    numbers are drawn on the generator's device: give it the device of the images where speed
    matters.

    Args:
        hr: (B, 3, H, W) RGB in [0, 1]; H and W multiples of settings.scale.
        settings: one of `PRESETS`, or your own.
        generator: the only source of chance.

    Returns:
        lr: float32 (B, 3, H / scale, W / scale) in [0, 1], on the 8-bit grid, on the device of
            `hr`.

    Raises:
        InputError: the shape is not (B, 3, H, W), or a side is not a multiple of the scale.
    """
    _check(hr, settings.scale)
    groups = hr.chunk(settings.resize_groups)
    return _degrade_groups(groups, settings, _children(generator, len(groups)))


def degrade_samples(hr: Tensor, settings: DegradationSettings, generators: Sequence[torch.Generator]) -> Tensor:
    """Make a low-resolution partner of every image, in groups whose generators the caller keys.

    The batch is cut into as many equal runs of neighbours as there are generators. What a group
    becomes depends on its images and its generator alone, and not on the groups beside it: where
    the generators are keyed by (seed, step, number of the group in the whole batch), any number of
    processes that hold whole groups make the same bytes. One generator per image makes every
    sample independent; larger groups are faster.

    Args:
        hr: (B, 3, H, W) RGB in [0, 1]; B a multiple of the number of generators.
        settings: as for `degrade`; `resize_groups` is not used.
        generators: the only source of chance, one for every group.

    Returns:
        lr: as `degrade`.

    Raises:
        InputError: as `degrade`, or B is no multiple of the number of generators.
    """
    _check(hr, settings.scale)
    if not generators or len(hr) % len(generators):
        raise InputError(f"degrade_samples got {len(hr)} images and {len(generators)} generators; give equal groups")
    return _degrade_groups(hr.split(len(hr) // len(generators)), settings, generators)


def _check(hr: Tensor, scale: int) -> None:
    if hr.ndim != 4 or hr.shape[1] != 3 or 0 in hr.shape:
        raise InputError(f"degrade needs images of shape (B, 3, H, W), got {tuple(hr.shape)}")
    if hr.shape[-2] % scale or hr.shape[-1] % scale:
        raise InputError(
            f"degrade by {scale} needs sides that are multiples of {scale}, "
            f"got {hr.shape[-2]}x{hr.shape[-1]}: crop the image first"
        )


def _children(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """A generator for each group. Shot noise draws more numbers for some pixels than for others:
    on one generator, the images of a group would decide what the next group draws."""
    if count == 1:
        return [generator]
    seeds = torch.randint(2**62, (count,), generator=generator, device=generator.device).tolist()
    return [torch.Generator(generator.device).manual_seed(seed) for seed in seeds]


@torch.no_grad()
def _degrade_groups(
    groups: Sequence[Tensor], settings: DegradationSettings, generators: Sequence[torch.Generator]
) -> Tensor:
    return torch.cat([_degrade_group(g.float(), settings, c) for g, c in zip(groups, generators, strict=True)])


def _degrade_group(hr: Tensor, settings: DegradationSettings, generator: torch.Generator) -> Tensor:
    height, width = hr.shape[-2:]
    small = (height // settings.scale, width // settings.scale)
    images = _stage(hr, (height, width), settings.first, settings, generator)
    images = _compress(images, settings.first, generator)
    images = _stage(images, small, settings.second, settings, generator)
    if bool(happens(1, settings.sinc_before_jpeg_prob, generator)):
        images = _ring(images, small, settings, generator)
        images = _compress(images, settings.second, generator)
    else:
        images = _compress(images, settings.second, generator)
        images = _ring(images, small, settings, generator)
    return (images.clamp(0, 1) * 255).round() / 255


def _stage(
    images: Tensor,
    target: tuple[int, int],
    stage: StageSettings,
    settings: DegradationSettings,
    generator: torch.Generator,
) -> Tensor:
    """Blur, resize to `target` times a random factor, add noise."""
    count = len(images)
    kernels = draw_blur(
        count,
        stage.blur_sigma,
        stage.blur_shapes,
        stage.blur_sinc_prob,
        stage.generalized_beta,
        stage.plateau_beta,
        generator,
    )
    chosen = happens(count, stage.blur_prob, generator)
    images = _filter_chosen(images, kernels, chosen)
    factor = _resize_factor(stage, generator)
    size = (max(1, round(target[0] * factor)), max(1, round(target[1] * factor)))
    images = _resize(images, size, settings, generator)
    return _add_noise(images, stage, generator)


def _filter_chosen(images: Tensor, kernels: Tensor, chosen: Tensor) -> Tensor:
    chosen = chosen.to(images.device)
    if not chosen.any():
        return images
    out = images.clone()
    out[chosen] = filter_images(images[chosen], kernels.to(images)[chosen])
    return out


def _resize_factor(stage: StageSettings, generator: torch.Generator) -> float:
    """One factor for a group: above 1, below 1, or 1."""
    direction = int(choose(1, stage.resize_prob, generator))
    low, high = stage.resize_range
    up = float(uniform(1, (1.0, high), generator))
    down = float(uniform(1, (low, 1.0), generator))
    return (up, down, 1.0)[direction]


def _resize(
    images: Tensor,
    size: tuple[int, int],
    settings: DegradationSettings,
    generator: torch.Generator,
) -> Tensor:
    """Resize a group by a mode drawn for it; nothing is done where the size is right already."""
    drawn = int(choose(1, [1.0] * len(settings.resize_modes), generator))
    if tuple(images.shape[-2:]) == size:
        return images
    mode = settings.resize_modes[drawn]
    if mode == "area":
        return F.interpolate(images, size=size, mode=mode)
    return F.interpolate(images, size=size, mode=mode, align_corners=False, antialias=settings.antialias)


def _add_noise(images: Tensor, stage: StageSettings, generator: torch.Generator) -> Tensor:
    """Gaussian or Poisson noise for the samples that get any."""
    count, device = len(images), images.device
    noisy = happens(count, stage.noise_prob, generator)
    gaussian = noisy & happens(count, stage.gaussian_prob, generator)
    poisson = (noisy & ~gaussian).to(device)
    grey = happens(count, stage.grey_prob, generator).to(device)
    sigma = uniform(count, stage.gaussian_sigma, generator)
    scale = uniform(count, stage.poisson_scale, generator).to(device)
    gaussian = gaussian.to(device)
    if gaussian.any():
        drawn = add_gaussian(images, sigma.to(device), grey, generator)
        images = torch.where(spread(gaussian), drawn, images)
    if poisson.any():
        drawn = add_poisson(images[poisson], scale[poisson], grey[poisson], generator)
        images = images.index_copy(0, poisson.nonzero().squeeze(1), drawn)
    return images


def _compress(images: Tensor, stage: StageSettings, generator: torch.Generator) -> Tensor:
    """JPEG for the samples that get it."""
    chosen = happens(len(images), stage.jpeg_prob, generator).to(images.device)
    quality = whole_number(len(images), stage.jpeg_quality, generator).to(images.device)
    if not chosen.any():
        return images
    return images.index_copy(0, chosen.nonzero().squeeze(1), jpeg(images[chosen], quality[chosen]))


def _ring(
    images: Tensor,
    size: tuple[int, int],
    settings: DegradationSettings,
    generator: torch.Generator,
) -> Tensor:
    """Resize to the LR size, then a sinc filter for the samples that get one."""
    images = _resize(images, size, settings, generator)
    kernels = draw_sinc(len(images), generator)
    chosen = happens(len(images), settings.final_sinc_prob, generator)
    return _filter_chosen(images, kernels, chosen)

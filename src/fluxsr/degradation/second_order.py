"""Second-order degradation of Real-ESRGAN (arXiv 2107.10833): HR photographs to LR photographs.

Blur, resize, noise and JPEG are applied twice. The second round resizes to the LR size, and a sinc filter adds ringing
before or after the last JPEG. Kernels, noise and JPEG quality are drawn separately for every sample.

Images of different sizes cannot share a batch. The batch is therefore divided into groups of consecutive samples; a
group shares its resize factors and modes and the order of the last two steps. In the published code the whole batch
shares these (and the choices of noise and second blur, which are per sample here), and a queue of 180 samples mixes
batches afterwards.

Groups are independent. `degrade` forms the groups itself. `degrade_samples` takes one generator per group from the
caller, so that several processes reproduce the batch of one. docs/degradation.md lists the differences from the
published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxsr.degradation.draws import choose, expand_dims, happens, uniform, whole_number
from fluxsr.degradation.jpeg import jpeg
from fluxsr.degradation.kernels import draw_blur, draw_sinc, filter_images
from fluxsr.degradation.noise import add_gaussian, add_poisson
from fluxsr.degradation.settings import DegradationSettings, StageSettings
from fluxsr.errors import InputError


def degrade(hr: Tensor, settings: DegradationSettings, generator: torch.Generator) -> Tensor:
    """Degrade every image to low resolution.

    The same generator state gives the same bytes (on one device and one torch version). Random numbers are drawn on
    the generator's device, so a generator on the device of the images is fastest.

    Args:
        hr: (B, 3, H, W) RGB in [0, 1]; H and W multiples of settings.scale.
        settings: one of `PRESETS`, or custom settings.
        generator: the only source of randomness.

    Returns:
        lr: float32 (B, 3, H / scale, W / scale) in [0, 1], on the 8-bit grid, on the device of `hr`.

    Raises:
        InputError: the shape is not (B, 3, H, W), or a side is not a multiple of the scale.
    """
    _check(hr, settings.scale)
    groups = hr.chunk(settings.resize_groups)
    return _degrade_groups(groups, settings, _children(generator, len(groups)))


def degrade_samples(hr: Tensor, settings: DegradationSettings, generators: Sequence[torch.Generator]) -> Tensor:
    """Degrade every image to low resolution, in groups that each use one of the caller's generators.

    The batch is divided into as many equal groups of consecutive images as there are generators. The result of a group
    depends only on its images and its generator. If generators are keyed by (seed, step, index of the group in the
    whole batch), any number of processes that hold whole groups give the same bytes. One generator per image makes
    every sample independent; larger groups are faster.

    Args:
        hr: (B, 3, H, W) RGB in [0, 1]; B a multiple of the number of generators.
        settings: as for `degrade`; `resize_groups` is not used.
        generators: the only source of randomness, one for every group.

    Returns:
        lr: as `degrade`.

    Raises:
        InputError: as `degrade`, or B is not a multiple of the number of generators.
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
    """Return one generator for each group.

    The number of draws for shot noise depends on the pixels. With a shared generator, the images of one group would
    change the draws of the next.
    """
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
    """Blur, resize to `target` times a random factor, and add noise."""
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
    """Draw one resize factor for a group: above 1, below 1, or 1."""
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
    """Resize a group with a random mode; no-op if it already has the size."""
    drawn = int(choose(1, [1.0] * len(settings.resize_modes), generator))
    if tuple(images.shape[-2:]) == size:
        return images
    mode = settings.resize_modes[drawn]
    if mode == "area":
        return F.interpolate(images, size=size, mode=mode)
    return F.interpolate(images, size=size, mode=mode, align_corners=False, antialias=settings.antialias)


def _add_noise(images: Tensor, stage: StageSettings, generator: torch.Generator) -> Tensor:
    """Add Gaussian or Poisson noise to a random selection of samples."""
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
        images = torch.where(expand_dims(gaussian), drawn, images)
    if poisson.any():
        drawn = add_poisson(images[poisson], scale[poisson], grey[poisson], generator)
        images = images.index_copy(0, poisson.nonzero().squeeze(1), drawn)
    return images


def _compress(images: Tensor, stage: StageSettings, generator: torch.Generator) -> Tensor:
    """Apply JPEG to a random selection of samples."""
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
    """Resize to the LR size, then apply a sinc filter to a random selection of samples."""
    images = _resize(images, size, settings, generator)
    kernels = draw_sinc(len(images), generator)
    chosen = happens(len(images), settings.final_sinc_prob, generator)
    return _filter_chosen(images, kernels, chosen)

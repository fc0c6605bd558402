"""Make pairs from photographs: integrate the teacher's flow backwards to the noise of each photograph.

Inversion integrates dz/dt = v from t = 0 to 1. The result is the noise from which the teacher generates the photograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fluxsr.backbones import latents
from fluxsr.errors import InputError
from fluxsr.imaging.photographs import Photograph, list_photographs
from fluxsr.keyed import keyed_noise
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.pair_specs import PairSpec
from fluxsr.pairs.prompts import read_captions, read_prompts
from fluxsr.pairs.store import TeacherPair
from fluxsr.pairs.teacher import Teacher

Box = tuple[int, int, int, int]  # top, left, height, width


def boxes(height: int, width: int, window: int, crop: int) -> list[Box]:
    """Return as many centred squares of ``crop`` pixels as fit into a picture.

    A picture smaller than a crop gives one box of whole windows, and one smaller than a window gives none.

    Args:
        height, width: size of the picture in pixels.
        window: side of a window in pixels.
        crop: side of a crop in pixels, a multiple of ``window``.
    """
    sides = [min(crop, length // window * window) for length in (height, width)]
    if not all(sides):
        return []
    rows, columns = (length // side for length, side in zip((height, width), sides, strict=True))
    top, left = ((n - k * side) // 2 for n, k, side in zip((height, width), (rows, columns), sides, strict=True))
    return [(top + i * sides[0], left + j * sides[1], *sides) for i in range(rows) for j in range(columns)]  # type: ignore[misc]


def invert_specs(config: PairsConfig, latent_pixels: int = 8) -> list[PairSpec]:
    """Return one spec per crop of every photograph, at most ``config.count``; a latent is ``latent_pixels`` wide.

    Raises:
        InputError: options or photographs that do not fit, or a photograph without a prompt.
    """
    window = latent_pixels * config.window
    if config.crop < 1 or config.crop % window:
        product = f"{latent_pixels} x window {config.window}"
        raise InputError(f"crop is {config.crop}; it must be a multiple of {window} pixels ({product})")
    prompt_of = _prompts(config)
    specs: list[PairSpec] = []
    largest = (0, 0)
    for photo in list_photographs(config.data.shards, config.data.limit):
        size = photo.size()
        largest = max(largest, size, key=min)
        for box in boxes(*size, window, config.crop):
            name = photo.name if box == (0, 0, *size) else f"{photo.name}@{box[0]},{box[1]}"
            specs.append(PairSpec(name, len(specs), config.seed + len(specs), prompt_of(photo.name), photo, box))
            if len(specs) == config.count:
                return specs
    if not specs:
        raise InputError(
            f"the largest photograph has {largest[0]}x{largest[1]} pixels; a window needs {window}x{window}"
        )
    if config.count > len(specs):
        raise InputError(f"count is {config.count}, but there are {len(specs)} crops of photographs to invert")
    return specs


def _prompts(config: PairsConfig) -> Any:
    """Return a function from a photograph's name to its prompt: a JSON object has one for each, other files one."""
    captions = read_captions(config.prompts)
    if captions:

        def prompt_of(name: str) -> str:
            if name not in captions:
                raise InputError(f"{config.prompts} has no prompt for photograph '{name}'")
            return captions[name]

        return prompt_of
    texts = read_prompts(config.prompts, 1, config.seed) if config.prompts else [""]
    if len(texts) > 1 or config.prompts == "composer":
        raise InputError(
            f"prompts is {config.prompts}; inversion takes one prompt, or a JSON object from names to prompts"
        )
    return lambda _name: texts[0]


@torch.no_grad()
def invert_pairs(teacher: Teacher, vae: Any, specs: Sequence[PairSpec]) -> list[TeacherPair]:
    """Invert the photographs of some specs, batched by size, and measure round trips as ``config.check`` asks."""
    pairs: list[TeacherPair] = []
    for _, group in groupby(specs, key=lambda spec: spec.box and spec.box[2:]):
        alike = list(group)
        # Rounded to float16 first, so that the teacher starts from the same values that the store keeps.
        z_0 = torch.cat([encode_crop(vae, spec, teacher.device) for spec in alike]).half().float()
        prompts = [spec.prompt for spec in alike]
        eps = teacher.invert(z_0, prompts).half()
        check = teacher.config.check
        wanted = [k for k, spec in enumerate(alike) if not check or spec.index < check]
        errors: dict[int, tuple[float, float]] = {}
        if wanted:
            fresh = torch.stack([keyed_noise(eps.shape[1:], alike[k].seed) for k in wanted])
            found = round_trip(teacher, z_0[wanted], eps[wanted], fresh, [prompts[k] for k in wanted])
            errors = dict(zip(wanted, found, strict=True))
        for k, spec in enumerate(alike):
            photo = spec.photo.name if spec.photo else ""
            pairs.append(TeacherPair(spec.name, z_0[k], eps[k], spec.prompt, None, photo, spec.box, errors.get(k)))
    return pairs


def round_trip(
    teacher: Teacher, z_0: Tensor, eps: Tensor, fresh: Tensor, prompts: Sequence[str]
) -> list[tuple[float, float]]:
    """Return, per image, the root mean square errors of sampling from the inverted noise and from fresh noise.

    Errors are in units of the latent. The first must be far smaller, or the inversion has failed.

    Args:
        z_0, eps: clean latents and their inverted noise (B,C,h,w).
        fresh: Gaussian noise of the same shape, as a control.
    """
    ends = (teacher.sample(start, prompts) for start in (eps, fresh))
    own, control = ((end - z_0).square().mean((1, 2, 3)).sqrt().tolist() for end in ends)
    return [(round(a, 4), round(b, 4)) for a, b in zip(own, control, strict=True)]


def encode_crop(vae: Any, spec: PairSpec, device: torch.device) -> Tensor:
    """Encode a spec's crop of its photograph to a latent (1,C,h,w) on the CPU."""
    if spec.photo is None or spec.box is None:
        raise ValueError(f"spec {spec.name} has no photograph")
    top, left, height, width = spec.box
    image = _read(spec.photo)[None, :, top : top + height, left : left + width].to(device).float() / 255
    return latents.encode(vae, image.contiguous(memory_format=torch.channels_last)).cpu()


@lru_cache(maxsize=1)  # crops of one photograph are consecutive
def _read(photo: Photograph) -> Tensor:
    return photo.read()

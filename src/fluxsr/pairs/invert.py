"""Photographs to pairs: the teacher's flow integrated backwards, so that a photograph gets its own noise.

Inversion integrates dz/dt = v from t = 0 to 1: the noise from which this very teacher would paint the photograph.
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
from fluxsr.pairs.orders import Order
from fluxsr.pairs.prompts import read_captions, read_prompts
from fluxsr.pairs.store import TeacherPair
from fluxsr.pairs.teacher import Teacher

Box = tuple[int, int, int, int]  # top, left, height, width


def boxes(height: int, width: int, window: int, crop: int) -> list[Box]:
    """Squares of ``crop`` pixels, as many as fit, in the middle of a picture; of a smaller picture its whole windows.

    Args:
        window: side of a window in pixels; no box where a picture has less than one.
        crop: a multiple of it.
    """
    sides = [min(crop, length // window * window) for length in (height, width)]
    if not all(sides):
        return []
    rows, columns = (length // side for length, side in zip((height, width), sides, strict=True))
    top, left = ((n - k * side) // 2 for n, k, side in zip((height, width), (rows, columns), sides, strict=True))
    return [(top + i * sides[0], left + j * sides[1], *sides) for i in range(rows) for j in range(columns)]  # type: ignore[misc]


def invert_orders(config: PairsConfig, latent_pixels: int = 8) -> list[Order]:
    """One order per crop of every photograph, at most ``count``; a latent is ``latent_pixels`` wide.

    Raises:
        InputError: options or photographs that do not fit, or a photograph without its prompt.
    """
    window = latent_pixels * config.window
    if config.crop < 1 or config.crop % window:
        product = f"{latent_pixels} x window {config.window}"
        raise InputError(f"crop is {config.crop}; it must be a multiple of {window} pixels ({product})")
    prompt_of = _prompts(config)
    orders: list[Order] = []
    largest = (0, 0)
    for photo in list_photographs(config.data.shards, config.data.limit):
        size = photo.size()
        largest = max(largest, size, key=min)
        for box in boxes(*size, window, config.crop):
            name = photo.name if box == (0, 0, *size) else f"{photo.name}@{box[0]},{box[1]}"
            orders.append(Order(name, len(orders), config.seed + len(orders), prompt_of(photo.name), photo, box))
            if len(orders) == config.count:
                return orders
    if not orders:
        raise InputError(
            f"the largest photograph has {largest[0]}x{largest[1]} pixels; a window takes {window}x{window}"
        )
    if config.count > len(orders):
        raise InputError(f"count is {config.count}, but there are {len(orders)} crops of photographs to invert")
    return orders


def _prompts(config: PairsConfig) -> Any:
    """A photograph's name to its prompt: a JSON object has one for each, another file one for all."""
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
def invert_pairs(teacher: Teacher, vae: Any, orders: Sequence[Order]) -> list[TeacherPair]:
    """The pairs of some orders, those of one size together, with their round trips where the options want them."""
    pairs: list[TeacherPair] = []
    for _, group in groupby(orders, key=lambda order: order.box and order.box[2:]):
        alike = list(group)
        # float16 first: the teacher starts from the very values that the store keeps
        z_0 = torch.cat([encode_crop(vae, order, teacher.device) for order in alike]).half().float()
        prompts = [order.prompt for order in alike]
        eps = teacher.invert(z_0, prompts).half()
        check = teacher.config.check
        wanted = [k for k, order in enumerate(alike) if not check or order.index < check]
        errors: dict[int, tuple[float, float]] = {}
        if wanted:
            fresh = torch.stack([keyed_noise(eps.shape[1:], alike[k].seed) for k in wanted])
            found = round_trip(teacher, z_0[wanted], eps[wanted], fresh, [prompts[k] for k in wanted])
            errors = dict(zip(wanted, found, strict=True))
        for k, order in enumerate(alike):
            photo = order.photo.name if order.photo else ""
            pairs.append(TeacherPair(order.name, z_0[k], eps[k], order.prompt, None, photo, order.box, errors.get(k)))
    return pairs


def round_trip(
    teacher: Teacher, z_0: Tensor, eps: Tensor, fresh: Tensor, prompts: Sequence[str]
) -> list[tuple[float, float]]:
    """Root mean square error of sampling back from the inverted noise, and from fresh Gaussian noise, per image.

    In units of the latent. The first must be the smaller by far, else the pairs carry nothing of the teacher.

    Args:
        z_0, eps: clean latents and their inverted noise (B,C,h,w).
        fresh: Gaussian noise of the same shape, the control.
    """
    ends = (teacher.sample(start, prompts) for start in (eps, fresh))
    own, control = ((end - z_0).square().mean((1, 2, 3)).sqrt().tolist() for end in ends)
    return [(round(a, 4), round(b, 4)) for a, b in zip(own, control, strict=True)]


def encode_crop(vae: Any, order: Order, device: torch.device) -> Tensor:
    """The latent (1,C,h,w) of an order's part of its photograph, on the CPU."""
    if order.photo is None or order.box is None:
        raise ValueError(f"order {order.name} has no photograph")
    top, left, height, width = order.box
    image = _read(order.photo)[None, :, top : top + height, left : left + width].to(device).float() / 255
    return latents.encode(vae, image.contiguous(memory_format=torch.channels_last)).cpu()


@lru_cache(maxsize=1)  # the crops of one photograph come one after another
def _read(photo: Photograph) -> Tensor:
    return photo.read()

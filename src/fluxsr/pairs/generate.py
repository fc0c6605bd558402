"""Prompts to pairs: noise drawn from a seed, sampled by the teacher, as the paper makes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fluxsr.errors import InputError
from fluxsr.keyed import keyed_noise
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.orders import Order
from fluxsr.pairs.prompts import read_prompts
from fluxsr.pairs.store import TeacherPair
from fluxsr.pairs.teacher import Teacher


def sample_orders(config: PairsConfig) -> list[Order]:
    """One order per prompt, pair k from seed + k; more pairs than prompts go round them again with other noise.

    Raises:
        InputError: no number of pairs, or prompts that cannot be read.
    """
    if not config.prompts and config.count < 1:
        raise InputError("count is 0; sampling needs the number of pairs to make")
    prompts = read_prompts(config.prompts, config.count, config.seed) if config.prompts else [""]
    seeds = [config.seed + k for k in range(config.count or len(prompts))]
    return [Order(f"seed-{seed}", k, seed, prompts[k % len(prompts)]) for k, seed in enumerate(seeds)]


def sample_pairs(teacher: Teacher, orders: Sequence[Order]) -> list[TeacherPair]:
    """The pairs of some orders. The teacher starts from the very float16 values that the store keeps."""
    shape = (teacher.channels, teacher.config.window, teacher.config.window)
    eps = torch.stack([keyed_noise(shape, order.seed) for order in orders])
    z_0 = teacher.sample(eps, [order.prompt for order in orders]).half()
    return [
        TeacherPair(order.name, clean, noise, order.prompt, order.seed)
        for order, clean, noise in zip(orders, z_0, eps, strict=True)
    ]

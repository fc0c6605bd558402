"""What is to be made: one order per pair, and the shards that a process has to see to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from fluxsr.errors import InputError
from fluxsr.imaging.photographs import Photograph


@dataclass(frozen=True)
class Order:
    """What one pair is to be made from.

    Attributes:
        name: of the pair, unique in its store.
        index: of the pair in its store.
        seed: of its noise: the teacher's where it is sampled, the control's where it is inverted.
        prompt: the teacher's text; empty for a fixed condition.
        photo, box: the photograph and its part (top, left, height, width) in pixels; None where it is sampled.
    """

    name: str
    index: int
    seed: int
    prompt: str = ""
    photo: Photograph | None = None
    box: tuple[int, int, int, int] | None = None


def digest(orders: Sequence[Order]) -> str:
    """A hash of all orders: another list of prompts or photographs is another store."""
    rows = [(order.name, order.seed, order.prompt, order.box) for order in orders]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def place() -> tuple[int, int]:
    """This process's number and the number of processes, as ``accelerate launch`` and torchrun set them.

    Raises:
        InputError: RANK and WORLD_SIZE that contradict each other.
    """
    texts = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        rank, world = map(int, texts)
    except ValueError:
        rank, world = -1, 0
    if not 0 <= rank < world:
        raise InputError(f"RANK is {texts[0]} and WORLD_SIZE {texts[1]}; RANK must count from 0 to WORLD_SIZE - 1")
    return rank, world


def own_device(name: str) -> str:
    """``cuda:LOCAL_RANK`` where a launcher set LOCAL_RANK and the options leave the choice to us."""
    import torch

    local = os.environ.get("LOCAL_RANK")
    if local is None or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{int(local) % torch.cuda.device_count()}"


def shards(count: int, size: int) -> list[range]:
    """The pairs of every shard."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]

"""Specifications of the pairs to make, and their division into shards and among processes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from fluxsr.errors import InputError
from fluxsr.imaging.photographs import Photograph


@dataclass(frozen=True)
class PairSpec:
    """Specification of one pair.

    Attributes:
        name: name of the pair, unique in its store.
        index: index of the pair in its store.
        seed: seed of the teacher's noise (sampling) or of the control noise (inversion).
        prompt: the teacher's prompt; empty for the fixed prompt.
        photo, box: the photograph and its crop (top, left, height, width) in pixels; None for sampled pairs.
    """

    name: str
    index: int
    seed: int
    prompt: str = ""
    photo: Photograph | None = None
    box: tuple[int, int, int, int] | None = None


def digest(specs: Sequence[PairSpec]) -> str:
    """Return a hash of all specs, so that a store detects other prompts or photographs."""
    rows = [(spec.name, spec.seed, spec.prompt, spec.box) for spec in specs]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def rank_and_world_size() -> tuple[int, int]:
    """Return rank and world size from the variables that ``accelerate launch`` and torchrun set.

    Raises:
        InputError: RANK and WORLD_SIZE are invalid.
    """
    texts = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        rank, world = map(int, texts)
    except ValueError:
        rank, world = -1, 0
    if not 0 <= rank < world:
        raise InputError(f"RANK is {texts[0]} and WORLD_SIZE {texts[1]}; RANK must be from 0 to WORLD_SIZE - 1")
    return rank, world


def own_device(name: str) -> str:
    """Return ``cuda:LOCAL_RANK`` if a launcher set LOCAL_RANK and the option names no other device, else the option."""
    import torch

    local = os.environ.get("LOCAL_RANK")
    if local is None or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{int(local) % torch.cuda.device_count()}"


def shards(count: int, size: int) -> list[range]:
    """Return the range of pair indices of every shard."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]

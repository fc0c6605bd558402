"""Prompts for a text-to-image teacher, composed by a seed from the lists of phrases in phrases.json.

The lists cover the content that super-resolution meets: faces, fur, leaves, fabric, bricks, letters, water, food,
night scenes, plain and crowded pictures. Subjects combine with places of their kind, and with any light and camera.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

import torch

from fluxsr.errors import InputError
from fluxsr.keyed import keyed_generator

_PHRASES = json.loads(resources.files("fluxsr.pairs").joinpath("phrases.json").read_text(encoding="utf-8"))
KINDS = {name: (kind["subjects"], kind["places"]) for name, kind in _PHRASES["kinds"].items()}
LIGHT, CAMERA, LOOK = _PHRASES["light"], _PHRASES["camera"], _PHRASES["look"]


def compose(count: int, seed: int) -> list[str]:
    """Return distinct prompts in a fixed order. A longer list of the same seed begins with the shorter one.

    Raises:
        InputError: ``count`` exceeds half of all combinations.
    """
    if count > capacity() // 2:
        raise InputError(f"count is {count}; the composer makes at most {capacity() // 2} prompts; use prompts=FILE")
    generator = keyed_generator(seed, 11)

    def pick(options: Sequence[str]) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    found: dict[str, None] = {}  # keeps the order
    kinds = tuple(KINDS)
    while len(found) < count:
        subjects, places = KINDS[pick(kinds)]
        found[f"a photograph of {pick(subjects)} {pick(places)}, {pick(LIGHT)}, {pick(CAMERA)}, {pick(LOOK)}"] = None
    return list(found)


def capacity() -> int:
    """Return the number of combinations."""
    return (
        sum(len(subjects) * len(places) for subjects, places in KINDS.values()) * len(LIGHT) * len(CAMERA) * len(LOOK)
    )

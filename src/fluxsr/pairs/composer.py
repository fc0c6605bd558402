"""Prompts for a text-to-image teacher, composed by a seed from the lists of phrases in phrases.json.

They describe the photographs that super-resolution learns from: sharp, deep in focus, well lit and full of texture.
People, text, plants, buildings, interiors, landscapes, animals, food, fabric, things and streets are equally frequent.
A subject combines with a place of its own kind, and the light suits the place: sunlight never falls indoors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

import torch

from fluxsr.errors import InputError
from fluxsr.keyed import keyed_generator

_PHRASES = json.loads(resources.files("fluxsr.pairs").joinpath("phrases.json").read_text(encoding="utf-8"))
# By kind: its subjects, and its places with "indoors" or "outdoors", which decides on the light.
KINDS: dict[str, tuple[list[str], list[tuple[str, str]]]] = {
    name: (kind["subjects"], [(place, where) for where, places in kind["places"].items() for place in places])
    for name, kind in _PHRASES["kinds"].items()
}
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
    while len(found) < count:
        subjects, places = KINDS[pick(tuple(KINDS))]
        place, where = places[int(torch.randint(len(places), (), generator=generator))]
        parts = [f"a photograph of {pick(subjects)} {place}", pick(LIGHT[where]), pick(CAMERA), pick(LOOK)]
        found[", ".join(parts)] = None
    return list(found)


def capacity() -> int:
    """Return the number of combinations."""
    scenes = sum(len(subjects) * len(LIGHT[where]) for subjects, places in KINDS.values() for _, where in places)
    return scenes * len(CAMERA) * len(LOOK)

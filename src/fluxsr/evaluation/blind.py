"""Blind comparison of two methods by people: pairs of crops with hidden sides, and the result of their choices.

A pair is one PNG with both crops at 300 %, side by side, so it can be judged in any image viewer. ``index.html`` shows
the same files in a browser. ``key.json`` tells which side belongs to which method.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.evaluation.comparison import where_methods_differ
from fluxsr.evaluation.folders import check_stems, image_size, list_images, load_image
from fluxsr.imaging.atomic import write_text
from fluxsr.imaging.io import to_pil

PAIRS = 40  # two people judge them in about ten minutes
SIDE = 256  # of a crop, in pixels of the image
ZOOM = 3  # nearest neighbour
GAP = 8  # between the crops, in pixels of the image
SIDES = ("left", "right")
_Z = NormalDist().inv_cdf(0.975)  # of a 95 % interval


@dataclass(frozen=True)
class Preference:
    """Result of a blind comparison.

    Attributes:
        first, second: names of the methods.
        pairs: number of pairs that were judged.
        wins, ties, losses: choices for the first method, for neither, and for the second, of all judges.
        share: mean over pairs of the share of choices for the first method; a tie counts half.
        low, high: bounds of the share's 95 % interval (Wilson, with one trial for each pair).
    """

    first: str
    second: str
    pairs: int
    wins: int
    ties: int
    losses: int
    share: float
    low: float
    high: float

    def line(self) -> str:
        """Return the result as a sentence."""
        return (
            f"{self.first} is preferred to {self.second} in {self.share:.0%} of {self.pairs} pairs, 95 % interval "
            f"{self.low:.0%} to {self.high:.0%} ({self.wins} wins, {self.ties} ties, {self.losses} losses)"
        )


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Return the bounds of Wilson's 95 % interval of a share (Wilson, 1927). Halves are allowed, for ties."""
    share, weight = successes / trials, _Z**2 / trials
    centre, reach = share + weight / 2, _Z * (share * (1 - share) / trials + weight / (4 * trials)) ** 0.5
    return max(0.0, (centre - reach) / (1 + weight)), min(1.0, (centre + reach) / (1 + weight))


def check_unused(folder: Path) -> None:
    """Refuse a folder that holds anything, because a key must belong to all pairs beside it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is in use; name a new folder for the blind comparison")


def write_pairs(
    methods: Mapping[str, Path],
    folder: Path,
    *,
    stems: Sequence[str] | None = None,
    seed: int = 0,
    count: int = PAIRS,
    side: int = SIDE,
) -> Path:
    """Write the pairs of a blind comparison as 001.png, 002.png ..., with ``index.html`` and ``key.json``.

    The seed draws the images, their order and the sides. Each method is on the left in half of the pairs. A crop is
    the square in which the two results differ most.

    Args:
        methods: folders of the two methods, by name.
        folder: folder to write to; it must be new or empty.
        stems: file stems of the images; those of the first folder by default.
        seed: seed of all random choices.
        count: largest number of pairs.
        side: side of a crop in pixels; smaller images give smaller crops.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: there are not two methods, images are missing or differ in size, or the folder is in use.
    """
    if len(methods) != 2:
        raise InputError(f"a blind comparison needs two methods; there are {len(methods)}")
    check_unused(folder)
    paths = [list_images(one) for one in methods.values()]
    stems = list(paths[0] if stems is None else stems)
    for found, one in zip(paths, methods.values(), strict=True):
        check_stems(stems, found, one)
    draw = np.random.default_rng(seed)
    chosen = [stems[index] for index in draw.permutation(len(stems))[:count]]
    for stem in chosen:
        if image_size(paths[0][stem]) != image_size(paths[1][stem]):
            raise InputError(f"{stem}: the two methods' images differ in size")
    on_right = draw.permutation(len(chosen)) % 2  # the first method, in half of the pairs
    folder.mkdir(parents=True, exist_ok=True)
    pairs: dict[str, dict[str, Any]] = {}
    for number, (stem, flip) in enumerate(zip(chosen, on_right, strict=True), 1):
        images = [load_image(found[stem]) for found in paths]
        window = where_methods_differ(stem, images, side)
        crops = [to_pil(window.of(image)) for image in images]
        _panel(crops[::-1] if flip else crops).save(folder / f"{number:03}.png")
        place = {"stem": stem, "top": window.top, "left": window.left, "side": window.side}
        pairs[f"{number:03}"] = {**place, "first": SIDES[flip]}
    first, second = methods
    key = {"first": first, "second": second, "seed": seed, "pairs": pairs}
    write_text(json.dumps(key, indent=1) + "\n", folder / "key.json")
    write_text(_page(key), folder / "index.html")
    return folder / "index.html"


def _panel(crops: Sequence[Image.Image]) -> Image.Image:
    """Return two crops side by side, enlarged."""
    side = crops[0].width
    panel = Image.new("RGB", (2 * side + GAP, side), "white")
    panel.paste(crops[0], (0, 0))
    panel.paste(crops[1], (side + GAP, 0))
    return panel.resize((ZOOM * panel.width, ZOOM * panel.height), Image.Resampling.NEAREST)


def _page(key: Mapping[str, Any]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = resources.files("fluxsr.evaluation").joinpath("blind.html").read_text(encoding="utf-8")
    return environment.from_string(text).render(key=key, gap=GAP, zoom=ZOOM, z=_Z)


def preference(folder: Path, *choices: Path) -> Preference:
    """Return the result of a blind comparison from the judges' choices.

    Judges of the same pair are averaged first, because they saw the same crops.

    Args:
        folder: folder that `write_pairs` made.
        choices: a JSON file for each judge: ``{"001": "left", "002": "tie", ...}``, or one that the page saved.

    Raises:
        InputError: a file cannot be read, names a pair that is not in the key, or has a choice other than left, right
            and tie; or there are no choices.
    """
    key = _read(folder / "key.json")
    scores: dict[str, list[float]] = {}
    for path in choices:
        found = _read(path)
        for number, choice in found.get("choices", found).items():
            if number not in key["pairs"] or choice not in (*SIDES, "tie"):
                raise InputError(f"{path}: pair '{number}' has the choice '{choice}'; expected left, right or tie")
            score = 0.5 if choice == "tie" else float(choice == key["pairs"][number]["first"])
            scores.setdefault(number, []).append(score)
    if not scores:
        raise InputError("there are no choices to count")
    count = Counter(score for row in scores.values() for score in row)
    total = sum(sum(row) / len(row) for row in scores.values())
    counts = (len(scores), count[1.0], count[0.5], count[0.0])
    return Preference(key["first"], key["second"], *counts, total / len(scores), *wilson(total, len(scores)))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} does not hold choices by pair")
    return found

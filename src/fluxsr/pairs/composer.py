"""Prompts for a text-to-image teacher, composed from lists of phrases by a seed.

The lists cover the content that super-resolution meets: faces, fur, leaves, fabric, bricks, letters, water, food,
night scenes, plain and crowded pictures. Subjects combine with places of their kind, and with any light and camera.
"""

from __future__ import annotations

import torch

from fluxsr.errors import InputError
from fluxsr.keyed import keyed_generator

# kind: (subjects, places)
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "people": (
        (
            "an old fisherman with a weathered face", "a laughing girl with freckles",
            "a carpenter with grey stubble", "a dancer tying her shoes", "a violinist with closed eyes",
            "a boy with muddy knees", "twin sisters in raincoats", "a baker dusted with flour",
            "a woman with braided hair and silver earrings", "a cyclist fixing a chain",
            "a grandmother knitting", "a bearded man in a wool cap", "a student asleep over a book",
            "a nurse drinking tea",
        ),
        (
            "on a harbour wall", "in a crowded tram", "by a kitchen window", "in a workshop full of tools",
            "in front of a brick wall", "on a snowy street", "in a wheat field", "at a market stall",
            "on a wooden staircase", "in a library",
        ),
    ),
    "animals": (
        (
            "a red fox", "a tabby cat", "a shaggy sheepdog", "an owl with ruffled feathers",
            "a kingfisher with a fish", "a horse with a wet mane", "a hedgehog", "a flock of starlings",
            "a highland cow", "a chameleon on a twig", "a swan shaking its wings", "two squirrels",
            "a jumping spider", "a school of silver fish",
        ),
        (
            "in tall grass", "on a mossy log", "at the edge of a pond", "in fresh snow", "on a stone wall",
            "among ferns", "in a barn with straw", "on a pebble beach", "under an apple tree",
            "in morning mist",
        ),
    ),
    "plants": (
        (
            "dew on a spider web", "a dandelion gone to seed", "the bark of an old oak", "a bed of tulips",
            "lichen on rock", "a fern unrolling", "frost on a fallen leaf", "a sunflower full of bees",
            "cactus spines", "a branch of cherry blossom", "mushrooms in a ring", "ivy over a gate",
            "a bowl of succulents", "reeds in the wind",
        ),
        (
            "seen from very near", "in a botanical garden", "on a forest floor", "on a balcony",
            "beside a path", "in a greenhouse", "against a dark background", "in a meadow", "after the rain",
            "on a cliff",
        ),
    ),
    "buildings": (
        (
            "a half-timbered house", "a glass office tower", "a spiral staircase", "a tiled facade",
            "a suspension bridge", "a lighthouse", "a ruined abbey", "a row of narrow brick houses",
            "a railway station hall", "a mosque courtyard", "a concrete car park", "a wooden temple roof",
            "a windmill", "fire escapes on a back wall",
        ),
        (
            "seen from the street", "seen from below", "with its reflection in a puddle", "behind bare trees",
            "with scaffolding", "on a hill", "across a canal", "at the end of an alley",
            "with people passing by", "from a rooftop",
        ),
    ),
    "landscapes": (
        (
            "a mountain lake", "terraced rice fields", "sand dunes with ripples",
            "a waterfall between black rocks", "a rocky coast with breaking waves", "a birch forest",
            "a glacier with crevasses", "a winding river", "a vineyard in rows", "a canyon in layers of stone",
            "a moor with heather", "a frozen pond", "a volcano crater", "rolling hills with hedges",
        ),
        (
            "under heavy clouds", "under a clear sky", "with a lone walker", "with distant snow peaks",
            "seen from a drone", "with flowers in front", "with a wooden fence", "with a flock of sheep",
            "with a small chapel", "with a gravel road",
        ),
    ),
    "streets": (
        (
            "a night market with paper lanterns", "a bus stop with posters", "a bookshop window",
            "a tram in traffic", "bicycles chained to a rail", "a cafe with wicker chairs",
            "a fruit stand with handwritten signs", "a flea market table", "a street musician's case",
            "a crossing full of umbrellas", "a hardware shop front", "a newspaper kiosk",
            "a wall of old advertisements", "a food truck with a menu board",
        ),
        (
            "in an old town", "in a busy city", "in a seaside village", "in the rain", "on a Sunday morning",
            "during a festival", "in autumn", "beside a canal", "under a railway bridge", "on a steep hill",
        ),
    ),
    "food": (
        (
            "a loaf of sourdough with a cracked crust", "a bowl of ramen", "ripe figs cut open",
            "a stack of pancakes", "a tray of oysters on ice", "roasted vegetables", "a honeycomb",
            "a cheese board with walnuts", "a pot of lentil stew", "fresh basil and tomatoes",
            "a chocolate cake with crumbs", "a basket of eggs", "a salad with seeds", "a glass of cold beer",
        ),
        (
            "on a slate board", "on a linen cloth", "on a rough wooden table", "in a cast-iron pan",
            "at a picnic", "in a bright kitchen", "on a marble counter", "at a street stall",
            "beside a window", "on a metal tray",
        ),
    ),
    "things": (
        (
            "a mechanical watch with its gears open", "a heap of knitted sweaters", "an old typewriter",
            "a toolbox", "a shelf of worn books", "a brass telescope", "a ceramic vase with cracked glaze",
            "a circuit board", "a patchwork quilt", "a chess game", "a rusty padlock", "a steam locomotive",
            "a vintage car with chrome", "a sewing machine with threads",
        ),
        (
            "on a workbench", "in a museum case", "in an attic", "on a window sill", "on a carpet",
            "in a shop window", "on a stone floor", "beside a lamp", "in a garage", "on a white background",
        ),
    ),
}  # fmt: skip

LIGHT = (
    "soft morning light", "harsh midday sun", "golden hour", "blue hour", "overcast light", "candlelight",
    "neon light", "light from a single window", "backlight with a bright rim", "street lamps at night",
    "dappled shade", "flash", "moonlight", "fluorescent light",
)  # fmt: skip

CAMERA = (
    "24mm wide angle", "35mm documentary photograph", "50mm lens at f/8, sharp throughout",
    "85mm portrait lens, shallow focus", "200mm telephoto", "macro lens", "medium format film",
    "black and white film with fine grain", "smartphone photograph", "long exposure on a tripod",
    "view camera, deep focus", "aerial photograph",
)  # fmt: skip

LOOK = (
    "natural colours", "muted colours", "rich contrast", "fine texture everywhere", "high detail",
    "true to life", "much empty space", "a crowded frame", "seen from near", "seen from afar",
)  # fmt: skip


def compose(count: int, seed: int) -> list[str]:
    """Return distinct prompts in a fixed order. A longer list of the same seed begins with the shorter one.

    Raises:
        InputError: ``count`` exceeds half of all combinations.
    """
    if count > capacity() // 2:
        raise InputError(f"count is {count}; the composer makes at most {capacity() // 2} prompts; use prompts=FILE")
    generator = keyed_generator(seed, 11)

    def pick(options: tuple[str, ...]) -> str:
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

"""The models that run here: their licence, the GPU memory of every plan, and where to get them; without any weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch

from fluxsr.backbones.families import family_of
from fluxsr.backbones.licence import NOTHING_GRANTED, flux_dev
from fluxsr.backbones.memory import CONTEXT, EXTRAS, GIB, Needs, Plan, plan, plans
from fluxsr.backbones.parts import in_flight, parameter_count, part_config, skeleton
from fluxsr.backbones.places import BUNDLED, folder_of
from fluxsr.backbones.single_file import flux_dev as flux_dev_configuration

FLUX_DEV = "black-forest-labs/FLUX.1-dev"
KLEIN = "black-forest-labs/FLUX.2-klein-base-4B"
CARDS = (6, 8, 12, 16, 24)  # GiB
_TILE = 1024  # output pixels
# for 1024 x 1024 pixels on an H200 (docs/benchmarks.md)
_SECONDS = {(FLUX_DEV, "bf16"): "0.37, compiled 0.20", (FLUX_DEV, "int8"): "0.41"}
_UNMEASURED = "not measured"
_STEP = f"Make an adapter of others ready with `fluxsr adapter import FOLDER --base {FLUX_DEV} -o OUT`."

TableParts = tuple[list[str], list[list[str]], list[str]]


@dataclass(frozen=True)
class Model:
    """A model that runs, with its adapter.

    Attributes:
        base: value of ``--model``.
        licence: of the base and of the adapter.
        get: where to get the adapter.
        configuration: folder with the configurations of transformer and autoencoder.
        tile_size: tile for which the memory is computed, in output pixels.
    """

    name: str
    base: str
    licence: str
    get: str
    configuration: Path
    tile_size: int = _TILE


def models() -> list[Model]:
    """Return the models and adapters whose layout is supported.

    A new family adds its rows, and a folder of its configurations.
    """
    dev, terms = flux_dev_configuration(), flux_dev(FLUX_DEV).name
    klein = dev.with_name("klein_4b")
    ungranted = f"{terms}; adapter: {NOTHING_GRANTED}"
    return [
        Model("bundled", BUNDLED, "Apache-2.0", "part of this package", Path(folder_of(BUNDLED)), 384),
        Model("FluxSR by the community", FLUX_DEV, terms, "huggingface.co/mon3tr/FluxSR-private", dev),
        Model("OMGSR-F 1024", FLUX_DEV, ungranted, "github.com/wuer5/OMGSR", dev),
        Model("an adapter of your own", FLUX_DEV, terms, "recipes/flux/train.yaml (docs/training.md)", dev),
        Model("an adapter of your own", KLEIN, "Apache-2.0", "recipes/klein/train.yaml (docs/training.md)", klein),
    ]


def needs_of(model: Model) -> Needs:
    """Return what a model takes, folded, from its configurations."""
    config = part_config(str(model.configuration), "transformer")
    folded = skeleton({**config, "_class_name": family_of(config).folded.__name__})
    vae = skeleton(part_config(str(model.configuration), "vae"), "vae")
    return Needs(parameter_count(folded), parameter_count(vae), model.tile_size, in_flight(folded))


def name_of(made: Plan) -> str:
    """Return a short name of a plan."""
    return "offloaded" if made.offload else "bf16" if made.quantize == "none" else made.quantize


def models_table() -> TableParts:
    """Return head, rows and notes of the table of models, with the memory in GiB of each plan."""
    rows, names = [], ["bf16", "int8", "nf4", "offloaded"]
    needs: dict[tuple[Path, int], dict[str, Plan]] = {}
    for model in models():
        key = model.configuration, model.tile_size
        if key not in needs:
            needs[key] = {name_of(one): one for one in plans(needs_of(model), torch.bfloat16, "cuda")}
        memory = dict.fromkeys(f"{needs[key][name].peak / GIB:.1f}" for name in names)
        rows.append([model.name, model.base, model.licence, " / ".join(memory), model.get])
    return ["model", "--model", "licence", f"GiB in {' / '.join(names)}", "where to get it"], rows, [_STEP]


def cards_table() -> TableParts:
    """Return head, rows and notes of the table of GPUs: what runs on each, and by which plan."""
    rows = [["none", "the bundled model", "bf16 or fp32, on the CPU", "", "13 on two CPU cores"]]
    needs = {model.base: needs_of(model) for model in models() if model.base != BUNDLED}
    for card, base in product(CARDS, needs):
        made = plan("auto", int(card * GIB - CONTEXT), needs[base], torch.bfloat16, "cuda", ("int8", "nf4"))
        name, sized = name_of(made), replace(needs[base], tile_size=made.tile_size)
        peak = next(one.peak for one in plans(sized, torch.bfloat16, "cuda") if name_of(one) == name)
        extra = f" (extra {EXTRAS[name]})" if name in EXTRAS else ""
        how = f"{name}{extra}, tiles of {made.tile_size} px"
        seconds = _SECONDS.get((base, name), _UNMEASURED)
        what = f"{base.partition('/')[2]} with an adapter"
        rows.append([f"{card} GB", what, how, f"{peak / GIB:.1f} GiB", seconds])
    return ["your GPU", "what runs", "plan", "memory", "seconds for 1024 x 1024 pixels (FLUX: on an H200)"], rows, []

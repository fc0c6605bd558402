"""The search over shapes and training of the bundled model: short runs, a table for each group and one picture.

    python benchmarks/search.py --out DIR [--only GROUP,GROUP/NAME] [--seeds 0] [--report] [key=value ...]

search.yaml beside it has the groups and their variants. A run is a recipe of recipes/tiny with what its variant
changes, into DIR/GROUP/NAME/SEED. Finished runs are not repeated, a run that was stopped goes on; --report trains
nothing. It needs what the first stages of recipes/tiny made: decoder, teacher, pairs. Runs are scored on the middles
of the same photographs (data.validation), spoilt in the same way whatever the seed.

Seconds are the processor's, of all threads, so that a busy machine changes them less: s_bf16 and s_fp32 of inference,
for 1024 x 1024 pixels; s_train of training, from where it was last stopped, reading the photographs included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from ablation import against, names_of, numbers_of, table
from costs import COSTS, measure_costs, read, step_of, write
from scores import middles, model, scores, upscaled

from fluxsr import recipe
from fluxsr.backbone import latents
from fluxsr.backbone.loading import Backbone, save_base
from fluxsr.backbone.parts import load_part
from fluxsr.backbone.prompts import FILE as PROMPT_FILE
from fluxsr.backbone.prompts import random_prompt
from fluxsr.backbone.tiny import build_transformer
from fluxsr.errors import FluxSRError, InputError
from fluxsr.keyed import keyed_generator
from fluxsr.training.config import AutoencoderConfig, DistillConfig, TeacherConfig
from fluxsr.training.distillation import train_distill
from fluxsr.training.run_folder import differences
from fluxsr.training.stages import train_autoencoder

RECIPES = Path(__file__).parents[1] / "recipes" / "tiny"
SCORES = "scores.json"
PATCH = latents.PATCH


@dataclass(frozen=True)
class Group:
    """Variants of one recipe; the first is the bundled model's."""

    recipe: str
    shared: list[str]
    variants: dict[str, list[str]]
    columns: list[str]
    plane: list[str]  # the two columns of its panel in the picture
    shapes: bool = False  # variants change teacher.yaml, and the base is a random transformer of that shape
    patches: dict[str, int] = field(default_factory=dict)  # sides of tokens in latents, other than the package's


def groups() -> dict[str, Group]:
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    return {name: Group(**its | {"shared": _flat(its["shared"])}) for name, its in yaml.safe_load(text).items()}


def _flat(items: list[Any]) -> list[str]:
    """A list in which YAML aliases stand for lists."""
    return [word for item in items for word in (item if isinstance(item, list) else [item])]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, the tables and the picture")
    parser.add_argument("--only", type=names_of, default=[], metavar="GROUP,GROUP/NAME", help="these alone")
    parser.add_argument("--seeds", type=numbers_of, default=[0], metavar="0,1", help="a run for each")
    parser.add_argument("--report", action="store_true", help="train nothing: tables and picture of finished runs")
    parser.add_argument("--costs", action="store_true", help="measure the seconds of finished runs again, too")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to every recipe")
    return parser.parse_intermixed_args(arguments)


def planned(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """(group, name, seed) of every run asked for, seed by seed.

    Raises:
        InputError: --only has a word that is no group and no variant.
    """
    known = [(group, name) for group, its in groups().items() for name in its.variants]
    words = {group: 0 for group, _ in known} | {f"{group}/{name}": 0 for group, name in known}
    for word in options.only:
        if word not in words:
            raise InputError(f"--only has '{word}'; known are {', '.join(words)}")
    wanted = [(g, n) for g, n in known if not options.only or {g, f"{g}/{n}"} & set(options.only)]
    return [(group, name, seed) for seed in options.seeds for group, name in wanted]


def configured(group: Group, name: str, run: Path, overrides: list[str], out: Path) -> Any:
    """The recipe of the run in DIR/GROUP/NAME/SEED. Of a shape, its random base is written first."""
    seed = f"run.seed={run.name}"
    changes = [change.format(out=out) for change in group.variants[name]]
    if group.shapes:
        random_base(recipe.load(TeacherConfig, RECIPES / "teacher.yaml", [*changes, seed]), run / "base")
        changes = [f"base={run / 'base'}"]
    kind: type = AutoencoderConfig if group.recipe == "autoencoder" else DistillConfig
    return recipe.load(kind, RECIPES / f"{group.recipe}.yaml", [*group.shared, *changes, *overrides, seed])


def random_base(shape: TeacherConfig, folder: Path) -> None:
    """What stage 3 would begin with, in the layout in which it ends."""
    if (folder / PROMPT_FILE).is_file():  # written last
        return
    vae = load_part(Path(shape.autoencoder), "vae", torch.bfloat16)
    torch.manual_seed(shape.run.seed)  # initial weights only; diffusers takes no generator
    sizes = (shape.num_layers, shape.num_single_layers, shape.num_attention_heads, shape.text_dim)
    channels = vae.config.latent_channels * latents.PATCH**2 // 4  # four latents a token are taken for granted there
    transformer = build_transformer(channels, *sizes).to(torch.bfloat16)
    prompt = random_prompt(shape.text_tokens, shape.text_dim, keyed_generator(shape.run.seed, 7))
    save_base(Backbone(transformer, vae, prompt), folder)


def scored(run: Path, config: Any, columns: Collection[str]) -> None:
    """Train, or go on, and score, unless it has been done.

    Raises:
        InputError: the folder's run was made with other options.
    """
    if other := differences(run, config):
        raise InputError(f"{run} was made with {', '.join(other.values())}; give another --out")
    if (run / SCORES).is_file():
        return
    photos = middles(config.data)
    alone = replace(config, data=replace(config.data, validation=[]))  # validation here is the same for all
    start, train = time.process_time(), train_autoencoder if isinstance(config, AutoencoderConfig) else train_distill
    train(alone, run)
    found = {"s_train": time.process_time() - start}
    if train is train_autoencoder:
        found |= scores(map(step_of(run, "bf16")[0], photos), photos, "")
    else:
        found |= upscaled(model(run / "model"), photos, columns)
    write(run / SCORES, found)


def finished(out: Path) -> dict[str, dict[str, list[dict[str, float]]]]:
    """What the columns show of every run that has it all, by group and variant."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for group, its in groups().items():
        for name in its.variants:
            folders = [path.parent for path in sorted((out / group / name).glob(f"*/{SCORES}"))]
            rows = [{"seed": int(run.name)} | read(run / SCORES) | read(run / COSTS) for run in folders]
            if whole := [row for row in rows if set(its.columns) <= set(row)]:
                found.setdefault(group, {})[name] = whole
    return found


def report(out: Path) -> str:
    """The tables, printed, as search.md and, their planes, as search.png."""
    found, its = finished(out), groups()
    texts = [f"{name}:\n\n{table(runs, its[name].columns)}" for name, runs in found.items()]
    texts += [text for name, runs in found.items() if (text := paired(runs, its[name].columns))]
    text = "\n\n".join(texts) + "\n"
    (out / "search.md").write_text(text, encoding="utf-8")
    if found:
        figure(found, {name: its[name].plane for name in found}, out / "search.png")
    return text


def paired(runs: dict[str, list[dict[str, float]]], columns: list[str]) -> str:
    """What each variant with the seeds of the first changes against it, seed by seed; empty if nothing can be said."""
    first, *_ = runs
    seeds = [row["seed"] for row in runs[first]]
    alike = {name: rows for name, rows in runs.items() if [row["seed"] for row in rows] == seeds}
    if len(seeds) < 2 or len(alike) < 2:
        return ""
    shown = [column for column in columns if column not in ("MB", "TFLOP") and not column.startswith("s_")]
    return f"Difference from {first}, seed by seed:\n\n{against(alike, first, shown)}"


def figure(found: dict[str, dict[str, list[dict[str, float]]]], planes: dict[str, list[str]], path: Path) -> None:
    """A panel a group: every variant's mean, named, every run as a small point."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(12, 4.2 * ((len(found) + 1) // 2)), layout="constrained")
    for index, (group, variants) in enumerate(found.items()):
        x, y = planes[group]
        axes = picture.add_subplot((len(found) + 1) // 2, 2, index + 1, title=group, xlabel=x, ylabel=y)
        for rank, (name, runs) in enumerate(variants.items()):
            colour = "tab:blue" if rank else "tab:red"
            axes.plot([run[x] for run in runs], [run[y] for run in runs], ".", color=colour, alpha=0.4)
            centre = [statistics.mean(run[key] for run in runs) for key in (x, y)]
            axes.plot(*centre, "o", color=colour)
            axes.annotate(name, centre, xytext=(5, 3), textcoords="offset points", fontsize=8)
        axes.margins(0.15)
        axes.grid(alpha=0.3)
    picture.savefig(path, dpi=80)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        for group, name, seed in [] if options.report else planned(options):
            run, its = options.out / group / name / str(seed), groups()[group]
            print(f"{group}/{name}, seed {seed}", file=sys.stderr)
            latents.PATCH = its.patches.get(name, PATCH)  # the package knows one; others run in this script alone
            config = configured(its, name, run, options.overrides, options.out)
            scored(run, config, its.columns)
            if "s_bf16" in its.columns:
                measure_costs(run, options.costs)
            report(options.out)
    except FluxSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report(options.out), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

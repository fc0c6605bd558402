"""The paper's ablations at small scale: every recipe of recipes/ablation, several seeds, one table and one figure.

    python benchmarks/ablation.py --out DIR [--seeds 0,1,2] [--only full,no_adl] [key=value ...]

Each run is `fluxsr train distill` on its recipe with its seed, into DIR/NAME/SEED; finished runs are not repeated, so
the command may be stopped and started again. A folder whose runs were made by other recipes or overrides is refused.
Mean and deviation over the seeds of what validation measured at the last step. It needs what the first stages of
recipes/tiny made: base, pairs, perceptual network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fluxsr import recipe
from fluxsr.backbone.lora_files import WEIGHTS_FILE
from fluxsr.backbone.prompts import FILE as PROMPT_FILE
from fluxsr.errors import FluxSRError, InputError
from fluxsr.training import checkpoint
from fluxsr.training.config import FREE, DistillConfig
from fluxsr.training.distillation import train_distill
from fluxsr.training.run_folder import differences

RECIPES = Path(__file__).parents[1] / "recipes" / "ablation"
COLUMNS = ("psnr", "ssim", "mid_db", "hf_db", "grid8", "grid16")
MEASURED_WITH = {"data.validation", "tile_size"}  # free to change in a run, but not within a table


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, the table and the figure")
    parser.add_argument("--seeds", type=numbers_of, default=[0, 1, 2], metavar="0,1,2", help="a run for each")
    parser.add_argument("--only", type=names_of, metavar="NAME,NAME", help="these recipes alone")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to every recipe")
    return parser.parse_intermixed_args(arguments)  # options may stand behind overrides


def names_of(text: str) -> list[str]:
    return text.split(",")


def numbers_of(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def planned(options: argparse.Namespace) -> dict[Path, DistillConfig]:
    """The recipe of every run folder, seed by seed, so that a table of all recipes exists early.

    Raises:
        InputError: no such recipe, nothing to measure on, or a folder of other options.
    """
    names = options.only or sorted(path.stem for path in RECIPES.glob("*.yaml"))
    plan: dict[Path, DistillConfig] = {}
    for seed in options.seeds:
        for name in names:
            overrides = [*options.overrides, f"run.seed={seed}"]
            config = recipe.load(DistillConfig, RECIPES / f"{name}.yaml", overrides)
            run = options.out / name / str(seed)
            if not config.data.validation:
                raise InputError(f"data.validation of {name} is empty, but the table is what validation measures")
            other = differences(run, config, FREE - MEASURED_WITH)
            if other:
                raise InputError(f"{run} was made with {', '.join(other.values())}; give another --out")
            plan[run] = config
    return plan


def measured(run: Path, config: DistillConfig) -> dict[str, float] | None:
    """What validation measured at the last step, by column; None if it has not."""
    path, last = run / "metrics.jsonl", config.run.stop or config.run.steps
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    for line in reversed(lines):
        record = json.loads(line) if line.endswith("\n") else {}  # a kill may cut the last line
        if record.get("step") == last and "val/psnr" in record:
            return {name: record[f"val/{name}"] for name in COLUMNS}
    return None


def exported(run: Path, config: DistillConfig) -> bool:
    """The export is whole: it writes the LoRA first and the prompt last, and a kill may come between."""
    files = [WEIGHTS_FILE, PROMPT_FILE] if config.rank else [PROMPT_FILE]
    return all((run / "model" / name).is_file() for name in files)


def scores(run: Path, config: DistillConfig) -> dict[str, float]:
    """What a run measured; made first, or gone on with, unless it has finished.

    Raises:
        InputError: it ended without measuring.
    """
    found = measured(run, config)
    if found is None:
        # A run killed between its last checkpoint and the validation there would not validate if it went on.
        last = config.run.stop or config.run.steps
        resume = "none" if checkpoint.path_of(run, last).is_file() else config.run.resume
        train_distill(replace(config, run=replace(config.run, resume=resume)), run)
        found = measured(run, config)
    elif not exported(run, config):
        train_distill(config, run)
    if found is None:
        raise InputError(f"{run / 'metrics.jsonl'} has no val/psnr at step {config.run.stop or config.run.steps}")
    return found


def table(found: dict[str, list[dict[str, float]]], columns: Sequence[str] = COLUMNS) -> str:
    """Markdown: a row a recipe, mean and, where there are several, standard deviation over its seeds."""
    lines = ["| recipe | seeds | " + " | ".join(columns) + " |", "| --- |" + " --- |" * (len(columns) + 1)]
    for name, runs in found.items():
        cells = []
        for column in columns:
            values = [run[column] for run in runs]
            deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{deviation}")
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def against(found: dict[str, list[dict[str, float]]], name: str = "full", columns: Sequence[str] = COLUMNS) -> str:
    """Markdown: what each recipe changes against one of them, seed by seed, so that a seed's own luck drops out."""
    changed = {
        other: [{c: run[c] - own[c] for c in columns} for run, own in zip(runs, found[name], strict=True)]
        for other, runs in found.items()
        if other != name
    }
    return table(changed, columns)


def figure(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Every run as a point, a panel a column; the mean as a bar."""
    from matplotlib.figure import Figure

    names = list(found)
    picture = Figure(figsize=(3.2 * len(COLUMNS), 0.45 * len(names) + 1.2), layout="constrained")
    for index, column in enumerate(COLUMNS):
        axes = picture.add_subplot(1, len(COLUMNS), index + 1, title=column)
        for row, name in enumerate(names):
            values = [run[column] for run in found[name]]
            axes.plot(values, [row] * len(values), "o", markersize=4, color="tab:blue", alpha=0.6)
            axes.plot([statistics.mean(values)], [row], "|", markersize=16, color="tab:red")
        axes.set_yticks(range(len(names)), names if index == 0 else [""] * len(names))
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    picture.savefig(path, dpi=90)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    found: dict[str, list[dict[str, float]]] = {}
    try:
        for run, config in planned(options).items():
            found.setdefault(run.parent.name, []).append(scores(run, config))
    except FluxSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = table(found)
    if len(found) > 1 and "full" in found:
        text += f"\n\nDifference from full, seed by seed:\n\n{against(found)}"
    print(text)
    (options.out / "ablation.md").write_text(text + "\n", encoding="utf-8")
    figure(found, options.out / "ablation.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

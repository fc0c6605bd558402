"""The paper's ablations at small scale: every recipe of recipes/ablation, several seeds, one table and one figure.

    python benchmarks/ablation.py --out DIR [--seeds 0 1 2] [--only NAME ...] [key=value ...]

Each run is `fluxsr train distill` on its recipe with its seed, into DIR/NAME/SEED; finished runs are not repeated, so
the command may be stopped and started again. Mean and deviation over the seeds of what validation measured at the
last checkpoint. It needs what the first stages of recipes/tiny made: base, pairs, perceptual network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from fluxsr import recipe
from fluxsr.errors import FluxSRError
from fluxsr.training.config import DistillConfig
from fluxsr.training.distillation import train_distill

RECIPES = Path(__file__).parents[1] / "recipes" / "ablation"
COLUMNS = ("psnr", "ssim", "mid_db", "hf_db", "grid8", "grid16")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, the table and the figure")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these recipes alone")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to every recipe")
    return parser.parse_args(arguments)


def scores(run: Path) -> dict[str, float] | None:
    """What validation measured last, by column; None for a run that has not finished."""
    if not (run / "model").is_dir():
        return None
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if "val/psnr" in record]
    return {name: records[-1][f"val/{name}"] for name in COLUMNS}


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: a row a recipe, mean and standard deviation over its seeds."""
    lines = ["| recipe | seeds | " + " | ".join(COLUMNS) + " |", "| --- |" + " --- |" * (len(COLUMNS) + 1)]
    for name, runs in found.items():
        cells = []
        for column in COLUMNS:
            values = [run[column] for run in runs]
            deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):.3f} ± {deviation:.3f}")
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
    names = options.only or sorted(path.stem for path in RECIPES.glob("*.yaml"))
    found: dict[str, list[dict[str, float]]] = {}
    try:
        for seed in options.seeds:  # seed by seed: a table of all recipes exists early
            for name in names:
                run = options.out / name / str(seed)
                if scores(run) is None:
                    overrides = [*options.overrides, f"run.seed={seed}"]
                    train_distill(recipe.load(DistillConfig, RECIPES / f"{name}.yaml", overrides), run)
                found.setdefault(name, []).append(scores(run) or {})
    except FluxSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = table(found)
    print(text)
    (options.out / "ablation.md").write_text(text + "\n", encoding="utf-8")
    figure(found, options.out / "ablation.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

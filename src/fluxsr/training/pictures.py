"""Plots of a training run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def curves(folder: Path) -> dict[str, float]:
    """Plot every metric of ``metrics.jsonl`` over the steps into ``curves.png``; no-op without matplotlib.

    Returns:
        An empty dict, so that this function can serve as a validation callback.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return {}
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    names = sorted({name for record in records for name in record} - {"step"})
    if not names:
        return {}
    figure = Figure(figsize=(4 * min(4, len(names)), 3 * -(-len(names) // 4)), layout="constrained")
    for index, name in enumerate(names):
        points = np.array([(r["step"], r[name]) for r in records if name in r])
        axes = figure.add_subplot(-(-len(names) // 4), min(4, len(names)), index + 1, title=name, xlabel="step")
        axes.plot(points[:, 0], points[:, 1], linewidth=0.8)
    figure.savefig(folder / "curves.png", dpi=80)
    return {}

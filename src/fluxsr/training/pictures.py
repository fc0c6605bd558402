"""Pictures of a run, since people look rather than read: contact sheets and training curves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fluxsr.imaging.sheet import sheet

__all__ = ["curves", "psnr", "sheet"]


def psnr(x: Tensor, y: Tensor) -> float:
    """PSNR in dB over RGB of two images (3,H,W) in 0..255, the first rounded to 8 bits."""
    return float(10 * torch.log10(255**2 / (x.float().clamp(0, 255).round() - y.float()).square().mean()))


def curves(folder: Path) -> dict[str, float]:
    """Draw every column of ``metrics.jsonl`` over the steps into ``curves.png``; without matplotlib, nothing."""
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

"""python recipes/tiny/average.py OUT MODEL MODEL ...: the transformer's weights are the mean of these models'.

For students that were trained from the same one ("Model soups", arXiv 2203.05482). All else is the
first one's, the notice of its licences too.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = Path("transformer", "diffusion_pytorch_model.safetensors")
LORA = "pytorch_lora_weights.safetensors"


def average(out: Path, models: list[Path]) -> None:
    """Write the mean of ``models`` to ``out``."""
    for model in models:
        if not (model / WEIGHTS).is_file() or (model / LORA).is_file():
            raise SystemExit(f"{model} is no student trained as a whole: that has {WEIGHTS}, and no {LORA}")
    weights = [load_file(model / WEIGHTS) for model in models]
    shapes = [{name: value.shape for name, value in held.items()} for held in weights]
    if any(found != shapes[0] for found in shapes):
        raise SystemExit("these models have transformers of different shapes; give models that were trained from one")
    mean = {
        name: torch.stack([held[name].float() for held in weights]).mean(0).to(value.dtype)
        for name, value in weights[0].items()
    }
    shutil.copytree(models[0], out, dirs_exist_ok=True)
    save_file(mean, out / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    average(Path(sys.argv[1]), [Path(model) for model in sys.argv[2:]])

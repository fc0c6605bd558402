"""Average the transformer weights of several models: python recipes/tiny/average.py OUT MODEL MODEL ...

The models must be students that were trained from the same model ("Model soups", arXiv 2203.05482). All other files,
including the licence notice, are copied from the first model.
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
            raise SystemExit(f"{model} is not a student trained as a whole; expected {WEIGHTS} and no {LORA}")
    weights = [load_file(model / WEIGHTS) for model in models]
    shapes = [{name: value.shape for name, value in held.items()} for held in weights]
    if any(found != shapes[0] for found in shapes):
        raise SystemExit("the transformers have different shapes; give models that were trained from the same one")
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

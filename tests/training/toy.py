"""A stage of two small networks that play against each other; also the script that a test kills.

``python toy.py OUT writing 6`` trains into OUT and is killed while it writes the checkpoint of step 6,
``python toy.py OUT training 5`` while it takes step 5.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.training import loop
from fluxsr.training.config import RunConfig
from fluxsr.training.dataset import NOISE, normals, sample_generators


def config(**changes: Any) -> RunConfig:
    values = {"steps": 8, "save_every": 3, "log_every": 1, "warmup": 2, "ema": 0.9, "precision": "fp32", "lr": 1e-2}
    values |= {"batch": 4, "device": "cpu", "tracker": "none"}
    return RunConfig(**{**values, **changes})


class ToyStage:
    """Everything a resumed run must bring back: matrices, biases, a second module, a frozen part, random draws."""

    def __init__(self, seed: int = 0, data_seed: int = 0):
        torch.manual_seed(seed)
        self.data_seed = data_seed
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.frozen.weight.copy_(torch.eye(4))
        self.frozen.bias.fill_(0.5)
        self.modules: dict[str, nn.Module] = {
            "net": nn.ModuleList([self.net, self.frozen]),
            "head": nn.Linear(4, 1),
        }
        self.seen: list[int] = []
        self.samples: list[list[int]] = []

    def losses(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        self.seen.append(step)
        self.samples.append(list(samples))
        x = normals((4,), sample_generators(self.data_seed, step, samples, NOISE))
        out = self.net(self.frozen(x))
        sizes = out.detach().norm(dim=1)
        return {
            "square": (out - x).square().mean(),
            "head": self.modules["head"](out.detach()).square().mean(),
            "log/size": sizes,
            "log/large": sizes[sizes > 1],  # values of some samples only, as FTD by bins of t
        }

    def weights(self) -> dict[str, Tensor]:
        return {f"{n}.{k}": v.detach().clone() for n, m in self.modules.items() for k, v in m.state_dict().items()}


def main(out: Path, when: str, step: int) -> None:
    save, stage = torch.save, ToyStage()
    losses = stage.losses

    def torn(state: dict[str, Any], file: Any) -> None:
        save(state, file)
        if when == "writing" and state["step"] == step:
            file.truncate(file.tell() // 2)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def cut(at: int, samples: Sequence[int]) -> dict[str, Tensor]:
        if when == "training" and at == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses(at, samples)

    torch.save, stage.losses = torn, cut  # type: ignore[method-assign]
    torch.set_num_threads(1)
    loop.run(stage, config(), out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))

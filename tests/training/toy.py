"""A stage of two small networks that play against each other; also the script that a test kills.

``python toy.py OUT KILL_AT`` trains into OUT and is killed while it writes the checkpoint of step KILL_AT.
``python toy.py OUT 0 key=value ...`` trains undisturbed with other options; torchrun may start it many times.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from fluxsr.training import loop
from fluxsr.training.config import RunConfig
from fluxsr.training.dataset import NOISE, normals, sample_generators


def config(**changes: Any) -> RunConfig:
    values = {"steps": 8, "save_every": 3, "log_every": 1, "warmup": 2, "ema": 0.9, "precision": "fp32", "lr": 1e-2}
    values |= {"batch": 4, "device": "cpu", "tracker": "none"}
    return RunConfig(**{**values, **changes})


class ToyStage:
    """Everything a resumed run must bring back: matrices, biases, buffers, a frozen part, random draws."""

    def __init__(self, seed: int = 0, data_seed: int = 0):
        torch.manual_seed(seed)
        self.data_seed = data_seed
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.frozen.weight.copy_(torch.eye(4))
        self.frozen.bias.fill_(0.5)
        self.modules: dict[str, nn.Module] = {
            "net": nn.ModuleList([self.net, self.frozen]),
            "critic": spectral_norm(nn.Linear(4, 1)),
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
            "critic": self.modules["critic"](out.detach()).square().mean(),
            "log/size": sizes,
            "log/large": sizes[sizes > 1],  # values of some samples only, as FTD by bins of t
        }

    def weights(self) -> dict[str, Tensor]:
        return {f"{n}.{k}": v.detach().clone() for n, m in self.modules.items() for k, v in m.state_dict().items()}


def main(out: Path, kill_at: int, changes: dict[str, Any]) -> None:
    save = torch.save

    def torn(state: dict[str, Any], file: Any) -> None:
        save(state, file)
        if state["step"] == kill_at:
            file.truncate(file.tell() // 2)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = torn
    torch.set_num_threads(1)
    loop.run(ToyStage(), config(**changes), out)


if __name__ == "__main__":
    given = (item.split("=") for item in sys.argv[3:])
    main(Path(sys.argv[1]), int(sys.argv[2]), {key: yaml.safe_load(value) for key, value in given})

"""The command line with workers that repeat pixels, tell what they do, and die of some images: started by tests."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import interpolate

from fluxsr.cluster import run
from fluxsr.cluster.worker import Worker


class Stub:
    """Stand-in for the pipeline that repeats pixels."""

    name, device = "stub", "cpu"
    transformer = vae = SimpleNamespace(parameters=list, dtype=torch.float32)
    plan = SimpleNamespace(line=lambda: "stub")

    def upscale_tensor(self, lr: torch.Tensor, settings: Any) -> torch.Tensor:
        return interpolate(lr, settings.options.size_of(*lr.shape[-2:]), mode="nearest")


class Fragile(Worker):
    """Notes in ``LOG`` what it begins and ends; takes ``SECONDS`` an image; dies of "poison", hangs on "stuck"."""

    def load(self) -> tuple[str, str]:
        self._pipeline: Any = Stub()
        return "stub", "stub"

    def upscale(self, item: Any, made: str, attempt: int = 1) -> Any:
        self._note(f"begun {item.name}")
        if "poison" in item.name:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3600 if "stuck" in item.name else float(os.environ.get("SECONDS", "0")))
        row = super().upscale(item, made, attempt)
        self._note(f"ended {item.name}")
        return row

    def _note(self, line: str) -> None:
        with Path(os.environ["LOG"]).open("a") as log:  # appended in one piece
            log.write(f"{line} {os.getpid()}\n")


if __name__ == "__main__":  # and by value to Ray's workers, which cannot import this file
    run.Worker = Fragile  # type: ignore[attr-defined]
    from fluxsr.cli.main import main

    main()

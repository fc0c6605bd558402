"""The command line with a model that only repeats pixels: started by tests that kill it, or measure its memory."""

from __future__ import annotations

import os
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import interpolate


class Stub:
    """What batch.py asks of a pipeline."""

    name, device = "stub", "cpu"
    transformer = vae = SimpleNamespace(parameters=list, dtype=torch.float32)
    plan = SimpleNamespace(line=lambda: "stub")

    @staticmethod
    def from_pretrained(*_: Any, **__: Any) -> Stub:
        return Stub()

    def __call__(self, image: torch.Tensor, scale: float, **_: Any) -> Any:
        time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
        return SimpleNamespace(images=interpolate(image, scale_factor=scale, mode="nearest"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    pipeline = ModuleType("fluxsr.pipeline")
    pipeline.FluxSRPipeline = Stub  # type: ignore[attr-defined]
    sys.modules["fluxsr.pipeline"] = pipeline
    from fluxsr.apps.cli import main

    main()

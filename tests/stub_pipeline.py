"""Run the command line with a stand-in model that only repeats pixels, for tests that kill it or feed it broken files.

python tests/stub_pipeline.py upscale photographs -o out
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import interpolate

import fluxsr


def install(watch: Callable[[], Any]) -> None:
    """Replace ``fluxsr.single`` by a module whose ``load`` returns the stub; ``watch`` is called for every image."""

    class Stub:
        """The part of a pipeline that cli/batch.py uses."""

        name, device = "stub", "cpu"
        transformer = vae = SimpleNamespace(parameters=list, dtype=torch.float32)
        plan = SimpleNamespace(line=lambda: "stub")
        sources, adapter_config = ("stub", "none"), SimpleNamespace(strength=1.0)

        def upscale_tensor(self, lr: torch.Tensor, settings: Any) -> torch.Tensor:
            watch()
            return interpolate(lr, settings.options.size_of(*lr.shape[-2:]), mode="nearest")

    torch.set_num_threads(1)
    module = ModuleType("fluxsr.single")
    module.load = lambda *_, **__: Stub()  # type: ignore[attr-defined]
    sys.modules["fluxsr.single"] = fluxsr.single = module  # type: ignore[attr-defined]


if __name__ == "__main__":
    seconds = float(os.environ.get("STUB_SECONDS", "0"))
    install(lambda: time.sleep(seconds))
    from fluxsr.cli.main import main

    main()

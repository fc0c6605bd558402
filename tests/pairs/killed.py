"""What a test kills: ``python killed.py RECIPE OUT SHARD`` dies by SIGKILL half-way through writing SHARD."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fluxsr import recipe
from fluxsr.pairs import store
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.make import make_pairs


def main(path: str, out: str, shard: int) -> None:
    whole = store.replaced

    @contextmanager
    def torn(path: Path) -> Iterator[Any]:
        with whole(path) as file:
            yield file
            if path.name == f"shard-{shard:05d}.safetensors":
                file.truncate(file.tell() // 2)
                os.kill(os.getpid(), signal.SIGKILL)

    store.replaced = torn
    torch.set_num_threads(1)
    make_pairs(recipe.load(PairsConfig, path), Path(out))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

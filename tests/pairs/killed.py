"""What a test kills: ``python killed.py RECIPE OUT SHARD`` dies by SIGKILL half-way through writing SHARD."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from fluxsr import recipe
from fluxsr.imaging.atomic import part_of
from fluxsr.pairs import store
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.make import make_pairs


def main(path: str, out: str, shard: int) -> None:
    write = store.PairStore._write

    def torn(self: store.PairStore, target: Path, data: bytes) -> None:
        if target.name == f"shard-{shard:05d}.safetensors":
            part_of(target).write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, target, data)

    store.PairStore._write = torn  # type: ignore[method-assign]
    torch.set_num_threads(1)
    make_pairs(recipe.load(PairsConfig, path), Path(out))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

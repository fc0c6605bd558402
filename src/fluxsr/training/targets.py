"""Training targets in files that are mapped into memory, so that all processes of a machine share one copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluxsr.errors import OutputError

COLUMNS = {"photos": torch.uint8, "latents": torch.float16, "lr": torch.uint8, "hr": torch.uint8}


class Mapped(Sequence[Tensor]):
    """Tensors of one dtype in a file. Only what is used is read, and a pickled copy holds the path alone."""

    def __init__(self, path: Path, dtype: torch.dtype, shapes: Sequence[Sequence[int]]):
        self.path, self.dtype, self.shapes = path, dtype, [torch.Size(shape) for shape in shapes]
        self.ends = list(accumulate(shape.numel() for shape in self.shapes))
        self.block = torch.from_file(str(path), size=self.ends[-1], dtype=dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return Mapped, (self.path, self.dtype, self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: Any) -> Any:
        shape, end = self.shapes[index], self.ends[index]
        return self.block[end - shape.numel() : end].view(shape)


@dataclass
class Targets:
    """All targets of a run.

    Attributes:
        photos: photographs and decoded pairs (3,H,W), uint8.
        latents: z_0 and eps of each photograph (2,C,h,w), float16; empty for photographs alone.
        lr, hr: pairs of files (3,H,W), uint8.
        name: number and fingerprint of the targets' names in their order.
    """

    photos: Sequence[Tensor] = ()
    latents: Sequence[Tensor] = ()
    lr: Sequence[Tensor] = ()
    hr: Sequence[Tensor] = ()
    name: str = ""


def write_targets(folder: Path, targets: Iterable[tuple[str, Mapping[str, Tensor]]]) -> None:
    """Write targets, one after the other, for ``map_targets``.

    Args:
        folder: folder, which is created.
        targets: name and tensors of every target; the tensors are named as in ``COLUMNS``.

    Raises:
        OutputError: a file cannot be written.
    """
    names, shapes = [], dict[str, list[list[int]]]()
    folder.mkdir(parents=True, exist_ok=True)
    for name in COLUMNS:  # new files, because a process may still map the old ones
        (folder / name).unlink(missing_ok=True)
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb", buffering=0)) for name in COLUMNS}
        for target, tensors in targets:
            names.append(target)
            for name, tensor in tensors.items():
                _append(files[name], tensor)
                shapes.setdefault(name, []).append(list(tensor.shape))
    (folder / "index.json").write_text(json.dumps({"names": names, "shapes": shapes}), encoding="utf-8")


def _append(file: Any, tensor: Tensor) -> None:
    try:
        file.write(tensor.contiguous().view(torch.uint8).numpy().data)
    except OSError as error:
        raise OutputError(f"cannot write the targets of this run to {file.name}: {error}") from error


def map_targets(folder: Path) -> Targets:
    """Map the targets that ``write_targets`` wrote."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    columns = {name: Mapped(folder / name, COLUMNS[name], shapes) for name, shapes in index["shapes"].items()}
    digest = hashlib.sha256(json.dumps(index["names"]).encode()).hexdigest()
    return Targets(**columns, name=f"{len(index['names'])} targets, {digest[:8]}")

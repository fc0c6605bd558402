"""Batches that a spawned process can import: tests themselves are no modules there."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.errors import InputError


def shrink(images: Tensor, _generators: Sequence[torch.Generator]) -> Tensor:
    """Down by four, by averages."""
    return F.avg_pool2d(images, 4)


def fails_at_two(step: int, _samples: object) -> Tensor:
    """The step, but for step 2."""
    if step == 2:
        raise InputError("step 2 has no batch")
    return torch.tensor(step)


def parent_of(_step: int, _samples: object) -> Tensor:
    """The process that made this one, and whether it is a copy: it then holds the mark that ``mark`` left."""
    return torch.tensor([os.getppid(), int(marked)])


marked = False

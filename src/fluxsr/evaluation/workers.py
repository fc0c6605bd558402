"""Number of processes that score images: as many as cores and memory allow."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_PROCESS = 900_000_000  # bytes of one with PyTorch and the metrics' packages
_PIXEL = 600  # bytes that the metrics hold for each pixel of an image, at their peak
_SHARE = 0.8  # of the free memory
_CGROUP = Path("/sys/fs/cgroup")


def workers_for(pixels: int) -> int:
    """Return the number of processes, at least one.

    Args:
        pixels: of the largest image.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_SHARE * free_memory() / (_PROCESS + _PIXEL * pixels))))


def free_memory() -> int:
    """Return the number of bytes that this process may still allocate within its container."""
    free = int(psutil.virtual_memory().available)
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, taken = (_number(_CGROUP / name) for name in (limit, used))
        if most is not None and taken is not None:
            free = min(free, most - taken)
    return max(0, free)


def _number(path: Path) -> int | None:
    """Read a number from a file of the kernel; None if it holds none, such as "max"."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None

"""Free memory back to the system: glibc keeps it where many threads allocate and free large pieces."""

from __future__ import annotations

import ctypes


def trim() -> bool:
    """Give what is free back to the system; False where the C library cannot (it is not glibc)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # TypeError: Windows takes no None
        return False
    return True

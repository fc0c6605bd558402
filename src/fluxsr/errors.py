"""Errors that callers may want to catch. Each message is one line: what was found, what to do."""

from __future__ import annotations

import importlib.util
import re

# A kernel's failure, whether PyTorch, a library under it or a compiled kernel reports it.
_ACCELERATOR = re.compile(
    r"(?:CUDA|HIP|XPU)(?: driver)? error: |Triton Error \[(?:CUDA|HIP)\]: |cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"
)
# After these the device goes on: the call was refused, and nothing ran.
_REFUSED = re.compile(
    r"out of memory|invalid argument|invalid configuration|invalid device function|no kernel image|not supported"
    r"|CUBLAS_STATUS_(?!EXECUTION_FAILED|INTERNAL_ERROR)"
)
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "_alloc_failed")
_MISTAKES = (AssertionError, AttributeError, ImportError, NameError, NotImplementedError, TypeError)


class FluxSRError(Exception):
    """Anything that went wrong for a reason the user can act on."""


class InputError(FluxSRError):
    """An image or an argument that cannot be used."""


class TooLargeError(InputError):
    """An image of more pixels than are allowed."""


class ModelError(FluxSRError):
    """A model folder, adapter or weight file that cannot be used."""


class OutputError(FluxSRError):
    """An output that cannot be written."""


class StoreError(FluxSRError):
    """A store of teacher pairs that is damaged or incomplete."""


class AcceleratorLost(FluxSRError):
    """The GPU failed, and the process that used it must be started again.

    Args:
        reason: the device's own line, from ``lost_accelerator``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the accelerator failed ({reason}); this process cannot use it any more, start it again")


def lost_accelerator(error: BaseException | None) -> str:
    """Return the device's own line where an error says that its accelerator is lost, and "" for any other error.

    CUDA reports a failed kernel again at every later call of the process. Running out of memory and calls that the
    device refuses leave it usable.
    """
    while error is not None:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        known = _is_a(error, "AcceleratorError") or (isinstance(error, RuntimeError) and _ACCELERATOR.search(line))
        if known and not _REFUSED.search(line):
            return line
        error = error.__cause__
    return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host or a device had no memory left."""
    if isinstance(error, MemoryError) or _is_a(error, "OutOfMemoryError"):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def is_untranslatable(error: BaseException) -> bool:
    """Whether an error must reach the caller as it is, because no user can act on it.

    A broad ``except`` asks this before it blames a file. It is true for a lost accelerator, for missing memory, and
    for a mistake of this package: an error such as TypeError that a line of our own raised.
    """
    if is_out_of_memory(error) or lost_accelerator(error):
        return True
    trace, module = error.__traceback__, ""
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return isinstance(error, _MISTAKES) and module.split(".")[0] == __name__.split(".")[0]


def _is_a(error: BaseException, name: str) -> bool:
    """Whether an error is of a class of PyTorch's, which is not imported for that."""
    return any(kind.__name__ == name for kind in type(error).__mro__)


def needed(what: str, extra: str, *packages: str) -> None:
    """Make sure that the packages of an extra are installed; imports none of them.

    Args:
        what: the command or option that needs them.

    Raises:
        InputError: some are not.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'{what} needs {", ".join(missing)}; pip install "fluxsr[{extra}]"')

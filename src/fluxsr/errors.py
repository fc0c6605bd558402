"""Error types that callers may catch. Each message is one line that states what was found and what to do."""

from __future__ import annotations

import importlib.util
import re

# Messages of a failed kernel, from PyTorch, a library below it or a compiled kernel.
_ACCELERATOR = re.compile(
    r"(?:CUDA|HIP|XPU)(?: driver)? error: |Triton Error \[(?:CUDA|HIP)\]: |cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"
)
# Messages after which the device is still usable, because the call was refused before it ran.
_REFUSED = re.compile(
    r"out of memory|invalid argument|invalid configuration|invalid device function|no kernel image|not supported"
    r"|CUBLAS_STATUS_(?!EXECUTION_FAILED|INTERNAL_ERROR)"
)
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "_alloc_failed")
_MISTAKES = (AssertionError, AttributeError, ImportError, NameError, NotImplementedError, TypeError)


class FluxSRError(Exception):
    """Base class of errors that the user can act on."""


class InputError(FluxSRError):
    """Error raised for an image or an argument that cannot be used."""


class TooLargeError(InputError):
    """Error raised for an image with more pixels than allowed."""


class ModelError(FluxSRError):
    """Error raised for a model folder, adapter or weight file that cannot be used."""


class OutputError(FluxSRError):
    """Error raised when an output cannot be written."""


class StoreError(FluxSRError):
    """Error raised for a store of teacher pairs that is damaged or incomplete."""


class AcceleratorLost(FluxSRError):
    """Error raised after a GPU failure, when the process must be restarted.

    Args:
        reason: the device's message, from ``lost_accelerator``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the accelerator failed ({reason}); this process cannot use it any more, start it again")


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an error's message, or the name of its class if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def lost_accelerator(error: BaseException | None) -> str:
    """Return the device's message if an error means that the accelerator is lost, and "" for any other error.

    After a failed kernel, every later CUDA call of the process fails too. After running out of memory, or after a call
    that the device refused, the device is still usable.
    """
    while error is not None:
        line = first_line(error)
        known = _is_a(error, "AcceleratorError") or (isinstance(error, RuntimeError) and _ACCELERATOR.search(line))
        if known and not _REFUSED.search(line):
            return line
        error = error.__cause__
    return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the host or a device ran out of memory."""
    if isinstance(error, MemoryError) or _is_a(error, "OutOfMemoryError"):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def is_untranslatable(error: BaseException) -> bool:
    """Return whether an error must be re-raised unchanged, because the user cannot act on it.

    A broad ``except`` checks this before it blames a file. It is true for a lost accelerator, for missing memory, and
    for a bug in this package: an error such as TypeError that a line of this package raised.
    """
    if is_out_of_memory(error) or lost_accelerator(error):
        return True
    trace, module = error.__traceback__, ""
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return isinstance(error, _MISTAKES) and module.split(".")[0] == __name__.split(".")[0]


def _is_a(error: BaseException, name: str) -> bool:
    """Return whether an error has a class of this name, so that PyTorch need not be imported."""
    return any(kind.__name__ == name for kind in type(error).__mro__)


def needed(what: str, extra: str, *packages: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Args:
        what: the command or option that needs the packages.
        extra: name of the extra of this package.
        packages: names of the packages to import.

    Raises:
        InputError: a package is not installed.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'{what} needs {", ".join(missing)}; pip install "fluxsr[{extra}]"')

"""Errors that callers may want to catch. Each message is one line: what was found, what to do."""

from __future__ import annotations

import importlib.util


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

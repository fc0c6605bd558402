"""Options of a request: those of ``fluxsr.options.UpscaleOptions`` that a client may choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluxsr.errors import InputError
from fluxsr.imaging.formats import WRITTEN
from fluxsr.options import UpscaleOptions, declared, unknown_option
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.problems import Problem

OFFERED = [name for name, option in declared(UpscaleOptions).items() if not option.local]


def checked(values: Mapping[str, Any], limits: Limits, *, text: bool) -> UpscaleOptions:
    """Return the options of a request.

    Args:
        values: option values by name, as they were sent.
        limits: the server's ``max_tile`` bounds the memory that a client can ask for.
        text: whether all values are text, as in a form. JSON has types, which must be right already.

    Raises:
        Problem: invalid_option, which names the first option that cannot be used.
    """
    try:
        for name in values:
            if name not in OFFERED:
                raise unknown_option(name, OFFERED)
        options = UpscaleOptions.from_text(values) if text else UpscaleOptions(**values)
    except InputError as error:
        raise Problem("invalid_option", str(error)) from None
    if options.tile_size is not None and options.tile_size > limits.max_tile:
        raise Problem("invalid_option", f"tile_size is {options.tile_size}; this server takes up to {limits.max_tile}")
    return options


def ending(options: UpscaleOptions, found: str) -> str:
    """Return the file ending of a result, with its dot.

    Args:
        options: their format, if any, decides.
        found: Pillow's name of the input's format.
    """
    if options.format is not None:
        return f".{options.format}"
    written = {form.name: form.endings[0] for form in WRITTEN}
    return written.get(found, ".jpg" if found == "HEIF" else ".png")

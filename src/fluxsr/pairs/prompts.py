"""Read prompts from a text file, a JSON file, or the built-in composer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fluxsr.errors import InputError
from fluxsr.pairs.composer import compose

COMPOSER = "composer"


def read_prompts(source: str, count: int, seed: int) -> list[str]:
    """Return the prompts of a source in order.

    Args:
        source: "composer", a JSON file or a text file. A JSON file holds a list of texts, a list of objects with
            "prompt", or an object from names to texts. A text file holds one prompt per line; empty lines and lines
            that begin with # are ignored.
        count, seed: number of prompts and seed of the composer.

    Raises:
        InputError: the file cannot be read or has no prompts.
    """
    if source == COMPOSER:
        if count < 1:
            raise InputError("count is 0; the composer needs the number of pairs to make")
        return compose(count, seed)
    named = read_captions(source)
    return list(named.values()) if named else _lines(source)


def read_captions(source: str) -> dict[str, str]:
    """Return the prompts of a JSON object by name; an empty dict for every other file."""
    if Path(source).suffix.lower() != ".json":
        return {}
    found = _json(source)
    if not isinstance(found, dict) or "prompts" in found:
        return {}
    return {str(name): _text(entry, source) for name, entry in found.items()}


def _lines(source: str) -> list[str]:
    if Path(source).suffix.lower() == ".json":
        found = _json(source)
        entries = found["prompts"] if isinstance(found, dict) and "prompts" in found else found
        if not isinstance(entries, list):
            raise InputError(f"{source} holds a {type(entries).__name__}; expected a list of prompts")
        prompts = [_text(entry, source) for entry in entries]
    else:
        try:
            lines = [line.strip() for line in Path(source).read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read prompts {source}: {error}; give a file, or 'composer'") from error
        prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise InputError(f"no prompts in {source}")
    return prompts


def _json(source: str) -> Any:
    try:
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read prompts {source}: {error}; give a file, or 'composer'") from error


def _text(entry: Any, source: str) -> str:
    text = entry.get("prompt") if isinstance(entry, dict) else entry
    if not isinstance(text, str):
        raise InputError(f"{source} has {str(entry)[:60]!r} for a prompt; expected a text, or an object with 'prompt'")
    return text.strip()

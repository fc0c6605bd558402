"""Recipes: read a YAML file and ``key=value`` overrides into a typed dataclass.

The dataclass defines every option with its default. An unknown key is an error that names the nearest known key.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fluxsr.errors import InputError, first_line
from fluxsr.imaging.atomic import write_text

T = TypeVar("T")


def load(
    schema: type[T],
    path: str | Path | None = None,
    overrides: Iterable[str] = (),
    base: Mapping[str, Any] | None = None,
) -> T:
    """Read a recipe into a dataclass, whose defaults apply to every key that the recipe omits.

    Args:
        schema: the dataclass.
        path: YAML file, or None for the defaults only.
        overrides: ``key=value`` strings. Dots separate nested keys (``optim.lr=1e-4``); values are YAML.
        base: values that replace the schema's defaults at any depth (a preset).

    Raises:
        InputError: the file cannot be read, a key is unknown, or a value has the wrong type.
    """
    values = {} if path is None else read(path)
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals:
            raise InputError(f"override '{item}' has no '='; write key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"cannot read override '{item}': {first_line(error)}") from error
        _assign(values, key.strip().split("."), value)
    values.pop("stage", None)  # names the schema of the file, which the caller has already chosen
    return build(schema, _merged(base or {}, values))


def save(config: Any, path: str | Path, stage: str = "") -> None:
    """Write a resolved recipe atomically. It contains every option, so it can be run again."""
    values = ({"stage": stage} if stage else {}) | dataclasses.asdict(config)
    write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), Path(path))


def flatten(config: Any, where: str = "") -> dict[str, Any]:
    """Return the options of a dataclass or mapping by dotted name, with tuples as lists, as in YAML."""
    values = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{where}{key}.")
        else:
            found[f"{where}{key}"] = list(value) if isinstance(value, (list, tuple)) else value
    return found


def build(schema: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a dataclass from a mapping and check every key; nested mappings become nested dataclasses.

    ``where`` is the dotted prefix of the keys in error messages.

    Raises:
        InputError: a key is unknown, or a value has the wrong type.
    """
    hints = typing.get_type_hints(schema)
    known = [field.name for field in dataclasses.fields(schema)]  # type: ignore[arg-type]
    filled = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            raise InputError(f"unknown recipe key '{where}{key}'; {hint}")
        filled[key] = _convert(hints[key], value, f"{where}{key}")
    return schema(**filled)


def read(path: str | Path) -> dict[str, Any]:
    """Read the keys and values of a YAML file, unchecked.

    A file with ``extends: other.yaml`` takes the keys that it omits from that file in the same folder.

    Raises:
        InputError: the file cannot be read or is not a mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read recipe {path}: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"recipe {path} is a {type(values).__name__}; it must map keys to values")
    extended = values.pop("extends", None)
    return values if extended is None else _merged(read(Path(path).parent / str(extended)), values)


def _merged(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``values`` into ``base``. A group replaces only the keys that it contains."""
    merged = dict(base)
    for key, value in values.items():
        group = merged.get(key)
        if isinstance(group, Mapping) and (value is None or isinstance(value, Mapping)):
            value = _merged(group, value or {})
        merged[key] = value
    return merged


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if tree.get(key) is None:  # a key without a value is an empty group
            tree[key] = {}
        if not isinstance(tree[key], dict):
            raise InputError(f"override '{'.'.join(keys)}': {key} is {tree[key]!r}, which has no keys below it")
        tree = tree[key]
    tree[keys[-1]] = value


def _convert(kind: Any, value: Any, name: str) -> Any:
    """Convert a value to the annotated type. Floats are parsed, because YAML reads 1e-4 as a string and 1 as an int."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if value is None else _convert(options[0], value, name)
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise InputError(f"{name} is {value!r}; choose from {', '.join(map(str, typing.get_args(kind)))}")
        return value
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return build(kind, value, f"{name}.")  # type: ignore[arg-type]
    try:
        if origin in (tuple, list):
            if not isinstance(value, (tuple, list)):  # a string would become a list of its letters
                raise TypeError
            kinds = typing.get_args(kind)
            if origin is tuple and Ellipsis not in kinds and len(kinds) != len(value):
                raise InputError(f"{name} is {value!r}; expected {len(kinds)} values")
            return origin(_convert(kinds[0], entry, name) for entry in value)
        if kind is float and not isinstance(value, bool):
            return float(value)
        if kind is bool or kind is int:
            if type(value) is not kind:
                raise TypeError
            return value
        if kind is str and not isinstance(value, (dict, list)):
            return "" if value is None else str(value)
    except (TypeError, ValueError):
        pass
    else:
        if isinstance(kind, type) and isinstance(value, kind):
            return value
    raise InputError(f"{name} is {value!r}; expected {getattr(kind, '__name__', kind)}")

"""Edit single attributes and elements of an XML text; all other bytes stay unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from xml.parsers import expat

_TOKEN = re.compile(
    rb"<!--.*?-->|<\?.*?\?>|<!\[CDATA\[.*?\]\]>|<(?P<end>/)?(?P<name>[^\s<>/\"'!?]+)(?:[^<>\"']|\"[^\"]*\"|'[^']*')*>",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(rb"\s+([^\s=<>/\"']+)\s*=\s*(\"[^\"]*\"|'[^']*')")
_DEEPEST = 100


@dataclass
class Item:
    """An attribute or an element.

    Attributes:
        name: name with the usual prefix of its namespace.
        start, stop: byte range of the item; for an attribute including the white space before it.
        inside: byte range of an attribute's value or an element's content.
        around: numbers of the enclosing elements, outermost first.
        leaf: whether it contains no elements.
    """

    name: str
    start: int
    stop: int
    inside: tuple[int, int]
    around: tuple[int, ...]
    leaf: bool = True


def parsed(data: bytes, prefixes: Mapping[str, str]) -> list[Item]:
    """Return all attributes and elements in text order, attributes directly after their element.

    Args:
        data: XML in UTF-8. What follows the outermost element is ignored.
        prefixes: beginning of a namespace's URI -> prefix of the returned names.

    Raises:
        ValueError: the text is not well-formed, has a document type, or is nested unreasonably deep.
    """
    items, open_, place = list[Item](), list[int](), 0
    while open_ or not items:
        start = data.find(b"<", place)
        token = _TOKEN.match(data, start) if start >= 0 else None
        if token is None or len(open_) >= _DEEPEST:
            raise ValueError("no XML that an XMP packet may hold")
        place = token.end()
        if token["end"] and open_:
            item = items[open_.pop()]
            item.inside, item.stop = (item.inside[0], token.start()), place
        elif token["name"]:
            if open_:
                items[open_[-1]].leaf = False
            number, around = len(items), tuple(open_)
            items.append(Item(token["name"].decode(), token.start(), place, (place, place), around))
            for found in _ATTRIBUTE.finditer(data, token.start(), place):
                value = found.start(2) + 1, found.end(2) - 1
                items.append(Item(found[1].decode(), found.start(), found.end(), value, (*around, number)))
            open_ += [] if data[place - 2 : place] == b"/>" else [number]
    try:
        expat.ParserCreate("utf-8").Parse(data[:place], True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error
    _rename(data, items, prefixes)
    return items


def _rename(data: bytes, items: list[Item], prefixes: Mapping[str, str]) -> None:
    usual = dict[str, str]()
    for item in items:
        if item.name.startswith("xmlns:"):
            address, own = data[slice(*item.inside)].decode(), item.name.removeprefix("xmlns:")
            usual[own] = next((prefix for beginning, prefix in prefixes.items() if address.startswith(beginning)), own)
    for item in items:
        prefix, colon, name = item.name.partition(":")
        if colon and prefix != "xmlns":
            item.name = f"{usual.get(prefix, prefix)}:{name}"


def replaced(data: bytes, edits: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return the text with spans (start, stop) replaced; a span inside a replaced one is ignored."""
    parts, place = list[bytes](), 0
    for start, stop, text in sorted(edits, key=lambda edit: (edit[0], -edit[1])):
        if start >= place:
            parts += [data[place:start], text]
            place = stop
    return b"".join([*parts, data[place:]])

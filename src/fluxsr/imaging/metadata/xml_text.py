"""Edit single attributes and elements of an XML text; all other bytes stay unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from xml.parsers import expat

_TAG = re.compile(rb"<[^<>\"']*(?:\"[^\"]*\"[^<>\"']*|'[^']*'[^<>\"']*)*>")
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
        ValueError: the text is not well-formed, or nested unreasonably deep.
    """
    items, open_, done = list[Item](), list[int](), list[bool]()
    parser = expat.ParserCreate("utf-8")

    def start(name: str, _: object) -> None:
        tag = _TAG.match(data, parser.CurrentByteIndex)
        if tag is None or len(open_) >= _DEEPEST or done:
            raise ValueError("unusual XML")
        if open_:
            items[open_[-1]].leaf = False
        number, around = len(items), tuple(open_)
        items.append(Item(name, tag.start(), tag.end(), (tag.end(), tag.end()), around))
        for found in _ATTRIBUTE.finditer(data, tag.start(), tag.end()):
            value = found.start(2) + 1, found.end(2) - 1
            items.append(Item(found[1].decode(), found.start(), found.end(), value, (*around, number)))
        open_.append(number)

    def end(_: str) -> None:
        item = items[open_.pop()]
        if data[item.stop - 2 : item.stop] != b"/>":
            stop = parser.CurrentByteIndex
            item.inside, item.stop = (item.inside[0], stop), data.index(b">", stop) + 1
        done.extend([] if open_ else [True])

    def doctype(*_: object) -> None:
        raise ValueError("a document type, which no XMP has")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, IndexError) as error:
        if not done:
            raise ValueError(str(error)) from error
    if not done:
        raise ValueError("no element")
    _rename(data, items, prefixes)
    return items


def _rename(data: bytes, items: list[Item], prefixes: Mapping[str, str]) -> None:
    usual = dict[str, str]()
    for item in items:
        if item.name.startswith("xmlns:"):
            address = data[slice(*item.inside)].decode()
            matches = [prefix for beginning, prefix in prefixes.items() if address.startswith(beginning)]
            usual[item.name.removeprefix("xmlns:")] = matches[0] if matches else item.name.removeprefix("xmlns:")
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

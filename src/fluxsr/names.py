"""Make file names and other untrusted text safe to print and to store.

A file name on Linux is a byte string. Python represents bytes that are not UTF-8 as lone surrogates, which UTF-8 files,
Parquet columns, JSON and HTTP headers cannot hold.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text that stays on one line and cannot control a terminal; other characters become escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def storable(text: str) -> str:
    """Return text that can be encoded as UTF-8; bytes of a name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def raw(text: str) -> bytes:
    """Return the bytes of a name as the file system has them, for hashes."""
    return text.encode("utf-8", "surrogateescape")

"""The package graph in docs/architecture.md is the one that import-linter sees.

    python tests/test_architecture.py

writes the graph into the page.
"""

from __future__ import annotations

import re
from pathlib import Path

import grimp

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"


def package_graph() -> str:
    """Return one line per package: the packages whose modules it imports, from high to low."""
    graph = grimp.build_graph("fluxsr")
    below: dict[str, set[str]] = {}
    for package in sorted(graph.find_children("fluxsr")):
        modules = {package} | graph.find_descendants(package)
        imported = {name for module in modules for name in graph.find_modules_directly_imported_by(module)}
        below[package.split(".")[1]] = {name.split(".")[1] for name in imported - modules if "." in name}
    del below["__main__"]

    def height(name: str) -> int:
        return 1 + max((height(other) for other in below[name]), default=0)

    order = sorted(below, key=lambda name: (-height(name), name))
    return "\n".join(
        f"{name:12}-> {' '.join(one for one in order if one in below[name])}".rstrip(" ->") for name in order
    )


def renewed() -> str:
    """Return the page with the current graph."""
    block = f"<!-- python tests/test_architecture.py -->\n```\n{package_graph()}\n```"
    return re.sub(r"<!-- python tests.*?```\n.*?\n```", block, PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_page_shows_the_graph() -> None:
    assert PAGE.read_text(encoding="utf-8") == renewed()


if __name__ == "__main__":
    PAGE.write_text(renewed(), encoding="utf-8")

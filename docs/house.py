"""Writes the map of the package into CONTRIBUTING.md: each folder and module with the first line of its docstring.

Run by `make map`; a test checks that the map is up to date.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gee_polygons"
TARGET = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- map: begin -->", "<!-- map: end -->"


def first_line(path: Path) -> str:
    """Return the first sentence line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def lines_of(folder: Path, depth: int) -> list[str]:
    """Return the map of a folder: its modules, then the folders in it."""
    modules = [p for p in sorted(folder.glob("*.py")) if p.name not in ("__init__.py", "__main__.py")]
    found = [f"{'  ' * depth}- `{p.stem}`: {first_line(p)}" for p in modules]
    for inner in sorted(p.parent for p in folder.glob("*/__init__.py")):
        found += [
            f"{'  ' * depth}- **`{inner.name}/`** {first_line(inner / '__init__.py')}",
            *lines_of(inner, depth + 1),
        ]
    return found


def with_map(text: str) -> str:
    """Return CONTRIBUTING.md with the current map."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join([f"{before}{BEGIN}", *lines_of(PACKAGE, 0), f"{END}{after}"])


if __name__ == "__main__":
    TARGET.write_text(with_map(TARGET.read_text(encoding="utf-8")), encoding="utf-8")

"""Reads the page's HTML, CSS and JavaScript, and joins them into what goes into one self-contained file."""

from __future__ import annotations

import re
from importlib.resources import files
from string import Template
from typing import Final

STYLES: Final = ("page", "map", "table", "sheet", "phone", "print")
# JavaScript modules, each after those that it imports from
MODULES: Final = (
    "data", "elements", "text", "colors", "charts", "matrix", "site", "dialog", "columns", "list", "legend", "map",
    "start",
)  # fmt: skip
_IMPORT: Final = re.compile(r"^import [^;]*;$", re.MULTILINE)
_EXPORT: Final = re.compile(r"^export ", re.MULTILINE)


def template(name: str) -> Template:
    """Return an HTML file with places for texts, figures, styles, scripts and data."""
    return Template(_read(f"{name}.html"))


def style() -> str:
    """Return all style sheets as one."""
    return "\n".join(_compact(_read(f"{name}.css")) for name in STYLES)


def script() -> str:
    """Return all modules as one classic script: a page that is opened as a file can't import modules."""
    modules = (_EXPORT.sub("", _IMPORT.sub("", _read(f"{name}.js"))) for name in MODULES)
    return "'use strict';\n" + "\n".join(_compact(module) for module in modules)


def _read(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _compact(source: str) -> str:
    """Leave out indentation, blank lines, and lines that are a comment."""
    lines = (line.strip() for line in source.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/*")))

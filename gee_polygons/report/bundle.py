"""Reads the page's HTML, CSS and JavaScript, and joins them into what goes into one self-contained file."""

from __future__ import annotations

import re
from importlib.resources import files
from string import Template
from typing import Final

from gee_polygons.report.language import Language

STYLES: Final = ("page", "map", "table", "visit", "sheet", "phone", "print")
# JavaScript modules, each after those that it imports from
MODULES: Final = (
    "data", "elements", "text", "places", "pictures", "colors", "charts", "matrix", "site", "dialog", "columns", "list",
    "visit", "legend", "labels", "map", "start",
)  # fmt: skip
_IMPORT: Final = re.compile(r"^import [^;]*;$", re.MULTILINE)
_TEXT: Final = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
_EXPORT: Final = re.compile(r"^export ", re.MULTILINE)


def template(name: str, say: Language) -> Template:
    """Return an HTML file with places for texts, figures, styles, scripts and data, in a language.

    Files of prose are translated as a whole (`name.pt.html`), texts in double brackets from the list of texts.
    """
    translated = f"{name}.{say.code}.html"
    source = _read(translated if files(__package__).joinpath("assets", translated).is_file() else f"{name}.html")
    return Template(_TEXT.sub(lambda found: say(" ".join(found[1].split())), source))


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

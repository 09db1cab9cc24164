"""The page's language: its texts, and numbers, counts and lists of names as the language writes them."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from gee_polygons.errors import UsageError

LANGUAGES: Final = ("en", "pt")
_MOST_NAMES: Final = 20


@dataclass(frozen=True, kw_only=True)
class Language:
    """A language of the page; texts are looked up by their English.

    Parameters
    ----------
    code : str
        As in HTML's attribute `lang`.
    texts : mapping of str to str
        Translations; a text that isn't among them stays English.
    """

    code: str
    texts: Mapping[str, str]

    def __call__(self, text: str, **figures: object) -> str:
        """Return a text in this language, with the figures in its {places}."""
        return self.texts.get(text, text).format(**figures)

    def number(self, value: float, digits: int = 0) -> str:
        """Return a number with thousands separators: 1,234.5 in English, 1.234,5 in Portuguese."""
        text = f"{value:,.{digits}f}"
        return text if self.code == "en" else text.translate({ord(","): ".", ord("."): ","})

    def count(self, n: int, noun: str) -> str:
        """Return a number and what it counts: 1 site, 2 sites."""
        return f"{self.number(n)} {self(noun if n == 1 else f'{noun}s')}"

    def names(self, ids: Sequence[Any]) -> str:
        """List ids, at most twenty of them, escaped for HTML."""
        more = len(ids) - _MOST_NAMES
        rest = f" {self('and {n} more', n=self.number(more))}" if more > 0 else ""
        return html.escape(", ".join(map(str, ids[:_MOST_NAMES]))) + rest


def language_of(code: str) -> Language:
    """Return a language by its code.

    Raises
    ------
    UsageError
        For a language that there are no texts in.

    Examples
    --------
    >>> language_of("pt").count(1234, "site")
    '1.234 áreas'
    """
    if code not in LANGUAGES:
        raise UsageError(f"the page's language is one of {', '.join(LANGUAGES)}, found {code!r}")
    if code == "en":
        return Language(code=code, texts={})
    source = files(__package__).joinpath("assets", f"{code}.json").read_text(encoding="utf-8")
    return Language(code=code, texts=json.loads(source))

"""Counts, lists of names, and rates as English text."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, Final

_MOST_NAMES: Final = 20
_NUMBERS: Final = {2: "two", 3: "three", 4: "four", 5: "five", 10: "ten", 20: "twenty", 100: "a hundred"}


def count(n: int, noun: str) -> str:
    """Return a number and what it counts: 1 site, 2 sites."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def is_or_are(n: int) -> str:
    """Return the form of "to be" that goes with a number."""
    return "is" if n == 1 else "are"


def names(ids: Sequence[Any]) -> str:
    """List ids, at most twenty of them, escaped for HTML."""
    rest = f" and {len(ids) - _MOST_NAMES:,} more" if len(ids) > _MOST_NAMES else ""
    return html.escape(", ".join(map(str, ids[:_MOST_NAMES]))) + rest


def one_in(rate: float) -> str:
    """Return a rate as a count: 0.1 is one in ten."""
    n = round(1 / rate)
    if n > 1 and abs(1 / rate - n) < 0.01:
        return f"one in {_NUMBERS.get(n, f'{n:,}')}"
    return f"{rate * 100:.3g} in a hundred"

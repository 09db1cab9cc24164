"""Converts table cells to plain Python values, and formats lists of names for messages."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

import numpy as np
import pandas as pd
import shapely

from gee_polygons.errors import SiteError

_SHOWN: Final = 5  # names in a message before "and n more"


def plain(value: Any) -> Any:
    """Return a value as a plain Python object; NaN, NaT and NA become None."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, shapely.Geometry):
        return value.wkt
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime(warn=False)
    if isinstance(value, pd.Timedelta):
        return value.to_pytimedelta()
    return value.item() if isinstance(value, np.generic) else value


def plain_id(value: Any) -> int | str | None:
    """Return an id as int or str: whole floats become ints, strings stay; None where there is none."""
    value = plain(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if value is None or (isinstance(value, float) and not math.isfinite(value)) or not str(value).strip():
        return None
    return str(value)


def plain_year(value: Any) -> int | None:
    """Return the year of a number, of a date, or of a text that holds a single one; None where there is none.

    Negative numbers, 0 and numbers of nines (99, 9999), and dates in the years 1 and 9999, are codes for no year.
    """
    value = plain(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if hasattr(value, "year"):
        return int(value.year) if 1 < value.year < 9999 else None
    whole = isinstance(value, float) and math.isfinite(value) and value == int(value)
    text = str(int(value)) if whole else str(value).strip()
    if re.fullmatch(r"(-\d+|0+|99+)(\.0*)?|(0000-00-00|0001-01-01|9999-12-31).*", text):
        return None
    if re.fullmatch(r"\d{8}", text):
        text = text[:4]  # 20160501
    # 2016, "2016.0", 2016-05-01T00:00:00, 01/05/2016
    years = {int(y) for y in re.findall(r"(?<![\d.])[1-9]\d{3}(?!\d|\.[1-9])", text)}
    if len(years) != 1:
        raise SiteError(f"{value!r} is not a year")
    return years.pop()


def listed(items: Iterable[object], shown: int = _SHOWN, separator: str = ", ") -> str:
    """Join the first few items and state how many more there are."""
    texts = [str(i) for i in items]
    more = f" and {len(texts) - shown} more" if len(texts) > shown else ""
    return separator.join(texts[:shown]) + more


def near(name: str, known: Iterable[Hashable]) -> str:
    """List the known names, the most similar to `name` first."""
    names = [str(k) for k in known]
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    return listed([repr(n) for n in dict.fromkeys([*close, *names])]) or "none"

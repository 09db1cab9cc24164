"""Dates and years as users give them, checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from gee_polygons.errors import UsageError

MIN_YEAR: Final = 1900
MAX_YEAR: Final = 2200
_YEAR_OR_MONTH: Final = re.compile(r"\s*\d{4}(-\d{2})?\s*")


def parse_dates(start_date: str | int, end_date: str | int) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the first and the last day of a period.

    Parameters
    ----------
    start_date, end_date : str, date or int
        ``"2018-01-01"``, anything else that pandas reads as a date, or a whole year or month (``2018``, ``"2018"``,
        ``"2018-06"``): its first day as `start_date`, its last as `end_date`. Times with a zone are taken in UTC, as
        Earth Engine dates images.

    Returns
    -------
    pair of Timestamp
        Midnight, without a zone; both days count.

    Raises
    ------
    UsageError
        For what isn't a date, and for an end before its start.

    Examples
    --------
    >>> parse_dates(2018, "2024-06-30")
    (Timestamp('2018-01-01 00:00:00'), Timestamp('2024-06-30 00:00:00'))
    >>> parse_dates("2018", "2024-06") == parse_dates(2018, "2024-06-30")
    True
    """
    first, last = _date(start_date, "start_date", is_end=False), _date(end_date, "end_date", is_end=True)
    if last < first:
        raise UsageError(f"end_date {end_date} is before start_date {start_date}; swap them")
    return first, last


def _date(given: str | int, name: str, *, is_end: bool) -> pd.Timestamp:
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        given = str(check_year(int(given), name))
    date: Any
    try:
        if isinstance(given, str) and _YEAR_OR_MONTH.fullmatch(given):
            period = pd.Period(given.strip())
            date = period.end_time if is_end else period.start_time
        else:
            # a number would be taken for nanoseconds since 1970
            date = pd.NaT if isinstance(given, bool | float | np.floating) else pd.Timestamp(given)
    except (ValueError, TypeError):
        date = pd.NaT
    if not isinstance(date, pd.Timestamp):
        raise UsageError(f"{name} is a date such as '2018-01-01', or a year, found {given!r}")
    if date.tzinfo is not None:
        date = date.tz_convert("UTC").tz_localize(None)  # images are dated in UTC
    return date.normalize()


def check_year(year: int, name: str = "year") -> int:
    """Return a year if it can be one, else raise a `UsageError`: 20240101, 24 and -9999 aren't years."""
    if not MIN_YEAR <= year <= MAX_YEAR:
        raise UsageError(f"{name} is a year such as 2024, found {year}")
    return year


def checked_years(years: int | Iterable[int] | str) -> tuple[int, ...]:
    """Return years in ascending order; raise a `UsageError` for none, for one given twice and for what isn't a year."""
    if isinstance(years, str):
        raise UsageError(f"years are whole numbers such as 2024 or range(2018, 2025), found the text {years!r}")
    given = list(years) if isinstance(years, Iterable) else [years]
    whole = [int(year) for year in given if isinstance(year, int | np.integer)]
    if len(whole) != len(given) or any(not MIN_YEAR <= year <= MAX_YEAR for year in whole):
        raise UsageError(f"years are whole numbers such as 2024, found {given}")
    if not whole:
        raise UsageError("no years: the range is empty; is its end before its start?")
    if len(set(whole)) != len(whole):
        raise UsageError(f"years are given twice: {whole}")
    return tuple(sorted(whole))


def years_text(years: Sequence[int]) -> str:
    """Write ascending years as 2018-2024, or 2018,2020."""
    whole = len(years) > 1 and list(years) == list(range(years[0], years[-1] + 1))
    return f"{years[0]}-{years[-1]}" if whole else ",".join(map(str, years))

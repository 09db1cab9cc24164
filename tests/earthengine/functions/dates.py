"""Dates, in UTC. A date range contains its start and not its end."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from ..errors import ServiceError, UnimplementedError
from ..registry import ee_function
from ..values import UNBOUNDED_MS, UTC, Date, DateRange, plain_number

_SECONDS = {
    "second": 1.0,
    "minute": 60.0,
    "hour": 3_600.0,
    "day": 86_400.0,
    "week": 604_800.0,
    "month": 365.2425 / 12 * 86_400.0,
    "year": 365.2425 * 86_400.0,
}


def _unit(name: str) -> str:
    unit = name.lower().removesuffix("s")
    if unit not in _SECONDS:
        raise ServiceError(f"Date: Unknown time unit '{name}'.")
    return unit


def _zone(time_zone: str | None) -> None:
    if time_zone not in (None, "UTC", "Etc/UTC", "GMT"):
        raise UnimplementedError(f"the time zone {time_zone!r}")


@ee_function("Date")
def date(value: Any, time_zone: str | None) -> Date:
    return Date.parse(value, time_zone)


@ee_function("Date.fromYMD")
def from_ymd(year: int, month: int, day: int, time_zone: str | None) -> Date:
    _zone(time_zone)
    try:
        return Date.of(dt.datetime(year, month, day, tzinfo=UTC))
    except ValueError as error:
        raise ServiceError(f"Date.fromYMD: {error}.") from None


@ee_function("Date.millis")
def millis(date: Date) -> int | float:
    return plain_number(date.ms)


def _start_of(moment: dt.datetime, unit: str) -> dt.datetime:
    cut: dict[str, Any] = {"second": {"microsecond": 0}}
    cut["minute"] = {**cut["second"], "second": 0}
    cut["hour"] = {**cut["minute"], "minute": 0}
    cut["day"] = {**cut["hour"], "hour": 0}
    cut["month"] = {**cut["day"], "day": 1}
    cut["year"] = {**cut["month"], "month": 1}
    if unit == "week":
        return moment.replace(**cut["day"]) - dt.timedelta(days=moment.weekday())
    return moment.replace(**cut[unit])


def _advanced(moment: dt.datetime, delta: float, unit: str) -> dt.datetime:
    if unit in ("month", "year"):
        months = delta * (12 if unit == "year" else 1)
        if months != int(months):
            raise UnimplementedError(f"Date.advance by {delta} {unit}s")
        total = moment.year * 12 + moment.month - 1 + int(months)
        year, month = divmod(total, 12)
        last = ((dt.date(year + month // 11, (month + 1) % 12 + 1, 1)) - dt.timedelta(days=1)).day
        return moment.replace(year=year, month=month + 1, day=min(moment.day, last))
    return moment + dt.timedelta(seconds=delta * _SECONDS[unit])


@ee_function("Date.advance")
def advance(date: Date, delta: float, unit: str, time_zone: str | None) -> Date:
    _zone(time_zone)
    return Date.of(_advanced(date.moment, delta, _unit(unit)))


@ee_function("Date.getRange")
def get_range(date: Date, unit: str, time_zone: str | None) -> DateRange:
    _zone(time_zone)
    start = _start_of(date.moment, _unit(unit))
    return DateRange(Date.of(start), Date.of(_advanced(start, 1, _unit(unit))))


@ee_function("Date.difference")
def difference(date: Date, start: Date, unit: str) -> float:
    return (date.ms - start.ms) / 1000 / _SECONDS[_unit(unit)]  # documented: by the unit's average length


@ee_function("Date.get")
def get(date: Date, unit: str, time_zone: str | None) -> int:
    _zone(time_zone)
    unit = _unit(unit)
    return date.moment.isocalendar().week if unit == "week" else int(getattr(date.moment, unit))


@ee_function("Date.getRelative")
def get_relative(date: Date, unit: str, in_unit: str, time_zone: str | None) -> int:
    _zone(time_zone)
    unit, whole = _unit(unit), _unit(in_unit)
    if (unit, whole) == ("month", "year"):
        return date.moment.month - 1
    if unit in ("day", "hour", "minute", "second"):
        return int((date.moment - _start_of(date.moment, whole)).total_seconds() // _SECONDS[unit])
    raise UnimplementedError(f"Date.getRelative of {unit} in {whole}")


@ee_function("Date.update")
def update(
    date: Date,
    year: int | None,
    month: int | None,
    day: int | None,
    hour: int | None,
    minute: int | None,
    second: float | None,
) -> Date:
    given = {"year": year, "month": month, "day": day, "hour": hour, "minute": minute, "second": second}
    try:
        return Date.of(date.moment.replace(**{k: int(v) for k, v in given.items() if v is not None}))
    except ValueError as error:
        raise ServiceError(f"Date.update: {error}.") from None


_TOKENS = {
    "yyyy": "{0.year:04d}",
    "YYYY": "{0.year:04d}",
    "MM": "{0.month:02d}",
    "M": "{0.month}",
    "dd": "{0.day:02d}",
    "d": "{0.day}",
    "HH": "{0.hour:02d}",
    "H": "{0.hour}",
    "mm": "{0.minute:02d}",
    "ss": "{0.second:02d}",
}


@ee_function("Date.format")
def format_date(date: Date, format_: str | None, time_zone: str | None) -> str:
    _zone(time_zone)
    moment = date.moment
    if format_ is None:
        return moment.strftime("%Y-%m-%dT%H:%M:%S")
    found = []
    for match in re.finditer(r"'([^']*)'|(([A-Za-z])\3*)|([^A-Za-z'])", format_):
        quoted, letters, other = match.group(1, 2, 4)
        if letters is None:
            found.append(quoted if quoted is not None else other)
        elif letters in _TOKENS:
            found.append(_TOKENS[letters].format(moment))
        elif set(letters) == {"D"}:
            found.append(str(moment.timetuple().tm_yday).zfill(len(letters)))
        elif set(letters) == {"S"} and len(letters) == 3:
            found.append(f"{moment.microsecond // 1000:03d}")
        else:
            raise UnimplementedError(f"Date.format with the pattern {format_!r} ({letters})")
    return "".join(found)


@ee_function("DateRange")
def date_range(start: Any, end: Any, time_zone: str | None) -> DateRange:
    first = Date.parse(start, time_zone)
    # documented: without an end the range is one millisecond
    return DateRange(first, Date(first.ms + 1) if end is None else Date.parse(end, time_zone))


@ee_function("DateRange.unbounded")
def unbounded() -> DateRange:
    return DateRange(Date(-UNBOUNDED_MS), Date(UNBOUNDED_MS))


@ee_function("DateRange.start")
def range_start(date_range: DateRange) -> Date:
    return date_range.start


@ee_function("DateRange.end")
def range_end(date_range: DateRange) -> Date:
    return date_range.end


@ee_function("DateRange.isEmpty")
def range_is_empty(date_range: DateRange) -> bool:
    return date_range.end.ms <= date_range.start.ms


@ee_function("DateRange.contains")
def range_contains(date_range: DateRange, other: Any) -> bool:
    if isinstance(other, DateRange):
        return date_range.start.ms <= other.start.ms and other.end.ms <= date_range.end.ms
    return date_range.contains(Date.parse(other))


@ee_function("DateRange.intersects")
def range_intersects(date_range: DateRange, other: DateRange) -> bool:
    return date_range.start.ms < other.end.ms and other.start.ms < date_range.end.ms


@ee_function("DateRange.intersection")
def range_intersection(date_range: DateRange, other: DateRange) -> DateRange:
    return DateRange(max(date_range.start, other.start), min(date_range.end, other.end))


@ee_function("DateRange.union")
def range_union(date_range: DateRange, other: DateRange) -> DateRange:
    return DateRange(min(date_range.start, other.start), max(date_range.end, other.end))

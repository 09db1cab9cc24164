"""Filters on properties, dates and places."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import shapely

from ..coercion import to_geometry
from ..errors import ServiceError, UnimplementedError
from ..feature import Feature, geometry_of
from ..registry import ee_function
from ..values import Date, DateRange, is_number

_MISSING = object()


@dataclass(frozen=True)
class Filter:
    """A test of one element."""

    passes: Callable[[Any], bool]


def _field(element: Any, name: str) -> Any:
    """Return a property; `.geo` and `.all` are the geometry; a list's items have the property "item"."""
    if name in (".geo", ".all"):
        return geometry_of(element)
    if not hasattr(element, "properties"):
        if name == "item":
            return element
        return element.get(name, _MISSING) if isinstance(element, dict) else _MISSING
    value = element.properties.get(name, _MISSING)
    return _MISSING if value is None else value


def _operands(
    function: str, left_field: Any, right_value: Any, right_field: Any, left_value: Any
) -> Callable[[Any], tuple[Any, Any]]:
    """Return what gives the left and the right operand of an element."""
    if left_field is None and left_value is None:
        raise ServiceError(f"{function}: Either leftField or leftValue is required.")
    if right_field is not None and left_field is not None:
        raise UnimplementedError(f"{function} with two fields (a join)")

    def operands(element: Any) -> tuple[Any, Any]:
        left = _field(element, left_field) if left_field is not None else left_value
        right = _field(element, right_field) if right_field is not None else right_value
        return left, right

    return operands


def _plain(value: Any) -> Any:
    return value.ms if isinstance(value, Date) else value


def _comparable(left: Any, right: Any) -> bool:
    return (is_number(left) and is_number(right)) or (isinstance(left, str) and isinstance(right, str))


_COMPARISONS: dict[tuple[str, ...], Callable[[Any, Any], bool]] = {
    ("eq", "equals"): lambda a, b: a == b,
    ("neq", "notEquals"): lambda a, b: a != b,
    ("lt", "lessThan"): lambda a, b: _comparable(a, b) and a < b,
    ("lte", "lessThanOrEquals"): lambda a, b: _comparable(a, b) and a <= b,
    ("gt", "greaterThan"): lambda a, b: _comparable(a, b) and a > b,
    ("gte", "greaterThanOrEquals"): lambda a, b: _comparable(a, b) and a >= b,
    ("stringStartsWith",): lambda a, b: isinstance(a, str) and a.startswith(b),
    ("stringEndsWith",): lambda a, b: isinstance(a, str) and a.endswith(b),
    ("stringContains",): lambda a, b: isinstance(a, str) and b in a,
    ("inList",): lambda a, b: a in [_plain(v) for v in b],
    ("listContains",): lambda a, b: isinstance(a, list) and b in a,
}


def _comparison(function: str, test: Callable[[Any, Any], bool]) -> Callable[..., Filter]:
    def build(left_field: Any, right_value: Any, right_field: Any, left_value: Any) -> Filter:
        operands = _operands(function, left_field, right_value, right_field, left_value)

        def passes(element: Any) -> bool:
            left, right = (_plain(v) for v in operands(element))
            # an element without the property passes no comparison, not even "not equal"
            return left is not _MISSING and right is not _MISSING and test(left, right)

        return Filter(passes)

    return build


for _names, _test in _COMPARISONS.items():
    ee_function(*(f"Filter.{n}" for n in _names))(_comparison(f"Filter.{_names[0]}", _test))


@ee_function("Filter.dateRangeContains")
def date_range_contains(left_field: Any, right_value: Any, right_field: Any, left_value: Any) -> Filter:
    operands = _operands("Filter.dateRangeContains", left_field, right_value, right_field, left_value)

    def passes(element: Any) -> bool:
        found, date = operands(element)
        if found is _MISSING or date is _MISSING:
            return False
        if not isinstance(found, DateRange):
            raise ServiceError("Filter.dateRangeContains: the left operand must be a DateRange.")
        return found.contains(Date.parse(date))

    return Filter(passes)


@ee_function("Filter.calendarRange")
def calendar_range(start: int, end: int | None, field: str) -> Filter:
    last = start if end is None else end
    parts: dict[str, Callable[[dt.datetime], int]] = {
        "year": lambda m: m.year,
        "month": lambda m: m.month,
        "hour": lambda m: m.hour,
        "minute": lambda m: m.minute,
        "day_of_year": lambda m: m.timetuple().tm_yday,
        "day_of_month": lambda m: m.day,
        "day_of_week": lambda m: m.isoweekday(),
    }
    if field not in parts:
        raise ServiceError(f"Filter.calendarRange: Unknown calendar field '{field}'.")

    def passes(element: Any) -> bool:
        moment = _field(element, "system:time_start")
        if moment is _MISSING:
            return False
        value = parts[field](Date.parse(moment).moment)
        return start <= value <= last if start <= last else value >= start or value <= last

    return Filter(passes)


@ee_function("Filter.dayOfYear")
def day_of_year(start: int, end: int) -> Filter:
    inner = calendar_range(start, end - 1, "day_of_year")  # documented: the end is exclusive
    return inner


@ee_function("Filter.and")
def filter_and(filters: list) -> Filter:
    return Filter(lambda element: all(f.passes(element) for f in filters))


@ee_function("Filter.or")
def filter_or(filters: list) -> Filter:
    return Filter(lambda element: any(f.passes(element) for f in filters))


@ee_function("Filter.not")
def filter_not(filter_: Filter) -> Filter:
    return Filter(lambda element: not filter_.passes(element))


@ee_function("Filter.always")
def always() -> Filter:
    return Filter(lambda element: True)


@ee_function("Filter.never")
def never() -> Filter:
    return Filter(lambda element: False)


@ee_function("Filter.notNull")
def not_null(properties: list) -> Filter:
    return Filter(lambda element: all(_field(element, p) is not _MISSING for p in properties))


@ee_function("Filter.rangeContains")
def range_contains(field: str, min_value: Any, max_value: Any) -> Filter:
    def passes(element: Any) -> bool:
        value = _plain(_field(element, field))
        return value is not _MISSING and _plain(min_value) <= value <= _plain(max_value)

    return Filter(passes)


@ee_function("Filter.hasGeometry")
def has_geometry() -> Filter:
    return Filter(lambda element: geometry_of(element) is not None)


def _spatial(function: str, test: Callable[[Any, Any], bool]) -> Callable[..., Filter]:
    def build(left_field: Any, right_value: Any, right_field: Any, left_value: Any) -> Filter:
        operands = _operands(function, left_field, right_value, right_field, left_value)
        prepared: dict[int, Any] = {}

        def shape(value: Any) -> Any:
            if id(value) not in prepared:
                found = to_geometry(value).lonlat
                found = shapely.from_wkb(shapely.to_wkb(found))  # its own: prepared geometries can't be shared
                shapely.prepare(found)
                prepared[id(value)] = found
            return prepared[id(value)]

        def passes(element: Any) -> bool:
            left, right = operands(element)
            if left is None or right is None or (isinstance(right, Feature) and right.geometry is None):
                return False
            return bool(test(shape(left), shape(right)))

        return Filter(passes)

    return build


for _name, _relation in {
    "intersects": lambda a, b: shapely.intersects(b, a),
    "disjoint": lambda a, b: not shapely.intersects(b, a),
    "contains": shapely.contains,
    "isContained": shapely.within,
}.items():
    ee_function(f"Filter.{_name}")(_spatial(f"Filter.{_name}", _relation))

"""Values to documented types, the way that the service promotes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import geometry as geo
from .errors import ServiceError, UnimplementedError
from .feature import Collection, Element, Feature
from .geometry import Geometry
from .image import Image, constant
from .projection import Projection
from .values import Algorithm, Date, DateRange, ErrorMargin, is_number, kind_of


class _WrongTypeError(Exception):
    """The value has the wrong type."""


def coerce(value: Any, wanted: str, function: str, argument: str) -> Any:
    """Return a value as the documented type, or raise the service's error."""
    base = wanted.partition("<")[0] or wanted
    convert = _CONVERTERS.get(base)
    if convert is None:
        raise UnimplementedError(f"{function} (its argument {argument!r} is of type {wanted})")
    try:
        return convert(value)
    except _WrongTypeError:
        raise ServiceError(
            f"{function}, argument '{argument}': Invalid type.\nExpected type: {wanted}.\n"
            f"Actual type: {kind_of(value)}."
        ) from None


def to_image(value: Any) -> Image:
    if isinstance(value, Image):
        return value
    if is_number(value) or isinstance(value, bool):
        return constant([int(value) if isinstance(value, bool) else value])
    if isinstance(value, list) and value and all(map(is_number, value)):
        return constant(value)
    raise _WrongTypeError


def to_geometry(value: Any) -> Geometry:
    if isinstance(value, Geometry):
        return value
    if isinstance(value, Feature):
        if value.geometry is None:
            raise ServiceError("Feature.geometry: the feature has no geometry.")
        return value.geometry
    if isinstance(value, Collection):
        return geo.union(to_geometry(e) for e in value.elements)
    if isinstance(value, dict) and "type" in value and ("coordinates" in value or "geometries" in value):
        return geo.from_geojson(value)
    raise _WrongTypeError


def to_collection(value: Any) -> Collection:
    if isinstance(value, Collection):
        return value
    if isinstance(value, Image | Feature):
        return Collection.of([value])
    if isinstance(value, Geometry):
        return Collection.of([Feature(value, {})])
    if isinstance(value, list):
        return Collection.of([to_element(v) for v in value])
    raise _WrongTypeError


def to_element(value: Any) -> Element:
    if isinstance(value, Image | Feature | Collection):
        return value
    if isinstance(value, Geometry):
        return Feature(value, {})
    raise _WrongTypeError


def to_feature(value: Any) -> Feature:
    found = to_element(value)
    if not isinstance(found, Feature):
        raise _WrongTypeError
    return found


def to_list(value: Any) -> list:
    if isinstance(value, list):
        return value
    if isinstance(value, str) or is_number(value):
        return [value]
    raise _WrongTypeError


def to_dictionary(value: Any) -> dict:
    if isinstance(value, dict):
        return value
    raise _WrongTypeError


def to_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _WrongTypeError


def to_number(value: Any) -> float:
    if is_number(value):
        return value
    if isinstance(value, bool):
        return int(value)
    raise _WrongTypeError


def to_integer(value: Any) -> int:
    number = to_number(value)
    if number != int(number):
        raise _WrongTypeError
    return int(number)


def to_boolean(value: Any) -> bool:
    if isinstance(value, bool) or is_number(value):
        return bool(value)
    raise _WrongTypeError


def to_date(value: Any) -> Date:
    return Date.parse(value)


def to_date_range(value: Any) -> DateRange:
    if isinstance(value, DateRange):
        return value
    raise _WrongTypeError


def to_projection(value: Any) -> Projection:
    if isinstance(value, Projection):
        return value
    if isinstance(value, str):
        return Projection.parse(value)
    if isinstance(value, dict) and value.get("type") == "Projection":
        return Projection.parse(value["crs"], value["transform"])
    raise _WrongTypeError


def to_margin(value: Any) -> ErrorMargin:
    if isinstance(value, ErrorMargin):
        return value
    if is_number(value):
        return ErrorMargin(value)
    if isinstance(value, dict) and value.get("type") == "ErrorMargin":
        return ErrorMargin(value.get("value"), value.get("unit", "meters"))
    raise _WrongTypeError


def to_algorithm(value: Any) -> Algorithm:
    if isinstance(value, Algorithm):
        return value
    raise _WrongTypeError


def _instance_of(name: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value).__name__ != name and not any(base.__name__ == name for base in type(value).__mro__):
            raise _WrongTypeError
        return value

    return convert


def _anything(value: Any) -> Any:
    return value


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "Image": to_image,
    "ImageCollection": to_collection,
    "FeatureCollection": to_collection,
    "Element": to_element,
    "Feature": to_feature,
    "Geometry": to_geometry,
    "List": to_list,
    "Dictionary": to_dictionary,
    "String": to_text,
    "Number": to_number,
    "Float": to_number,
    "Integer": to_integer,
    "Long": to_integer,
    "Boolean": to_boolean,
    "Date": to_date,
    "DateRange": to_date_range,
    "Projection": to_projection,
    "ErrorMargin": to_margin,
    "Algorithm": to_algorithm,
    "Reducer": _instance_of("Reducer"),
    "Filter": _instance_of("Filter"),
    "Object": _anything,
    "<any>": _anything,
}

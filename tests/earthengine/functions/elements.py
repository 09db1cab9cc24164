"""Elements (features and images alike), features, and collections of them."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from .. import geometry as geo
from ..coercion import to_element, to_geometry
from ..errors import ServiceError, UnimplementedError
from ..feature import Collection, Element, Feature, geometry_of, indexed
from ..geometry import Geometry
from ..image import Image
from ..registry import ee_function
from ..values import Algorithm, Date, is_number, plain_number
from .filters import Filter
from .lists import _sort_key

# --- properties -------------------------------------------------------------------------------------------------------


def _ordinary(name: str) -> bool:
    return not name.startswith("system:")


@ee_function("Element.get", "Element.getNumber", "Element.getString")
def element_get(object_: Element, property: str) -> Any:
    if property == "system:footprint" and isinstance(object_, Image):
        return geometry_of(object_)
    if property == "system:id" and isinstance(object_, Image):
        return object_.id
    return object_.properties.get(property)


@ee_function("Element.set")
def element_set(object_: Element, key: str, value: Any) -> Element:
    return object_.with_properties({**object_.properties, key: value})


@ee_function("Element.setMulti")
def element_set_multi(object_: Element, properties: dict) -> Element:
    return object_.with_properties({**object_.properties, **properties})


@ee_function("Element.propertyNames")
def element_names(element: Element) -> list:
    return sorted(element.properties)


@ee_function("Element.toDictionary")
def element_dictionary(element: Element, properties: list | None) -> dict:
    if properties is None:
        return {k: v for k, v in element.properties.items() if _ordinary(k)}
    return {k: element.properties.get(k) for k in properties}


@ee_function("Element.copyProperties", "Image.copyProperties")
def copy_properties(
    destination: Element | None, source: Element | None, properties: list | None, exclude: list | None
) -> Element:
    if destination is None or source is None:
        raise ServiceError("Element.copyProperties: Parameters 'destination' and 'source' are required.")
    if properties is not None:
        copied = {k: source.properties[k] for k in properties if k in source.properties}
    else:
        copied = {k: v for k, v in source.properties.items() if _ordinary(k) and k not in (exclude or [])}
    return destination.with_properties({**destination.properties, **copied})


@ee_function("Image.id", "Feature.id")
def element_id(element: Element) -> str | None:
    return element.index


# --- features ---------------------------------------------------------------------------------------------------------


@ee_function("Feature")
def feature(geometry: Geometry | None, metadata: dict, geometry_key: str | None) -> Feature:
    if geometry_key is not None:
        raise UnimplementedError("Feature with a geometryKey")
    return Feature(geometry, dict(metadata))


@ee_function("Feature.setGeometry")
def set_geometry(feature: Feature, geometry: Geometry | None) -> Feature:
    return Feature(geometry, feature.properties)


@ee_function("Feature.geometry", "Image.geometry", "Element.geometry")
def feature_geometry(feature: Element, max_error: Any, proj: Any, geodesics: Any) -> Geometry | None:
    if proj is not None or geodesics is not None:
        raise UnimplementedError("Element.geometry in another projection")
    return geometry_of(feature)


@ee_function("Feature.select")
def feature_select(
    input: Element, property_selectors: list, new_properties: list | None, retain_geometry: bool
) -> Element:
    names = property_selectors if new_properties is None else new_properties
    if len(names) != len(property_selectors):
        raise ServiceError("Feature.select: 'newProperties' must be as long as 'propertySelectors'.")
    if any(set(s) & set("*+[(.\\") for s in property_selectors):
        raise UnimplementedError("Feature.select with patterns")
    chosen = {
        new: input.properties[old]
        for old, new in zip(property_selectors, names, strict=True)
        if old in input.properties
    }
    kept = {k: v for k, v in input.properties.items() if k == "system:index"}
    if isinstance(input, Feature):
        return Feature(input.geometry if retain_geometry else None, {**kept, **chosen})
    return input.with_properties({**kept, **chosen})


# --- collections ------------------------------------------------------------------------------------------------------


@ee_function("Collection")
def collection(features: list) -> Collection:
    return Collection.of([to_element(f) for f in features])


@ee_function("Collection.filter")
def collection_filter(collection: Collection, filter_: Any) -> Collection:
    if not isinstance(filter_, Filter):
        raise UnimplementedError("a filter written as text")
    return collection.with_elements(e for e in collection.elements if filter_.passes(e))


@ee_function("List.filter")
def list_filter(list_: list, filter_: Filter) -> list:
    return [v for v in list_ if filter_.passes(v)]


@ee_function("Collection.limit")
def collection_limit(collection: Collection, limit: int | None, key: str | None, ascending: bool) -> Collection:
    elements = list(collection.elements)
    if key is not None:
        with_key = [e for e in elements if e.properties.get(key) is not None]
        without = [e for e in elements if e.properties.get(key) is None]
        with_key.sort(key=lambda e: _sort_key(e.properties[key]), reverse=not ascending)
        elements = with_key + without
    return collection.with_elements(elements if limit is None else elements[:limit])


@ee_function("Collection.merge", "ImageCollection.merge")
def collection_merge(collection1: Collection, collection2: Collection) -> Collection:
    """Put two collections behind one another; their ids get the prefixes "1_" and "2_"."""
    merged = [
        indexed(element, f"{number}_{element.index if element.index is not None else position}")
        for number, part in ((1, collection1), (2, collection2))
        for position, element in enumerate(part.elements)
    ]
    return Collection(tuple(merged))


@ee_function("Collection.size")
def collection_size(collection: Collection) -> int:
    return len(collection.elements)


@ee_function("Collection.first")
def collection_first(collection: Collection) -> Any:
    return collection.elements[0] if collection.elements else None


@ee_function("Collection.map")
def collection_map(collection: Collection, base_algorithm: Algorithm, drop_nulls: bool) -> Collection:
    found = []
    for element in collection.elements:
        result = base_algorithm(element)
        if result is None:
            if drop_nulls:
                continue
            raise ServiceError(
                "Collection.map: A mapped algorithm must return an Element (Image or Feature), found null."
            )
        result = to_element(result) if isinstance(result, Geometry) else result
        if not isinstance(result, Image | Feature | Collection):
            raise ServiceError("Collection.map: A mapped algorithm must return a Feature or Image.")
        # the element's id, unless the function gave another
        found.append(result if result.index is not None or element.index is None else indexed(result, element.index))
    return Collection(tuple(found), None, collection.properties)


@ee_function("Collection.iterate")
def collection_iterate(collection: Collection, function: Algorithm, first: Any) -> Any:
    state = first
    for element in collection.elements:
        state = function(element, state)
    return state


@ee_function("Collection.toList")
def collection_list(collection: Collection, count: int, offset: int) -> list:
    return list(collection.elements[offset : offset + count])


@ee_function("Collection.flatten")
def collection_flatten(collection: Collection) -> Collection:
    found = []
    for outer, part in enumerate(collection.elements):
        if not isinstance(part, Collection):
            raise ServiceError("Collection.flatten: The input collection must contain collections only.")
        prefix = part.index if part.index is not None else str(outer)
        found.extend(
            indexed(element, f"{prefix}_{element.index if element.index is not None else inner}")
            for inner, element in enumerate(part.elements)
        )
    return Collection(tuple(found))


@ee_function("Collection.geometry")
def collection_geometry(collection: Collection) -> Geometry:
    return geo.union(g for g in (geometry_of(e) for e in collection.elements) if g is not None)


@ee_function("Collection.bounds")
def collection_bounds(collection: Collection, proj: Any) -> Geometry:
    from .geometries import bounds

    if proj is not None and (proj.crs, proj.transform) != ("EPSG:4326", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)):
        raise UnimplementedError("Collection.bounds in another projection")
    return bounds(collection_geometry(collection), None, None)


@ee_function("Collection.union")
def collection_union(collection: Collection) -> Collection:
    merged = collection_geometry(collection)
    return Collection((Feature(merged, {"system:index": "union_result"}),))


@ee_function("Collection.distinct")
def collection_distinct(collection: Collection, properties: Any) -> Collection:
    names = [properties] if isinstance(properties, str) else properties
    if any(name.startswith(".") for name in names):
        raise UnimplementedError("Collection.distinct by geometry")
    seen, found = [], []
    for element in collection.elements:
        key = [element.properties.get(name) for name in names]
        if key not in seen:
            seen.append(key)
            found.append(element)
    return collection.with_elements(found)


# --- aggregates of a property -----------------------------------------------------------------------------------------


def _column(collection: Collection, property: str) -> list:
    found = (to_geometry(e) if property == ".geo" else e.properties.get(property) for e in collection.elements)
    return [v.ms if isinstance(v, Date) else v for v in found if v is not None]


def _numbers(collection: Collection, property: str) -> list[float]:
    values = _column(collection, property)
    if not all(is_number(v) for v in values):
        raise ServiceError(f"Collection.aggregate: the property '{property}' is not numeric.")
    return values


@ee_function("AggregateFeatureCollection.array")
def aggregate_array(collection: Collection, property: str) -> list:
    return _column(collection, property)


@ee_function("AggregateFeatureCollection.first")
def aggregate_first(collection: Collection, property: str) -> Any:
    return collection.elements[0].properties.get(property) if collection.elements else None


@ee_function("AggregateFeatureCollection.count")
def aggregate_count(collection: Collection, property: str) -> int:
    return len(_column(collection, property))


@ee_function("AggregateFeatureCollection.count_distinct")
def aggregate_count_distinct(collection: Collection, property: str) -> int:
    return len(set(map(repr, _column(collection, property))))


@ee_function("AggregateFeatureCollection.histogram")
def aggregate_histogram(collection: Collection, property: str) -> dict:
    keys = (str(plain_number(v)) if is_number(v) else str(v) for v in _column(collection, property))
    return dict(sorted(Counter(keys).items()))


@ee_function("AggregateFeatureCollection.min")
def aggregate_min(collection: Collection, property: str) -> Any:
    return min(_column(collection, property), default=None)


@ee_function("AggregateFeatureCollection.max")
def aggregate_max(collection: Collection, property: str) -> Any:
    return max(_column(collection, property), default=None)


@ee_function("AggregateFeatureCollection.sum")
def aggregate_sum(collection: Collection, property: str) -> float:
    return plain_number(math.fsum(_numbers(collection, property)))


@ee_function("AggregateFeatureCollection.mean")
def aggregate_mean(collection: Collection, property: str) -> float | None:
    values = _numbers(collection, property)
    return math.fsum(values) / len(values) if values else None

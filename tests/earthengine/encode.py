"""Values as JSON: what value:compute and table:computeFeatures answer."""

from __future__ import annotations

import math
from typing import Any

from .errors import ServiceError, UnimplementedError
from .faults import ELEMENT_LIMIT
from .feature import Collection, Feature
from .geometry import Geometry
from .image import INTEGER_RANGES, Band, Image
from .projection import Projection
from .values import Date, DateRange, plain_number


def encode(value: Any) -> Any:
    """Return a JSON value, as getInfo shows it."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnimplementedError(f"the number {value} in an answer")
        return value
    if isinstance(value, list):
        _limit(sum(isinstance(v, Feature | Image) for v in value))
        return [encode(v) for v in value]
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, Date):
        return {"type": "Date", "value": plain_number(value.ms)}
    if isinstance(value, DateRange):
        return {"type": "DateRange", "dates": [plain_number(value.start.ms), plain_number(value.end.ms)]}
    if isinstance(value, Geometry | Projection):
        return value.encode()
    if isinstance(value, Feature):
        return _feature(value, None if value.geometry is None else value.geometry.encode())
    if isinstance(value, Image):
        return _image(value)
    if isinstance(value, Collection):
        return _collection(value)
    raise UnimplementedError(f"an answer of type {type(value).__name__}")


def _limit(elements: int) -> None:
    if elements > ELEMENT_LIMIT:
        raise ServiceError(f"Collection query aborted after accumulating over {ELEMENT_LIMIT} elements.")


def _collection(value: Collection) -> dict[str, Any]:
    _limit(len(value.elements))
    found: dict[str, Any] = {"type": "ImageCollection" if value.is_images else "FeatureCollection"}
    if value.id is not None:
        found["id"] = value.id
    if value.is_images:
        found["bands"] = []
    else:
        found["columns"] = {}
    if value.properties:
        found["properties"] = {k: encode(v) for k, v in value.properties.items()}
    found["features"] = [encode(e) for e in value.elements]
    return found


def _feature(value: Feature, geometry: dict[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "Feature", "geometry": geometry}
    if value.index is not None:
        found["id"] = value.index
    found["properties"] = {k: encode(v) for k, v in value.properties.items() if k != "system:index"}
    return found


def plain_feature(value: Any) -> dict[str, Any]:
    """Return a feature of computeFeatures: plain GeoJSON, EPSG:4326, planar edges."""
    if not isinstance(value, Feature):
        raise ServiceError("Table.computeFeatures: every element must be a Feature.")
    return _feature(value, None if value.geometry is None else value.geometry.geojson())


def _image(value: Image) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "Image", "bands": [_band(b) for b in value.bands]}
    if value.id is not None:
        found["id"] = value.id
    if value.properties:
        found["properties"] = {k: encode(v) for k, v in value.properties.items()}
    return found


def _band(band: Band) -> dict[str, Any]:
    kind: dict[str, Any] = {"type": "PixelType", "precision": band.kind}
    if band.kind in INTEGER_RANGES:
        kind["precision"] = "int"
        kind["min"], kind["max"] = INTEGER_RANGES[band.kind]
    return {
        "id": band.name,
        "data_type": kind,
        "crs": band.projection.crs,
        "crs_transform": list(band.projection.transform),
    }

"""Geometry constructors, relations and operations, and projections.

Buffers are drawn in an equidistant projection around the geometry (the distance is true to a millimetre for sites of a
few kilometres); Earth Engine approximates the same circle with its own vertices, so vertices are not comparable.
Areas and lengths are not answered: the service computes them on a sphere of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyproj
import shapely

from .. import geometry as geo
from ..errors import ServiceError, UnimplementedError
from ..feature import Collection, Element, Feature, geometry_of
from ..geometry import LONLAT, Geometry
from ..projection import Projection, crs_of
from ..registry import ee_function

# --- constructors -----------------------------------------------------------------------------------------------------


def _crs(crs: Projection | None) -> str:
    if crs is None:
        return LONLAT
    if crs.transform != (1.0, 0.0, 0.0, 0.0, 1.0, 0.0):
        raise UnimplementedError("a geometry in the pixels of a projection")
    return crs.crs


def _points(coordinates: list) -> list:
    if coordinates and not isinstance(coordinates[0], list):
        return [coordinates[i : i + 2] for i in range(0, len(coordinates), 2)]
    return coordinates


@ee_function("GeometryConstructors.Point")
def point(coordinates: list, crs: Projection | None) -> Geometry:
    return Geometry(shapely.Point(coordinates[:2]), _crs(crs))


@ee_function("GeometryConstructors.MultiPoint")
def multi_point(coordinates: list, crs: Projection | None) -> Geometry:
    return Geometry(shapely.MultiPoint(_points(coordinates)), _crs(crs))


@ee_function("GeometryConstructors.LineString")
def line_string(coordinates: list, crs: Projection | None, geodesic: bool | None) -> Geometry:
    return Geometry(shapely.LineString(_points(coordinates)), _crs(crs), geodesic)


@ee_function("GeometryConstructors.LinearRing")
def linear_ring(coordinates: list, crs: Projection | None, geodesic: bool | None) -> Geometry:
    return Geometry(shapely.LinearRing(_points(coordinates)), _crs(crs), geodesic)


@ee_function("GeometryConstructors.Polygon")
def polygon(coordinates: list, crs: Projection | None, geodesic: bool | None, even_odd: bool) -> Geometry:
    rings = coordinates
    if rings and rings[0] and not isinstance(rings[0][0], list) and not isinstance(rings[0], int | float):
        rings = [coordinates]  # one ring, given without its list
    return Geometry(geo.polygon(rings, even_odd), _crs(crs), geodesic)


@ee_function("GeometryConstructors.MultiPolygon")
def multi_polygon(coordinates: list, crs: Projection | None, geodesic: bool | None, even_odd: bool) -> Geometry:
    return Geometry(geo.multipolygon(coordinates, even_odd), _crs(crs), geodesic)


@ee_function("GeometryConstructors.Rectangle")
def rectangle(coordinates: list, crs: Projection | None, geodesic: bool | None) -> Geometry:
    (x0, y0), (x1, y1) = _points(coordinates)
    return Geometry(shapely.box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), _crs(crs), geodesic)


@ee_function("GeometryConstructors.BBox")
def bbox(west: float, south: float, east: float, north: float) -> Geometry:
    if east < west:
        raise UnimplementedError("a BBox across the antimeridian")
    return Geometry(shapely.box(west, south, east, north), LONLAT, False)


@ee_function("GeometryConstructors.MultiGeometry")
def multi_geometry(geometries: list) -> Geometry:
    return geo.union(geometries)


# --- what a geometry is -----------------------------------------------------------------------------------------------


@ee_function("Geometry.type")
def geometry_type(geometry: Geometry) -> str:
    return str(geometry.shape.geom_type)


@ee_function("Geometry.coordinates")
def coordinates(geometry: Geometry) -> list:
    return geometry.encode()["coordinates"]


@ee_function("Geometry.geodesic", "Geometry.edgesAreGeodesics")
def is_geodesic(geometry: Geometry) -> bool:
    return geometry.geodesic


@ee_function("Geometry.isUnbounded")
def is_unbounded(geometry: Geometry) -> bool:
    return geometry.unbounded


@ee_function("Geometry.projection")
def projection_of(geometry: Geometry) -> Projection:
    return Projection(geometry.crs)


@ee_function("Geometry.geometries")
def geometries(geometry: Geometry) -> list:
    parts = getattr(geometry.shape, "geoms", [geometry.shape])
    return [Geometry(part, geometry.crs, geometry.geodesic) for part in parts]


# --- operations -------------------------------------------------------------------------------------------------------


def _planar(proj: Projection | None, what: str) -> None:
    if proj is not None and (proj.crs, proj.transform) != (LONLAT, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)):
        raise UnimplementedError(f"{what} in a given projection")


@ee_function("Geometry.bounds")
def bounds(geometry: Geometry, max_error: Any, proj: Projection | None) -> Geometry:
    """Return the box around a geometry, in EPSG:4326 with planar edges, or in a given projection."""
    if proj is not None and proj.crs != LONLAT:
        _crs(proj)
        return Geometry(shapely.box(*geometry.project(proj.crs).bounds), proj.crs, False)
    return Geometry(shapely.box(*geometry.lonlat.bounds), LONLAT, False)


@ee_function("Feature.bounds")
def feature_bounds(feature: Element, max_error: Any, proj: Projection | None) -> Element:
    return _with(feature, lambda g: bounds(g, max_error, proj))


@ee_function("Geometry.buffer")
def buffer(geometry: Geometry, distance: float, max_error: Any, proj: Projection | None) -> Geometry:
    if proj is not None:
        raise UnimplementedError("Geometry.buffer in a given projection")
    lonlat = geometry.lonlat
    x, y = lonlat.centroid.x, lonlat.centroid.y
    local = f"+proj=aeqd +lat_0={y!r} +lon_0={x!r} +datum=WGS84 +units=m +no_defs"
    there = pyproj.Transformer.from_crs(LONLAT, local, always_xy=True)
    shape = shapely.transform(lonlat, lambda xy: np.column_stack(there.transform(xy[:, 0], xy[:, 1])))
    grown = shapely.buffer(shape, distance, quad_segs=16)
    back = shapely.transform(
        grown, lambda xy: np.column_stack(there.transform(xy[:, 0], xy[:, 1], direction="INVERSE"))
    )
    return Geometry(back, LONLAT, False)


@ee_function("Feature.buffer")
def feature_buffer(feature: Element, distance: float, max_error: Any, proj: Projection | None) -> Element:
    return _with(feature, lambda g: buffer(g, distance, max_error, proj))


@ee_function("Geometry.centroid")
def centroid(geometry: Geometry, max_error: Any, proj: Projection | None) -> Geometry:
    raise UnimplementedError("Geometry.centroid (the service computes it on the sphere)")


@ee_function("Geometry.transform")
def transform(geometry: Geometry, proj: Projection, max_error: Any, geodesic: bool | None) -> Geometry:
    target = _crs(proj)
    if geodesic is None:
        geodesic = crs_of(target).is_geographic
    if target == geometry.crs and geodesic == geometry.geodesic:
        return geometry
    return Geometry(geometry.project(target), target, geodesic)


@ee_function("Geometry.dissolve")
def dissolve(geometry: Geometry, max_error: Any, proj: Projection | None) -> Geometry:
    return geo.union([Geometry(shapely.union_all([geometry.shape]), geometry.crs, geometry.geodesic)])


def _pair(operation: Callable[[Any, Any], Any], left: Geometry, right: Geometry) -> Geometry:
    if (left.crs, left.geodesic) == (right.crs, right.geodesic):
        return Geometry(operation(left.shape, right.shape), left.crs, left.geodesic)
    return Geometry(operation(left.lonlat, right.lonlat), LONLAT, False)


def _operation(name: str, function: Callable[[Any, Any], Any]) -> None:
    @ee_function(f"Geometry.{name}")
    def of_geometries(left: Geometry, right: Geometry, max_error: Any, proj: Projection | None) -> Geometry:
        _planar(proj, f"Geometry.{name}")
        return _pair(function, left, right)

    @ee_function(f"Feature.{name}")
    def of_features(left: Element, right: Element, max_error: Any, proj: Projection | None) -> Element:
        _planar(proj, f"Feature.{name}")
        other = _shape(right)
        return _with(left, lambda g: _pair(function, g, other))


def _relation(name: str, test: Callable[[Any, Any], bool]) -> None:
    @ee_function(f"Geometry.{name}")
    def of_geometries(left: Geometry, right: Geometry, max_error: Any, proj: Projection | None) -> bool:
        _planar(proj, f"Geometry.{name}")
        return bool(test(left.lonlat, right.lonlat))

    @ee_function(f"Feature.{name}")
    def of_features(left: Element, right: Element, max_error: Any, proj: Projection | None) -> bool:
        _planar(proj, f"Feature.{name}")
        return bool(test(_shape(left).lonlat, _shape(right).lonlat))


for _name, _function in {
    "intersection": shapely.intersection,
    "union": shapely.union,
    "difference": shapely.difference,
    "symmetricDifference": shapely.symmetric_difference,
}.items():
    _operation(_name, _function)
for _name, _test in {
    "intersects": shapely.intersects,
    "disjoint": shapely.disjoint,
    "contains": shapely.contains,
    "containedIn": shapely.within,
}.items():
    _relation(_name, _test)


def _shape(element: Element) -> Geometry:
    found = geometry_of(element)
    if found is None:
        raise ServiceError("Feature.geometry: the feature has no geometry.")
    return found


def _with(element: Element, change: Callable[[Geometry], Geometry]) -> Element:
    if not isinstance(element, Feature):
        kind = "collection" if isinstance(element, Collection) else "image"
        raise UnimplementedError(f"a geometry operation on a {kind}")
    return Feature(change(_shape(element)), element.properties)


# --- projections ------------------------------------------------------------------------------------------------------


@ee_function("Projection", "Proj")
def projection(crs: Any, transform: list | None, transform_wkt: str | None) -> Projection:
    if transform_wkt is not None:
        raise UnimplementedError("Projection with a transform in WKT")
    if isinstance(crs, Projection):
        return crs if transform is None else Projection.parse(crs.crs, transform)
    return Projection.parse(crs, transform)


@ee_function("Projection.crs")
def projection_crs(projection: Projection) -> str:
    return projection.crs


@ee_function("Projection.nominalScale")
def nominal_scale(proj: Projection) -> float:
    return proj.nominal_scale


@ee_function("Projection.atScale")
def at_scale(projection: Projection, meters: float) -> Projection:
    return projection.at_scale(meters)


@ee_function("Projection.scale")
def projection_scale(projection: Projection, x: float, y: float) -> Projection:
    a, b, c, d, e, f = projection.transform
    return Projection(projection.crs, (a * x, b * y, c, d * x, e * y, f))


@ee_function("ErrorMargin")
def error_margin(value: float | None, unit: str) -> Any:
    from ..values import ErrorMargin

    return ErrorMargin(value, unit)

"""Geometries: shapely shapes with a CRS, and edges that are geodesic or straight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from .errors import ServiceError, UnimplementedError
from .projection import DEGREE_M, crs_of, transformer

LONLAT = "EPSG:4326"
# an edge is split before it is projected, so that it deviates by less than a centimetre from its true course
LONGEST_EDGE_M = 500.0
_GEOD = pyproj.Geod(ellps="WGS84")
WORLD = shapely.box(-180, -90, 180, 90)


class Geometry:
    """A shape. `geodesic` is meaningful in geographic coordinates only."""

    def __init__(self, shape: BaseGeometry, crs: str = LONLAT, geodesic: bool | None = None, unbounded: bool = False):
        self.shape = shape
        self.crs = crs
        self.geodesic = crs_of(crs).is_geographic if geodesic is None else geodesic
        self.unbounded = unbounded

    @cached_property
    def key(self) -> tuple[bytes, str, bool]:
        return shapely.to_wkb(self.shape), self.crs, self.geodesic

    def project(self, crs: str) -> BaseGeometry:
        """Return the shape in another CRS, long edges split so that they keep their course."""
        if crs == self.crs and not self.geodesic:
            return self.shape
        return _project(*self.key, crs)

    @property
    def lonlat(self) -> BaseGeometry:
        return self.project(LONLAT)

    @property
    def is_polygonal(self) -> bool:
        return self.shape.geom_type in ("Polygon", "MultiPolygon")

    def encode(self) -> dict[str, Any]:
        """Return what getInfo answers: GeoJSON, with the CRS and the edges named where they aren't the default."""
        found = _geojson(self.shape)
        if self.crs != LONLAT:
            found["crs"] = {"type": "name", "properties": {"name": self.crs}}
        found["geodesic"] = self.geodesic
        return found

    def geojson(self) -> dict[str, Any]:
        """Return plain GeoJSON in EPSG:4326 with planar edges, as computeFeatures and exports write."""
        return _geojson(self.lonlat)


@lru_cache(maxsize=4096)
def _project(wkb: bytes, crs: str, geodesic: bool, target: str) -> BaseGeometry:
    shape = shapely.from_wkb(wkb)
    if geodesic and crs_of(crs).is_geographic:
        shape = _map_rings(shape, _split_geodesic)
    elif target != crs:
        unit = DEGREE_M if crs_of(crs).is_geographic else 1.0
        shape = shapely.segmentize(shape, LONGEST_EDGE_M / unit)
    if target != crs:
        move = transformer(crs, target)
        shape = shapely.transform(shape, lambda xy: np.column_stack(move.transform(xy[:, 0], xy[:, 1])))
    return shape


def _map_rings(shape: BaseGeometry, change: Callable[[np.ndarray], np.ndarray]) -> BaseGeometry:
    if shape.geom_type == "Polygon":
        rings = [change(np.asarray(ring.coords)) for ring in (shape.exterior, *shape.interiors)]
        return shapely.Polygon(rings[0], rings[1:])
    if shape.geom_type == "LineString":
        return shapely.LineString(change(np.asarray(shape.coords)))
    if hasattr(shape, "geoms"):
        return type(shape)([_map_rings(part, change) for part in shape.geoms])
    return shape


def _split_geodesic(points: np.ndarray) -> np.ndarray:
    """Put points along the great circle between neighbours that are far apart."""
    far = np.hypot(*(np.diff(points, axis=0)).T) * DEGREE_M > LONGEST_EDGE_M
    if not far.any():
        return points
    found: list[Any] = []
    for start, end, split in zip(points[:-1], points[1:], far, strict=True):
        found.append(start)
        if split:
            _, _, length = _GEOD.inv(*start, *end)
            count = int(length // LONGEST_EDGE_M)
            if count:
                found.extend(_GEOD.npts(*start, *end, count))
    found.append(points[-1])
    return np.asarray(found)


def _geojson(shape: BaseGeometry) -> dict[str, Any]:
    return _lists(shapely.geometry.mapping(shape))


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lists(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_lists(v) for v in value]
    return value


def polygon(rings: list, even_odd: bool = True) -> BaseGeometry:
    """Build a polygon of rings that may be open. Interiors are found by the even-odd rule."""
    if not rings:
        return shapely.Polygon()
    if not even_odd:
        ring = shapely.LinearRing(_closed(rings[0]))
        if not ring.is_ccw:
            raise UnimplementedError("a polygon with evenOdd=False whose shell runs clockwise (the rest of the world)")
    try:
        shape = shapely.Polygon(_closed(rings[0]), [_closed(ring) for ring in rings[1:]])
    except (ValueError, TypeError, shapely.errors.GEOSException) as error:
        raise ServiceError(f"GeometryConstructors.Polygon: {error}") from None
    return shape if shape.is_valid else _areas(shapely.make_valid(shape))


def multipolygon(polygons: list, even_odd: bool = True) -> BaseGeometry:
    return shapely.union_all([polygon(rings, even_odd) for rings in polygons])


def _areas(shape: BaseGeometry) -> BaseGeometry:
    """Leave out the points and lines that repairing a polygon can leave behind."""
    parts = [p for p in getattr(shape, "geoms", [shape]) if p.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(parts) if parts else shapely.Polygon()


def _closed(ring: list) -> list:
    if ring and not isinstance(ring[0], list | tuple):
        ring = [ring[i : i + 2] for i in range(0, len(ring), 2)]  # [x, y, x, y, ...]
    points = [tuple(float(v) for v in point[:2]) for point in ring]
    return points if not points or points[0] == points[-1] else [*points, points[0]]


def from_geojson(value: dict[str, Any]) -> Geometry:
    """Read GeoJSON as it stands in a constant."""
    crs = value.get("crs", {}).get("properties", {}).get("name", LONLAT) if value.get("crs") else LONLAT
    geodesic = value.get("geodesic")
    kind, coordinates = value["type"], value.get("coordinates")
    if kind == "Polygon":
        return Geometry(polygon(coordinates, value.get("evenOdd", True)), crs, geodesic)
    if kind == "MultiPolygon":
        return Geometry(multipolygon(coordinates, value.get("evenOdd", True)), crs, geodesic)
    if kind == "GeometryCollection":
        return union([from_geojson(g) for g in value["geometries"]])
    if kind == "Rectangle":
        (x0, y0), (x1, y1) = coordinates
        return Geometry(shapely.box(x0, y0, x1, y1), crs, geodesic)
    return Geometry(shapely.geometry.shape({"type": kind, "coordinates": coordinates}), crs, geodesic)


def union(geometries: Iterable[Geometry]) -> Geometry:
    """Merge geometries; those of unlike CRS or edges in EPSG:4326 with planar edges."""
    found = list(geometries)
    if any(g.unbounded for g in found):
        return everywhere()
    kinds = {(g.crs, g.geodesic) for g in found}
    if len(kinds) == 1:
        crs, geodesic = kinds.pop()
        return Geometry(shapely.union_all([g.shape for g in found]), crs, geodesic)
    return Geometry(shapely.union_all([g.lonlat for g in found]), LONLAT, False)


def everywhere() -> Geometry:
    return Geometry(WORLD, LONLAT, False, unbounded=True)

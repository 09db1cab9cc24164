"""Converts geometries of any CRS to valid, two-dimensional polygons in EPSG:4326.

A site that crosses the antimeridian becomes one polygon with longitudes beyond 180. Errors list the rows, from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import geopandas
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from gee_polygons.errors import CrsError, SiteError, UsageError
from gee_polygons.site.values import listed


class RefusedRowsError(SiteError):
    """Some rows can't be sites; `reasons` holds the reason for each, by row."""

    def __init__(self, message: str, reasons: Mapping[int, str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons)


RowNamer: TypeAlias = Callable[[int], str]

WGS84: Final = pyproj.CRS.from_epsg(4326)
MAX_EDGE_M: Final = 1000.0  # longer edges of a projected CRS get vertices before they are reprojected
MAX_COORDINATE_M: Final = 1e8  # larger than the coordinates of any projected CRS, zone prefixes included
LON_RANGE: Final = (-180.0, 360.0)
ROUNDING_DEG: Final = 1e-9  # tolerance beyond +-180 and +-90 for rounding in reprojection
_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7  # shapely.get_type_id


def normalised(
    geometry: Any, crs: Any, where: str, name: RowNamer, without: str = "has no geometry"
) -> tuple[NDArray[Any], dict[int, str]]:
    """Return the polygons of a GeoSeries in EPSG:4326, and the defects that were repaired, by row.

    `without` describes a row whose geometry is None.
    """
    found = _crs(geometry.crs, crs, where)
    raw = np.asarray(geometry.to_numpy(), dtype=object)
    _refuse({row: fault for row in _suspects(raw) if (fault := _fault(raw[row], without))}, where, name)
    polygons = shapely.force_2d(raw)
    for row in np.flatnonzero(
        (shapely.get_type_id(polygons) != _POLYGON) | (shapely.get_num_interior_rings(polygons) > 0)
    ):
        polygons[row] = _flat(polygons[row])
    repairs: dict[int, str] = {}
    _repair(polygons, repairs, where, name)

    per_unit = found.axis_info[0].unit_conversion_factor if found.axis_info else 1.0
    if found.is_geographic and math.isclose(per_unit, math.pi / 180, rel_tol=1e-6):
        _check_range(polygons, where, name, found)  # now, because a datum shift would wrap or lose such values
    if found.is_projected:
        far = np.abs(shapely.bounds(polygons)).max(axis=1) * per_unit > MAX_COORDINATE_M
        _check_lost(far, where, name, found)
        _check_not_degrees(polygons, where, name, found)
        polygons = shapely.segmentize(polygons, MAX_EDGE_M / per_unit)
    polygons = _to_lon_lat(polygons, found, where)
    _check_lost(~np.isfinite(shapely.bounds(polygons)).all(axis=1), where, name, found)
    _check_range(polygons, where, name, found)
    _join_at_antimeridian(polygons, where, name, projected=found.is_projected)
    _repair(polygons, repairs, where, name)  # rounding can make an edge touch another
    return polygons, dict(sorted(repairs.items()))


def polygon_fault(polygon: Any) -> str | None:
    """Return why a geometry can't be a site's polygon, or None."""
    if not isinstance(polygon, shapely.Geometry):
        return f"is a {type(polygon).__name__}, not a shapely polygon"
    if fault := _fault(polygon):
        return fault
    if shapely.get_type_id(polygon) == _COLLECTION:
        return "is a GeometryCollection, not a polygon"
    if not shapely.is_valid(polygon):
        return f"is not valid: {_reason(polygon)}"
    if any(_without_empty_rings(part) is not part for part in _leaves(polygon)):
        return "has a hole without points"
    return _range_fault(polygon.bounds)


def same_crs(one: Any, other: Any) -> bool:
    """Whether two CRSs are equal apart from axis order, which geopandas ignores."""
    return one is not None and other is not None and bool(one.equals(other, ignore_axis_order=True))


def _crs(stated: pyproj.CRS | None, asked: Any, where: str) -> pyproj.CRS:
    if asked is None:
        if stated is None:
            raise CrsError(
                f'{where} doesn\'t say its coordinate reference system; state it with crs=, for example crs="EPSG:4326"'
            )
        return stated
    try:
        crs = pyproj.CRS.from_user_input(asked)
    except pyproj.exceptions.CRSError:
        raise UsageError(f'unknown coordinate reference system crs={asked!r}; write it like "EPSG:5880"') from None
    if stated is not None and not same_crs(stated, crs):
        raise UsageError(
            f"{where} says its coordinates are in {stated.to_string()[:60]}, the call says crs={asked!r}; crs= is for "
            "data that doesn't say: leave it out, or correct the data with GeoDataFrame.set_crs(allow_override=True)"
        )
    return crs


# checks --------------------------------------------------------------------------------------------------------------


def _refuse(faults: Mapping[int, str], where: str, name: RowNamer, remedy: str = "correct or remove it") -> None:
    if faults:
        said = listed((f"{name(row)} {fault}" for row, fault in faults.items()), separator="; ")
        raise RefusedRowsError(f"{where}: {said}; {remedy}", faults)


def _suspects(raw: NDArray[Any]) -> list[int]:
    """Return the rows that need a closer look: not a polygon or multipolygon with finite coordinates."""
    plain = np.isin(shapely.get_type_id(raw), (_POLYGON, _MULTIPOLYGON)) & ~shapely.is_empty(raw)
    coordinates, rows = shapely.get_coordinates(raw, return_index=True)
    plain[rows[~np.isfinite(coordinates).all(axis=1)]] = False
    return np.flatnonzero(~plain).tolist()


def _fault(geometry: Any, without: str = "has no geometry") -> str | None:
    if geometry is None:
        return without
    if others := sorted({g.geom_type for g in _leaves(geometry)} - {"Polygon"}):
        return f"is a {geometry.geom_type}" + (
            ", not a polygon" if others == [geometry.geom_type] else f" with a {others[0]} in it, not only polygons"
        )
    if geometry.is_empty:
        return "has an empty geometry"
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        return "has a coordinate that is NaN or infinite"
    return None


def _check_lost(lost: NDArray[np.bool_], where: str, name: RowNamer, crs: pyproj.CRS) -> None:
    reason = f"has coordinates that don't exist in {crs.name}"
    _refuse({int(row): reason for row in np.flatnonzero(lost)}, where, name, "is that the right CRS?")


def _check_not_degrees(polygons: NDArray[Any], where: str, name: RowNamer, crs: pyproj.CRS) -> None:
    small = (np.abs(shapely.bounds(polygons)).max(axis=1) <= LON_RANGE[1]) & (shapely.area(polygons) < 1.0)
    reason = f"is smaller than one square unit of {crs.name}"
    rows = {int(row): reason for row in np.flatnonzero(small)}
    _refuse(rows, where, name, "degrees labelled as metres? state the CRS that they are in")


def _check_range(polygons: NDArray[Any], where: str, name: RowNamer, crs: pyproj.CRS) -> None:
    west, south, east, north = shapely.bounds(polygons).T
    (low, high), r = LON_RANGE, ROUNDING_DEG
    outside = np.flatnonzero((west < low - r) | (east > high + r) | (south < -90 - r) | (north > 90 + r))
    remedy = "metres labelled as degrees? state the CRS that they are in" if crs.is_geographic else "is its CRS right?"
    _refuse({int(row): _range_fault(polygons[row].bounds) or "" for row in outside}, where, name, remedy)


def _range_fault(box: Any) -> str | None:
    west, south, east, north = (float(v) for v in box)
    (low, high), r = LON_RANGE, ROUNDING_DEG
    if low - r <= west and east <= high + r and -90 - r <= south and north <= 90 + r:
        return None
    return f"lies at x {west:.7g} to {east:.7g}, y {south:.7g} to {north:.7g}, which isn't longitude and latitude"


# conversions ---------------------------------------------------------------------------------------------------------


def _leaves(geometry: Any) -> list[Any]:
    if shapely.get_type_id(geometry) in (_MULTIPOLYGON, _COLLECTION):
        return [leaf for part in geometry.geoms for leaf in _leaves(part)]
    return [geometry]


def _flat(geometry: Any) -> Any:
    """Turn a collection of polygons into a multipolygon, or a polygon if it has one part; leave out empty holes."""
    return _one(_without_empty_rings(p) for p in _leaves(geometry) if not p.is_empty)


def _without_empty_rings(polygon: Any) -> Any:
    """Leave out holes without points, which are valid, and at which `shapely.segmentize` crashes."""
    holes = [hole for hole in polygon.interiors if not hole.is_empty]
    return polygon if len(holes) == len(polygon.interiors) else shapely.Polygon(polygon.exterior, holes)


def _one(parts: Iterable[Any]) -> Any:
    polygons = list(parts)
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def _repair(polygons: NDArray[Any], repairs: dict[int, str], where: str, name: RowNamer) -> None:
    """Repair in place. Method "structure" keeps overlapping shells filled; the even-odd rule would make them holes."""
    for row in map(int, np.flatnonzero(~shapely.is_valid(polygons))):
        repairs.setdefault(row, _reason(polygons[row]))
        repaired = shapely.make_valid(polygons[row], method="structure", keep_collapsed=False)
        polygons[row] = _one(p for p in _leaves(repaired) if p.geom_type == "Polygon" and not p.is_empty)
    _refuse({int(row): "has no area" for row in np.flatnonzero(shapely.area(polygons) == 0)}, where, name)


def _reason(polygon: Any) -> str:
    reason, _, at = str(shapely.is_valid_reason(polygon)).partition("[")
    return f"{reason.lower()} at {at.rstrip(']')}" if at else reason.lower()


def _to_lon_lat(polygons: NDArray[Any], crs: pyproj.CRS, where: str) -> NDArray[Any]:
    if same_crs(crs, WGS84):
        return polygons
    try:
        # 2-D coordinates: of a compound CRS only the horizontal part matters
        moved = geopandas.GeoSeries(polygons, crs=crs).to_crs(WGS84)
    except pyproj.exceptions.ProjError as error:
        raise CrsError(f"{where}: PROJ has no transformation from {crs.name!r} to longitude and latitude") from error
    return np.array(moved.to_numpy(), dtype=object)


def _join_at_antimeridian(polygons: NDArray[Any], where: str, name: RowNamer, *, projected: bool) -> None:
    """Join, in place, each site that crosses the antimeridian to one polygon with longitudes beyond 180."""
    bounds = shapely.bounds(polygons)
    faults = {}
    for crossing in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180):
        row = int(crossing)
        polygon, width = polygons[row], float(bounds[row, 2] - bounds[row, 0])
        if _longest_edge_deg(polygon) > 180:
            if not projected:  # a jump of this size is a crossing where longitudes were computed; here it is stated
                faults[row] = f"has an edge across {_longest_edge_deg(polygon):.4g} degrees of longitude"
            polygons[row] = shapely.transform(polygon, _past_180)
        else:
            # split at the antimeridian, as RFC 7946 wants it; parts far apart for another reason stay as they are
            parts = [shapely.transform(p, _past_180) if p.bounds[2] <= 0 else p for p in _leaves(polygon)]
            joined = shapely.union_all(parts)
            if joined.bounds[2] - joined.bounds[0] < width / 2:
                polygons[row] = joined
    _refuse(faults, where, name, "across the antimeridian, count on past 180: 179.9, 180.1")
    beyond = shapely.bounds(polygons)[:, 0] >= 180
    polygons[beyond] = shapely.transform(polygons[beyond], lambda xy: xy - (360.0, 0.0))


def _longest_edge_deg(polygon: Any) -> float:
    rings = [ring for p in _leaves(polygon) for ring in (p.exterior, *p.interiors)]
    return max(float(np.abs(np.diff(shapely.get_coordinates(ring)[:, 0])).max()) for ring in rings)


def _past_180(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    return xy + np.where(xy[:, :1] < 0, (360.0, 0.0), 0.0)

"""Chooses the UTM zone in which a polygon is measured, and cuts polygons at zone boundaries and the antimeridian.

AlphaEarth tiles carry EPSG:326zz north and EPSG:327zz south of the equator. A zone's *cell* is its 6 degrees of
longitude in one hemisphere. A zone's tiles reach past its cell, so a polygon across the boundary of a cell is normally
measured as a whole in the zone of its centroid.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray

Box = tuple[float, float, float, float]


def zone_crs(lon: float, lat: float) -> str:
    """Return the EPSG code of the UTM zone that holds a place.

    Examples
    --------
    >>> zone_crs(-48.2, -22.9), zone_crs(-88.8, 44.3), zone_crs(180.5, 10)
    ('EPSG:32722', 'EPSG:32616', 'EPSG:32601')
    """
    number = math.floor((lon + 180) / 6) % 60 + 1
    return f"EPSG:{(32600 if lat >= 0 else 32700) + number}"


def zone_cell(crs: str, near_lon: float = 0.0) -> Box | None:
    """Return (west, south, east, north) in degrees of a UTM zone's cell; None for another CRS.

    Parameters
    ----------
    crs : str
        ``"EPSG:326zz"`` or ``"EPSG:327zz"``.
    near_lon : float
        Cells repeat every 360 degrees; the one nearest to this longitude is returned, so that cells meet at the
        antimeridian.

    Examples
    --------
    >>> zone_cell("EPSG:32722")
    (-54.0, -90.0, -48.0, 0.0)
    >>> zone_cell("EPSG:32601", near_lon=179.9)
    (180.0, 0.0, 186.0, 90.0)
    """
    code = crs.removeprefix("EPSG:")
    if not (code.isdigit() and len(code) == 5 and code[:3] in ("326", "327") and 1 <= int(code[3:]) <= 60):
        return None
    middle = int(code[3:]) * 6.0 - 183.0
    middle += 360.0 * round((near_lon - middle) / 360.0)
    south, north = (0.0, 90.0) if code[2] == "6" else (-90.0, 0.0)
    return middle - 3.0, south, middle + 3.0, north


def unwrap(polygons: NDArray[Any]) -> NDArray[Any]:
    """Put polygons that were cut at the antimeridian back together, with longitudes past 180.

    RFC 7946 cuts such polygons in two parts, near -180 and near 180; their centroid would lie in Africa.

    Examples
    --------
    >>> parts = shapely.union_all([shapely.box(179.9, 0, 180, 1), shapely.box(-180, 0, -179.9, 1)])
    >>> [round(v, 3) for v in unwrap(np.array([parts]))[0].bounds]
    [179.9, 0.0, 180.1, 1.0]
    """
    bounds = shapely.bounds(polygons)
    cut = np.flatnonzero((bounds[:, 0] <= -179.0) & (bounds[:, 2] >= 179.0))
    if not len(cut):
        return polygons
    polygons = polygons.copy()
    for i in cut:
        parts = shapely.get_parts(polygons[i])
        west = shapely.bounds(parts)[:, 0] < 0
        parts[west] = shapely.transform(parts[west], lambda xy: xy + np.array([360.0, 0.0]))
        polygons[i] = shapely.union_all(parts)
    return polygons


def wrap(polygon: Any, west: float) -> Any:
    """Shift a polygon's longitudes into west..west + 360, cutting it where it reaches past an end of that range.

    Examples
    --------
    >>> [round(v, 3) for v in wrap(shapely.box(-179.8, 0, -179.7, 1), 170.0).bounds]
    [180.2, 0.0, 180.3, 1.0]
    >>> [tuple(part.bounds) for part in wrap(shapely.box(179.5, 0, 180.5, 1), -180.0).geoms]
    [(179.5, 0.0, 180.0, 1.0), (-180.0, 0.0, -179.5, 1.0)]
    """
    least, _, most, _ = polygon.bounds
    first = math.floor((least - west) / 360)
    turns = range(first, max(math.ceil((most - west) / 360), first + 1))
    parts: list[Any] = []
    for turn in turns:
        start = west + 360.0 * turn
        inside = polygon
        if len(turns) > 1:
            inside = shapely.intersection(polygon, shapely.box(start, -90.0, start + 360.0, 90.0))
        moved = shapely.affinity.translate(inside, -360.0 * turn)
        # an intersection may also contain points and lines
        parts += [part for part in shapely.get_parts(shapely.get_parts(moved)) if part.geom_type == "Polygon"]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def bounding_boxes(polygons: NDArray[Any]) -> NDArray[Any]:
    """Return bounding boxes; of a polygon across the antimeridian it reaches past 180, and not around the Earth.

    Examples
    --------
    >>> parts = shapely.union_all([shapely.box(179.9, 0, 180, 1), shapely.box(-180, 0, -179.9, 1)])
    >>> [round(v, 3) for v in bounding_boxes(np.array([parts]))[0].bounds]
    [179.9, 0.0, 180.1, 1.0]
    """
    return shapely.box(*shapely.bounds(unwrap(polygons)).T)


def home_zones(polygons: NDArray[Any]) -> NDArray[np.str_]:
    """Return the EPSG code of the UTM zone of each polygon's centroid; polygons in EPSG:4326, from `unwrap`."""
    centroids = shapely.centroid(polygons)
    lon, lat = shapely.get_x(centroids), shapely.get_y(centroids)
    number = np.floor((lon + 180) / 6).astype(np.int64) % 60 + 1
    codes, which = np.unique(np.where(lat >= 0, 32600, 32700) + number, return_inverse=True)
    return np.array([f"EPSG:{code}" for code in codes])[which]


def cells_touched(bounds: Box) -> list[tuple[str, Box]]:
    """Return the UTM zones, with their cells, that a box of longitudes and latitudes touches.

    Examples
    --------
    >>> [crs for crs, _ in cells_touched((-48.1, -23.0, -47.9, -22.9))]
    ['EPSG:32722', 'EPSG:32723']
    """
    west, south, east, north = bounds
    hemispheres = [lat for lat, is_touched in ((-1.0, south < 0), (1.0, north > 0)) if is_touched]
    cells = []
    for turn in range(math.floor((west + 180) / 6), math.ceil((east + 180) / 6)):
        lon = turn * 6 - 177.0
        for lat in hemispheres:
            crs = zone_crs(lon, lat)
            cell = zone_cell(crs, lon)
            assert cell is not None
            cells.append((crs, cell))
    return cells

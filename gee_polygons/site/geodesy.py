"""Areas and buffers on the WGS 84 ellipsoid, and polygons in the form that Earth Engine takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from gee_polygons.zonal.projection import transformer
from gee_polygons.zonal.zones import zone_crs

EE_DECIMALS: Final = 7  # 1 cm
MAX_EDGE_DEG: Final = 0.02  # about 2 km: edges are straight in EPSG:4326, so longer ones get vertices first

_GEOD: Final = pyproj.Geod(ellps="WGS84")


def area_ha(polygon: Any) -> float:
    """Geodesic area on WGS 84 in hectares, holes subtracted; edges are straight in longitude and latitude."""
    m2 = 0.0
    for part in shapely.get_parts(shapely.segmentize(polygon, MAX_EDGE_DEG)):
        m2 += _ring_m2(part.exterior) - sum(_ring_m2(hole) for hole in part.interiors)
    return m2 / 1e4


def buffered(polygon: Any, distance_m: float) -> Any:
    """Buffer in metres in the polygon's UTM zone; returns a polygon in EPSG:4326, which may be empty."""
    centre = shapely.centroid(polygon)
    utm = zone_crs(centre.x, centre.y)
    to_utm, to_lon_lat = transformer("EPSG:4326", utm), transformer(utm, "EPSG:4326")

    def forward(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(to_utm.transform(xy[:, 0], xy[:, 1]))

    def back(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        lon, lat = to_lon_lat.transform(xy[:, 0], xy[:, 1])
        # PROJ answers within -180..180: stay on the polygon's side of the antimeridian
        return np.column_stack([lon + 360.0 * np.round((centre.x - lon) / 360.0), lat])

    flat = shapely.transform(shapely.segmentize(polygon, MAX_EDGE_DEG), forward)
    return shapely.transform(shapely.buffer(flat, distance_m), back)


def ee_geojson(polygon: Any, decimals: int = EE_DECIMALS) -> dict[str, Any]:
    """Return GeoJSON with open rings and seven decimals: 41 bytes a vertex, not 76. Earth Engine closes the rings."""
    parts = [_rings(p, decimals) for p in shapely.get_parts(polygon)]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def ee_properties(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties whose types Earth Engine has: text, numbers, dates, and lists of text or numbers."""
    kept = {name: _ee_value(value) for name, value in properties.items()}
    return {name: value for name, value in kept.items() if value is not None}


def _ee_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return value if all(v is not None and _ee_value(v) is v for v in value) else None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float) else None


def _rings(polygon: Any, decimals: int) -> list[list[list[float]]]:
    shell = _open_ring(polygon.exterior, decimals)
    if len(shell) < 3:  # smaller than a centimetre
        shell = shapely.get_coordinates(polygon.exterior)[:-1].tolist()
    holes = (_open_ring(hole, decimals) for hole in polygon.interiors)
    return [shell, *(hole for hole in holes if len(hole) >= 3)]


def _open_ring(ring: Any, decimals: int) -> list[list[float]]:
    xy = np.round(shapely.get_coordinates(ring)[:-1], decimals) + 0.0  # + 0.0: no -0.0
    # vertices that rounding made equal to the one before
    return xy[(xy != np.roll(xy, 1, axis=0)).any(axis=1)].tolist()


def _ring_m2(ring: Any) -> float:
    lon, lat = shapely.get_coordinates(ring).T
    return math.fabs(_GEOD.polygon_area_perimeter(lon, lat)[0])

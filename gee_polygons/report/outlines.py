"""Draws the outlines of sites as SVG paths in the frame of the map; sites far from all others are left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gee_polygons.site import SiteCollection

MAP_WIDTH: Final = 1000.0
_LEAST_RADIUS: Final = 4.0  # in units of the map: a site of one pixel must be visible and clickable
_SIMPLIFY: Final = 0.4
_METRES_PER_DEGREE: Final = 111_320.0
_MARGIN: Final = (20.0, 20.0, 20.0, 55.0)  # west, north, east, south: the scale bar is below
_FAR_PART: Final = 0.05  # of the sites, or one, may be left out of the frame,
_FAR_GAIN: Final = 3.0  # if the frame becomes so many times smaller


def map_of(records: list[dict[str, Any]], sites: SiteCollection) -> dict[str, Any] | None:
    """Add the SVG path of its polygon to each record, and return the frame of the map; None without polygons."""
    polygon_of = dict(zip(map(str, sites.site_ids), sites.polygons, strict=True))
    known = [r for r in records if r["id"] in polygon_of]
    if not known:
        return None
    shapes = np.array([polygon_of[r["id"]] for r in known], dtype=object)
    far = _far(shapes)
    west, south, east, north = shapely.total_bounds(shapes[~far])
    flat = math.cos(math.radians((south + north) / 2))
    span = max((east - west) * flat, (north - south) * 0.6, 1e-5)
    scale = MAP_WIDTH / span

    def place(xy: Any) -> Any:
        return np.column_stack([(xy[:, 0] - west) * flat * scale, (north - xy[:, 1]) * scale])

    near = [r for r, is_far in zip(known, far, strict=True) if not is_far]
    for record, shape in zip(near, shapely.transform(shapes[~far], place), strict=True):
        box = shape.bounds
        if max(box[2] - box[0], box[3] - box[1]) < 2 * _LEAST_RADIUS:
            shape = shape.centroid.buffer(_LEAST_RADIUS, quad_segs=3)
        record["path"] = _path(shapely.simplify(shape, _SIMPLIFY))
    left, top, right, bottom = _MARGIN
    wide, tall = (east - west) * flat * scale + left + right, (north - south) * scale + top + bottom
    return {
        "box": [-left, -top, round(wide), round(tall)],
        "origin": [round(west, 7), round(north, 7), round(flat * scale, 4), round(scale, 4)],  # of lon, lat
        "metre": round(scale / _METRES_PER_DEGREE, 9),
        "far": [r["id"] for r, is_far in zip(known, far, strict=True) if is_far],
    }


def _far(shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Return which few sites are so far away that the others would be dots on a map of all."""
    centres = shapely.get_coordinates(shapely.centroid(shapes))
    distance = np.linalg.norm(centres - np.median(centres, axis=0), axis=1)
    few = max(1, int(_FAR_PART * len(shapes)))
    none = np.zeros(len(shapes), np.bool_)
    if len(shapes) <= few + 2:
        return none
    out = none.copy()
    out[np.argsort(distance, kind="stable")[-few:]] = True
    if _extent(shapes) < _FAR_GAIN * _extent(shapes[~out]):
        return none
    return np.asarray(distance > _FAR_GAIN * distance[~out].max(), np.bool_)


def _extent(shapes: NDArray[np.object_]) -> float:
    west, south, east, north = shapely.total_bounds(shapes)
    return float(max(east - west, north - south))


def _path(shape: shapely.Geometry) -> str:
    rings = [
        ring
        for part in shapely.get_parts(shape)
        if part.geom_type == "Polygon"
        for ring in (part.exterior, *part.interiors)
    ]
    text = ("L".join(f"{x:.1f} {y:.1f}" for x, y in shapely.get_coordinates(ring)[:-1]) for ring in rings)
    return "".join(f"M{points}Z" for points in text)

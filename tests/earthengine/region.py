"""Pixels in a region: exact coverage, Earth Engine's weights, and which centres lie inside.

Documented ("Pixels in the region", "Weighted reductions"): an unweighted reducer takes the pixels whose centre is in
the region; a weighted one weighs each pixel by the covered fraction times the mask, where the fraction is held as an
8-bit integer and fractions below about 1/256 are lost. Here: weight = min(floor(256 f), 255) / 255, so a whole pixel
weighs exactly 1. The server's `exact_weights` leaves the fractions as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from .errors import UnimplementedError
from .geometry import Geometry
from .projection import Grid, Projection


@dataclass(frozen=True)
class Region:
    """A geometry on the pixels of a projection. `coverage` and `centres` are (height, width)."""

    grid: Grid
    coverage: np.ndarray
    centres: np.ndarray

    def weights(self, *, exact: bool) -> np.ndarray:
        if exact:
            return self.coverage
        # 1e-9: a pixel that is whole but for rounding is whole
        return np.minimum(np.floor(self.coverage * 256 + 1e-9), 255) / 255

    @property
    def pixels(self) -> int:
        return int((self.coverage > 0).sum())


_known: OrderedDict[tuple, Region] = OrderedDict()
_lock = Lock()
_laying = [Lock() for _ in range(64)]


def region_of(geometry: Geometry, projection: Projection) -> Region:
    """Lay a geometry over the pixels of a projection; remembered, because years share their regions."""
    key = (geometry.key, projection)
    with _lock:
        found = _known.get(key)
        if found is not None:
            _known.move_to_end(key)
            return found
    # one thread lays it, the others wait: GEOS's prepared geometries can't be shared (two threads crash the process)
    with _laying[hash(key) % len(_laying)]:
        with _lock:
            if key in _known:
                return _known[key]
        found = _lay(geometry, projection)
    with _lock:
        _known[key] = found
        while len(_known) > 4096:
            _known.popitem(last=False)
    return found


def pixel_estimate(geometry: Geometry, projection: Projection) -> float:
    """Return about how many pixels a region has, before anything is laid out."""
    west, south, east, north = geometry.project(projection.crs).bounds
    a, _, _, _, e, _ = projection.transform
    return max((east - west) / abs(a), 1.0) * max((north - south) / abs(e), 1.0)


def _lay(geometry: Geometry, projection: Projection) -> Region:
    shape = geometry.project(projection.crs)
    if shape.is_empty:
        grid = Grid.around(projection, (0, 0, 0, 0))
        return Region(grid, np.zeros(grid.shape), np.zeros(grid.shape, bool))
    grid = Grid.around(projection, shape.bounds)
    if shape.geom_type in ("Point", "MultiPoint"):
        return _points(shape, grid)
    if shape.geom_type not in ("Polygon", "MultiPolygon"):
        raise UnimplementedError(f"a region that is a {shape.geom_type}")
    coverage = _coverage(shape, grid)
    x, y = np.meshgrid(grid.columns_x(), grid.rows_y())
    return Region(grid, coverage, shapely.contains_xy(shape, x, y))


def _points(shape: BaseGeometry, grid: Grid) -> Region:
    """A point is the pixel that holds it, whole."""
    coverage = np.zeros(grid.shape)
    for point in getattr(shape, "geoms", [shape]):
        row = min(max(int((grid.north - point.y) // grid.step_y), 0), grid.height - 1)
        column = min(max(int((point.x - grid.west) // grid.step_x), 0), grid.width - 1)
        coverage[row, column] = 1.0
    return Region(grid, coverage, coverage > 0)


def _coverage(shape: BaseGeometry, grid: Grid) -> np.ndarray:
    """Return the covered fraction of each pixel, by cutting the shape with the pixels that its edge crosses."""
    west = grid.west + np.arange(grid.width) * grid.step_x
    south = grid.north - (np.arange(grid.height) + 1) * grid.step_y
    w, s = np.meshgrid(west, south)
    boxes = shapely.box(w, s, w + grid.step_x, s + grid.step_y)
    shapely.prepare(shape)
    inside = shapely.contains_properly(shape, boxes)
    edge = shapely.intersects(shape, boxes) & ~inside
    coverage = inside.astype(np.float64)
    for row in np.flatnonzero(edge.any(axis=1)):
        columns = np.flatnonzero(edge[row])
        # the strip is cut out first: cutting a pixel from it is then cheap, however many vertices the shape has
        strip = shapely.intersection(shape, shapely.box(*_row_bounds(grid, row)))
        areas = shapely.area(shapely.intersection(strip, boxes[row, columns]))
        coverage[row, columns] = np.clip(areas / (grid.step_x * grid.step_y), 0.0, 1.0)
    return coverage


def _row_bounds(grid: Grid, row: int) -> tuple[float, float, float, float]:
    west, _, east, _ = grid.bounds
    north = grid.north - row * grid.step_y
    return west, north - grid.step_y, east, north

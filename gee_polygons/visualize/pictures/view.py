"""Relates a picture to the ground: which part of it is shown, in how many pixels, and where a place falls.

The axes of a view are those of the image's grid (so that its pixels stay rectangles), and its scale in metres is the
same in both directions, also on a grid in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from gee_polygons.errors import UsageError
from gee_polygons.zonal.grid import Grid
from gee_polygons.zonal.projection import transformer

Dimensions = int | tuple[int, int] | str

MAX_DIMENSION: Final = 10_000  # pixels on a side, as in Earth Engine's thumbnails
LONLAT: Final = "EPSG:4326"
_EDGE_PIECES: Final = 64  # pieces that the longest edge of a region is projected in: a parallel isn't straight in UTM
_SAME_SCALE: Final = (
    1e-3  # relative; conformal grids (UTM) have the same scale both ways, smaller differences are rounding
)


@dataclass(frozen=True, kw_only=True)
class View:
    """The ground that a picture shows.

    Parameters
    ----------
    crs : str
        CRS of the image's grid.
    west, south, east, north : float
        Edges of the picture in units of that CRS.
    width, height : int
        Size of the picture in pixels.
    metres_per_pixel : float
        Ground size of a pixel of the picture.
    north_deg : float
        Direction of true north, clockwise from the top of the picture.
    """

    crs: str
    west: float
    south: float
    east: float
    north: float
    width: int
    height: int
    metres_per_pixel: float
    north_deg: float

    def columns(self, grid: Grid) -> NDArray[np.float64]:
        """Return the edges of the picture's columns as columns of a grid, shape (width + 1,)."""
        a, _, c, _, _, _ = grid.transform
        return (np.linspace(self.west, self.east, self.width + 1) - c) / a

    def rows(self, grid: Grid) -> NDArray[np.float64]:
        """Return the edges of the picture's rows as rows of a grid, shape (height + 1,)."""
        _, _, _, _, e, f = grid.transform
        return (np.linspace(self.north, self.south, self.height + 1) - f) / e

    def to_pixels(self, geometry: shapely.Geometry) -> shapely.Geometry:
        """Project a geometry in EPSG:4326 to pixels of the picture, counted right and down from its corner."""
        _check_geometry(geometry)
        projected = _project(geometry, self.crs)
        if not np.isfinite(shapely.get_coordinates(projected)).all():
            raise UsageError(
                f"the geometry {_bounds_text(geometry.bounds)} can't be projected to {self.crs}; "
                "it must be in EPSG:4326 (longitude, latitude)"
            )
        corner = np.array([self.west, self.north])
        scale = np.array([self.width / (self.east - self.west), -self.height / (self.north - self.south)])
        return shapely.transform(projected, lambda xy: (xy - corner) * scale)


def view_of(grid: Grid, region: shapely.Geometry | None, dimensions: Dimensions) -> View:
    """Choose the ground and the size of a picture.

    Parameters
    ----------
    grid : Grid
        Grid of the image.
    region : shapely geometry in EPSG:4326, optional
        What to show: the bounds of its projection to the grid's CRS. By default, the whole grid.
    dimensions : int, (width, height) or "WIDTHxHEIGHT"
        Largest size of the picture. One side reaches it; the other follows from the ground, rounded to whole pixels:
        up to half a pixel of ground is added or cut on it, so that the scale is the same both ways.

    Raises
    ------
    UsageError
        If the region is empty, has no area or doesn't touch the grid, or if `dimensions` isn't understood.
    """
    west, south, east, north = grid.bounds
    if region is not None:
        west, south, east, north = _region_bounds(grid, region)
    metres_x, metres_y, north_deg = _ground(grid.crs, (west + east) / 2, (south + north) / 2, (north - south) / 2)
    ground_x, ground_y = (east - west) * metres_x, (north - south) * metres_y
    limit_x, limit_y = largest_size(dimensions)
    metres = max(ground_x / limit_x, ground_y / limit_y)
    width, height = max(1, round(ground_x / metres)), max(1, round(ground_y / metres))
    # ground added on both sides (or cut, if below 0) where the number of pixels was rounded
    grow_x, grow_y = (width * metres - ground_x) / 2 / metres_x, (height * metres - ground_y) / 2 / metres_y
    return View(
        crs=grid.crs,
        west=west - grow_x,
        south=south - grow_y,
        east=east + grow_x,
        north=north + grow_y,
        width=width,
        height=height,
        metres_per_pixel=metres,
        north_deg=north_deg,
    )


def _region_bounds(grid: Grid, region: shapely.Geometry) -> tuple[float, float, float, float]:
    _check_geometry(region)
    if shapely.is_empty(region):
        raise UsageError("the region is empty; give a polygon in EPSG:4326")
    west, south, east, north = region.bounds
    length = max(east - west, north - south)
    if not length > 0:
        raise UsageError("the region is a point; give a polygon in EPSG:4326, such as site.region(buffer_m=500)")
    projected = _project(shapely.segmentize(region, length / _EDGE_PIECES), grid.crs)
    west, south, east, north = projected.bounds
    left, bottom, right, top = grid.bounds
    finite = np.isfinite(shapely.get_coordinates(projected)).all()
    if finite and not (east > west and north > south):
        raise UsageError("the region is a line; give a polygon in EPSG:4326, such as site.region(buffer_m=500)")
    if not finite or west >= right or east <= left or south >= top or north <= bottom:
        image_bounds = transformer(grid.crs, LONLAT).transform_bounds(*grid.bounds)
        raise UsageError(
            f"the region {_bounds_text(region.bounds)} lies outside the image {_bounds_text(image_bounds)}, "
            "in longitude and latitude; read the image for this region"
        )
    return west, south, east, north


def largest_size(dimensions: Dimensions) -> tuple[int, int]:
    """Return the largest width and height of a picture."""
    if isinstance(dimensions, str):
        given: Sequence[object] = dimensions.lower().split("x")
    else:
        given = dimensions if isinstance(dimensions, tuple | list) else [dimensions]
    sides = [int(text) for side in given if (text := str(side).strip()).isdecimal()]
    if len(given) not in (1, 2) or len(sides) != len(given) or not all(1 <= side <= MAX_DIMENSION for side in sides):
        raise UsageError(
            f"dimensions is a number of pixels, (width, height) or 'WIDTHxHEIGHT', each 1..{MAX_DIMENSION}, "
            f"found {dimensions!r}"
        )
    return sides[0], sides[-1]


def _ground(crs: str, x: float, y: float, reach: float) -> tuple[float, float, float]:
    """Return metres per unit of the CRS along x and along y, and the direction of true north, at a point."""
    # the scale at a point is measured over 1 % of the view: a short step, but long against rounding
    step = reach / 100
    xs, ys = np.array([x, x - step, x + step, x, x]), np.array([y, y, y, y - step, y + step])
    lon, lat = transformer(crs, LONLAT).transform(xs, ys)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return 1.0, 1.0, 0.0  # outside the area where the CRS is defined: nothing is known but its units
    geod = pyproj.Geod(ellps="WGS84")
    _, _, (across, upwards) = geod.inv(lon[1:4:2], lat[1:4:2], lon[2:5:2], lat[2:5:2])
    azimuth, _, _ = geod.inv(lon[3], lat[3], lon[4], lat[4])
    metres_x, metres_y = float(across) / (2 * step), float(upwards) / (2 * step)
    if abs(metres_x / metres_y - 1) < _SAME_SCALE:
        metres_x = metres_y = math.sqrt(metres_x * metres_y)
    return metres_x, metres_y, -float(azimuth)


def _project(geometry: shapely.Geometry, crs: str) -> shapely.Geometry:
    return shapely.transform(shapely.force_2d(geometry), transformer(LONLAT, crs).transform, interleaved=False)


def _check_geometry(geometry: object) -> None:
    if not isinstance(geometry, shapely.Geometry):
        raise UsageError(f"a shapely geometry in EPSG:4326 is needed, found {type(geometry).__name__}")


def _bounds_text(bounds: tuple[float, float, float, float]) -> str:
    return "({:.5g}, {:.5g}, {:.5g}, {:.5g})".format(*bounds)

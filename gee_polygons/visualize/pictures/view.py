"""The window of a picture: which ground it shows, in how many pixels, and where things on the ground fall in it.

A view's axes are those of the image's grid (so that its pixels stay squares), its scale is the same in metres in
both directions, also on a grid in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.errors import UsageError
from gee_polygons.zonal.grid import Grid

Dimensions = int | tuple[int, int] | str

MAX_DIMENSION: Final = 10_000  # as Earth Engine's thumbnails: a picture, not a product
LONLAT: Final = "EPSG:4326"
_EDGE_PIECES: Final = 64  # a region's edges are projected at so many points: a parallel is no straight line in UTM
_SAME_SCALE: Final = 1e-3  # conformal grids (UTM) have the same scale both ways; smaller differences are rounding


@dataclass(frozen=True, kw_only=True)
class View:
    """Ground shown by a picture.

    Parameters
    ----------
    crs : str
        CRS of the image's grid.
    west, south, east, north : float
        Edges, in units of that CRS.
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
        scale_x = self.width / (self.east - self.west)
        scale_y = self.height / (self.north - self.south)

        def place(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.column_stack([(xy[:, 0] - self.west) * scale_x, (self.north - xy[:, 1]) * scale_y])

        return shapely.transform(_project(geometry, self.crs), place)


def view_of(grid: Grid, region: shapely.Geometry | None, dimensions: Dimensions) -> View:
    """Decide what a picture shows.

    Parameters
    ----------
    grid : Grid
        Grid of the image.
    region : shapely geometry in EPSG:4326, optional
        What to show: the bounds of its projection to the grid's CRS. By default, the whole grid.
    dimensions : int, (width, height) or "WIDTHxHEIGHT"
        Largest size. The longer side reaches it; the shorter one follows from the ground, and is shown to within half
        a pixel of the picture so that the scale is the same both ways.

    Raises
    ------
    UsageError
        If the region is empty, flat or doesn't touch the grid, or `dimensions` can't be used.
    """
    west, south, east, north = grid.bounds
    if region is not None:
        west, south, east, north = _region_bounds(grid, region)
    metres_x, metres_y, north_deg = _ground(grid.crs, (west + east) / 2, (south + north) / 2, (north - south) / 2)
    ground_x, ground_y = (east - west) * metres_x, (north - south) * metres_y
    limit_x, limit_y = _limits(dimensions)
    metres = max(ground_x / limit_x, ground_y / limit_y)
    width, height = max(1, round(ground_x / metres)), max(1, round(ground_y / metres))
    # the side that didn't come out whole is widened or narrowed about its middle: a metre is a metre both ways
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
    length = max(region.bounds[2] - region.bounds[0], region.bounds[3] - region.bounds[1])
    if not length > 0:
        raise UsageError("the region is a point; give a polygon in EPSG:4326, such as site.region(buffer_m=500)")
    projected = _projected(shapely.segmentize(region, length / _EDGE_PIECES), grid.crs)
    west, south, east, north = projected.bounds
    left, bottom, right, top = grid.bounds
    finite = np.isfinite(shapely.get_coordinates(projected)).all()
    if finite and not (east > west and north > south):
        raise UsageError("the region is a line; give a polygon in EPSG:4326, such as site.region(buffer_m=500)")
    if not finite or west >= right or east <= left or south >= top or north <= bottom:
        raise UsageError(
            f"the region {_bounds_text(region.bounds)} lies outside the image "
            f"{_bounds_text(_lonlat_bounds(grid))}, in longitude and latitude; read the image for this region"
        )
    return west, south, east, north


def _limits(dimensions: Dimensions) -> tuple[int, int]:
    sides: list[Any]
    if isinstance(dimensions, str):
        sides = [int(part) if part.strip().isdigit() else None for part in dimensions.lower().split("x")]
    elif isinstance(dimensions, int | np.integer) and not isinstance(dimensions, bool):
        sides = [int(dimensions)]
    else:
        sides = list(dimensions) if isinstance(dimensions, tuple | list) else []
    whole = all(isinstance(s, int | np.integer) and 1 <= s <= MAX_DIMENSION for s in sides)
    if len(sides) not in (1, 2) or not whole:
        raise UsageError(
            f"dimensions is a number of pixels, (width, height) or 'WIDTHxHEIGHT', each 1..{MAX_DIMENSION}, "
            f"found {dimensions!r}"
        )
    return int(sides[0]), int(sides[-1])


def _ground(crs: str, x: float, y: float, reach: float) -> tuple[float, float, float]:
    """Metres per unit of the CRS along x and y, and the direction of true north, at a point."""
    import pyproj

    to_lonlat = _transform(crs, LONLAT)
    # what the scale is at a point: a step of 1 % of the view is small, and large against rounding
    step = reach / 100
    lon, lat = to_lonlat(np.array([x, x - step, x + step, x, x]), np.array([y, y, y, y - step, y + step]))
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return 1.0, 1.0, 0.0  # outside the area where the CRS means anything: its units are all there is
    _, _, across = pyproj.Geod(ellps="WGS84").inv(lon[1:4:2], lat[1:4:2], lon[2:5:2], lat[2:5:2])
    azimuth, _, _ = pyproj.Geod(ellps="WGS84").inv(lon[3], lat[3], lon[4], lat[4])
    metres_x, metres_y = float(across[0]) / (2 * step), float(across[1]) / (2 * step)
    if abs(metres_x / metres_y - 1) < _SAME_SCALE:
        metres_x = metres_y = math.sqrt(metres_x * metres_y)
    return metres_x, metres_y, -float(azimuth)


def _project(geometry: shapely.Geometry, crs: str) -> shapely.Geometry:
    _check_geometry(geometry)
    projected = _projected(geometry, crs)
    if not np.isfinite(shapely.get_coordinates(projected)).all():
        raise UsageError(
            f"the geometry {_bounds_text(geometry.bounds)} can't be projected to {crs}; "
            "it must be in EPSG:4326 (longitude, latitude)"
        )
    return projected


def _projected(geometry: shapely.Geometry, crs: str) -> shapely.Geometry:
    return shapely.transform(shapely.force_2d(geometry), _transform(LONLAT, crs), interleaved=False)


def _check_geometry(geometry: Any) -> None:
    if not isinstance(geometry, shapely.Geometry):
        raise UsageError(f"a shapely geometry in EPSG:4326 is needed, found {type(geometry).__name__}")


def _transform(source: str, target: str) -> Callable[[Any, Any], tuple[Any, Any]]:
    from gee_polygons.zonal.projection import transformer

    return transformer(source, target).transform


def _lonlat_bounds(grid: Grid) -> tuple[float, float, float, float]:
    bounds: tuple[float, float, float, float] = shapely.transform(
        shapely.box(*grid.bounds), _transform(grid.crs, LONLAT), interleaved=False
    ).bounds
    return bounds


def _bounds_text(bounds: tuple[float, float, float, float]) -> str:
    return "({:.5g}, {:.5g}, {:.5g}, {:.5g})".format(*bounds)

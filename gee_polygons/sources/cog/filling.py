"""Fills images across the boundary of UTM zones with pixels of the neighbouring zones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.patches import Patch, Region, degrees_of, pixels_at, read_regions
from gee_polygons.sources.cog.zoning import ZonePart, rows_near
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.zones import cells_touched

if TYPE_CHECKING:
    from gee_polygons.sources.cog.source import CogSource


def fill_from_neighbours(
    source: CogSource, area: shapely.Geometry, patch: Patch, year: int, bands: Sequence[str]
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Fill the pixels that an image lacks beyond its zone's boundary from the neighbouring zones.

    A zone's tiles end a little way beyond its boundary. A pixel further away is taken from the zone that its centre
    lies in: the nearest pixel there, as it is stored. A pixel that its own zone has masked stays masked.

    Parameters
    ----------
    source : CogSource
        The archive.
    area : shapely geometry, EPSG:4326
        What the patch shows.
    patch : Patch
        Pixels of one year in the area's home zone; int8 codes.
    year : int
        Its year.
    bands : sequence of str
        Its bands.

    Returns
    -------
    values : array, shape (bands, height, width)
        On the patch's grid.
    zones : tuple of str
        CRSs of the zones that pixels were taken from.
    """
    values, lacking = patch.values[0], ~patch.valid[0].all(axis=0)
    neighbours = [(crs, cell) for crs, cell in cells_touched(area.bounds) if crs != patch.grid.crs]
    if not (neighbours and lacking.any()):
        return values, ()
    values = values.copy()
    rows, columns = np.nonzero(lacking)
    window = patch.grid.window
    middle = (area.bounds[0] + area.bounds[2]) / 2
    lon, lat = degrees_of(patch.grid.lattice, rows + window.row, columns + window.col, middle)
    areas = Polygons(np.array([area], object))
    used = []
    for crs, (west, south, east, north) in neighbours:
        own = (lon >= west) & (lon < east) & (lat >= south) & (lat < north)
        if own.any() and (found := _nearest(source, areas, crs, lon[own], lat[own], year, bands)) is not None:
            values[:, rows[own], columns[own]] = found
            used.append(crs)
    return values, tuple(used)


def _nearest(
    source: CogSource,
    areas: Polygons,
    crs: str,
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    year: int,
    bands: Sequence[str],
) -> NDArray[Any] | None:
    """Read the pixels of a zone that hold some places, shape (bands, places); None where it has no tile there."""
    index = source.near(areas).of_years([year])
    tiles, broken = source.open(index.take(rows_near(areas, [ZonePart(0, crs)], index)))
    for error in broken.values():
        raise error
    if not tiles:
        return None
    lattice = tiles[0].grid.lattice
    rows, columns = pixels_at(lattice, lon, lat)
    top, left = int(rows.min()), int(columns.min())
    window = Window(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
    touching = tuple(
        tile for tile in tiles if tile.grid.lattice == lattice and tile.grid.window.intersection(window) is not None
    )
    [patch] = read_regions(source, [Region(lattice, window, touching)], [year], bands)
    found: NDArray[Any] = patch.values[0][:, rows - top, columns - left]
    return found

"""Samples the pixels at many points; each block is fetched and decoded once, whatever points lie in it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.errors import ReadError
from gee_polygons.reduction.overlaps import by_precedence, is_missing
from gee_polygons.reduction.plan import BlockRef
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.threads import in_order
from gee_polygons.sources.cog.patches import Region, pixels_at, regions_of
from gee_polygons.sources.cog.tile import Tile, TileBlock
from gee_polygons.zonal.grid import Lattice
from gee_polygons.zonal.planes import planes

if TYPE_CHECKING:
    from gee_polygons.sources.cog.source import CogSource

_REACH_DEG = 0.001  # added to the search for tiles for each pixel of reach: enough for pixels of 100 m


def sample(
    source: CogSource, lon: NDArray[Any], lat: NDArray[Any], years: Sequence[int], bands: Sequence[str], reach: int = 0
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Read the pixel at each point, or the nearest one with data within this many pixels.

    Of overlapping tiles, `reduction.overlaps` says which pixel counts.

    Parameters
    ----------
    source : CogSource
        The archive.
    lon, lat : float arrays, shape (points,)
        EPSG:4326.
    years, bands : sequences
        Years and band names.
    reach : int
        How many pixels away a pixel with data may lie, in rows and in columns.

    Returns
    -------
    values : array, shape (points, years, bands)
        As stored; nodata where there is none.
    distance : int array, shape (points, years)
        Pixels, the larger of rows and columns; -1 where there is no data.
    """
    # wide enough for all tiles that the neighbours may lie in
    up = 1e-9 + reach * _REACH_DEG
    side = up / np.cos(np.radians(np.abs(lat).clip(max=89.9)))
    boxes = Polygons(shapely.box(lon - side, lat - up, lon + side, lat + up))
    regions = regions_of(source, boxes, years, bands, "point")
    rows, cols = _positions(regions, lon, lat)
    kinds = {(tile.dtype, tile.nodata) for region in regions for tile in region.tiles}
    dtype, nodata = min(kinds, key=str, default=("int8", -128.0))
    shape = (len(lon), len(years), len(bands))
    values = np.full(shape, 0 if nodata is None else nodata, np.dtype(dtype).newbyteorder("="))
    steps = _steps(reach)
    # of each value, which of the steps leads to its pixel
    best = np.full(shape, len(steps), np.min_scalar_type(len(steps)))
    tiles = {(tile.place, tile.year): tile for region in regions for tile in region.tiles if tile.year in years}
    near: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, region in enumerate(regions):
        for tile in region.tiles:
            near[tile.place, tile.year].append(i)
    wanted: dict[BlockRef, NDArray[np.int64]] = {}
    for key, tile in tiles.items():
        wanted |= _by_block(tile, np.array(near[key]), rows, cols, steps)
    order = by_precedence(wanted)
    pixels = [wanted[ref] for ref in order]
    blocks = zip(source.read(order, bands), pixels, strict=True)
    decoded = in_order(os.cpu_count() or 1, lambda read: _pixels_of(*read), blocks)
    for ref, here, of_block in zip(order, pixels, decoded, strict=True):
        year = list(years).index(ref.year)
        point, number = here[::-1, 0], here[::-1, 1]
        for name, (plane, missing) in of_block.items():
            band = bands.index(name)
            # blocks come in the order of precedence: an equally near pixel of a later tile doesn't count
            take = ~missing[::-1] & (number < best[point, year, band])
            # a point's nearest pixel comes last, and NumPy keeps the last of several values for one place
            values[point[take], year, band] = plane[::-1][take]
            best[point[take], year, band] = number[take]
    away = np.array([*(max(abs(down), abs(across)) for down, across in steps), -1])
    distance = np.full(shape[:2], -1)
    for band in range(len(bands)):
        np.maximum(distance, away[best[:, :, band]], out=distance)
    return values, distance


def _by_block(
    tile: Tile, points: NDArray[np.int64], rows: NDArray[np.int64], cols: NDArray[np.int64],
    steps: Sequence[tuple[int, int]],
) -> dict[BlockRef, NDArray[np.int64]]:  # fmt: skip
    """Return a tile's blocks that hold pixels of some points, with (point, step, row, column) of those pixels."""
    point, number = np.repeat(points, len(steps)), np.tile(np.arange(len(steps)), len(points))
    row, col = rows[point] + np.array(steps)[number, 0], cols[point] + np.array(steps)[number, 1]
    window = tile.grid.window
    held = (row >= window.row) & (row < window.row_stop) & (col >= window.col) & (col < window.col_stop)
    pixels = np.column_stack([point, number, row, col])[held]
    in_file = np.column_stack(tile.grid.in_file(row[held], col[held]))
    blocks, owner, sizes = np.unique(in_file // tile.block_shape, axis=0, return_inverse=True, return_counts=True)
    in_blocks = np.split(pixels[np.argsort(owner.ravel(), kind="stable")], np.cumsum(sizes)[:-1])
    found = {}
    for (block_row, block_col), here in zip(blocks.tolist(), in_blocks, strict=False):
        ref = BlockRef.at(tile, block_row, block_col).limited_to(int(here[:, 2].min()), int(here[:, 2].max()) + 1)
        found[ref] = here
    return found


def _positions(
    regions: Sequence[Region], lon: NDArray[Any], lat: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lattice row and column of each point, in its region's zone."""
    rows, cols = np.zeros(len(lon), np.int64), np.zeros(len(lon), np.int64)
    members: dict[Lattice, list[int]] = defaultdict(list)
    for i, region in enumerate(regions):
        members[region.lattice].append(i)
    for lattice, some in members.items():
        rows[some], cols[some] = pixels_at(lattice, lon[some], lat[some])
    return rows, cols


def _steps(reach: int) -> list[tuple[int, int]]:
    """Return the steps (rows, columns) to a pixel and its neighbours, the nearest first."""
    steps = [(r, c) for r in range(-reach, reach + 1) for c in range(-reach, reach + 1)]
    return sorted(steps, key=lambda step: (step[0] ** 2 + step[1] ** 2, step))


Planes = dict[str, tuple[NDArray[Any], NDArray[np.bool_]]]


def _pixels_of(block: TileBlock | ReadError, wanted: NDArray[np.int64]) -> Planes:
    """Return each band's pixels at (point, step, row, column), and which of them are nodata."""
    try:
        if isinstance(block, ReadError):
            raise block
        ref, tile = block.ref, block.tile
        row, col = wanted[:, 2] - ref.window.row, wanted[:, 3] - ref.window.col
        row = ref.window.height - 1 - row if ref.flip_y else row
        col = ref.window.width - 1 - col if ref.flip_x else col
        position = row * ref.window.width + col
        found: Planes = {}
        for number, plane in planes(block):
            pixels = plane[position]
            missing = np.zeros(len(pixels), np.bool_) if tile.nodata is None else is_missing(pixels, tile.nodata)
            found[tile.bands[block.bands[number]]] = pixels, missing
    except ReadError as error:
        raise ReadError(f"point {wanted[0, 0]}: {error}", url=error.url, year=error.year) from error
    return found

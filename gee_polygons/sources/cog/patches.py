"""Reads the pixels of many small regions at once; each block is fetched and decoded once, whatever touches it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gee_polygons.errors import ReadError, TileError
from gee_polygons.reduction.overlaps import fill_missing, is_missing, row_by_row
from gee_polygons.reduction.plan import BlockRef
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.windows import lattice_window, north_up, refs_in
from gee_polygons.sources.cog.index import TileIndex
from gee_polygons.sources.cog.tile import Tile, TileBlock
from gee_polygons.sources.cog.zoning import Box, ZonePart, home_crs, polygons_near, rows_near
from gee_polygons.zonal.coverage import compute_coverage
from gee_polygons.zonal.grid import Grid, Lattice, Window
from gee_polygons.zonal.planes import planes
from gee_polygons.zonal.projection import transformer

if TYPE_CHECKING:
    from gee_polygons.sources.cog.source import CogSource


@dataclass(frozen=True)
class Region:
    """A window on a lattice, and the tiles that may hold some of it.

    `owner` is the number of the geometry that messages name, if any. `cells` are windows with the box of degrees (None:
    everywhere) that their pixels' centres must lie in; pixels outside all of them are nodata. No cells: all pixels.
    """

    lattice: Lattice
    window: Window
    tiles: tuple[Tile, ...]
    owner: int | None = None
    cells: tuple[tuple[Window, Box | None], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Pixels of one region, north-up.

    Parameters
    ----------
    values : array, shape (years, bands, height, width)
        As stored.
    grid : Grid
        Where it is.
    nodata : float, optional
        Value of pixels without data.
    filled : bool array of the same shape, optional
        Where there is no nodata value: which pixels a tile holds.
    """

    values: NDArray[Any]
    grid: Grid
    nodata: float | None
    filled: NDArray[np.bool_] | None = None

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where there is data, shape (years, bands, height, width)."""
        if self.nodata is not None:
            return ~is_missing(self.values, self.nodata)
        assert self.filled is not None
        return self.filled

    def clear(self, pixels: NDArray[np.bool_]) -> None:
        """Mark some pixels, a mask of shape (height, width), as without data in all years and bands."""
        self.values[:, :, pixels] = 0 if self.nodata is None else self.nodata
        if self.filled is not None:
            self.filled[:, :, pixels] = False


def regions_of(
    source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str], what: str = "geometry"
) -> list[Region]:
    """Choose each area's home zone, and the window of whole pixels in it.

    Raises
    ------
    ReadError, TileError
        If a tile that an area touches can't be opened, naming both.
    """
    if not len(areas):
        return []
    archive = source.near(areas)
    parts = [ZonePart(i, str(crs)) for i, crs in enumerate(home_crs(areas, archive))]
    tiles = open_near(source, areas, parts, archive.of_years(years), bands, what)
    return [region_of(areas, part, tiles[part.crs]) for part in parts]


def open_near(
    source: CogSource, areas: Polygons, parts: Sequence[ZonePart], index: TileIndex, bands: Sequence[str],
    what: str = "geometry",
) -> dict[str, list[Tile]]:  # fmt: skip
    """Open the tiles near parts of areas that hold some of the bands. Returns them by zone."""
    near = index.take(rows_near(areas, parts, index))
    tiles, broken = source.open(near)
    for (place, year), error in broken.items():
        spoiled = polygons_near(areas, parts, near, place, year)
        if spoiled:  # else another zone's tiles serve this year
            text = f"{what} {spoiled[0]}: {error}"
            raise ReadError(text, url=place, year=year) if isinstance(error, ReadError) else TileError(text)
    found: dict[str, list[Tile]] = defaultdict(list)
    for tile in tiles:
        if set(bands) & set(tile.bands):
            found[tile.grid.crs].append(tile)
    return found


def region_of(areas: Polygons, part: ZonePart, tiles: Sequence[Tile]) -> Region:
    """Return the window of whole pixels around a part of an area, in its zone."""
    lattice = tiles[0].grid.lattice if tiles else Lattice(part.crs, 10.0, 10.0)
    for tile in tiles:
        if tile.grid.lattice != lattice:
            raise TileError(
                f"geometry {part.polygon}: {tile.place}: its pixels don't line up with those of {tiles[0].place}; "
                "ask for bands of one resolution at a time"
            )
    window = lattice_window(part.clipped(areas), lattice)
    members = tuple(tile for tile in tiles if tile.grid.window.intersection(window) is not None)
    cells = () if part.clip is None else ((window, part.clip),)
    return Region(lattice, window, members, part.polygon, cells)


def read_regions(
    source: CogSource, regions: Sequence[Region], years: Sequence[int], bands: Sequence[str]
) -> list[Patch]:
    """Read windows. Of overlapping tiles of one zone, `reduction.overlaps` says which pixel counts."""
    found = dict(stream_regions(source, regions, years, bands))
    return [found[number] for number in range(len(regions))]


def stream_regions(
    source: CogSource, regions: Sequence[Region], years: Sequence[int], bands: Sequence[str]
) -> Iterator[tuple[int, Patch]]:
    """Read windows as `read_regions` does, and yield each with its number as soon as its last block is decoded.

    Blocks are read once each, zone by zone and row by row. Held in memory: the windows that have some of their blocks,
    but not all, a decoded plane for each thread, and the compressed blocks that are fetched ahead.
    """
    column = {year: i for i, year in enumerate(years)}
    refs: dict[tuple[str, int, tuple[int, int]], BlockRef] = {}
    users: dict[tuple[str, int, tuple[int, int]], list[int]] = defaultdict(list)
    for number, region in enumerate(regions):
        for tile in region.tiles:
            for ref in refs_in(tile, region.window) if tile.year in column else ():
                key = (ref.tile, ref.year, ref.index)
                known = refs.get(key)
                refs[key] = ref if known is None else replace(known, rows=max(known.rows, ref.rows))
                users[key].append(number)
    by_lattice: dict[Lattice, list[BlockRef]] = defaultdict(list)
    for key, ref in refs.items():
        by_lattice[regions[users[key][0]].lattice].append(ref)
    order = [ref for lattice in sorted(by_lattice) for ref in row_by_row(by_lattice[lattice])]
    blocks_left = Counter(number for numbers in users.values() for number in numbers)
    patches: dict[int, Patch] = {}
    for number, region in enumerate(regions):
        if number not in blocks_left:
            yield number, _without_other_cells(_empty(region, len(years), len(bands)), region)
    threads = max(1, min(os.cpu_count() or 1, len(bands)))
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        # a block's bytes may come only when it is decoded
        for ref, block in zip(order, source.read(order, bands), strict=True):
            members = users[ref.tile, ref.year, ref.index]
            for number in members:
                if number not in patches:
                    patches[number] = _empty(regions[number], len(years), len(bands))
            targets = [patches[number] for number in members]
            try:
                if isinstance(block, ReadError):
                    raise block
                # the block's bands are dealt out to the threads
                shares = [range(first, block.n_parts, threads) for first in range(threads)]
                jobs = [pool.submit(_copy, block, targets, column[ref.year], tuple(bands), share) for share in shares]
                for job in jobs:
                    job.result()
            except ReadError as error:
                owner = regions[members[0]].owner
                message = f"{error}" if owner is None else f"geometry {owner}: {error}"
                raise ReadError(message, url=error.url, year=error.year) from error
            for number in members:
                blocks_left[number] -= 1
                if not blocks_left[number]:
                    yield number, _without_other_cells(patches.pop(number), regions[number])


def _without_other_cells(patch: Patch, region: Region) -> Patch:
    """Take away the pixels outside a region's cells."""
    if any(cell is not None for _, cell in region.cells):
        patch.clear(~_in_cells(region))
    return patch


def _empty(region: Region, n_years: int, n_bands: int) -> Patch:
    dtypes = {np.dtype(tile.dtype).newbyteorder("=") for tile in region.tiles}
    known = sorted({tile.nodata for tile in region.tiles if tile.nodata is not None})
    nodata = known[0] if known else None if region.tiles else -128.0
    shape = (n_years, n_bands, region.window.height, region.window.width)
    return Patch(
        values=np.full(shape, 0 if nodata is None else nodata, np.result_type(*dtypes) if dtypes else np.int8),
        grid=region.lattice.grid(region.window),
        nodata=nodata,
        filled=np.zeros(shape, np.bool_) if nodata is None else None,
    )


def _copy(block: TileBlock, patches: Sequence[Patch], year: int, bands: Sequence[str], parts: Sequence[int]) -> None:
    """Decode some parts of a block, each once, and copy them to every patch that the block touches."""
    ref, nodata = block.ref, block.tile.nodata
    targets = []
    for patch in patches:
        window = patch.grid.window
        if (common := ref.inside.intersection(window)) is not None:
            targets.append((patch, common.slices_in(window), common.slices_in(ref.window)))
    for position, plane in planes(block, parts=parts):
        stored = north_up(plane, ref)
        band = bands.index(block.tile.bands[block.bands[position]])
        for patch, target, origin in targets:
            pixels = stored[origin]
            if nodata is not None and patch.nodata is not None and nodata != patch.nodata:  # files may differ
                pixels = np.where(is_missing(pixels, nodata), patch.nodata, pixels)
            filled = None if patch.filled is None else patch.filled[year, band][target]
            fill_missing(patch.values[year, band][target], pixels, patch.nodata, filled)


def _in_cells(region: Region) -> NDArray[np.bool_]:
    """Return which pixels of a region's window lie in one of its zones' cells, shape (height, width)."""
    window = region.window
    keep = np.zeros((window.height, window.width), np.bool_)
    for part, cell in region.cells:
        common = part.intersection(window)
        if common is not None:
            keep[common.slices_in(window)] |= True if cell is None else _centres_in(region.lattice, common, cell)
    return keep


def _centres_in(lattice: Lattice, window: Window, cell: Box) -> NDArray[np.bool_]:
    """Return which pixels' centres lie in a zone's cell, shape (height, width).

    Along a row of a zone, longitudes grow from west to east: so a row's pixels are those between two columns, which are
    found by bisection. The equator is a row's edge.
    """
    west, south, east, north = cell
    rows = np.arange(window.row, window.row_stop)

    def first_column(edge: float) -> NDArray[np.int64]:
        low, high = np.full(len(rows), window.col), np.full(len(rows), window.col_stop)
        while (low < high).any():
            middle = (low + high) // 2
            beyond = degrees_of(lattice, rows, middle, (west + east) / 2)[0] >= edge
            low, high = np.where(beyond | (low == high), low, middle + 1), np.where(beyond, middle, high)
        return low

    cols = np.arange(window.col, window.col_stop)
    _, lat = degrees_of(lattice, rows, np.full(len(rows), window.col), west)
    in_rows = (lat >= south) & (lat < north)
    kept: NDArray[np.bool_] = in_rows[:, None] & (cols >= first_column(west)[:, None])
    return kept & (cols < first_column(east)[:, None])


def degrees_of(
    lattice: Lattice, rows: NDArray[Any], cols: NDArray[Any], near_lon: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the longitudes and latitudes of pixel centres; longitudes within 180 degrees of `near_lon`."""
    x, y = (cols + 0.5 + lattice.phase_x) * lattice.step_x, -(rows + 0.5 + lattice.phase_y) * lattice.step_y
    lon, lat = transformer(lattice.crs, "EPSG:4326").transform(x, y)
    return lon + 360.0 * np.round((near_lon - lon) / 360.0), lat


def pixels_at(
    lattice: Lattice, lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lattice rows and columns of the pixels that hold some places."""
    x, y = transformer("EPSG:4326", lattice.crs).transform(lon, lat)
    rows, cols = np.floor(-y / lattice.step_y - lattice.phase_y), np.floor(x / lattice.step_x - lattice.phase_x)
    return rows.astype(np.int64), cols.astype(np.int64)


def inside(areas: Polygons, number: int, patch: Patch) -> NDArray[np.bool_]:
    """Return which pixels of a patch an area touches, (height, width); one smaller than a pixel touches its own."""
    coverage = compute_coverage(areas.rings(patch.grid.lattice, np.array([number])))
    if not len(coverage.runs) and not len(coverage.edges):  # thinner than coverage can tell
        return np.ones(patch.grid.shape, np.bool_)
    return coverage.rasterize(0, patch.grid.window) > 0

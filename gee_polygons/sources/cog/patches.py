"""Pixels of many small regions at once: each block is fetched and decoded once, however many regions touch it."""

from __future__ import annotations

import itertools
import os
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.errors import ReadError, TileError
from gee_polygons.reduction.plan import BlockRef
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.windows import lattice_window, refs_in
from gee_polygons.sources.cog.index import TileIndex
from gee_polygons.sources.cog.tile import Tile, TileBlock
from gee_polygons.sources.cog.zoning import ZonePart, home_crs, polygons_near, rows_near
from gee_polygons.zonal.coverage import compute_coverage
from gee_polygons.zonal.grid import Grid, Lattice, Window
from gee_polygons.zonal.projection import transformer

if TYPE_CHECKING:
    from gee_polygons.sources.cog.source import CogSource

_REACH_DEG = 0.001  # for each pixel of reach, so much further is looked for tiles: enough for pixels of 100 m


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Region:
    """A window on a lattice, and the tiles that may hold some of it.

    `owner` is the number of the geometry that messages name. `cells` are its parts: windows, and the degrees that their
    pixels' centres must lie in to count; None: everywhere.
    """

    lattice: Lattice
    window: Window
    tiles: tuple[Tile, ...]
    owner: int = 0
    cells: tuple[tuple[Window, Box | None], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Pixels of one region, north-up.

    Parameters
    ----------
    values : array, shape (years, bands, height, width)
        As stored.
    covered : bool array, shape (years, height, width)
        Whether a tile holds the pixel.
    grid : Grid
        Where it is.
    nodata : float, optional
        Value of pixels without data.
    """

    values: NDArray[Any]
    covered: NDArray[np.bool_]
    grid: Grid
    nodata: float | None

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Where there is data, shape (years, bands, height, width)."""
        valid = np.repeat(self.covered[:, None], self.values.shape[1], axis=1)
        if self.nodata is not None:
            valid &= ~np.isnan(self.values) if np.isnan(self.nodata) else self.values != self.nodata
        return valid


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
    index = archive.take(np.flatnonzero(np.isin(archive.year, list(years))))
    parts = [ZonePart(i, str(crs)) for i, crs in enumerate(home_crs(areas, archive))]
    tiles = open_near(source, areas, parts, index, bands, what)
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
    geometry = areas.geometries[part.polygon]
    if part.clip is not None:
        geometry = shapely.intersection(geometry, shapely.box(*part.clip))
    window = lattice_window(geometry, lattice)
    members = tuple(tile for tile in tiles if tile.grid.window.intersection(window) is not None)
    cells = () if part.clip is None else ((window, part.clip),)
    return Region(lattice, window, members, part.polygon, cells)


def read_patches(source: CogSource, areas: Polygons, years: Sequence[int], bands: Sequence[str]) -> list[Patch]:
    """Read the bounding boxes of areas (EPSG:4326), each in its own zone.

    Raises
    ------
    ReadError
        Naming the file and the geometry, if a read fails.
    """
    return read_regions(source, regions_of(source, areas, years, bands), years, bands)


def read_regions(
    source: CogSource, regions: Sequence[Region], years: Sequence[int], bands: Sequence[str]
) -> list[Patch]:
    """Read windows; the tiles of one zone are joined, a pixel without data never hides one with."""
    column = {year: i for i, year in enumerate(years)}
    patches = [_empty(region, len(years), len(bands)) for region in regions]
    refs: dict[tuple[str, int, tuple[int, int]], BlockRef] = {}
    users: dict[tuple[str, int, tuple[int, int]], list[int]] = defaultdict(list)
    for number, region in enumerate(regions):
        for tile in region.tiles:
            for ref in refs_in(tile, region.window) if tile.year in column else ():
                key = (ref.tile, ref.year, ref.index)
                known = refs.get(key)
                refs[key] = ref if known is None else replace(known, rows=max(known.rows, ref.rows))
                users[key].append(number)
    order = sorted(refs, key=lambda key: (refs[key].window, key))
    blocks = source.read([refs[key] for key in order], bands)  # bytes come when they are decoded
    jobs = (
        _Spread(block, regions[users[key][0]].owner, [patches[i] for i in users[key]], column[key[1]], tuple(bands))
        for key, block in zip(order, blocks, strict=True)
    )
    # without a nodata value, one band's pixels say for all whether a pixel is taken already
    alone = any(patch.nodata is None for patch in patches)
    _run_spreads(jobs, 1 if alone else min(os.cpu_count() or 1, len(bands), 8 * len(refs)))
    for patch, region in zip(patches, regions, strict=True):
        if any(cell is not None for _, cell in region.cells):
            _blank(patch, region)
    return patches


@dataclass(frozen=True)
class _Spread:
    """A block, and the patches that it is copied to."""

    block: TileBlock | ReadError
    owner: int
    patches: Sequence[Patch]
    year: int
    bands: tuple[str, ...]


def _run_spreads(jobs: Iterator[_Spread], n: int) -> None:
    """Spread blocks, the bands dealt out to threads: of overlapping tiles the first one counts, in every band.

    Raises
    ------
    ReadError
        For the first block that can't be had, whichever thread finds it.
    """
    lock = threading.Lock()

    def deal(worker: int, mine: Iterator[_Spread]) -> tuple[int, ReadError] | None:
        number = -1
        while True:
            with lock:
                job = next(mine, None)
            if job is None:
                return None
            number += 1
            try:
                if isinstance(job.block, ReadError):
                    raise job.block
                _spread(job.block, job.patches, job.year, job.bands, range(worker, job.block.n_parts, n))
            except ReadError as error:
                where = f"geometry {job.owner}: {error}"
                return number, ReadError(where, url=error.url, year=error.year)

    copies = itertools.tee(jobs, max(n, 1))
    if n <= 1:
        found = [deal(0, copies[0])]
    else:
        with ThreadPoolExecutor(n, thread_name_prefix="decode") as pool:
            found = list(pool.map(deal, range(n), copies))
    errors = [error for error in found if error is not None]
    if errors:
        raise min(errors, key=lambda pair: pair[0])[1]


def _blank(patch: Patch, region: Region) -> None:
    """Take away the pixels that lie in other zones' cells."""
    keep = np.zeros(patch.grid.shape, np.bool_)
    for window, cell in region.cells:
        common = window.intersection(region.window)
        if common is not None:
            keep[_slices(common, region.window)] |= True if cell is None else _centres_in(region.lattice, common, cell)
    patch.covered[:, ~keep] = False
    patch.values[:, :, ~keep] = 0 if patch.nodata is None else patch.nodata


def _centres_in(lattice: Lattice, window: Window, cell: Box) -> NDArray[np.bool_]:
    """Return which pixels' centres lie in a zone's cell, shape (height, width).

    Along a row of a zone, longitudes grow from west to east: so a row's pixels are those between two columns, which are
    found by halving. The equator is a row's edge.
    """
    west, south, east, north = cell
    to_degrees = transformer(lattice.crs, "EPSG:4326").transform
    rows = np.arange(window.row, window.row_stop)
    y = -(rows + 0.5 + lattice.phase_y) * lattice.step_y

    def degrees(cols: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        lon, lat = to_degrees((cols + 0.5 + lattice.phase_x) * lattice.step_x, y)
        return lon + 360.0 * np.round(((west + east) / 2 - lon) / 360.0), lat

    def first_column(edge: float) -> NDArray[np.int64]:
        low, high = np.full(len(rows), window.col), np.full(len(rows), window.col_stop)
        while (low < high).any():
            middle = (low + high) // 2
            beyond = degrees(middle)[0] >= edge
            low, high = np.where(beyond | (low == high), low, middle + 1), np.where(beyond, middle, high)
        return low

    cols = np.arange(window.col, window.col_stop)
    lat = degrees(np.full(len(rows), window.col))[1]
    in_rows = (lat >= south) & (lat < north)
    kept: NDArray[np.bool_] = in_rows[:, None] & (cols >= first_column(west)[:, None])
    return kept & (cols < first_column(east)[:, None])


def inside(areas: Polygons, number: int, patch: Patch) -> NDArray[np.bool_]:
    """Return which pixels of a patch an area touches, (height, width); one below a pixel touches its own."""
    window = patch.grid.window
    coverage = compute_coverage(areas.rings(patch.grid.lattice, np.array([number])))
    found = np.zeros(patch.grid.shape, np.bool_)
    runs = coverage.runs
    for row, col, length in runs[(runs[:, 0] >= window.row) & (runs[:, 0] < window.row_stop), :3].tolist():
        found[row - window.row, max(0, col - window.col) : max(0, col - window.col + length)] = True
    edges = coverage.edges
    row, col = edges[:, 0] - window.row, edges[:, 1] - window.col
    held = (row >= 0) & (row < window.height) & (col >= 0) & (col < window.width)
    found[row[held], col[held]] = True
    if not len(runs) and not len(edges):  # thinner than coverage can tell
        found[:] = True
    return found


def _empty(region: Region, n_years: int, n_bands: int) -> Patch:
    kinds = {(np.dtype(tile.dtype).newbyteorder("="), tile.nodata) for tile in region.tiles}
    dtype = np.result_type(*(kind for kind, _ in kinds)) if kinds else np.dtype(np.int8)
    nodata = next((n for _, n in kinds if n is not None), None) if kinds else -128.0
    shape = (n_years, n_bands, region.window.height, region.window.width)
    return Patch(
        values=np.full(shape, 0 if nodata is None else nodata, dtype),
        covered=np.zeros((n_years, *shape[2:]), np.bool_),
        grid=region.lattice.grid(region.window),
        nodata=nodata,
    )


def _spread(block: TileBlock, patches: Sequence[Patch], year: int, bands: Sequence[str], parts: Sequence[int]) -> None:
    """Decode some parts, each once, and copy them to every patch that the block touches."""
    ref = block.ref
    down, across = -1 if ref.flip_y else 1, -1 if ref.flip_x else 1
    targets = []
    for patch in patches:
        window = patch.grid.window
        common = ref.inside.intersection(window)
        if common is not None:
            targets.append((patch, _slices(common, window), _slices(common, ref.window)))
    names = [block.tile.bands[number] for number in block.bands]
    scratch = None
    for part in parts:
        scratch = block.decode(part, scratch)
        for plane, position in zip(scratch, block.part_bands(part), strict=True):
            pixels = plane[: ref.window.height * ref.window.width].reshape(ref.window.height, ref.window.width)
            pixels = pixels[::down, ::across]
            band = bands.index(names[position])
            for patch, target, origin in targets:
                held = patch.values[year, band][target]
                if patch.nodata is None:
                    missing = ~patch.covered[year][target]
                else:
                    missing = np.isnan(held) if np.isnan(patch.nodata) else held == patch.nodata
                np.copyto(held, pixels[origin], where=missing, casting="same_kind")
    if len(names) == len(bands) or block.n_parts:
        for patch, target, _ in targets:
            patch.covered[year][target] = True


def _slices(common: Window, origin: Window) -> tuple[slice, slice]:
    row, col = common.row - origin.row, common.col - origin.col
    return slice(row, row + common.height), slice(col, col + common.width)


def sample(
    source: CogSource, lon: NDArray[Any], lat: NDArray[Any], years: Sequence[int], bands: Sequence[str], reach: int = 0
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Read the pixel at each point, or the nearest one with data within so many pixels.

    Parameters
    ----------
    source : CogSource
        Where from.
    lon, lat : float arrays, shape (points,)
        EPSG:4326.
    years, bands : sequences
        What is wanted.
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
    regions = regions_of(
        source, Polygons(shapely.box(lon - side, lat - up, lon + side, lat + up)), years, bands, "point"
    )
    rows, cols = _positions(regions, lon, lat)
    kinds = {(tile.dtype, tile.nodata) for region in regions for tile in region.tiles}
    dtype, nodata = next(iter(sorted(kinds, key=str)), ("int8", -128.0))
    values = np.full((len(lon), len(years), len(bands)), 0 if nodata is None else nodata,
                     np.dtype(dtype).newbyteorder("="))  # fmt: skip
    best = np.full((len(lon), len(years)), np.iinfo(np.int64).max)
    offsets = _spiral(reach)
    wanted: dict[tuple[Tile, tuple[int, int]], list[tuple[int, int, int, int]]] = defaultdict(list)
    for point, region in enumerate(regions):
        for rank, (down, across) in enumerate(offsets):
            row, col = int(rows[point]) + down, int(cols[point]) + across
            for tile in region.tiles:
                window = tile.grid.window
                if (
                    tile.grid.lattice == region.lattice
                    and window.row <= row < window.row_stop
                    and window.col <= col < window.col_stop
                    and tile.year in years
                ):
                    wanted[tile, tile.block_index(row, col)].append((point, rank, row, col))
    order = sorted(wanted, key=lambda key: (key[0].ref(*key[1]).window, key[0].year))
    refs = []
    for tile, index in order:
        here = [row for _, _, row, _ in wanted[tile, index]]
        refs.append(tile.ref(*index).holding(min(here), max(here) + 1))
    found_at = [np.array(wanted[key], np.int64) for key in order]
    for number, planes in enumerate(_decoded_ahead(source.read(refs, bands), found_at)):
        tile = order[number][0]
        _pick(tile, planes, found_at[number], values, best, list(years).index(tile.year), bands)
    steps = np.array([max(abs(down), abs(across)) for down, across in offsets])
    found = best < len(offsets)
    return values, np.where(found, steps[np.where(found, best, 0)], -1)


def _positions(
    regions: Sequence[Region], lon: NDArray[Any], lat: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lattice row and column of each point, in its region's zone."""
    rows, cols = np.zeros(len(lon), np.int64), np.zeros(len(lon), np.int64)
    members: dict[Lattice, list[int]] = defaultdict(list)
    for i, region in enumerate(regions):
        members[region.lattice].append(i)
    for lattice, some in members.items():
        x, y = transformer("EPSG:4326", lattice.crs).transform(lon[some], lat[some])
        cols[some] = np.floor(x / lattice.step_x - lattice.phase_x)
        rows[some] = np.floor(-y / lattice.step_y - lattice.phase_y)
    return rows, cols


def _spiral(reach: int) -> list[tuple[int, int]]:
    """Return steps (rows, columns), the nearest first."""
    steps = [(r, c) for r in range(-reach, reach + 1) for c in range(-reach, reach + 1)]
    return sorted(steps, key=lambda step: (step[0] ** 2 + step[1] ** 2, step))


def _decoded_ahead(
    blocks: Iterator[TileBlock | ReadError], wanted: Sequence[NDArray[np.int64]]
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield what `_picked` returns, in order; a few blocks are decoded at once."""
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[Future[dict[str, NDArray[Any]]]] = deque()
        for block, here in zip(blocks, wanted, strict=True):
            waiting.append(pool.submit(_picked, block, here))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _picked(block: TileBlock | ReadError, wanted: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the pixels at (point, rank, row, column) of each band that a block holds."""
    try:
        if isinstance(block, ReadError):
            raise block
        ref, tile = block.ref, block.tile
        row, col = wanted[:, 2] - ref.window.row, wanted[:, 3] - ref.window.col
        row = ref.window.height - 1 - row if ref.flip_y else row
        col = ref.window.width - 1 - col if ref.flip_x else col
        position = row * ref.window.width + col
        planes: dict[str, NDArray[Any]] = {}
        scratch = None
        for part in range(block.n_parts):
            scratch = block.decode(part, scratch)
            for plane, number in zip(scratch, block.part_bands(part), strict=True):
                planes[tile.bands[block.bands[number]]] = plane[position]
    except ReadError as error:
        raise ReadError(f"point {wanted[0, 0]}: {error}", url=error.url, year=error.year) from error
    return planes


def _pick(
    tile: Tile, planes: Mapping[str, NDArray[Any]], wanted: NDArray[np.int64], values: NDArray[Any],
    best: NDArray[np.int64], year: int, bands: Sequence[str],
) -> None:  # fmt: skip
    """Take the pixels of one block that lie nearer to their points than those known."""
    if not planes:
        return
    point, rank = wanted[:, 0], wanted[:, 1]
    valid = np.ones(len(wanted), np.bool_)
    if tile.nodata is not None:
        for plane in planes.values():
            valid &= ~np.isnan(plane) if np.isnan(tile.nodata) else plane != tile.nodata
    for i in np.flatnonzero(valid):
        if rank[i] <= best[point[i], year]:
            best[point[i], year] = rank[i]
            for band, plane in planes.items():
                values[point[i], year, bands.index(band)] = plane[i]

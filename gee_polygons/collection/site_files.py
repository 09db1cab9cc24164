"""Writes the pixels of each site to a file of its own, GeoTIFF or NumPy, and an index that lists these files as tiles.

With the index their folder is an archive: `open_source` and `load` read it, the `.npy` files too, for each of their
bands is described as an uncompressed block at its place in the file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gee_polygons.alphaearth import BANDS, credit
from gee_polygons.collection.catalogue import AEF_ID, dataset
from gee_polygons.collection.table import HEADER, write
from gee_polygons.errors import UsageError
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.cutting import settled_parts
from gee_polygons.sources.cog.header import header_of, open_tiles
from gee_polygons.sources.cog.index_file import index_row, zone_name
from gee_polygons.sources.cog.patches import Patch, Region, regions_of, stream_regions
from gee_polygons.sources.cog.source import INDEX_NAME, CogSource
from gee_polygons.sources.cog.tile import Tile
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.store.atomic import replacing
from gee_polygons.zonal.grid import Grid
from gee_polygons.zonal.projection import transformer
from gee_polygons.zonal.zones import zone_cell

log = logging.getLogger(__name__)

BLOCK = 256  # height and width of a local tile's blocks, pixels


@dataclass(frozen=True)
class _SiteFiles:
    """The files of a site in one zone: for NumPy one with all years, else one for each year."""

    region: Region
    paths: tuple[Path, ...]


def write_site_files(
    folder: Path, sites: Any, years: Sequence[int], source: CogSource, format: str, report: Callable[[int, int], object]
) -> None:
    """Write the files of all sites, and the index last: see `gee_polygons.collection.download.download`.

    One site's pixels are held at a time, and those of others that share its blocks.
    """
    files = _files_of(folder, sites, years, source, format)
    left = [some for some in files if not all(path.is_file() for path in some.paths)]
    done = len(files) - len(left)
    for number, patch in stream_regions(source, [some.region for some in left], years, BANDS):
        _write(left[number].paths, patch, years, credit(synthetic=source.index.synthetic))
        done += 1
        report(done, len(files))
    _write_index(folder, files, years, source)


def _files_of(folder: Path, sites: Any, years: Sequence[int], source: CogSource, format: str) -> list[_SiteFiles]:
    """Name the files of all sites: one in the home zone, and one in each other zone that holds a part of a site."""
    names = [_safe_name(str(site_id)) for site_id in sites.site_ids]
    if len(set(names)) != len(names):
        raise UsageError("two site ids give the same file name; rename one")
    areas = Polygons(sites.polygons)
    named = []
    for home, parts, name in zip(
        regions_of(source, areas, years, BANDS), settled_parts(source, areas, years, BANDS), names, strict=True
    ):
        others = [part for part in parts if part.lattice.crs != home.lattice.crs]
        named.append((home, name))
        # all pixels of the window: an extraction counts those on the zones' border in both, by their shares
        named += [(replace(part, cells=()), f"{name}.{zone_name(part.lattice.crs)}") for part in others]
        if others:
            zones = ", ".join(part.lattice.crs for part in (home, *others))
            log.warning("site %r lies in %s; each zone has a file of its own", sites.site_ids[home.owner], zones)
    endings = [".npy"] if format == "npy" else [".tif"] if len(years) == 1 else [f"_{year}.tif" for year in years]
    files = [_SiteFiles(region, tuple(folder / f"{name}{end}" for end in endings)) for region, name in named]
    paths = [path for some in files for path in some.paths]
    if len(set(paths)) != len(paths):
        raise UsageError("a site's part in another zone would have the file name of another site; rename that site")
    return files


def _safe_name(site_id: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in site_id).lstrip(".") or "_"


def _write(paths: Sequence[Path], patch: Patch, years: Sequence[int], copyright: str) -> None:
    if paths[0].suffix == ".npy":
        with replacing(paths[0]) as part, part.open("wb") as file:
            # not np.save, whose error on a full disk doesn't say so
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(patch.values))
            file.write(np.ascontiguousarray(patch.values).data)
        return
    for path, codes, year in zip(paths, patch.values, years, strict=True):
        said: dict[str, Any] = {"metadata": {"YEAR": str(year)}, "copyright": copyright}
        write_tile(path, patch.grid, codes, block=block_size(patch.grid), max_workers=1, **said)


def block_size(grid: Grid) -> int:
    """Return the height and width of blocks for a local tile: a multiple of 16, no larger than it needs."""
    return min(BLOCK, -(-max(grid.shape) // 16) * 16)


def _write_index(folder: Path, files: Sequence[_SiteFiles], years: Sequence[int], source: CogSource) -> None:
    """List each year of each file that a tile of the source holds pixels of, as a tile with its header."""
    listed = [
        (some, i, year)
        for some in files
        for i, year in enumerate(years)
        if year in {tile.year for tile in some.region.tiles}
    ]
    rows, headers = [], []
    for some, i, year in listed:
        path, grid = some.paths[i % len(some.paths)], some.region.lattice.grid(some.region.window)
        tile = _tile_in_npy(path, grid, year, i) if path.suffix == ".npy" else open_tiles([(str(path), year)])[0]
        if not isinstance(tile, Tile):
            raise tile
        headers.append(header_of(tile))
        rows.append(index_row(grid.crs, year, grid.bounds, _degrees(grid), path.name))
    table = pa.Table.from_pylist(rows).append_column("header", pa.array(headers, HEADER)) if rows else None
    if table is not None:
        entry = replace(dataset(AEF_ID), id="", title="the pixels of some sites", index="")
        metadata = {"attribution": credit(synthetic=source.index.synthetic)}
        metadata |= {"synthetic": "cut from a synthetic archive"} if source.index.synthetic else {}
        write(table, folder / INDEX_NAME, entry, {"downloaded_from": source.archive}, metadata)


def _tile_in_npy(path: Path, grid: Grid, year: int, position: int) -> Tile:
    """Describe one year of an array of shape (years, bands, height, width) as a tile of one block."""
    array = np.load(path, mmap_mode="r")
    size = grid.shape[0] * grid.shape[1]
    first = array.offset + position * len(BANDS) * size
    shape = (len(BANDS), 1, 1)
    return Tile(
        place=path.name, year=year, grid=grid, block_shape=grid.shape, compression="none",
        offsets=(first + size * np.arange(len(BANDS))).reshape(shape), lengths=np.full(shape, size),
    )  # fmt: skip


def _degrees(grid: Grid) -> tuple[float, float, float, float]:
    """Return the bounds of a grid in degrees, inside its zone's cell, as indexes of archives have them."""
    west, south, east, north = transformer(grid.crs, "EPSG:4326").transform_bounds(*grid.bounds)
    cell = zone_cell(grid.crs, west)
    if cell is None:
        return west, south, east, north
    return max(west, cell[0]), max(south, cell[1]), min(east, cell[2]), min(north, cell[3])

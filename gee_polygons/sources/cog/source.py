"""Reads archives of AlphaEarth tiles: an index and Cloud Optimized GeoTIFFs in the published layout.

The index says which tiles may hold a polygon, their headers say which blocks do. Each block is then fetched once and
decoded once, however many polygons touch it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, band_positions
from gee_polygons.errors import GeePolygonsError, InputFileError, ReadError, TileError
from gee_polygons.network.places import has_suffix, is_url
from gee_polygons.network.ranges import cost, stream
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.reduction.plan import BlockRef, EmbeddingImage, Failure, Plan
from gee_polygons.reduction.planning import make_plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog.area import Area
from gee_polygons.sources.cog.filling import fill_from_neighbours
from gee_polygons.sources.cog.header import AEF, Content, open_tiles, tile_from_header
from gee_polygons.sources.cog.index import ArchiveIndex, TileIndex
from gee_polygons.sources.cog.patches import read_regions, regions_of
from gee_polygons.sources.cog.tile import Tile, TileBlock
from gee_polygons.sources.cog.zoning import (
    ZonePart,
    misaligned,
    pieces_on_lattices,
    polygons_near,
    rows_near,
    split_parts,
    zone_parts,
)
from gee_polygons.zonal.projection import transformer
from gee_polygons.zonal.zones import bounding_boxes

INDEX_NAME: Final = "aef_index.parquet"
_MOST_UNKNOWN: Final = 1000  # headers that are parsed without asking whether their tiles lie near


class CogSource:
    """An archive on local disk or behind a URL.

    Parameters
    ----------
    index : str, Path or ArchiveIndex
        The index file (Parquet, STAC GeoParquet, CSV, GeoPackage), or the folder that holds ``aef_index.parquet``
        (also below ``v1/annual``), or a collection's file. A remote one is read as far as it is needed.
    name : str
        Name of the source, for tables and messages.
    content : Content
        Bands, type and nodata value of its tiles.
    network : Network, optional
        Retry and concurrency settings, and mirrors.

    Examples
    --------
    >>> from gee_polygons.sources.opening import open_source
    >>> archive = open_source("sample")
    >>> archive.years()
    [2018, 2019, 2020, 2021, 2022, 2023, 2024]
    """

    def __init__(
        self,
        index: str | Path | ArchiveIndex,
        *,
        name: str = "cog",
        content: Content = AEF,
        network: Network = NETWORK,
    ) -> None:
        self.name = name
        self.network = network
        self._content = content
        self.index = index if isinstance(index, ArchiveIndex) else ArchiveIndex(_find_index(str(index)), network)
        self.archive = self.index.place
        # the label of images: a sample archive is synthetic under any path
        self._label = f"{name} (synthetic)" if name != "sample" and self.index.synthetic else name
        self._tiles: dict[tuple[str, int], Tile] = {}

    def __repr__(self) -> str:
        return f"CogSource({self.archive!r}, {self.index!r})"

    def years(self) -> list[int]:
        """Years that the archive has, ascending."""
        return self.index.years()

    def extent(self) -> tuple[float, ...]:
        """(west, south, east, north) of all tiles in degrees."""
        return self.index.extent()

    def plan(self, polygons: Polygons | NDArray[Any], years: Sequence[int]) -> Plan:
        """Find the blocks that hold polygons; reads the index, and the headers of the tiles concerned.

        Parameters
        ----------
        polygons : array of shapely Polygon or MultiPolygon
            EPSG:4326.
        years : sequence of int
            Years to read; those that the archive lacks cost nothing.

        Returns
        -------
        Plan
        """
        polygons = Polygons.of(polygons)
        archive = self.near(polygons)
        index = archive.of_years(years)
        return self._plan(polygons, years, zone_parts(polygons, index, archive), index)

    def replan(self, polygons: Polygons, incomplete: Sequence[tuple[int, int]]) -> Plan | None:
        """Plan again for polygons and years whose home zone has files beyond its boundary, but no data in them.

        Parameters
        ----------
        polygons : Polygons
            The polygons of the first plan.
        incomplete : sequence of (polygon, year)
            Numbers of polygons, and years, with missing pixels.

        Returns
        -------
        Plan or None
            With these polygons split at the zone boundary; None where that can't help.
        """
        years = sorted({year for _, year in incomplete})
        index = self.near(polygons).of_years(years)
        parts = split_parts(polygons, incomplete, index)
        return self._plan(polygons, years, parts, index) if parts else None

    def near(self, polygons: Polygons) -> TileIndex:
        """Return the tiles that may hold pixels of polygons, with the bounds of their files."""
        index = self.index.near(shapely.bounds(polygons.geometries))
        unknown = np.isnan(index.utm[:, 0])
        if not unknown.any():
            return index
        utm = index.utm.copy()
        if unknown.sum() > _MOST_UNKNOWN:  # a list without bounds: only those near are worth a request
            boxes = Area(shapely.bounds(polygons.geometries))
            near = boxes.hits(index.wgs84)
            index, utm, unknown = index.take(np.flatnonzero(near)), utm[near], unknown[near]
        self.open(index.take(np.flatnonzero(unknown)))
        for row in np.flatnonzero(unknown):
            tile = self._tiles.get((index.place[row], int(index.year[row])))
            if tile is not None:
                utm[row] = tile.grid.bounds
            else:  # it can't be read: polygons there will get an error that names it
                project = transformer("EPSG:4326", str(index.crs[row])).transform_bounds
                utm[row] = project(*index.wgs84[row])
        return replace(index, utm=utm)

    def _plan(self, polygons: Polygons, years: Sequence[int], parts: Sequence[ZonePart], index: TileIndex) -> Plan:
        near = index.take(rows_near(polygons, parts, index))
        tiles, broken = self.open(near)
        broken |= misaligned(tiles)
        tiles = [tile for tile in tiles if (tile.place, tile.year) not in broken]
        failures = [
            Failure(str(error), year, spoiled, place, error.code)
            for (place, year), error in broken.items()
            if (spoiled := polygons_near(polygons, parts, near, place, year))  # else other zones' tiles serve this year
        ]
        pieces = pieces_on_lattices(parts, tiles, sorted({int(year) for year in index.year}))
        return make_plan(
            source=self.name, polygons=polygons, years=years, pieces=pieces, tiles=tiles, failures=failures
        )

    def cost_of(self, plan: Plan) -> tuple[int, int]:
        """Return the requests (with neighbouring ranges merged) and the bytes of a plan."""
        refs = [ref for job in plan.jobs for ref in job.reads]
        tiles = self._tiles_of([*refs, *(part for ref in refs for part in ref.preceding)])
        blocks = [tiles[ref.tile, ref.year].ranges(ref, range(len(BANDS))) for ref in refs]
        hiding = [tiles[part.tile, part.year].ranges(part, [0]) for ref in refs for part in ref.preceding]
        (requests, n_bytes), (more, more_bytes) = cost(blocks), cost(hiding)
        return requests + more, n_bytes + more_bytes

    def holds(self, ref: BlockRef) -> bool:
        """Whether the file holds a block: a local copy has only those that its sites touch."""
        tile = self._tiles_of([ref])[ref.tile, ref.year]
        return isinstance(tile, Tile) and bool(tile.written_parts(ref, [0]))

    def read(self, refs: Sequence[BlockRef], bands: Sequence[str]) -> Iterator[TileBlock | ReadError]:
        """Fetch blocks in order, some ahead; for a block that can't be read, yield the error."""
        if self._content == AEF:
            band_positions(bands, BANDS, "the archive has")  # before any request
        opened = self._tiles_of(refs)
        tiles = [opened[ref.tile, ref.year] for ref in refs]
        # a file may lack bands of its collection
        samples = [[t.bands.index(b) for b in bands if b in t.bands] if isinstance(t, Tile) else [] for t in tiles]
        reads = zip(refs, tiles, samples, strict=True)
        fetched = stream([t.ranges(ref, some) for ref, t, some in reads if isinstance(t, Tile)], self.network)
        try:
            for ref, tile, some in zip(refs, tiles, samples, strict=True):
                if not isinstance(tile, Tile):
                    yield ReadError(str(tile), url=ref.tile, year=ref.year)
                    continue
                try:
                    block = tile.block(ref, some, next(fetched), self.network)
                except ReadError as error:
                    yield error
                else:
                    yield block
        finally:
            fetched.close()

    def _tiles_of(self, refs: Sequence[BlockRef]) -> dict[tuple[str, int], Any]:
        """Return each block's tile, or the error that opening it gave; a plan may come from another process."""
        keys = list(dict.fromkeys((ref.tile, ref.year) for ref in refs))
        errors = self._open_keys([key for key in keys if key not in self._tiles])
        return {key: errors.get(key) or self._tiles[key] for key in keys}

    def _open_keys(self, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], GeePolygonsError]:
        errors: dict[tuple[str, int], GeePolygonsError] = {}
        for key, tile in zip(keys, open_tiles(keys, self.network, self._content), strict=True):
            if isinstance(tile, Tile):
                self._tiles[key] = tile
            else:
                errors[key] = tile
        return errors

    def image(self, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None) -> EmbeddingImage:
        """Return the pixels of a small region, north-up, in the UTM zone of its centroid.

        Across a zone's boundary, what that zone lacks is filled with the nearest pixels of the zone next to it, and
        the image says so (`EmbeddingImage.resampled`). Statistics are never filled.

        Parameters
        ----------
        region : shapely geometry
            EPSG:4326; its bounding box is read, across the antimeridian too.
        year : int
            Year; one that the archive lacks gives an image without data.
        bands : sequence of str, optional
            Default: all 64.

        Returns
        -------
        EmbeddingImage
        """
        names = tuple(bands) if bands is not None else BANDS
        band_positions(names, BANDS, "the archive has")
        areas = Polygons(bounding_boxes(np.array([region], object)))
        [patch] = read_regions(self, regions_of(self, areas, [year], names), [year], names)
        values, zones = fill_from_neighbours(self, areas.geometries[0], patch, year, names)
        return EmbeddingImage(
            values=values, grid=patch.grid, bands=names, year=year, source=self._label, resampled=zones
        )

    def open(self, index: TileIndex) -> tuple[list[Tile], dict[tuple[str, int], GeePolygonsError]]:
        """Parse the headers that aren't known yet. Returns tiles in the index's order, and the errors of the others."""
        keys = list(zip(index.place.tolist(), index.year.tolist(), strict=True))
        for key, header in zip(keys, index.headers, strict=True):
            if header is not None and key not in self._tiles:
                self._tiles[key] = tile_from_header(*key, header)
        broken = self._open_keys([key for key in keys if key not in self._tiles])
        for key, crs in zip(keys, index.crs.tolist(), strict=True):
            tile = self._tiles.get(key)
            if tile is not None and tile.grid.crs != crs:
                del self._tiles[key]
                broken[key] = TileError(f"{tile.place}: lies in {tile.grid.crs}, the index says {crs}")
        return [self._tiles[key] for key in keys if key in self._tiles], broken


def _find_index(spec: str) -> str:
    if is_url(spec):
        return spec if has_suffix(spec, ".parquet", ".csv", ".gpkg") else f"{spec.rstrip('/')}/{INDEX_NAME}"
    path = Path(spec)
    if path.is_dir():
        for candidate in (path / INDEX_NAME, path / "v1" / "annual" / INDEX_NAME):
            if candidate.is_file():
                return str(candidate)
        raise InputFileError(f"{spec}: no {INDEX_NAME} in this folder; is it an archive?")
    return spec

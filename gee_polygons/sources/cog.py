"""The archive of AlphaEarth tiles: an index plus files in the published layout.

The index says which tiles may hold a polygon; their headers say which blocks do; each block is then fetched once and
decoded once, however many polygons touch it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import BANDS, NODATA
from gee_polygons.errors import GeePolygonsError, InputFileError, ReadError, TileError, UsageError
from gee_polygons.sources._index import TileIndex, read_index
from gee_polygons.sources._planning import make_plan
from gee_polygons.sources._polygons import Polygons
from gee_polygons.sources._store import is_url
from gee_polygons.sources._tile import Tile, TileBlock, open_tile, open_tiles
from gee_polygons.sources._window import lattice_window, paste, refs_in
from gee_polygons.sources._zoning import (
    ZonePart,
    home_crs,
    pieces_on_lattices,
    polygons_near,
    rows_near,
    split_parts,
    zone_parts,
)
from gee_polygons.sources.base import BlockRef, EmbeddingImage, Failure, Plan
from gee_polygons.zonal.grid import Lattice

__all__ = ["CogSource"]

INDEX_NAME: Final = "aef_index.parquet"
_READ_AHEAD: Final = 2  # blocks fetched while others are decoded; each is about 28 MB


class CogSource:
    """An archive on local disk or behind a URL.

    Parameters
    ----------
    index : str or Path
        The index file, or the folder that holds ``aef_index.parquet`` (also below ``v1/annual``).

    Examples
    --------
    >>> from gee_polygons.sources.base import open_source
    >>> archive = open_source("sample")
    >>> archive.years()
    [2018, 2019, 2020, 2021, 2022, 2023, 2024]
    """

    def __init__(self, index: str | Path, *, name: str = "cog") -> None:
        self.name = name
        self.archive = _find_index(str(index))
        self._index = read_index(self.archive)
        # what pictures say of their data: a sample archive is synthetic under any path
        self._label = f"{name} (synthetic)" if name != "sample" and _is_synthetic(self.archive) else name
        self._tiles: dict[tuple[str, int], Tile] = {}

    def __repr__(self) -> str:
        years = self.years()
        return f"CogSource({self.archive!r}, {len(self._index)} tiles, {years[0]}-{years[-1]})"

    def years(self) -> list[int]:
        """Years that the archive has, ascending."""
        return sorted({int(year) for year in self._index.year})

    def plan(self, polygons: Polygons | NDArray[Any], years: Sequence[int]) -> Plan:
        """Say which blocks hold which polygons; reads the index and headers of the tiles concerned.

        Parameters
        ----------
        polygons : array of shapely Polygon or MultiPolygon
            EPSG:4326.
        years : sequence of int
            Years asked for; those that the archive lacks cost nothing.

        Returns
        -------
        Plan
        """
        asked = Polygons.of(polygons)
        index = self._years(years)
        return self._plan(asked, years, zone_parts(asked, index, self._index), index)

    def replan(self, polygons: Polygons, incomplete: Sequence[tuple[int, int]]) -> Plan | None:
        """Plan anew for site-years whose home zone has files beyond its boundary, but no data in them.

        Parameters
        ----------
        polygons : Polygons
            Those planned for before.
        incomplete : sequence of (polygon, year)
            Those with pixels missing.

        Returns
        -------
        Plan or None
            In which these polygons are split at the zone boundary; None where that can't help.
        """
        years = sorted({year for _, year in incomplete})
        index = self._years(years)
        parts = split_parts(polygons, incomplete, index)
        return self._plan(polygons, years, parts, index) if parts else None

    def _years(self, years: Sequence[int]) -> TileIndex:
        return self._index.take(np.flatnonzero(np.isin(self._index.year, list(years))))

    def _plan(self, polygons: Polygons, years: Sequence[int], parts: Sequence[ZonePart], index: TileIndex) -> Plan:
        near = index.take(rows_near(polygons, parts, index))
        tiles, broken = self._open(near)
        failures = [
            Failure(str(error), year, spoiled, place, error.code)
            for (place, year), error in broken.items()
            if (spoiled := polygons_near(polygons, parts, near, place, year))  # else other zones' tiles serve this year
        ]
        pieces = pieces_on_lattices(parts, tiles, sorted({int(year) for year in index.year}))
        return make_plan(
            source=self.name, polygons=polygons, years=years, pieces=pieces, tiles=tiles, failures=failures
        )

    def read(self, refs: Sequence[BlockRef], bands: Sequence[str]) -> Iterator[TileBlock | ReadError]:
        """Fetch blocks in order, a few ahead of what is asked for; what can't be read comes as its error."""
        wanted = _band_numbers(bands)

        def fetch(ref: BlockRef) -> TileBlock | ReadError:
            try:
                key = (ref.tile, ref.year)
                if key not in self._tiles:  # the plan was made elsewhere
                    self._tiles[key] = open_tile(*key)
                return self._tiles[key].fetch(ref, wanted)
            except ReadError as error:
                return error

        with ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool:
            pending: deque[Future[TileBlock | ReadError]] = deque()
            for ref in refs:
                pending.append(pool.submit(fetch, ref))
                if len(pending) > _READ_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def image(self, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None) -> EmbeddingImage:
        """Return the pixels of a small region, north-up, in the UTM zone of its centroid.

        Parameters
        ----------
        region : shapely geometry
            EPSG:4326; its bounding box is read.
        year : int
            Year; one that the archive lacks gives an image without data.
        bands : sequence of str, optional
            Default: all 64.

        Returns
        -------
        EmbeddingImage
        """
        names = tuple(bands) if bands is not None else BANDS
        wanted = _band_numbers(names)
        area = Polygons(np.array([shapely.box(*region.bounds)], object))
        index = self._index.take(np.flatnonzero(self._index.year == year))
        crs = str(home_crs(area, index)[0])
        tiles, broken = self._open(index.take(rows_near(area, [ZonePart(0, crs)], index)))
        for error in broken.values():
            raise error
        lattice = tiles[0].grid.lattice if tiles else Lattice(crs, 10.0, 10.0)
        window = lattice_window(area.geometries[0], lattice)
        codes = np.full((len(names), window.height, window.width), NODATA, np.int8)
        for tile in tiles:
            for ref in refs_in(tile, window):
                paste(codes, window, tile.fetch(ref, wanted))
        return EmbeddingImage(values=codes, grid=lattice.grid(window), bands=names, year=year, source=self._label)

    def _open(self, index: TileIndex) -> tuple[list[Tile], dict[tuple[str, int], GeePolygonsError]]:
        """Parse the headers not known yet, many at a time. Returns the tiles in the index's order, and what failed."""
        keys = list(zip(index.place.tolist(), index.year.tolist(), strict=True))
        crs_of = dict(zip(keys, index.crs.tolist(), strict=True))
        opened = open_tiles(unknown := [key for key in keys if key not in self._tiles])
        broken: dict[tuple[str, int], GeePolygonsError] = {}
        for key, tile in zip(unknown, opened, strict=True):
            if not isinstance(tile, Tile):
                broken[key] = tile
            elif tile.grid.crs != crs_of[key]:
                broken[key] = TileError(f"{tile.place}: lies in {tile.grid.crs}, the index says {crs_of[key]}")
            else:
                self._tiles[key] = tile
        return [self._tiles[key] for key in keys if key in self._tiles], broken


def _find_index(spec: str) -> str:
    if is_url(spec):
        return spec if spec.endswith((".parquet", ".csv", ".gpkg")) else f"{spec.rstrip('/')}/{INDEX_NAME}"
    path = Path(spec)
    if path.is_dir():
        for candidate in (path / INDEX_NAME, path / "v1" / "annual" / INDEX_NAME):
            if candidate.is_file():
                return str(candidate)
        raise InputFileError(f"{spec}: no {INDEX_NAME} in this folder; is it an archive?")
    return spec


def _band_numbers(bands: Sequence[str]) -> list[int]:
    unknown = [band for band in bands if band not in BANDS]
    if unknown:
        raise UsageError(f"unknown band {unknown[0]!r}; the archive has A00..A63")
    return [BANDS.index(band) for band in bands]


def _is_synthetic(index: str) -> bool:
    """Whether a local index says that its tiles are synthetic, as that of every sample archive does."""
    import pyarrow.parquet as pq

    if is_url(index) or not index.endswith(".parquet"):
        return False
    return b"synthetic" in (pq.read_schema(index).metadata or {})

"""Reads the Zarr mosaic: all tiles of the archive on one longitude/latitude grid, with all 64 bands in one chunk.

A small polygon costs one request, where the archive's tiles take 64. In return pixels were resampled to their nearest
neighbours, and codes were averaged where tiles overlap: such pixels aren't unit vectors, so a damaged chunk is noticed
only if it can't be decoded.

Pixels differ in area from row to row, so each is weighted by its coverage times its area (`gee_polygons.zonal.areas`).
`n_pixels` and `count` count the mosaic's own pixels, whatever their area, and `valid_fraction` is `n_pixels` over the
same sum for the whole polygon. A chunk that was never written counts as nodata: inside the grid, in a year that the
mosaic has, such a polygon is ``masked``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, NODATA
from gee_polygons.errors import InputFileError, ReadError, UsageError
from gee_polygons.network.places import hide_query, local_path, rewrite
from gee_polygons.network.ranges import stream
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.reduction.extents import degrees
from gee_polygons.reduction.plan import BlockRef, EmbeddingImage, Plan
from gee_polygons.reduction.planning import make_plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.windows import lattice_window, paste, refs_in
from gee_polygons.sources.mosaic.blocks import MosaicBlock, chunk_error, fetched_chunk
from gee_polygons.sources.mosaic.chunks import Coords
from gee_polygons.sources.mosaic.mosaic import Mosaic
from gee_polygons.zonal.grid import Grid, Window
from gee_polygons.zonal.zones import unwrap

MOSAIC_URL: Final = "s3://us-west-2.opendata.source.coop/tge-labs/aef-mosaic/"


class MosaicSource:
    """A mosaic in a Zarr v3 store, sharded or not, on local disk or behind a URL.

    Parameters
    ----------
    place : str or Path
        The store: the group that holds an array ``embeddings`` (or a single other array that can be it), or the array
        itself. No request is made before the first use.
    network : Network, optional
        Retry and concurrency settings, and mirrors.
    year : int, optional
        Year of a mosaic of one year that doesn't state it.

    Raises
    ------
    InputFileError
        If a local store isn't there; at first use, if there is no Zarr v3 array or group.
    TileError
        At first use, if it isn't a mosaic of embeddings, or its metadata lack the grid.

    Examples
    --------
    >>> MosaicSource("https://example.org/mosaic.zarr")  # no request yet
    MosaicSource('https://example.org/mosaic.zarr')
    """

    name = "mosaic"
    weights = "exact fraction of each pixel's area inside the polygon, times the pixel's true area, over valid pixels"

    def __init__(self, place: str | Path = MOSAIC_URL, *, network: Network = NETWORK, year: int | None = None) -> None:
        self.archive = str(place)
        if (shown := hide_query(self.archive)) != self.archive:
            raise UsageError(f"{shown}: a Zarr store is many files, so its URL can have neither a query nor a password")
        self.network = network
        self._year = year
        self._place = rewrite(self.archive, network.url_rewrite).rstrip("/").removesuffix("/zarr.json")
        self._lock = threading.Lock()
        self._known: Mosaic | None = None
        local = local_path(self._place)
        if local is not None and not Path(local).is_dir():
            raise InputFileError(f"{place}: no such folder; a Zarr store is a folder with a zarr.json in it")

    def __repr__(self) -> str:
        known = self._known
        if known is None:
            return f"MosaicSource({self.archive!r})"
        height, width = known.layout.grid.shape
        years = sorted(known.layout.years)
        return (
            f"MosaicSource({self.archive!r}, {len(known.layout.bands)} bands, {height} x {width} px, "
            f"{years[0]}-{years[-1]})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings alone; the store is opened again where it is needed."""
        return partial(MosaicSource, network=self.network, year=self._year), (self.archive,)

    def _opened(self) -> Mosaic:
        with self._lock:
            if self._known is None:
                self._known = Mosaic.open(self._place, self.network, self._year)
            return self._known

    @property
    def grid(self) -> Grid:
        """CRS, affine transform and shape."""
        return self._opened().layout.grid

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self._opened().layout.bands

    def years(self) -> list[int]:
        """Years that the mosaic has, ascending."""
        return sorted(self._opened().layout.years)

    def extent(self) -> tuple[float, ...]:
        """(west, south, east, north) in degrees."""
        return degrees(self.grid.bounds, self.grid.crs)

    def plan(self, polygons: Polygons | NDArray[Any], years: Sequence[int]) -> Plan:
        """Plan which chunks to read for polygons (EPSG:4326); reads the indexes of the shards concerned.

        The plan's bytes are exact for sharded and local mosaics, and estimated for remote ones without shards.
        """
        mosaic = self._opened()
        polygons = Polygons.of(polygons)
        tiles = [mosaic.tile(year) for year in sorted(set(years) & set(mosaic.layout.years))]
        pieces = mosaic.pieces(polygons)
        plan = make_plan(source=self.name, polygons=polygons, years=years, pieces=pieces, tiles=tiles)
        parts = mosaic.parts(range(len(mosaic.layout.bands)))
        # a set: one chunk may hold several years
        chunks = {mosaic.chunk(ref, part) for job in plan.jobs for ref in job.reads for part in parts}
        mosaic.chunks.load_indexes(chunks)  # reading a chunk raises the error again, with the chunk's name
        costs = [mosaic.chunks.cost(chunk) for chunk in chunks]
        return replace(
            plan, requests=sum(n for n, _ in costs), bytes=sum(size for _, size in costs), by_area=mosaic.is_lon_lat
        )

    def read(self, refs: Sequence[BlockRef], bands: Sequence[str]) -> Iterator[MosaicBlock | ReadError]:
        """Fetch blocks in order, ahead of the consumer, each chunk once; yield an error for what can't be read."""
        mosaic, chunks = self._opened(), self._opened().chunks
        parts = mosaic.parts(mosaic.numbers(bands))
        needs = [[mosaic.chunk(ref, part) for part in parts] for ref in refs]
        uses = Counter(chunk for need in needs for chunk in need)  # in order of first use
        shared = {chunk for chunk, n in uses.items() if n > 1}
        errors = chunks.load_indexes(uses)
        requests = {chunk: None if chunks.shard_of(chunk) in errors else chunks.request(chunk) for chunk in uses}
        fetched = stream([request for request in requests.values() if request is not None], self.network)
        held: dict[Coords, Any] = {}
        try:
            for ref, need in zip(refs, needs, strict=True):
                ours = []
                for chunk in need:
                    if chunk not in held:
                        answer = next(fetched) if requests[chunk] else None
                        held[chunk] = fetched_chunk(answer, shared=chunk in shared)
                    ours.append(held[chunk])
                    uses[chunk] -= 1
                    if not uses[chunk]:
                        del held[chunk]
                failed = [errors[shard] for shard in map(chunks.shard_of, need) if shard in errors]
                failed += [chunk for chunk in ours if isinstance(chunk, ReadError)]
                if failed:
                    yield chunk_error(ref, str(failed[0]), failed[0].url)
                    continue
                block = MosaicBlock(mosaic, ref, parts, ours)
                del ours  # the block alone keeps the bytes
                yield block
        finally:
            fetched.close()

    def image(self, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None) -> EmbeddingImage:
        """Return the pixels of a region's bounding box (EPSG:4326), north-up; all nodata for a year it doesn't have.

        A region across the mosaic's first longitude is put together from both ends, to the nearest pixel.
        """
        mosaic = self._opened()
        names = tuple(bands) if bands is not None else tuple(b for b in BANDS if b in mosaic.layout.bands)
        mosaic.numbers(names)  # raises for unknown ones
        box = unwrap(np.array([shapely.box(*region.bounds)], object))[0]
        grid = mosaic.layout.grid
        if mosaic.is_lon_lat:
            box = shapely.affinity.translate(box, -360.0 * np.floor((box.bounds[0] - mosaic.seam) / 360.0))
        window = lattice_window(box, grid.lattice)
        nodata = NODATA if mosaic.chunks.dtype == np.int8 else np.nan
        values = np.full((len(names), window.height, window.width), nodata, mosaic.plain_dtype)
        # a mosaic may hold the same ground twice, 360 degrees apart
        shifts = [0, -round(360.0 / grid.lattice.step_x)] if mosaic.is_lon_lat else [0]
        for shift in shifts if year in mosaic.layout.years else []:
            shifted = Window(window.row, window.col + shift, window.height, window.width)
            for block in self.read(list(refs_in(mosaic.tile(year), shifted)), names):
                if isinstance(block, ReadError):
                    raise block
                paste(values, shifted, block)
        return EmbeddingImage(
            values=values, grid=grid.lattice.grid(window), bands=names, year=year, source=self.archive
        )

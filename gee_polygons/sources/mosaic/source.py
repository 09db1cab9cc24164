"""The Zarr mosaic: all tiles of the archive on one lon/lat grid, with one chunk for all 64 bands of a place.

A polygon costs one request where the archive's tiles take 64. In return the pixels were resampled to their nearest
neighbours, and where tiles overlap their codes were averaged: such pixels aren't unit vectors, so damage to a chunk
shows only if it can't be decoded.

Pixels differ in area from row to row; each weighs by its coverage times its area (`gee_polygons.zonal.areas`).
`n_pixels` and `count` are of the mosaic's own pixels, whatever their area, and `valid_fraction` is `n_pixels` over the
same sum for the whole polygon. A chunk that was never written has no data, as one full of nodata: inside the grid, in a
year that the mosaic has, such a polygon is ``masked``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, NODATA
from gee_polygons.errors import InputFileError, ReadError
from gee_polygons.network.places import local_path, rewrite
from gee_polygons.network.ranges import RangeRequest, stream
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.reduction.plan import BlockRef, EmbeddingImage, Plan
from gee_polygons.reduction.planning import make_plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.windows import lattice_window, paste, refs_in
from gee_polygons.sources.mosaic.blocks import MosaicBlock, chunk_error, payload_of
from gee_polygons.sources.mosaic.opened import Mosaic
from gee_polygons.sources.mosaic.zarr import Coords
from gee_polygons.zonal.grid import Grid, Window
from gee_polygons.zonal.zones import unwrap

MOSAIC_URL: Final = "s3://us-west-2.opendata.source.coop/tge-labs/aef-mosaic/"


class MosaicSource:
    """A mosaic in a Zarr v3 store, sharded or not, on local disk or behind a URL.

    Parameters
    ----------
    place : str or Path
        The store: the group that holds an array ``embeddings`` (or one other that can be it), or the array itself.
        Nothing is asked of it before it is needed.
    network : Network, optional
        How hard to try, how much to ask for at once, and which mirror to read.
    year : int, optional
        Year of a mosaic of one year that doesn't state it.

    Raises
    ------
    InputFileError
        If a local store isn't there; at first use, if there is no Zarr v3 array or group.
    TileError
        At first use, if it isn't a mosaic of embeddings, or its metadata don't say where the pixels are.

    Examples
    --------
    >>> MosaicSource("https://example.org/mosaic.zarr")  # asks for nothing
    MosaicSource('https://example.org/mosaic.zarr')
    """

    name = "mosaic"
    weights = "exact fraction of each pixel's area inside the polygon, times the pixel's true area, over valid pixels"

    def __init__(self, place: str | Path = MOSAIC_URL, *, network: Network = NETWORK, year: int | None = None) -> None:
        self.archive = str(place)
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

    def __getstate__(self) -> dict[str, Any]:
        return {"archive": self.archive, "network": self.network, "year": self._year}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["archive"], network=state["network"], year=state["year"])  # type: ignore[misc]

    def _opened(self) -> Mosaic:
        with self._lock:
            if self._known is None:
                self._known = Mosaic.open(self._place, self.network, self._year)
            return self._known

    @property
    def grid(self) -> Grid:
        """Where the pixels are."""
        return self._opened().layout.grid

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self._opened().layout.bands

    def years(self) -> list[int]:
        """Years that the mosaic has, ascending."""
        return sorted(self._opened().layout.years)

    def plan(self, polygons: Polygons | NDArray[Any], years: Sequence[int]) -> Plan:
        """Say which chunks hold which polygons (EPSG:4326); reads the indexes of the shards concerned.

        In shards and on local disks the bytes are exact; of an unsharded mosaic far away they are estimated.
        """
        mosaic = self._opened()
        asked = Polygons.of(polygons)
        tiles = [mosaic.tile(year) for year in sorted(set(years) & set(mosaic.layout.years))]
        pieces = mosaic.pieces(asked)
        plan = make_plan(source=self.name, polygons=asked, years=years, pieces=pieces, tiles=tiles)
        parts = mosaic.parts(range(len(mosaic.layout.bands)))
        # chunks of several years are there once
        chunks = {mosaic.chunk(ref, part) for job in plan.jobs for ref in job.reads for part in parts}
        mosaic.chunks.load_indexes(chunks)  # an error comes again, by name, when the chunk is read
        costs = [mosaic.chunks.cost(chunk) for chunk in chunks]
        return replace(
            plan, requests=sum(n for n, _ in costs), bytes=sum(size for _, size in costs), by_area=mosaic.is_lon_lat
        )

    def read(self, refs: Sequence[BlockRef], bands: Sequence[str]) -> Iterator[MosaicBlock | ReadError]:
        """Fetch chunks in order, ahead of what is asked for, each once; what can't be read comes as its error."""
        mosaic = self._opened()
        parts = mosaic.parts(mosaic.numbers(bands))
        needs = [[mosaic.chunk(ref, part) for part in parts] for ref in refs]
        broken = mosaic.chunks.load_indexes(chunk for need in needs for chunk in need)
        left = Counter(chunk for need in needs for chunk in need)
        shared = {chunk for chunk, n in left.items() if n > 1}
        wants: dict[Coords, RangeRequest | None] = {}
        for chunk in left:  # in order of first need
            wants[chunk] = None if mosaic.chunks.shard_of(chunk) in broken else mosaic.chunks.want(chunk)
        fetched = stream([want for want in wants.values() if want is not None], self.network)
        held: dict[Coords, Any] = {}
        try:
            for ref, need in zip(refs, needs, strict=True):
                payloads = []
                for chunk in need:
                    if chunk not in held:
                        held[chunk] = payload_of(next(fetched) if wants[chunk] else None, chunk in shared)
                    payloads.append(held[chunk])
                    left[chunk] -= 1
                    if not left[chunk]:
                        del held[chunk]
                failed = [broken[s] for s in map(mosaic.chunks.shard_of, need) if s in broken]
                failed += [payload for payload in payloads if isinstance(payload, ReadError)]
                if failed:
                    yield chunk_error(ref, str(failed[0]), failed[0].url)
                    continue
                block = MosaicBlock(mosaic, ref, parts, payloads)
                del payloads
                yield block
        finally:
            fetched.close()

    def image(self, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None) -> EmbeddingImage:
        """Return the pixels of a region's bounding box (EPSG:4326), north-up; a year that isn't there has no data.

        A region across the mosaic's seam is put together from both ends, to the nearest pixel.
        """
        mosaic = self._opened()
        names = tuple(bands) if bands is not None else tuple(b for b in BANDS if b in mosaic.layout.bands)
        mosaic.numbers(names)  # refuses unknown ones
        box = unwrap(np.array([shapely.box(*region.bounds)], object))[0]
        grid = mosaic.layout.grid
        if mosaic.is_lon_lat:
            box = shapely.affinity.translate(box, -360.0 * np.floor((box.bounds[0] - mosaic.seam) / 360.0))
        window = lattice_window(box, grid.lattice)
        nodata = NODATA if mosaic.chunks.dtype == np.int8 else np.nan
        values = np.full((len(names), window.height, window.width), nodata, mosaic.plain_dtype)
        turns = [0, -round(360.0 / grid.lattice.step_x)] if mosaic.is_lon_lat else [0]
        for turn in turns if year in mosaic.layout.years else []:
            turned = Window(window.row, window.col + turn, window.height, window.width)
            for block in self.read(list(refs_in(mosaic.tile(year), turned)), names):
                if isinstance(block, ReadError):
                    raise block
                paste(values, turned, block)
        return EmbeddingImage(
            values=values, grid=grid.lattice.grid(window), bands=names, year=year, source=self.archive
        )

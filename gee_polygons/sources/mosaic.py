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
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numba
import numpy as np
import shapely
import shapely.affinity
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import BANDS, FLOAT32_ROUNDING, NODATA
from gee_polygons.errors import InputFileError, ReadError, TileError, UsageError
from gee_polygons.sources._fetch import NETWORK, AbsentError, Failed, LocalRange, Network, Want, stream
from gee_polygons.sources._mosaic_layout import Layout, read_layout
from gee_polygons.sources._planning import make_plan
from gee_polygons.sources._polygons import Polygons
from gee_polygons.sources._store import local_path, rewrite
from gee_polygons.sources._window import lattice_window, near_grid, paste, refs_in
from gee_polygons.sources._zarr import Chunks, Coords, open_node
from gee_polygons.sources.base import BlockRef, EmbeddingImage, Piece, Plan
from gee_polygons.zonal.grid import Grid, Window
from gee_polygons.zonal.kernels import PADDING
from gee_polygons.zonal.zones import unwrap

__all__ = ["MOSAIC_URL", "MosaicSource"]

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
        self._known: _Mosaic | None = None
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

    def _opened(self) -> _Mosaic:
        with self._lock:
            if self._known is None:
                self._known = _Mosaic.open(self._place, self.network, self._year)
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

    def read(self, refs: Sequence[BlockRef], bands: Sequence[str]) -> Iterator[_MosaicBlock | ReadError]:
        """Fetch chunks in order, ahead of what is asked for, each once; what can't be read comes as its error."""
        mosaic = self._opened()
        parts = mosaic.parts(mosaic.numbers(bands))
        needs = [[mosaic.chunk(ref, part) for part in parts] for ref in refs]
        broken = mosaic.chunks.load_indexes(chunk for need in needs for chunk in need)
        left = Counter(chunk for need in needs for chunk in need)
        shared = {chunk for chunk, n in left.items() if n > 1}
        wants: dict[Coords, Want | None] = {}
        for chunk in left:  # in order of first need
            wants[chunk] = None if mosaic.chunks.shard_of(chunk) in broken else mosaic.chunks.want(chunk)
        fetched = stream([want for want in wants.values() if want is not None], self.network)
        held: dict[Coords, Any] = {}
        try:
            for ref, need in zip(refs, needs, strict=True):
                payloads = []
                for chunk in need:
                    if chunk not in held:
                        answer = next(fetched) if wants[chunk] is not None else None
                        held[chunk] = _payload(answer, chunk in shared)
                    payloads.append(held[chunk])
                    left[chunk] -= 1
                    if not left[chunk]:
                        del held[chunk]
                failed = [broken[s] for s in map(mosaic.chunks.shard_of, need) if s in broken]
                failed += [payload for payload in payloads if isinstance(payload, ReadError)]
                if failed:
                    yield _error(ref, str(failed[0]), failed[0].url)
                    continue
                block = _MosaicBlock(mosaic, ref, parts, payloads)
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


@dataclass(frozen=True)
class _Part:
    """A chunk along the bands: which it is, which of its bands are wanted, and where among those asked for they go."""

    number: int
    inside: tuple[int, ...]
    asked: tuple[int, ...]


@dataclass(frozen=True)
class _Mosaic:
    """An opened mosaic."""

    chunks: Chunks
    layout: Layout

    @classmethod
    def open(cls, place: str, network: Network, year: int | None) -> _Mosaic:
        node = open_node(place, network)
        chunks = Chunks(node, network)
        if chunks.dtype != np.int8 and chunks.dtype.kind != "f":
            raise TileError(f"{node.place}: holds {chunks.dtype}; embeddings are int8 codes or float vectors")
        nodata = node.array.attrs.get("_FillValue", node.array.attrs.get("nodata"))
        if chunks.dtype == np.int8 and isinstance(nodata, int) and nodata != NODATA:
            raise TileError(f"{node.place}: nodata is {nodata}; codes have -128")
        return cls(chunks, read_layout(node, year))

    @property
    def place(self) -> str:
        return self.chunks.node.place

    @cached_property
    def is_lon_lat(self) -> bool:
        import pyproj

        return bool(pyproj.CRS(self.layout.grid.crs).is_geographic)

    @cached_property
    def seam(self) -> float:
        """Where longitudes begin: at the mosaic's western edge if it goes round the Earth, else opposite its middle."""
        west, _, east, _ = self.layout.grid.bounds
        return west if east - west >= 360.0 else (west + east) / 2 - 180.0

    @property
    def plain_dtype(self) -> np.dtype[Any]:
        """The type of decoded pixels: int8, float32 or float64 in this machine's byte order."""
        if self.chunks.dtype == np.int8:
            return np.dtype(np.int8)
        return np.dtype(np.float32 if self.chunks.dtype.itemsize <= 4 else np.float64)

    def tile(self, year: int) -> _Tile:
        """Return a year's raster, as planning and windows want it."""
        axes, inner = self.layout.axes, self.chunks.inner
        return _Tile(self.place, year, self.layout.grid, (inner[axes.y], inner[axes.x]))

    def pieces(self, polygons: Polygons) -> list[Piece]:
        """Put every polygon that may touch the grid on it, at longitudes that the grid has."""
        lattice = self.layout.grid.lattice
        if not self.is_lon_lat:
            near = np.flatnonzero(near_grid(polygons.geometries, self.layout.grid))
            return [Piece(i, lattice) for i in near.tolist()]
        bounds = shapely.bounds(polygons.geometries)
        beyond = (bounds[:, 0] < self.seam) | (bounds[:, 2] > self.seam + 360.0)
        return [Piece(i, lattice, seam=self.seam if beyond[i] else None) for i in range(len(polygons))]

    def numbers(self, bands: Sequence[str]) -> list[int]:
        """Return the places of some bands on the band axis."""
        unknown = [band for band in bands if band not in self.layout.bands]
        if unknown:
            raise UsageError(
                f"{self.place}: no band {unknown[0]!r}; it has {self.layout.bands[0]}..{self.layout.bands[-1]}"
            )
        return [self.layout.bands.index(band) for band in bands]

    def parts(self, numbers: Sequence[int]) -> list[_Part]:
        """Sort bands into the chunks that hold them."""
        size = self.chunks.inner[self.layout.axes.band]
        return [
            _Part(
                chunk,
                tuple(n % size for n in numbers if n // size == chunk),
                tuple(i for i, n in enumerate(numbers) if n // size == chunk),
            )
            for chunk in sorted({n // size for n in numbers})
        ]

    def chunk(self, ref: BlockRef, part: _Part) -> Coords:
        """Return the number of a chunk of a block."""
        axes = self.layout.axes
        coords = {axes.band: part.number, axes.y: ref.index[0], axes.x: ref.index[1]}
        if axes.time is not None:
            coords[axes.time] = self.layout.years[ref.year] // self.chunks.inner[axes.time]
        return tuple(coords[i] for i in range(len(coords)))

    def pixels(self, chunk: NDArray[Any], year: int) -> NDArray[Any]:
        """Return a decoded chunk's pixels of a year, shape (bands of the chunk, height, width)."""
        axes = self.layout.axes
        order = (axes.band, axes.y, axes.x)
        if axes.time is None:
            return chunk.transpose(order)
        place = self.layout.years[year] % self.chunks.inner[axes.time]
        pixels: NDArray[Any] = chunk.transpose((axes.time, *order))[place]
        return pixels

    @cached_property
    def is_direct(self) -> bool:
        """Whether a chunk's bytes are the planes of one year, band after band."""
        axes = self.layout.axes
        order = [axis for axis in (axes.time, axes.band, axes.y, axes.x) if axis is not None]
        one_year = axes.time is None or self.chunks.inner[axes.time] == 1
        return self.chunks.is_plain and self.chunks.dtype == np.int8 and one_year and order == sorted(order)


@dataclass(frozen=True)
class _Tile:
    """One year of the mosaic, as a raster in blocks: see `gee_polygons.sources._planning.Blocked`."""

    place: str
    year: int
    grid: Grid
    block_shape: tuple[int, int]

    def ref(self, row: int, col: int) -> BlockRef:
        height, width = self.block_shape
        whole = self.grid.part(row * height, col * width, height, width)
        inside = whole.intersection(self.grid.window)
        if inside is None:
            raise IndexError(f"{self.place} has no block ({row}, {col})")
        return BlockRef(
            tile=self.place, year=self.year, index=(row, col), window=whole, inside=inside,
            flip_y=self.grid.flip_y, flip_x=self.grid.flip_x,
        )  # fmt: skip

    def cost(self, ref: BlockRef, n_bands: int | None = None) -> tuple[int, int]:
        return 0, 0  # of a whole plan's chunks, together


class _Shared:
    """A chunk of several years: decoded by the first that needs it, let go with the last."""

    def __init__(self, payload: Any) -> None:
        self._payload = payload
        self._lock = threading.Lock()
        self._pixels: NDArray[Any] | None = None

    def pixels(self, chunks: Chunks) -> NDArray[Any]:
        with self._lock:
            if self._pixels is None:
                self._pixels = chunks.decode(self._payload)
                self._payload = None
            return self._pixels


def _payload(answer: list[Any] | Failed | None, shared: bool) -> Any:
    """Return a chunk's bytes; None if it was never written; what went wrong if it can't be had."""
    if isinstance(answer, Failed):
        return None if isinstance(answer.error, AbsentError) else answer.error
    if answer is None:
        return None
    payload = bytes(answer[0]) if shared else answer[0]
    return _Shared(payload) if shared else payload


def _error(ref: BlockRef, what: str, url: str | None) -> ReadError:
    row, col = ref.index
    return ReadError(f"{ref.tile}: chunk (row {row}, column {col}), {ref.year}: {what}", url=url, year=ref.year)


class _MosaicBlock:
    """The chunks of one place and year, one for some or all of the bands."""

    checks_norms = False  # where tiles overlap their codes were averaged: not every pixel has length 1

    def __init__(self, mosaic: _Mosaic, ref: BlockRef, parts: Sequence[_Part], payloads: Sequence[Any]) -> None:
        self.ref = ref
        self._mosaic = mosaic
        written = any(payload is not None for payload in payloads)
        # a place without any chunk has no planes, and nothing to add up
        self._parts = list(zip(parts, payloads, strict=True)) if written else []

    @property
    def n_parts(self) -> int:
        return len(self._parts)

    def part_bands(self, part: int) -> Sequence[int]:
        return self._parts[part][0].asked

    def decode(self, part: int, scratch: NDArray[Any] | None = None) -> NDArray[Any]:
        """Decode a chunk to planes, shape (bands of the part, pixels + PADDING)."""
        mosaic, (which, payload) = self._mosaic, self._parts[part]
        n_bands = mosaic.chunks.inner[mosaic.layout.axes.band]
        planes, flat = _planes(n_bands, self.ref.window.height * self.ref.window.width, mosaic.plain_dtype, scratch)
        if payload is None:
            flat[:] = NODATA if flat.dtype == np.int8 else np.nan
        else:
            try:
                self._decode_into(payload, flat[: flat.size - PADDING])
            except ReadError as error:
                raise _error(self.ref, str(error), error.url) from error
        return planes if which.inside == tuple(range(n_bands)) else planes[list(which.inside)]

    def _decode_into(self, payload: Any, flat: NDArray[Any]) -> None:
        mosaic = self._mosaic
        url = mosaic.chunks.place_of(mosaic.chunk(self.ref, self._parts[0][0]))
        if isinstance(payload, LocalRange):
            payload = payload.read()
        try:
            if mosaic.is_direct and not isinstance(payload, _Shared):
                done = mosaic.chunks.decode_plain(payload, flat.view(np.uint8))
                if done != flat.nbytes:
                    raise ReadError(f"{url}: damaged: decodes to {done} bytes, {flat.nbytes} expected", url=url)
            else:
                shared = isinstance(payload, _Shared)
                chunk = payload.pixels(mosaic.chunks) if shared else mosaic.chunks.decode(payload)
                pixels = mosaic.pixels(chunk, self.ref.year)
                flat.reshape(pixels.shape)[:] = pixels
        except ReadError:
            raise
        except Exception as error:  # zarr's and numcodecs' codecs raise what they like
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ReadError(f"{url}: damaged: {reason}", url=url) from error
        if flat.dtype == np.int8:
            _mask_incomplete(flat, flat.size // (self.ref.window.height * self.ref.window.width))
        else:
            _check_vectors(flat, self.ref.window.height * self.ref.window.width, mosaic.chunks.node.array, url)


def _planes(
    n_bands: int, n_pixels: int, dtype: np.dtype[Any], scratch: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return planes that follow each other in memory, and all of them as one array, which a codec can write to.

    So each one's padding is the next one's start. `scratch` is used again where it is such an array.
    """
    shape, strides = (n_bands, n_pixels + PADDING), (n_pixels * dtype.itemsize, dtype.itemsize)
    if scratch is None or scratch.dtype != dtype or scratch.shape != shape or scratch.strides != strides:
        flat = np.zeros(n_bands * n_pixels + PADDING, dtype)
        scratch = as_strided(flat, shape, strides)
    return scratch, as_strided(scratch, (n_bands * n_pixels + PADDING,), (dtype.itemsize,))


@numba.njit(nogil=True, cache=True)
def _mask_incomplete(flat: Any, n_bands: int) -> None:
    """Mask pixels that lack a band: a vector without a component is no vector."""
    n = len(flat) // n_bands
    missing = np.zeros(n, np.uint16)
    for band in range(n_bands):
        start = band * n
        for i in range(n):
            missing[i] += np.uint16(flat[start + i] == -128)
    for i in range(n):
        if 0 < missing[i] < n_bands:
            for band in range(n_bands):
                flat[band * n + i] = -128


def _check_vectors(flat: NDArray[Any], n_pixels: int, array: Any, url: str) -> None:
    """Set what is nodata to NaN; refuse what can't be vectors."""
    stated = array.attrs.get("_FillValue", array.attrs.get("nodata"))
    for fill in (array.fill_value, stated):
        if isinstance(fill, (int, float, np.floating)) and fill != 0:  # 0 is what is put where nobody chose
            flat[flat == flat.dtype.type(fill)] = np.nan
    planes = flat.reshape(-1, n_pixels)
    planes[:, np.isnan(planes).any(axis=0)] = np.nan
    if float(np.nanmax(np.abs(flat), initial=0.0)) > 1.0 + FLOAT32_ROUNDING:
        raise ReadError(f"{url}: values beyond -1..1 aren't embedding vectors; is nodata undeclared?", url=url)

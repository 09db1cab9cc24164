"""An opened mosaic: maps years, bands and blocks of pixels to Zarr chunks, and polygons to the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import NODATA, band_positions
from gee_polygons.errors import TileError
from gee_polygons.network.request import Network
from gee_polygons.reduction.plan import BlockRef, Piece
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.windows import near_grid
from gee_polygons.sources.mosaic.chunks import Chunks, Coords
from gee_polygons.sources.mosaic.layout import Layout, read_layout
from gee_polygons.sources.mosaic.zarr_store import open_array
from gee_polygons.zonal.grid import Grid


@dataclass(frozen=True)
class BandChunk:
    """A chunk along the band axis: its number, which of its bands are read, and their positions among the requested."""

    number: int
    inside: tuple[int, ...]
    requested: tuple[int, ...]


@dataclass(frozen=True)
class Mosaic:
    """An opened mosaic."""

    chunks: Chunks
    layout: Layout

    @classmethod
    def open(cls, place: str, network: Network, year: int | None) -> Mosaic:
        """Open a Zarr store and read its metadata."""
        opened = open_array(place, network)
        chunks = Chunks(opened, network)
        if chunks.dtype != np.int8 and chunks.dtype.kind != "f":
            raise TileError(f"{opened.place}: holds {chunks.dtype}; embeddings are int8 codes or float vectors")
        nodata = opened.array.attrs.get("_FillValue", opened.array.attrs.get("nodata"))
        if chunks.dtype == np.int8 and isinstance(nodata, int) and nodata != NODATA:
            raise TileError(f"{opened.place}: nodata is {nodata}; codes have -128")
        return cls(chunks, read_layout(opened, year))

    @property
    def place(self) -> str:
        """Path or URL of the store."""
        return self.chunks.opened.place

    @cached_property
    def is_lon_lat(self) -> bool:
        """Whether the grid is in longitude and latitude."""
        import pyproj

        return bool(pyproj.CRS(self.layout.grid.crs).is_geographic)

    @cached_property
    def seam(self) -> float:
        """First longitude: the mosaic's western edge if it spans the Earth, else the meridian opposite its middle."""
        west, _, east, _ = self.layout.grid.bounds
        return west if east - west >= 360.0 else (west + east) / 2 - 180.0

    @property
    def plain_dtype(self) -> np.dtype[Any]:
        """Type of decoded pixels: int8, float32 or float64, in this machine's byte order."""
        if self.chunks.dtype == np.int8:
            return np.dtype(np.int8)
        return np.dtype(np.float32 if self.chunks.dtype.itemsize <= 4 else np.float64)

    def tile(self, year: int) -> MosaicTile:
        """Return one year as a raster in blocks."""
        axes, inner = self.layout.axes, self.chunks.inner
        return MosaicTile(self.place, year, self.layout.grid, (inner[axes.y], inner[axes.x]))

    def pieces(self, polygons: Polygons) -> list[Piece]:
        """Return a piece for each polygon that may touch the grid, at the grid's own longitudes."""
        lattice = self.layout.grid.lattice
        if not self.is_lon_lat:
            near = np.flatnonzero(near_grid(polygons.geometries, self.layout.grid))
            return [Piece(i, lattice) for i in near.tolist()]
        bounds = shapely.bounds(polygons.geometries)
        beyond = (bounds[:, 0] < self.seam) | (bounds[:, 2] > self.seam + 360.0)
        return [Piece(i, lattice, seam=self.seam if beyond[i] else None) for i in range(len(polygons))]

    def numbers(self, bands: Sequence[str]) -> list[int]:
        """Return the positions of some bands on the band axis."""
        return band_positions(bands, self.layout.bands, f"{self.place} has")

    def parts(self, numbers: Sequence[int]) -> list[BandChunk]:
        """Return the chunks along the band axis that hold some bands."""
        size = self.chunks.inner[self.layout.axes.band]
        parts = []
        for chunk in sorted({n // size for n in numbers}):
            requested = tuple(i for i, n in enumerate(numbers) if n // size == chunk)
            parts.append(BandChunk(chunk, tuple(numbers[i] % size for i in requested), requested))
        return parts

    def chunk(self, ref: BlockRef, part: BandChunk) -> Coords:
        """Return the coordinates of a block's chunk in the chunk grid."""
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
class MosaicTile:
    """One year of the mosaic, as a raster in blocks: see `gee_polygons.reduction.plan.BlockedRaster`."""

    place: str
    year: int
    grid: Grid
    block_shape: tuple[int, int]

    def cost(self, ref: BlockRef, n_bands: int | None = None) -> tuple[int, int]:
        """Return requests and bytes of a block."""
        return 0, 0  # `MosaicSource.plan` counts the chunks of a whole plan

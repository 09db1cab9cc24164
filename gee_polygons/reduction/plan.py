"""Defines the protocols of sources, and the plans, blocks and images that they return.

A pixel source turns polygons and years into a `Plan` (from its index alone), and a plan's block references
into `Block`s, which decode their own bytes. Everything after that (coverage, kernels, merging, the table) is the same
for all sources: see `gee_polygons.extract`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, NODATA, band_positions
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import ReadError, UsageError
from gee_polygons.progress import Progress
from gee_polygons.zonal.grid import Grid, Lattice, Window
from gee_polygons.zonal.planes import PlaneSource


@dataclass(frozen=True, kw_only=True)
class EmbeddingImage:
    """Pixels of a small region: values + grid, north-up.

    Parameters
    ----------
    values : array, shape (bands, height, width)
        int8 codes (-128 = nodata) or float vectors (NaN = nodata).
    grid : Grid
        North-up grid of the pixels.
    bands : tuple of str
        Band names, one per plane.
    year : int
        Year of the pixels.
    source : str
        Where they came from.
    attribution : str
        What must be printed with it, if it isn't of embeddings.
    resampled : tuple of str
        CRSs of neighbouring UTM zones that some of the pixels were taken from, the nearest one for each place; empty
        where all are as stored.

    Examples
    --------
    >>> grid = Grid(crs="EPSG:32616", transform=(10, 0, 0, 0, -10, 20), shape=(2, 1))
    >>> image = EmbeddingImage(values=np.array([[[51], [-128]]], np.int8), grid=grid, bands=("A00",), year=2024)
    >>> image.vectors.round(3).tolist()
    [[[0.1599999964237213], [nan]]]
    """

    values: NDArray[Any]
    grid: Grid
    bands: tuple[str, ...] = BANDS
    year: int = 0
    source: str = ""
    attribution: str = ""
    resampled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.bands), *self.grid.shape):
            raise UsageError(
                f"an image of {len(self.bands)} bands on a grid of {self.grid.shape} needs values of shape "
                f"{(len(self.bands), *self.grid.shape)}, found {self.values.shape}"
            )
        if self.values.dtype != np.int8 and not np.issubdtype(self.values.dtype, np.floating):
            raise UsageError(f"values are int8 codes or float vectors, found {self.values.dtype}")
        if self.grid.flip_y or self.grid.flip_x:
            raise UsageError("an EmbeddingImage is north-up; flip the values and the transform first")

    @property
    def codes(self) -> NDArray[np.int8]:
        """The int8 codes as stored; an error for a float image."""
        if self.values.dtype != np.int8:
            raise UsageError("this image holds float vectors, not codes; use .vectors")
        return self.values

    @cached_property
    def vectors(self) -> NDArray[Any]:
        """Float vectors, shape (bands, height, width), NaN = nodata."""
        return codes_to_vectors(self.values) if self.values.dtype == np.int8 else self.values

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Boolean mask, shape (height, width): True where every band has data."""
        missing = self.values == NODATA if self.values.dtype == np.int8 else np.isnan(self.values)
        return ~missing.any(axis=0)

    def select(self, bands: Sequence[str]) -> EmbeddingImage:
        """Return the image with some of its bands, in the requested order."""
        planes = self.values[band_positions(bands, self.bands, "this image has")]
        return replace(self, values=planes, bands=tuple(bands))

    def __repr__(self) -> str:
        height, width = self.grid.shape
        return f"EmbeddingImage({len(self.bands)} bands, {height} x {width} px, {self.year}, {self.grid.crs})"


@dataclass(frozen=True, kw_only=True)
class BlockRef:
    """Reference to one block of one tile, the unit that is fetched and decoded.

    Parameters
    ----------
    tile : str
        Path or URL of the tile, as messages name it.
    year : int
        Year of the tile.
    index : tuple of int
        (block row, block column) in the file.
    window : Window
        The stored block on the lattice. At a tile's far sides it may reach past the tile: padding.
    inside : Window
        The part of `window` that lies inside the tile; the rest is never counted.
    flip_y, flip_x : bool
        Whether the stored rows run northwards, the stored columns westwards.
    preceding : tuple of BlockRef
        Overlapping blocks of tiles that take precedence, on the same lattice and of the same year: where one of those
        has data, this block's pixel is not counted.
    rows : int
        Number of stored rows that are needed, from the first on; those after them need not be read. 0: all.
    """

    tile: str
    year: int
    index: tuple[int, int]
    window: Window
    inside: Window
    flip_y: bool = False
    flip_x: bool = False
    preceding: tuple[BlockRef, ...] = ()
    rows: int = 0

    @classmethod
    def at(cls, raster: BlockedRaster, row: int, col: int) -> BlockRef:
        """Describe the block in a block row and block column of a raster."""
        grid, (height, width) = raster.grid, raster.block_shape
        whole = grid.part(row * height, col * width, height, width)
        inside = whole.intersection(grid.window)
        if inside is None:
            raise IndexError(f"{raster.place} has no block ({row}, {col})")
        return cls(
            tile=raster.place, year=raster.year, index=(row, col), window=whole, inside=inside,
            flip_y=grid.flip_y, flip_x=grid.flip_x,
        )  # fmt: skip

    def limited_to(self, first: int, stop: int) -> BlockRef:
        """Return a copy limited to the stored rows that cover the lattice rows [first, stop)."""
        rows = self.window.row_stop - first if self.flip_y else stop - self.window.row
        return replace(self, rows=min(max(rows, 1), self.window.height))


class BlockedRaster(Protocol):
    """A raster of one year that is stored in blocks."""

    @property
    def place(self) -> str:
        """Path or URL."""

    @property
    def year(self) -> int:
        """Year of its pixels."""

    @property
    def grid(self) -> Grid:
        """Where its pixels are."""

    @property
    def block_shape(self) -> tuple[int, int]:
        """(height, width) of a block."""

    def cost(self, ref: BlockRef, n_bands: int | None = None) -> tuple[int, int]:
        """Return the requests and bytes that reading a block costs: all bands, or the first few."""


class Block(PlaneSource, Protocol):
    """A fetched block, which decodes its own bytes."""

    ref: BlockRef
    checks_norms: bool
    """Whether every valid pixel must be a unit vector, so that damaged bytes show."""


@dataclass(frozen=True, order=True)
class Piece:
    """A polygon, or the part of it that lies in one UTM zone, and the lattice it is measured on.

    Parameters
    ----------
    polygon : int
        Index of the polygon among those planned for.
    lattice : Lattice
        The lattice.
    clip : tuple of 4 floats, optional
        (west, south, east, north) in degrees: the part of the polygon inside this box; None: the whole polygon.
    skip : tuple of int
        Years in which the polygon is measured by other pieces instead.
    seam : float, optional
        On a lon/lat grid: longitudes are brought into seam..seam + 360 before they are measured.
    """

    polygon: int
    lattice: Lattice
    clip: tuple[float, float, float, float] | None = None
    skip: tuple[int, ...] = ()
    seam: float | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One window of a lattice: the pieces of polygons that touch it, and the blocks to read, one for each year."""

    lattice: Lattice
    window: Window
    pieces: tuple[int, ...]
    reads: tuple[BlockRef, ...]


@dataclass(frozen=True)
class Failure:
    """A read that failed: message, year, indices of the polygons that lack data for it, URL, code of the error."""

    message: str
    year: int
    polygons: tuple[int, ...]
    url: str | None = None
    code: str = ReadError.code


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which blocks are read for which polygons, and what that costs, before any pixel is read. Hashable, picklable.

    Parameters
    ----------
    source : str
        Name of the source.
    years : tuple of int
        Years asked for.
    n_polygons : int
        Number of polygons asked for.
    pieces : tuple of Piece
        Polygons, or their parts per zone.
    jobs : tuple of Job
        In the order of work.
    requests, bytes : int
        Requests and compressed bytes that reading all bands will cost.
    failures : tuple of Failure
        Tiles that the index names and that can't be opened.
    by_area : bool
        Whether pixels also weigh by their area: on a lon/lat grid, where rows differ.
    """

    source: str
    years: tuple[int, ...]
    n_polygons: int
    pieces: tuple[Piece, ...]
    jobs: tuple[Job, ...]
    requests: int
    bytes: int
    failures: tuple[Failure, ...] = ()
    by_area: bool = False

    @property
    def blocks(self) -> int:
        """Number of blocks to read, each once."""
        return sum(len(job.reads) for job in self.jobs)

    def __repr__(self) -> str:
        return (
            f"Plan({self.source}: {self.n_polygons} polygons x {len(self.years)} years, {self.blocks} blocks, "
            f"{self.requests} requests, {self.bytes / 1e6:.1f} MB)"
        )


@runtime_checkable
class Source(Protocol):
    """Where pixels or statistics come from.

    `name` is the kind of source (``"sample"``, ``"cog"``, ...), `archive` says which data, as a path, URL or asset id.
    """

    name: str
    archive: str

    def years(self) -> list[int]:
        """Return the years that the source has, ascending."""

    def image(self, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None) -> EmbeddingImage:
        """Return the pixels of a small region (EPSG:4326)."""


class BlockSource(Protocol):
    """What plans and reads blocks of pixels."""

    def plan(self, polygons: Any, years: Sequence[int]) -> Plan:
        """Return which blocks hold which polygons (shapely, EPSG:4326); reads the index and headers only."""

    def read(self, refs: Sequence[BlockRef], bands: Sequence[str]) -> Iterator[Block | ReadError]:
        """Fetch blocks, in order. For a block that can't be read, its error is yielded, so that the rest goes on."""


@runtime_checkable
class PixelSource(Source, BlockSource, Protocol):
    """A source of pixels, which are reduced on this machine."""


@runtime_checkable
class ReducingSource(Source, Protocol):
    """A source that computes the statistics itself (Earth Engine)."""

    def reduce(
        self,
        polygons: NDArray[Any],
        years: Sequence[int],
        bands: Sequence[str],
        statistics: Sequence[str],
        *,
        on_error: str = "raise",
        progress: Progress = False,
        max_workers: int | None = None,
    ) -> Any:
        """Return the statistics of each polygon and year, as `gee_polygons.reduction.merging.Results`."""

"""What a source is: the protocols, and the data that passes through them.

A pixel source turns polygons and years into a `Plan` (from its index alone), and a plan's block references
into `Block`s: compressed bytes that know how to decode themselves. Everything after that (coverage, kernels,
merging, the table) is the same for all of them: see `gee_polygons.extract`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import BANDS, NODATA, codes_to_vectors
from gee_polygons.errors import UsageError
from gee_polygons.zonal.grid import Grid, Lattice, Window

__all__ = ["Block", "BlockRef", "EmbeddingImage", "Job", "PixelSource", "Plan", "ReducingSource", "Source"]


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
        mask: NDArray[np.bool_] = ~missing.any(axis=0)
        return mask

    def select(self, bands: Sequence[str]) -> EmbeddingImage:
        """Return the image with some of its bands, in the order asked for."""
        unknown = [b for b in bands if b not in self.bands]
        if unknown:
            raise UsageError(f"unknown band {unknown[0]!r}; this image has {self.bands[0]}..{self.bands[-1]}")
        planes = self.values[[self.bands.index(b) for b in bands]]
        return EmbeddingImage(values=planes, grid=self.grid, bands=tuple(bands), year=self.year, source=self.source)

    def __repr__(self) -> str:
        height, width = self.grid.shape
        return f"EmbeddingImage({len(self.bands)} bands, {height} x {width} px, {self.year}, {self.grid.crs})"


@dataclass(frozen=True, kw_only=True)
class BlockRef:
    """One block of one tile: the unit that is fetched and decoded.

    Parameters
    ----------
    tile : str
        Path or URL of the tile; also what messages name.
    year : int
        Year of the tile.
    index : tuple of int
        (block row, block column) in the file.
    window : Window
        The block's pixels on the lattice (whole block, clipped to the tile).
    flip_y, flip_x : bool
        Whether the stored rows run northwards, the stored columns westwards.
    beneath : tuple of BlockRef
        Blocks of other tiles on the same lattice and year that overlap this one and come first:
        where one of those is valid, this one is not counted.
    """

    tile: str
    year: int
    index: tuple[int, int]
    window: Window
    flip_y: bool = False
    flip_x: bool = False
    beneath: tuple[BlockRef, ...] = ()


class Block(Protocol):
    """A fetched block: bytes that know how to decode themselves, band by band or all at once."""

    ref: BlockRef

    @property
    def n_parts(self) -> int:
        """How many separately compressed parts hold the bands asked for."""
        ...

    def part_bands(self, part: int) -> Sequence[int]:
        """Positions, among the bands asked for, that a part holds."""
        ...

    def decode(self, part: int, scratch: NDArray[Any] | None = None) -> NDArray[Any]:
        """Decode one part to (bands of the part, height, width), int8 codes or float vectors.

        `scratch` is the array a former call returned; it is written again where that fits.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """One window of a lattice, the polygons that touch it, and the blocks (one a year) that hold it."""

    lattice: Lattice
    window: Window
    polygons: tuple[int, ...]
    reads: tuple[BlockRef, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be read for which polygons; known before a byte of pixels is read. Hashable and picklable.

    Parameters
    ----------
    source : str
        Name of the source.
    years : tuple of int
        Years asked for.
    n_polygons : int
        Number of polygons asked for.
    jobs : tuple of Job
        In the order they will be worked.
    requests, bytes : int
        Requests and compressed bytes that reading will cost (an estimate where the source says so).
    """

    source: str
    years: tuple[int, ...]
    n_polygons: int
    jobs: tuple[Job, ...]
    requests: int
    bytes: int

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
    """Where pixels or statistics come from."""

    name: str

    def years(self) -> list[int]:
        """Years that the source has, ascending."""
        ...

    def image(self, region: shapely.Geometry, year: int, bands: Sequence[str] | None = None) -> EmbeddingImage:
        """Pixels of a small region (EPSG:4326), for rendering."""
        ...


@runtime_checkable
class PixelSource(Source, Protocol):
    """A source whose pixels are reduced here."""

    def plan(self, polygons: NDArray[Any], years: Sequence[int]) -> Plan:
        """Say which blocks hold which polygons (shapely, EPSG:4326); uses the index alone."""
        ...

    def read(self, refs: Sequence[BlockRef], bands: Sequence[str]) -> Iterator[Block]:
        """Fetch blocks, in order."""
        ...


@runtime_checkable
class ReducingSource(Source, Protocol):
    """A source that reduces on its own side (Earth Engine)."""

    def reduce(
        self, polygons: NDArray[Any], years: Sequence[int], bands: Sequence[str], statistics: Sequence[str]
    ) -> Any:
        """Return the finished statistics per polygon and year."""
        ...

"""Defines pixel grids, and the north-up lattice of integer rows and columns that each grid is a window of.

A `Grid` is what a file states: CRS, affine transform, shape, either row order. A `Lattice` is the unbounded pixel
grid that it is a window of: integer column and row numbers, rows counted *southwards*, whatever the file's
orientation. Two files whose pixels coincide share a lattice, so a polygon's coverage is computed once, in
lattice coordinates, and has the same bits for both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gee_polygons.errors import TileError

Transform = tuple[float, float, float, float, float, float]
Numbers = TypeVar("Numbers", int, NDArray[np.int64])  # of rows or columns

_PHASE_BITS = 30  # a grid's offset within a pixel is kept to 1e-9 px
_MOST_PIXELS = 2**31  # coverage keeps the numbers of rows and columns in 32 bits


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of whole pixels on a lattice: first row, first column, height, width."""

    row: int
    col: int
    height: int
    width: int

    @property
    def row_stop(self) -> int:
        """First row past the window."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """First column past the window."""
        return self.col + self.width

    def intersection(self, other: Window) -> Window | None:
        """Return the common rectangle, or None."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row_stop, other.row_stop) - row
        width = min(self.col_stop, other.col_stop) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Return the (rows, columns) of an array of `outer` that this window is."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)


@dataclass(frozen=True, order=True)
class Lattice:
    """An unbounded grid of pixels: column = x / step_x - phase_x, row = -y / step_y - phase_y.

    Parameters
    ----------
    crs : str
        ``"EPSG:32616"`` where there is a code, else WKT.
    step_x, step_y : float
        Pixel size in units of the CRS, both positive.
    phase_x, phase_y : float
        Offset of the pixel edges from multiples of the step, in pixels, -0.5 <= phase < 0.5. 0 for AlphaEarth tiles.
    """

    crs: str
    step_x: float
    step_y: float
    phase_x: float = 0.0
    phase_y: float = 0.0

    def transform(self, window: Window) -> Transform:
        """Return the north-up affine transform of a window."""
        return (
            self.step_x,
            0.0,
            (window.col + self.phase_x) * self.step_x,
            0.0,
            -self.step_y,
            -(window.row + self.phase_y) * self.step_y,
        )

    def grid(self, window: Window) -> Grid:
        """Return a window as a north-up grid."""
        return Grid(crs=self.crs, transform=self.transform(window), shape=(window.height, window.width))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """CRS + affine transform + shape, as a raster file states them.

    Parameters
    ----------
    crs : str
        ``"EPSG:32616"`` where there is a code, else WKT.
    transform : tuple of 6 floats
        ``(a, b, c, d, e, f)`` with ``x = a * col + b * row + c`` and ``y = d * col + e * row + f``. ``e`` may have
        either sign: AlphaEarth's published tiles are south-up (``e > 0``).
    shape : tuple of int
        (height, width).

    Raises
    ------
    TileError
        For a rotated or empty grid.

    Examples
    --------
    >>> grid = Grid(crs="EPSG:32616", transform=(10, 0, 358410, 0, 10, 4905630), shape=(97, 97))
    >>> grid.flip_y, grid.window
    (True, Window(row=-490660, col=35841, height=97, width=97))
    """

    crs: str
    transform: Transform
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        a, b, _, d, e, _ = self.transform
        if b or d:
            raise TileError(f"rotated grids are not supported: transform {self.transform}; warp the raster first")
        if not (a and e and all(math.isfinite(v) for v in self.transform)):
            raise TileError(f"the affine transform must be finite, with steps other than 0, found {self.transform}")
        if min(self.shape) < 1:
            raise TileError(f"a grid needs at least one row and column, found shape {self.shape}")
        west, south, east, north = self.bounds
        if not all(abs(v) < _MOST_PIXELS for v in (*self.shape, west / a, east / a, south / e, north / e)):
            raise TileError(f"a grid lies within 2^31 pixels of its CRS's origin, found {self.transform}, {self.shape}")

    @property
    def flip_x(self) -> bool:
        """True where columns run westwards."""
        return self.transform[0] < 0

    @property
    def flip_y(self) -> bool:
        """True for south-up files: row 0 is the southern edge."""
        return self.transform[4] > 0

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) in units of the CRS, ordered whatever the step signs are."""
        a, _, c, _, e, f = self.transform
        x, y = (c, c + a * self.shape[1]), (f, f + e * self.shape[0])
        return min(x), min(y), max(x), max(y)

    @cached_property
    def lattice(self) -> Lattice:
        """The unbounded grid that this one is a window of."""
        a, e = abs(self.transform[0]), abs(self.transform[4])
        west, _, _, north = self.bounds
        return Lattice(self.crs, a, e, _split(west / a)[1], _split(-north / e)[1])

    @cached_property
    def window(self) -> Window:
        """Where this grid lies on its lattice."""
        a, e = abs(self.transform[0]), abs(self.transform[4])
        west, _, _, north = self.bounds
        return Window(_split(-north / e)[0], _split(west / a)[0], *self.shape)

    def part(self, row: int, col: int, height: int, width: int) -> Window:
        """Return the lattice window of a rectangle given in *file* rows and columns."""
        whole = self.window
        if self.flip_y:
            row = whole.height - row - height
        if self.flip_x:
            col = whole.width - col - width
        return Window(whole.row + row, whole.col + col, height, width)

    def in_file(self, rows: Numbers, cols: Numbers) -> tuple[Numbers, Numbers]:
        """Return the *file* rows and columns of pixels given by their rows and columns on the lattice."""
        window = self.window
        return (
            window.row_stop - 1 - rows if self.flip_y else rows - window.row,
            window.col_stop - 1 - cols if self.flip_x else cols - window.col,
        )

    def blocks(self, window: Window, block_shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """Yield the file's block rows and block columns that share pixels with a window of the lattice."""
        common = self.window.intersection(window)
        if common is None:
            return
        row, col = self.in_file(common.row, common.col)
        last_row, last_col = self.in_file(common.row_stop - 1, common.col_stop - 1)
        rows, cols = (
            range(min(first, last) // size, max(first, last) // size + 1)
            for first, last, size in ((row, last_row, block_shape[0]), (col, last_col, block_shape[1]))
        )
        yield from itertools.product(rows, cols)


def _split(position: float) -> tuple[int, float]:
    """Split a position in pixels into the whole pixel and the phase, -0.5 <= phase < 0.5.

    In integers, so that grids half a pixel off share a lattice whether their pixel numbers are even or odd.
    """
    steps = round(position * 2**_PHASE_BITS)
    whole = (steps + 2 ** (_PHASE_BITS - 1)) >> _PHASE_BITS
    return whole, (steps - (whole << _PHASE_BITS)) / 2**_PHASE_BITS

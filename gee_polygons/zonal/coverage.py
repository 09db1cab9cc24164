"""Polygon -> pixels: runs of fully covered pixels, and edge pixels with their exact area fraction.

Signed-area accumulation, as scan converters of outline fonts do it (FreeType's smooth rasteriser; R. Levien's
font-rs): every edge deposits, in each cell that it crosses, its signed height there (`cover`) and the signed area
between itself and the cell's right side (`area`). Along a row, a cell's coverage is the sum of the covers to its
left plus its own area. Holes deposit with the opposite sign. There is no flood fill and no buffer of the
polygon's bounding box: work and memory follow the outline's length.

It is done in one canonical frame, the lattice (rows southwards, absolute indices), on the whole polygon, and rounded
to integer multiples of 2^-24: so a polygon has the same coverage to the last bit whatever the file's
orientation, blocks, or the order of work. Fractions below 1e-6 are rounding noise and become 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.projection import Rings

FULL: Final = 2**24  # the weight of a fully covered pixel
_LEAST: Final = 1e-6  # coverage below this is 0

_Ints = NDArray[np.int32]
_Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Coverage:
    """Coverage of many polygons on a lattice, each in row-major order.

    Polygon i has runs ``run_offsets[i]:run_offsets[i + 1]`` (rows `runs[:, 0]`, first columns `runs[:, 1]`, lengths
    `runs[:, 2]`) of fully covered pixels, and edge pixels ``edge_offsets[i]:edge_offsets[i + 1]`` (rows
    `edges[:, 0]`, columns `edges[:, 1]`, weights `edges[:, 2]` in units of 2^-24, 0 < weight < 2^24).
    """

    run_offsets: _Offsets
    runs: _Ints
    edge_offsets: _Offsets
    edges: _Ints

    def __len__(self) -> int:
        return len(self.run_offsets) - 1

    @property
    def weights(self) -> NDArray[np.int64]:
        """Covered area of each polygon, in pixels * 2^24."""
        return _sum_ranges(self.runs[:, 2], self.run_offsets) * FULL + _sum_ranges(self.edges[:, 2], self.edge_offsets)

    def rasterize(self, polygon: int, window: Window) -> NDArray[np.float64]:
        """Return one polygon's coverage fractions as a dense array of the window, for looking at and for tests."""
        out = np.zeros((window.height, window.width))
        for row, col, length in self.runs[self.run_offsets[polygon] : self.run_offsets[polygon + 1]]:
            first, stop = max(col - window.col, 0), min(col + length - window.col, window.width)
            if 0 <= row - window.row < window.height and first < stop:
                out[row - window.row, first:stop] = 1.0
        for row, col, weight in self.edges[self.edge_offsets[polygon] : self.edge_offsets[polygon + 1]]:
            if 0 <= row - window.row < window.height and 0 <= col - window.col < window.width:
                out[row - window.row, col - window.col] = weight / FULL
        return out


class AreaWeights(Protocol):
    """Weights of pixels that differ in area: see `gee_polygons.zonal.areas`."""

    def add(
        self,
        kernel: Callable[..., None],
        plane: NDArray[Any],
        full: NDArray[np.int64],
        edge: NDArray[np.int64],
        *,
        columns: bool = False,
    ) -> None:
        """Add what a kernel sums, each pixel by its weight, into ``full + edge / 2^24``."""
        ...

    def histograms(self, plane: NDArray[np.int8]) -> NDArray[np.int64]:
        """Return each polygon's weights by code, shape (polygons, 256)."""
        ...


@dataclass(frozen=True)
class BlockCoverage:
    """The part of a `Coverage` that lies in one block, as positions in the block's own memory order.

    Runs are (first position, length), edges (position, weight); positions count pixels from the block's first
    stored one, so that a kernel needs no geometry. `area` is there where pixels don't have all the same area.
    """

    run_offsets: _Offsets
    runs: _Ints
    edge_offsets: _Offsets
    edges: _Ints
    shape: tuple[int, int]
    area: AreaWeights | None = None

    def __len__(self) -> int:
        return len(self.run_offsets) - 1

    @cached_property
    def edge_columns(self) -> tuple[_Ints, _Ints]:
        """Positions and weights of the edges, each by itself: vectors want neighbours in memory."""
        return np.ascontiguousarray(self.edges[:, 0]), np.ascontiguousarray(self.edges[:, 1])


def compute_coverage(rings: Rings) -> Coverage:
    """Compute the coverage of polygons given in lattice coordinates.

    Parameters
    ----------
    rings : Rings
        From `gee_polygons.zonal.projection.project_to_lattice`.

    Returns
    -------
    Coverage
        A polygon too small or thin for any pixel to reach 1e-6 keeps each pixel it touches, with the least weight.

    Examples
    --------
    >>> import shapely
    >>> from gee_polygons.zonal.grid import Lattice
    >>> from gee_polygons.zonal.projection import project_to_lattice
    >>> square = np.array([shapely.box(5, -35, 35, 0)])
    >>> rings = project_to_lattice(square, Lattice("EPSG:32616", 10, 10), crs="EPSG:32616")
    >>> compute_coverage(rings).rasterize(0, Window(0, 0, 4, 4)).tolist()
    [[0.5, 1.0, 1.0, 0.5], [0.5, 1.0, 1.0, 0.5], [0.5, 1.0, 1.0, 0.5], [0.25, 0.5, 0.5, 0.25]]
    """
    return Coverage(*_coverage(rings.coords, rings.ring_offsets, rings.is_hole, rings.polygon_offsets))


def clip_to_block(
    coverage: Coverage, window: Window, *, inside: Window | None = None, flip_y: bool = False, flip_x: bool = False
) -> BlockCoverage:
    """Cut coverage to a block's window and number its pixels in the block's memory order.

    Parameters
    ----------
    coverage : Coverage
        Of the polygons that touch the block (others come out empty).
    window : Window
        The stored block on the lattice.
    inside : Window, optional
        The part of it that holds pixels, where the block reaches past its tile.
    flip_y, flip_x : bool
        Whether the block's stored rows run northwards, its columns westwards.

    Returns
    -------
    BlockCoverage
    """
    inside = inside or window
    run_offsets, runs, edge_offsets, edges = _clip(
        coverage.run_offsets, coverage.runs, coverage.edge_offsets, coverage.edges,
        (window.row, window.col, window.height, window.width),
        (inside.row, inside.col, inside.row_stop, inside.col_stop), flip_y, flip_x,
    )  # fmt: skip
    return BlockCoverage(run_offsets, runs, edge_offsets, edges, shape=(window.height, window.width))


def _sum_ranges(values: _Ints, offsets: _Offsets) -> NDArray[np.int64]:
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    sums: NDArray[np.int64] = total[offsets[1:]] - total[offsets[:-1]]
    return sums


@numba.njit(nogil=True, cache=True)
def _coverage(coords: Any, ring_offsets: Any, is_hole: Any, polygon_offsets: Any) -> Any:
    n = len(polygon_offsets) - 1
    run_offsets = np.zeros(n + 1, np.int64)
    edge_offsets = np.zeros(n + 1, np.int64)
    runs = np.empty((16 * n + 64, 3), np.int32)
    edges = np.empty((64 * n + 256, 3), np.int32)
    cells = (np.empty((1024, 2), np.int32), np.empty((1024, 2), np.float64), np.empty(1024, np.int64))
    for p in range(n):
        first, stop = polygon_offsets[p], polygon_offsets[p + 1]
        vertices = coords[ring_offsets[first] : ring_offsets[stop]]
        # a local origin of whole pixels: subtracting it is exact, and products keep their precision
        col0 = np.floor(vertices[:, 0].min())
        row0 = np.floor(vertices[:, 1].min())
        capacity = _cell_bound(vertices)
        if capacity > len(cells[2]):
            cells = (
                np.empty((capacity, 2), np.int32),
                np.empty((capacity, 2), np.float64),
                np.empty(capacity, np.int64),
            )
        index, value, order = cells
        n_cells = 0
        for r in range(first, stop):
            ring = coords[ring_offsets[r] : ring_offsets[r + 1]]
            n_cells = _deposit_ring(ring, col0, row0, is_hole[r], index, value, n_cells)
        n_rows = int(np.floor(vertices[:, 1].max() - row0)) + 1
        _sort_cells(index, n_cells, n_rows, order)

        run, edge = run_offsets[p], edge_offsets[p]
        origin = (int(row0), int(col0))
        least = _LEAST
        n_runs, n_edges = _sweep(index, value, order, n_cells, least, origin, runs, run, edges, edge)
        if n_runs + n_edges == 0:
            least = 0.0  # thinner than 1e-6 of any pixel: keep what it touches
            n_runs, n_edges = _sweep(index, value, order, n_cells, least, origin, runs, run, edges, edge)
        if run + n_runs > len(runs) or edge + n_edges > len(edges):
            runs = _grown(runs, run, run + n_runs)
            edges = _grown(edges, edge, edge + n_edges)
            _sweep(index, value, order, n_cells, least, origin, runs, run, edges, edge)
        run_offsets[p + 1] = run + n_runs
        edge_offsets[p + 1] = edge + n_edges
    return run_offsets, runs[: run_offsets[n]].copy(), edge_offsets, edges[: edge_offsets[n]].copy()


@numba.njit(nogil=True, cache=True)
def _grown(array: Any, used: int, needed: int) -> Any:
    if needed <= len(array):
        return array
    larger = np.empty((max(needed, 2 * len(array)), array.shape[1]), array.dtype)
    larger[:used] = array[:used]
    return larger


@numba.njit(nogil=True, cache=True)
def _cell_bound(vertices: Any) -> int:
    """At most this many cells receive a deposit: each edge crosses |dx| + |dy| pixel sides, and lies in one more."""
    bound = 8
    for i in range(len(vertices) - 1):
        bound += int(abs(vertices[i + 1, 0] - vertices[i, 0]) + abs(vertices[i + 1, 1] - vertices[i, 1])) + 4
    return bound


@numba.njit(nogil=True, cache=True)
def _deposit_ring(ring: Any, col0: float, row0: float, hole: bool, index: Any, value: Any, n: int) -> int:
    doubled_area = 0.0
    for i in range(len(ring) - 1):
        xa, ya = ring[i, 0] - col0, ring[i, 1] - row0
        xb, yb = ring[i + 1, 0] - col0, ring[i + 1, 1] - row0
        doubled_area += xa * yb - xb * ya
    # Deposits to the right of an edge add up to +1 inside a ring when its downward edges count negative, for a ring of
    # positive shoelace area in (column, row); outer rings must come out positive and holes negative.
    sign = -1.0 if doubled_area > 0 else 1.0
    if hole:
        sign = -sign
    for i in range(len(ring) - 1):
        xa, ya = ring[i, 0] - col0, ring[i, 1] - row0
        xb, yb = ring[i + 1, 0] - col0, ring[i + 1, 1] - row0
        # always walked from north to south, so that neighbours' common edges deposit the same numbers
        if ya < yb:
            n = _deposit_edge(xa, ya, xb, yb, sign, index, value, n)
        elif ya > yb:
            n = _deposit_edge(xb, yb, xa, ya, -sign, index, value, n)
    return n


@numba.njit(nogil=True, cache=True)
def _deposit_edge(xa: float, ya: float, xb: float, yb: float, sign: float, index: Any, value: Any, n: int) -> int:
    """Deposit one edge with ya < yb, row by row, then cell by cell."""
    slope = (xb - xa) / (yb - ya)
    low, high = min(xa, xb), max(xa, xb)
    row = int(np.floor(ya))
    y0, x0 = ya, xa
    while y0 < yb:
        y1 = min(row + 1.0, yb)
        x1 = xb if y1 == yb else min(max(xa + (y1 - ya) * slope, low), high)
        cover = sign * (y1 - y0)
        left, right = min(x0, x1), max(x0, x1)
        col = int(np.floor(left))
        if right <= col + 1:
            index[n, 0], index[n, 1] = row, col
            value[n, 0], value[n, 1] = cover, cover * (col + 1 - 0.5 * (left + right))
            n += 1
        else:
            per_col = cover / (right - left)
            x = left
            while x < right:
                x_next = min(col + 1.0, right)
                part = per_col * (x_next - x)
                index[n, 0], index[n, 1] = row, col
                value[n, 0], value[n, 1] = part, part * (col + 1 - 0.5 * (x + x_next))
                n += 1
                x = x_next
                col += 1
        y0, x0 = y1, x1
        row += 1
    return n


@numba.njit(nogil=True, cache=True)
def _sort_cells(index: Any, n: int, n_rows: int, order: Any) -> None:
    """Write into `order` the cells by (row, column), ties in order of deposit: counting sort, then insertion."""
    start = np.zeros(n_rows + 1, np.int64)
    for i in range(n):
        start[index[i, 0] + 1] += 1
    for r in range(n_rows):
        start[r + 1] += start[r]
    place = start.copy()
    for i in range(n):
        order[place[index[i, 0]]] = i
        place[index[i, 0]] += 1
    for r in range(n_rows):
        first, stop = start[r], start[r + 1]
        if stop - first <= 32:
            for i in range(first + 1, stop):
                item = order[i]
                col = index[item, 1]
                j = i - 1
                while j >= first and index[order[j], 1] > col:
                    order[j + 1] = order[j]
                    j -= 1
                order[j + 1] = item
        else:
            members = order[first:stop].copy()
            by_col = np.argsort(index[members, 1], kind="mergesort")
            order[first:stop] = members[by_col]


@numba.njit(nogil=True, cache=True)
def _sweep(
    index: Any, value: Any, order: Any, n: int, least: float, origin: Any, runs: Any, run: int, edges: Any, edge: int
) -> tuple[int, int]:  # fmt: skip
    """Sum covers along each row. Returns how many runs and edges there are; writes them where there is room."""
    row0, col0 = origin
    first_run, first_edge = run, edge
    i = 0
    while i < n:
        row = index[order[i], 0]
        cover = 0.0
        run_col, run_stop = 0, 0  # the run being built, in this row
        while i < n and index[order[i], 0] == row:
            col = index[order[i], 1]
            area = 0.0
            before = cover
            while i < n and index[order[i], 0] == row and index[order[i], 1] == col:
                cover += value[order[i], 0]
                area += value[order[i], 1]
                i += 1
            # pixels up to the next deposit share one coverage: usually 0 or 1, else a horizontal edge runs there
            next_col = col + 1
            if i < n and index[order[i], 0] == row:
                next_col = index[order[i], 1]
            for part in range(2):
                a, b = (col, col + 1) if part == 0 else (col + 1, next_col)
                if a >= b:
                    continue
                weight = _weight(before + area if part == 0 else cover, least)
                if weight == FULL:
                    if run_stop > run_col and run_stop == a:
                        run_stop = b
                    else:
                        if run_stop > run_col:
                            if run < len(runs):
                                runs[run, 0], runs[run, 1], runs[run, 2] = (
                                    row0 + row,
                                    col0 + run_col,
                                    run_stop - run_col,
                                )
                            run += 1
                        run_col, run_stop = a, b
                elif weight > 0:
                    for c in range(a, b):
                        if edge < len(edges):
                            edges[edge, 0], edges[edge, 1], edges[edge, 2] = row0 + row, col0 + c, weight
                        edge += 1
        if run_stop > run_col:
            if run < len(runs):
                runs[run, 0], runs[run, 1], runs[run, 2] = row0 + row, col0 + run_col, run_stop - run_col
            run += 1
    return run - first_run, edge - first_edge


@numba.njit(nogil=True, cache=True)
def _weight(fraction: float, least: float) -> int:
    if least == 0.0:
        # a sliver: any touched pixel counts; 1e-15 is beyond what rounding leaves in an untouched one
        return max(1, int(np.rint(fraction * FULL))) if fraction > 1e-15 else 0
    if fraction < least:
        return 0
    return min(int(np.rint(fraction * FULL)), FULL)


@numba.njit(nogil=True, cache=True)
def _clip(
    run_offsets: Any, runs: Any, edge_offsets: Any, edges: Any, window: Any, inside: Any, flip_y: bool, flip_x: bool
) -> Any:
    row0, col0, height, width = window
    first_row, first_col, row_stop, col_stop = inside
    n = len(run_offsets) - 1
    out_run_offsets = np.zeros(n + 1, np.int64)
    out_edge_offsets = np.zeros(n + 1, np.int64)
    out_runs = np.empty((len(runs), 2), np.int32)
    out_edges = np.empty((len(edges), 2), np.int32)
    run = edge = 0
    for p in range(n):
        for i in range(run_offsets[p], run_offsets[p + 1]):
            row = runs[i, 0]
            first = max(runs[i, 1], first_col)
            stop = min(runs[i, 1] + runs[i, 2], col_stop)
            if first_row <= row < row_stop and first < stop:
                down = row0 + height - 1 - row if flip_y else row - row0
                across = col0 + width - stop if flip_x else first - col0
                out_runs[run, 0] = down * width + across
                out_runs[run, 1] = stop - first
                run += 1
        for i in range(edge_offsets[p], edge_offsets[p + 1]):
            row, col = edges[i, 0], edges[i, 1]
            if first_row <= row < row_stop and first_col <= col < col_stop:
                down = row0 + height - 1 - row if flip_y else row - row0
                across = col0 + width - 1 - col if flip_x else col - col0
                out_edges[edge, 0] = down * width + across
                out_edges[edge, 1] = edges[i, 2]
                edge += 1
        out_run_offsets[p + 1] = run
        out_edge_offsets[p + 1] = edge
    return out_run_offsets, out_runs[:run].copy(), out_edge_offsets, out_edges[:edge].copy()

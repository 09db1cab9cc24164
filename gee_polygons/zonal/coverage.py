"""Computes which pixels a polygon covers, and the exact fraction of each pixel that it covers.

The outcome is runs of fully covered pixels, and edge pixels with their covered fraction. The method is accumulation of
signed areas, as in rasterisers of outline fonts (FreeType's smooth rasteriser; R. Levien's font-rs): every edge adds,
to each cell that it crosses, its signed height there (`cover`) and the signed area between itself and the cell's right
side (`area`). Along a row, a cell's coverage is the sum of the covers to its left plus its own area. Holes count with
the opposite sign. There is no flood fill and no raster of the polygon's bounding box: work and memory grow with the
length of the outline.

Coverage is computed on the lattice (rows southwards, absolute indices), for the whole polygon, and rounded to integer
multiples of 2^-24: so a polygon has the same coverage to the last bit whatever the file's orientation, its blocks, or
the order of work. Fractions below 1e-6 are rounding noise and become 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.zonal.compiled import compiled
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.projection import Rings
from gee_polygons.zonal.ragged import sum_rows

FULL: Final = 2**24  # the weight of a fully covered pixel
_LEAST: Final = 1e-6  # coverage below this is 0


@dataclass(frozen=True)
class Coverage:
    """Coverage of n polygons on a lattice, each in row-major order.

    Parameters
    ----------
    run_offsets : int64 array, shape (n + 1,)
        Where each polygon's runs start.
    runs : int32 array, shape (runs, 3)
        Row, first column and length of each run of fully covered pixels.
    edge_offsets : int64 array, shape (n + 1,)
        Where each polygon's edge pixels start.
    edges : int32 array, shape (edges, 3)
        Row, column and weight of each partly covered pixel, in units of 2^-24: 0 < weight < 2^24.
    """

    run_offsets: NDArray[np.int64]
    runs: NDArray[np.int32]
    edge_offsets: NDArray[np.int64]
    edges: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.run_offsets) - 1

    @property
    def weights(self) -> NDArray[np.int64]:
        """Covered area of each polygon, in units of 2^-24 pixels, int64."""
        return sum_rows(self.runs[:, 2], self.run_offsets) * FULL + sum_rows(self.edges[:, 2], self.edge_offsets)

    def rasterize(self, polygon: int, window: Window) -> NDArray[np.float64]:
        """Return one polygon's coverage fractions as an array of the window's shape."""
        out = np.zeros((window.height, window.width))
        runs = self.runs[self.run_offsets[polygon] : self.run_offsets[polygon + 1]]
        edges = self.edges[self.edge_offsets[polygon] : self.edge_offsets[polygon + 1]]
        for row, col, length in runs[(runs[:, 0] >= window.row) & (runs[:, 0] < window.row_stop)].tolist():
            out[row - window.row, max(0, col - window.col) : max(0, col - window.col + length)] = 1.0
        row, col = edges[:, 0] - window.row, edges[:, 1] - window.col
        held = (row >= 0) & (row < window.height) & (col >= 0) & (col < window.width)
        out[row[held], col[held]] = edges[held, 2] / FULL
        return out


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


@compiled
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
        n_cells: Any = np.int64(0)  # for a literal 0, numba would compile what it is passed to twice
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


@compiled
def _grown(array: Any, used: int, needed: int) -> Any:
    if needed <= len(array):
        return array
    larger = np.empty((max(needed, 2 * len(array)), array.shape[1]), array.dtype)
    larger[:used] = array[:used]
    return larger


@compiled
def _cell_bound(vertices: Any) -> int:
    """Return an upper bound of the deposits: an edge crosses |dx| + |dy| pixel sides, and lies in one pixel more."""
    bound = 8
    for i in range(len(vertices) - 1):
        bound += int(abs(vertices[i + 1, 0] - vertices[i, 0]) + abs(vertices[i + 1, 1] - vertices[i, 1])) + 4
    return bound


@compiled
def _deposit_ring(ring: Any, col0: float, row0: float, hole: bool, index: Any, value: Any, n: int) -> int:
    """Deposit the edges of a ring. Returns the number of deposits so far."""
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


@compiled
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


@compiled
def _sort_cells(index: Any, n: int, n_rows: int, order: Any) -> None:
    """Sort cells by row, column and order of deposit, by counting sort and then insertion sort; fills `order`."""
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


@compiled
def _sweep(
    index: Any, value: Any, order: Any, n: int, least: float, origin: Any, runs: Any, run: int, edges: Any, edge: int
) -> tuple[int, int]:  # fmt: skip
    """Sum covers along each row. Return the numbers of runs and edges; those that don't fit aren't written."""
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


@compiled
def _weight(fraction: float, least: float) -> int:
    if least == 0.0:
        # a sliver: any touched pixel counts; 1e-15 is beyond what rounding leaves in an untouched one
        return max(1, int(np.rint(fraction * FULL))) if fraction > 1e-15 else 0
    if fraction < least:
        return 0
    return min(int(np.rint(fraction * FULL)), FULL)

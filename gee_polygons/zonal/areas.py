"""Pixels of different size: on a lon/lat grid a pixel's area falls towards the poles, row by row.

There a pixel's weight is its coverage times its area. The area is that of the ellipsoidal zone between its row's
edges (the authalic function q of J. P. Snyder, *Map Projections: A Working Manual*, 1987, eq. 3-12), relative to that
of a pixel at the equator, rounded to an integer multiple of 2^-26; the product of the two is rounded once more, pixel
by pixel, to the same unit. So all weights are integers, sums over them are exact, and their bits depend on neither
blocks, threads nor order. At 60 degrees north an area is off by 2e-8 of itself at most.

Kernels know weights of single pixels (edges) and none of runs. A run lies in one row, so runs are summed row by row by
the same kernels, and the sums are multiplied by the row's area.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final

import numba
import numpy as np
import pyproj
from numpy.typing import NDArray

from gee_polygons.zonal.coverage import FULL, AreaWeights, BlockCoverage
from gee_polygons.zonal.grid import Lattice, Window
from gee_polygons.zonal.kernels import add_histograms

AREA_ONE: Final = 2**26  # a pixel at the equator


@lru_cache(maxsize=4096)
def row_areas(lattice: Lattice, row: int, height: int) -> NDArray[np.int64]:
    """Return the area of a pixel in each of some rows, relative to one at the equator, in 2^-26.

    Parameters
    ----------
    lattice : Lattice
        In degrees.
    row, height : int
        First row and number of rows, southwards.

    Returns
    -------
    int64 array, shape (height,)

    Examples
    --------
    >>> tenth = Lattice("EPSG:4326", 0.1, 0.1)
    >>> (row_areas(tenth, -601, 2) / AREA_ONE).round(4).tolist()  # 60.1 to 60 and 60 to 59.9 degrees north
    [0.5043, 0.5058]
    """
    ellipsoid = pyproj.CRS(lattice.crs).ellipsoid
    flattening = 1 / ellipsoid.inverse_flattening if ellipsoid is not None and ellipsoid.inverse_flattening else 0.0
    e2 = flattening * (2 - flattening)
    # one by one: what an element of a vector comes to may depend on its place in it
    edges = [_authalic(-(i + lattice.phase_y) * lattice.step_y, e2) for i in range(row, row + height + 1)]
    one = 2 * _authalic(lattice.step_y / 2, e2)
    areas = np.array([round((north - south) / one * AREA_ONE) for north, south in itertools.pairwise(edges)])
    return areas.astype(np.int64)


def _authalic(latitude: float, e2: float) -> float:
    """Return q: the area between the equator and a latitude is proportional to it."""
    s, e = math.sin(math.radians(min(max(latitude, -90.0), 90.0))), math.sqrt(e2)
    return (1 - e2) * (s / (1 - e2 * s * s) + (math.atanh(e * s) / e if e else s))


def weigh(coverage: BlockCoverage, lattice: Lattice, window: Window, *, flip_y: bool = False) -> BlockCoverage:
    """Return a block's coverage with weights by area beside it.

    Parameters
    ----------
    coverage : BlockCoverage
        From `clip_to_block`.
    lattice, window, flip_y
        Where the block's rows are, and whether they are stored northwards.

    Returns
    -------
    BlockCoverage
        The same, with `area`.
    """
    areas = row_areas(lattice, window.row, window.height)
    if flip_y:
        areas = areas[::-1]
    width = coverage.shape[1]
    rows = coverage.runs[:, 0] // width
    owner = np.repeat(np.arange(len(coverage)), np.diff(coverage.run_offsets))
    # runs come row by row, polygon by polygon
    first = np.flatnonzero(np.diff(rows, prepend=-1).astype(bool) | np.diff(owner, prepend=-1).astype(bool))
    edges = coverage.edges.copy()
    product = edges[:, 1].astype(np.int64) * areas[edges[:, 0] // width]
    # a pixel that is touched keeps the least weight
    edges[:, 1] = np.maximum((product + FULL // 2) // FULL, 1)
    return replace(
        coverage,
        area=RowWeights(
            group_offsets=np.append(first, len(rows)).astype(np.int64),
            group_areas=areas[rows[first]],
            polygon_offsets=np.searchsorted(owner[first], np.arange(len(coverage) + 1)).astype(np.int64),
            runs=coverage.runs,
            edge_offsets=coverage.edge_offsets,
            edges=edges,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class RowWeights(AreaWeights):
    """Weights by area of the pixels of a block's polygons.

    Parameters
    ----------
    group_offsets : int64 array, shape (groups + 1,)
        Runs of one polygon in one row.
    group_areas : int64 array, shape (groups,)
        Area of a pixel of the row.
    polygon_offsets : int64 array, shape (polygons + 1,)
        Groups of each polygon.
    runs, edge_offsets, edges
        As in `BlockCoverage`; the edges' weights are by area.
    """

    group_offsets: NDArray[np.int64]
    group_areas: NDArray[np.int64]
    polygon_offsets: NDArray[np.int64]
    runs: NDArray[np.int32]
    edge_offsets: NDArray[np.int64]
    edges: NDArray[np.int32]

    @cached_property
    def _edge_columns(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return np.ascontiguousarray(self.edges[:, 0]), np.ascontiguousarray(self.edges[:, 1])

    @cached_property
    def _no_edges(self) -> NDArray[np.int64]:
        return np.zeros(len(self.group_offsets), np.int64)

    @cached_property
    def _no_runs(self) -> NDArray[np.int64]:
        return np.zeros(len(self.edge_offsets), np.int64)

    def add(
        self,
        kernel: Callable[..., None],
        plane: NDArray[Any],
        full: NDArray[np.int64],
        edge: NDArray[np.int64],
        *,
        columns: bool = False,
    ) -> None:
        """Add what a kernel sums, each pixel by its weight, into ``full + edge / 2^24``.

        `columns` says that the kernel takes positions and weights of edges as two arrays.
        """
        edges: tuple[NDArray[np.int32], ...] = self._edge_columns if columns else (self.edges,)
        per_row, nothing = np.zeros((2, len(self.group_areas)), np.int64)
        kernel(plane, self.group_offsets, self.runs, self._no_edges, *edges, per_row, nothing)
        # in two halves: the product of a sum of k^4 over a row and an area passes 64 bits
        high = _per_polygon((per_row >> 20) * self.group_areas, self.polygon_offsets)
        low = _per_polygon((per_row & (2**20 - 1)) * self.group_areas, self.polygon_offsets)
        whole, part = np.zeros((2, len(self.edge_offsets) - 1), np.int64)
        kernel(plane, self._no_runs, self.runs, self.edge_offsets, *edges, whole, part)
        full += (high >> 4) + (low >> 24) + whole + (part >> 24)
        edge += ((high & 15) << 20) + (low & (FULL - 1)) + (part & (FULL - 1))

    def histograms(self, plane: NDArray[np.int8]) -> NDArray[np.int64]:
        """Return each polygon's weights by code, shape (polygons, 256)."""
        found = np.zeros((len(self.edge_offsets) - 1, 256), np.int64)
        _add_run_histograms(plane, self.polygon_offsets, self.group_offsets, self.group_areas, self.runs, found)
        add_histograms(plane, self._no_runs, self.runs, self.edge_offsets, self.edges, found)
        return found


@numba.njit(nogil=True, cache=True)
def _add_run_histograms(
    plane: Any, polygon_offsets: Any, group_offsets: Any, areas: Any, runs: Any, histograms: Any
) -> None:
    """Add the area of each valid pixel of the runs to its code's bin (code + 128)."""
    for p in range(len(polygon_offsets) - 1):
        for g in range(polygon_offsets[p], polygon_offsets[p + 1]):
            for i in range(group_offsets[g], group_offsets[g + 1]):
                for j in range(runs[i, 0], runs[i, 0] + runs[i, 1]):
                    histograms[p, np.intp(plane[j]) + 128] += areas[g]
        histograms[p, 0] = 0  # nodata


def _per_polygon(rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum ranges of rows. A running sum that passes 64 bits comes round again: differences stay right."""
    total = np.concatenate([np.zeros((1, *rows.shape[1:]), np.int64), np.cumsum(rows, axis=0)])
    found: NDArray[np.int64] = total[offsets[1:]] - total[offsets[:-1]]
    return found

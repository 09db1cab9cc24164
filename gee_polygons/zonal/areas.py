"""Weights pixels by their area on lon/lat grids, where the area falls from row to row towards the poles.

A pixel's weight there is its coverage times its area. The area is that of the ellipsoidal zone between its row's
edges (the authalic function q of J. P. Snyder, *Map Projections: A Working Manual*, 1987, eq. 3-12), relative to the
area of a pixel at the equator, rounded to an integer multiple of 2^-26; the product of the two is rounded once more,
pixel by pixel, to the same unit. So all weights are integers, sums over them are exact, and don't depend on blocks,
threads or order. At 60 degrees north an area is off by 2e-8 of itself at most.

Kernels have weights for edge pixels and none for runs. A run lies in one row, so runs are summed row by row by the same
kernels, and the sums are multiplied by the row's area.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyproj
from numpy.typing import NDArray

from gee_polygons.zonal.clipping import BlockCoverage
from gee_polygons.zonal.compiled import compiled
from gee_polygons.zonal.coverage import FULL
from gee_polygons.zonal.grid import Lattice, Window
from gee_polygons.zonal.kernels import add_histograms
from gee_polygons.zonal.ragged import owners, sum_rows

AREA_ONE: Final = 2**26  # the area of a pixel at the equator


@lru_cache(maxsize=4096)
def row_areas(lattice: Lattice, row: int, height: int) -> NDArray[np.int64]:
    """Return the area of a pixel in each row, relative to one at the equator, in units of 2^-26.

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
    # one by one: NumPy's vectorised functions may round an element differently in another place of the array
    edges = [_authalic(-(i + lattice.phase_y) * lattice.step_y, e2) for i in range(row, row + height + 1)]
    one = 2 * _authalic(lattice.step_y / 2, e2)
    areas = np.array([round((north - south) / one * AREA_ONE) for north, south in itertools.pairwise(edges)])
    return areas.astype(np.int64)


def _authalic(latitude: float, e2: float) -> float:
    """Return Snyder's q, which is proportional to the area between the equator and a latitude."""
    s, e = math.sin(math.radians(min(max(latitude, -90.0), 90.0))), math.sqrt(e2)
    return (1 - e2) * (s / (1 - e2 * s * s) + (math.atanh(e * s) / e if e else s))


def weigh(coverage: BlockCoverage, lattice: Lattice, window: Window, *, flip_y: bool = False) -> AreaCoverage:
    """Return a block's coverage with weights by area.

    Parameters
    ----------
    coverage : BlockCoverage
        From `clip_to_block`.
    lattice, window, flip_y
        Where the block's rows are, and whether they are stored northwards.

    Returns
    -------
    AreaCoverage
    """
    areas = row_areas(lattice, window.row, window.height)
    if flip_y:
        areas = areas[::-1]
    width = coverage.shape[1]
    rows, owner = coverage.runs[:, 0] // width, owners(coverage.run_offsets)
    # runs are ordered by polygon and row
    first = np.flatnonzero(np.diff(rows, prepend=-1).astype(bool) | np.diff(owner, prepend=-1).astype(bool))
    product = coverage.weights.astype(np.int64) * areas[coverage.positions // width]
    return AreaCoverage(
        **vars(coverage),
        group_offsets=np.append(first, len(rows)).astype(np.int64),
        group_areas=areas[rows[first]],
        polygon_offsets=np.searchsorted(owner[first], np.arange(len(coverage) + 1)).astype(np.int64),
        # a pixel that is touched keeps the least weight
        area_weights=np.maximum((product + FULL // 2) // FULL, 1).astype(np.int32),
    )


@dataclass(frozen=True)
class AreaCoverage(BlockCoverage):
    """A block's coverage whose pixels weigh by their area, too.

    Parameters
    ----------
    group_offsets : int64 array, shape (groups + 1,)
        Where each group of runs starts: those of one polygon in one row.
    group_areas : int64 array, shape (groups,)
        Area of a pixel of the row.
    polygon_offsets : int64 array, shape (n + 1,)
        Where each polygon's groups start.
    area_weights : int32 array, shape (edges,)
        Coverage times area of the edge pixels.
    """

    group_offsets: NDArray[np.int64]
    group_areas: NDArray[np.int64]
    polygon_offsets: NDArray[np.int64]
    area_weights: NDArray[np.int32]

    def add(
        self, kernel: Callable[..., None], plane: NDArray[Any], full: NDArray[np.int64], edge: NDArray[np.int64]
    ) -> None:
        """Add what a kernel sums, each pixel by coverage and area, to ``full + edge / 2^24``."""
        per_row, unused = np.zeros((2, len(self.group_areas)), np.int64)
        no_edges = (np.zeros_like(self.group_offsets), self.positions[:0], self.area_weights[:0])
        kernel(plane, self.group_offsets, self.runs, *no_edges, per_row, unused)
        # in two halves: the product of an area and a row's sum of k^4 passes 64 bits
        high = sum_rows((per_row >> 20) * self.group_areas, self.polygon_offsets)
        low = sum_rows((per_row & (2**20 - 1)) * self.group_areas, self.polygon_offsets)
        whole, part = np.zeros((2, len(self)), np.int64)
        no_runs = (np.zeros_like(self.run_offsets), self.runs)
        kernel(plane, *no_runs, self.edge_offsets, self.positions, self.area_weights, whole, part)
        full += (high >> 4) + (low >> 24) + whole + (part >> 24)
        edge += ((high & 15) << 20) + (low & (FULL - 1)) + (part & (FULL - 1))

    def histograms(self, plane: NDArray[np.int8]) -> NDArray[np.int64]:
        """Return each polygon's weights by code, shape (n, 256)."""
        found = np.zeros((len(self), 256), np.int64)
        _add_run_histograms(plane, self.polygon_offsets, self.group_offsets, self.group_areas, self.runs, found)
        no_runs = (np.zeros_like(self.run_offsets), self.runs)
        add_histograms(plane, *no_runs, self.edge_offsets, self.positions, self.area_weights, found)
        return found


@compiled
def _add_run_histograms(
    plane: Any, polygon_offsets: Any, group_offsets: Any, areas: Any, runs: Any, histograms: Any
) -> None:
    """Add the area of each valid pixel of the runs to bin code + 128."""
    for p in range(len(polygon_offsets) - 1):
        for g in range(polygon_offsets[p], polygon_offsets[p + 1]):
            for i in range(group_offsets[g], group_offsets[g + 1]):
                for j in range(runs[i, 0], runs[i, 0] + runs[i, 1]):
                    histograms[p, np.intp(plane[j]) + 128] += areas[g]
        histograms[p, 0] = 0  # nodata

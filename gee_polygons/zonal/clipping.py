"""Cuts the coverage of polygons to one block, and numbers its pixels as the block stores them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gee_polygons.zonal.compiled import compiled
from gee_polygons.zonal.coverage import Coverage
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.kernels import add_histograms
from gee_polygons.zonal.ragged import owners, ranges


@dataclass(frozen=True)
class BlockCoverage:
    """The part of a `Coverage` that lies in one block, for n polygons.

    Pixels are counted in the order in which the block stores them, so that a kernel needs no geometry.

    Parameters
    ----------
    run_offsets : int64 array, shape (n + 1,)
        Where each polygon's runs start.
    runs : int32 array, shape (runs, 2)
        First position and length of each run of fully covered pixels.
    edge_offsets : int64 array, shape (n + 1,)
        Where each polygon's edge pixels start.
    positions, weights : int32 array, shape (edges,)
        The edge pixels, and their coverage in units of 2^-24.
    shape : tuple of int
        (height, width) of the block.
    """

    run_offsets: NDArray[np.int64]
    runs: NDArray[np.int32]
    edge_offsets: NDArray[np.int64]
    positions: NDArray[np.int32]
    weights: NDArray[np.int32]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.run_offsets) - 1

    @property
    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
        """The pixels, as every kernel takes them."""
        return self.run_offsets, self.runs, self.edge_offsets, self.positions

    def pixels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the polygon and the position of each touched pixel: all those of runs, then all edge pixels."""
        starts, lengths = self.runs.T.astype(np.int64)
        polygons = [np.repeat(owners(self.run_offsets), lengths), owners(self.edge_offsets)]
        return np.concatenate(polygons), np.concatenate([ranges(starts, lengths), self.positions])

    def add(
        self, kernel: Callable[..., None], plane: NDArray[Any], full: NDArray[np.int64], edge: NDArray[np.int64]
    ) -> None:
        """Add what a kernel sums, each pixel by its weight, to ``full + edge / 2^24``."""
        kernel(plane, *self.spans, self.weights, full, edge)

    def histograms(self, plane: NDArray[np.int8]) -> NDArray[np.int64]:
        """Return each polygon's weights by code, shape (n, 256)."""
        found = np.zeros((len(self), 256), np.int64)
        add_histograms(plane, *self.spans, self.weights, found)
        return found


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
    run_offsets, runs, edge_offsets, positions, weights = _clip(
        coverage.run_offsets, coverage.runs, coverage.edge_offsets, coverage.edges,
        (window.row, window.col, window.height, window.width),
        (inside.row, inside.col, inside.row_stop, inside.col_stop), flip_y, flip_x,
    )  # fmt: skip
    return BlockCoverage(run_offsets, runs, edge_offsets, positions, weights, (window.height, window.width))


@compiled
def _clip(
    run_offsets: Any, runs: Any, edge_offsets: Any, edges: Any, window: Any, inside: Any, flip_y: bool, flip_x: bool
) -> Any:
    row0, col0, height, width = window
    first_row, first_col, row_stop, col_stop = inside
    n = len(run_offsets) - 1
    out_run_offsets = np.zeros(n + 1, np.int64)
    out_edge_offsets = np.zeros(n + 1, np.int64)
    out_runs = np.empty((len(runs), 2), np.int32)
    positions, weights = np.empty(len(edges), np.int32), np.empty(len(edges), np.int32)
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
                positions[edge] = down * width + across
                weights[edge] = edges[i, 2]
                edge += 1
        out_run_offsets[p + 1] = run
        out_edge_offsets[p + 1] = edge
    return out_run_offsets, out_runs[:run].copy(), out_edge_offsets, positions[:edge].copy(), weights[:edge].copy()

"""The medoid: the pixel whose vector is nearest the direction of its polygon's mean.

It needs the mean first, so it is a second pass over the blocks. Similarity is the cosine between the pixel's vector and
the mean; of equal pixels the one first in the grid's row-major order (north to south, west to east) wins, whatever the
file's orientation and blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import NODATA, codes_to_vectors
from gee_polygons.zonal.coverage import BlockCoverage
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.kernels import add_similarities
from gee_polygons.zonal.planes import PlaneSource, planes

__all__ = ["Candidates", "find_candidates"]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The best pixel of each of n polygons.

    Parameters
    ----------
    similarity : float64 array, shape (n,)
        Cosine to the mean; -inf where there is no valid pixel.
    place : int64 array, shape (n, 2)
        Row and column on the lattice.
    vectors : float64 array, shape (n, bands)
        The pixel's vector.
    """

    similarity: NDArray[np.float64]
    place: NDArray[np.int64]
    vectors: NDArray[np.float64]

    def take(self, rows: Any) -> Candidates:
        """Return some rows."""
        return Candidates(similarity=self.similarity[rows], place=self.place[rows], vectors=self.vectors[rows])

    def better(self, other: Candidates) -> NDArray[np.bool_]:
        """Whether the other's pixels beat these: nearer, or as near and earlier in the grid."""
        row, col = self.place.T
        other_row, other_col = other.place.T
        earlier = (other_row < row) | ((other_row == row) & (other_col < col))
        beats: NDArray[np.bool_] = (other.similarity > self.similarity) | (
            (other.similarity == self.similarity) & earlier
        )
        return beats


def find_candidates(
    block: PlaneSource,
    coverage: BlockCoverage,
    means: NDArray[np.float64],
    *,
    window: Window,
    flip_y: bool = False,
    flip_x: bool = False,
    hidden: NDArray[np.int64] | None = None,
) -> Candidates:
    """Find the best pixel of each polygon in one block; decodes it twice.

    Parameters
    ----------
    block : PlaneSource
        A block of codes.
    coverage : BlockCoverage
        Of the n polygons.
    means : float64 array, shape (n, bands)
        Their means over all blocks.
    window, flip_y, flip_x
        Where the block's pixels lie on the lattice, and in which order they are stored.
    hidden : int64 array, optional
        Positions of pixels that another tile has counted.

    Returns
    -------
    Candidates
    """
    n, n_bands = means.shape
    owner, pixels = _entries(coverage)
    dots = np.zeros(len(pixels))
    norms = np.zeros(len(pixels), np.int64)
    valid = np.ones(len(pixels), np.bool_)
    for band, plane in planes(block):
        if hidden is not None:
            plane[hidden] = NODATA
        if band == 0:
            valid = plane[pixels] != NODATA
        add_similarities(plane, owner, pixels, np.ascontiguousarray(means[:, band]), dots, norms)
    length = np.sqrt(np.sum(means * means, axis=1))[owner] * np.sqrt(norms.astype(np.float64))
    similarity = np.divide(dots, length, out=np.full(len(dots), -np.inf), where=valid & (length > 0))

    row, col = np.divmod(pixels, coverage.shape[1])
    row = window.row + (window.height - 1 - row if flip_y else row)
    col = window.col + (window.width - 1 - col if flip_x else col)
    # nearest first, then earliest in the grid; the first entry of each owner wins
    order = np.lexsort((col, row, -similarity, owner))
    found, first = np.unique(owner[order], return_index=True)
    best = order[first]
    result = Candidates(
        similarity=np.full(n, -np.inf),
        place=np.full((n, 2), np.iinfo(np.int64).max),
        vectors=np.full((n, n_bands), np.nan),
    )
    result.similarity[found] = similarity[best]
    result.place[found] = np.column_stack([row[best], col[best]])
    for band, plane in planes(block):
        result.vectors[found, band] = codes_to_vectors(plane[pixels[best]], np.float64)
    return result


def _entries(coverage: BlockCoverage) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List every (polygon, pixel position) pair of a block."""
    lengths = coverage.runs[:, 1].astype(np.int64)
    run_owner = np.repeat(np.arange(len(coverage)), np.diff(coverage.run_offsets))
    start = np.repeat(coverage.runs[:, 0] - (np.cumsum(lengths) - lengths), lengths)
    owner: Any = np.concatenate(
        [np.repeat(run_owner, lengths), np.repeat(np.arange(len(coverage)), np.diff(coverage.edge_offsets))]
    )
    pixels: Any = np.concatenate([start + np.arange(lengths.sum()), coverage.edges[:, 0].astype(np.int64)])
    return owner, pixels

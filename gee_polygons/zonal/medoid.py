"""Finds the medoid of a polygon: the pixel whose vector is nearest the direction of the polygon's mean.

The mean must be known first, so this is a second pass over the blocks. Nearness is the cosine between the pixel's
vector and the mean; of pixels equally near, the first in the grid's row-major order (north to south, west to east) is
taken, whatever the file's orientation and blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import NODATA
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.zonal.clipping import BlockCoverage
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.kernels import add_similarities, find_nearest
from gee_polygons.zonal.planes import PlaneSource, planes


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
        """Whether the other's pixels are nearer than these, or as near and earlier in the grid."""
        row, col = self.place.T
        other_row, other_col = other.place.T
        earlier = (other_row < row) | ((other_row == row) & (other_col < col))
        return (other.similarity > self.similarity) | ((other.similarity == self.similarity) & earlier)


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
        Positions of pixels to leave out.

    Returns
    -------
    Candidates
    """
    n, n_bands = means.shape
    polygons, pixels = coverage.pixels()
    dots, norms = np.zeros(len(pixels)), np.zeros(len(pixels), np.uint64)
    lengths = np.sqrt(np.sum(means * means, axis=1))
    best, similarity = np.full(n, -1, np.int64), np.full(n, -np.inf)
    order = (coverage.shape[1], -1 if flip_y else 1, -1 if flip_x else 1)
    for count, (band, plane) in enumerate(planes(block), start=1):  # bands come in the order of the block's parts
        if hidden is not None:
            plane[hidden] = NODATA
        add_similarities(plane, *coverage.spans, np.ascontiguousarray(means[:, band]), dots, norms)
        if count == n_bands:
            find_nearest(plane, polygons, pixels, dots, norms, lengths, order, best, similarity)

    found = np.flatnonzero(best >= 0)
    row, col = np.divmod(best[found], coverage.shape[1])
    row = window.row + (window.height - 1 - row if flip_y else row)
    col = window.col + (window.width - 1 - col if flip_x else col)
    result = Candidates(
        similarity=similarity,
        place=np.full((n, 2), np.iinfo(np.int64).max),
        vectors=np.full((n, n_bands), np.nan),
    )
    result.place[found] = np.column_stack([row, col])
    for band, plane in planes(block):
        result.vectors[found, band] = codes_to_vectors(plane[best[found]], np.float64)
    return result

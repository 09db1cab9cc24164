"""Decides which tile's pixel counts where tiles of one UTM zone and year overlap.

One rule, for means, images, arrays, point samples and local copies alike: tiles are taken in the order of their paths
or URLs, and the first one with data at a pixel gives the pixel's value. So a pixel without data never hides one with
data, and the order of the index's rows and of the blocks doesn't matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.reduction.plan import BlockedRaster, BlockRef

T = TypeVar("T", bound=BlockedRaster)


def take_precedence(tiles: Sequence[T], tile: BlockedRaster) -> list[T]:
    """Return the tiles of the same year whose pixels count before a tile's."""
    return [other for other in tiles if other.year == tile.year and other.place < tile.place]


def by_precedence(blocks: Iterable[BlockRef]) -> list[BlockRef]:
    """Sort blocks so that each tile's come before those of tiles whose pixels count after its own."""
    return sorted(blocks, key=lambda ref: (ref.tile, ref.year, ref.index))


def row_by_row(blocks: Iterable[BlockRef]) -> list[BlockRef]:
    """Sort blocks of one lattice from north to south, but each after those that overlap it and take precedence.

    A reader then gets all blocks of a small region, of all years, within a short stretch of the list.
    """
    order = sorted(blocks, key=lambda ref: (ref.inside, ref.year, ref.tile, ref.index))
    if not order:
        return []
    boxes = shapely.box(*np.array([(w.col, w.row, w.col_stop, w.row_stop) for w in (ref.inside for ref in order)]).T)
    years = np.array([ref.year for ref in order])
    tiles = np.unique([ref.tile for ref in order], return_inverse=True)[1]
    later, first = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    maybe = (years[first] == years[later]) & (tiles[first] < tiles[later])
    before: dict[int, list[int]] = defaultdict(list)
    for i, j in zip(later[maybe].tolist(), first[maybe].tolist(), strict=True):
        if order[i].inside.intersection(order[j].inside):  # not only an edge in common
            before[i].append(j)
    placed: dict[int, None] = {}
    for i in range(len(order)):
        stack = [i]  # not a recursion: a strip of scenes can be a chain of thousands of overlaps
        while stack:
            waiting = [j for j in before.get(stack[-1], ()) if j not in placed]
            if waiting:
                stack += waiting[::-1]
            else:
                placed.setdefault(stack.pop())
    return [order[i] for i in placed]


def is_missing(pixels: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Return which pixels are nodata, also where the nodata value is NaN."""
    return np.isnan(pixels) if np.isnan(nodata) else pixels == nodata


def fill_missing(
    values: NDArray[Any], pixels: NDArray[Any], nodata: float | None, filled: NDArray[np.bool_] | None = None
) -> None:
    """Copy pixels to where `values` has no data yet; to be called in the order of `by_precedence` or `row_by_row`.

    Parameters
    ----------
    values, pixels : arrays of the same shape
        Target and source.
    nodata : float, optional
        Value of `values` where it has no data.
    filled : bool array, optional
        Where there is no nodata value: which values have been filled; updated.
    """
    if nodata is not None:
        np.copyto(values, pixels, where=is_missing(values, nodata), casting="same_kind")
    elif filled is not None:
        np.copyto(values, pixels, where=~filled, casting="same_kind")
        filled[...] = True

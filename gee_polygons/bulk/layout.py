"""Divides the pixel grids under the sites of a run into rectangles of whole blocks, and groups these into chunks.

A rectangle has about 8,192 x 8,192 pixels. One with very many sites is divided into four, as often as its blocks allow.
Each block lies in one rectangle, and each rectangle belongs to one chunk, so that no block is read in two chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.zonal.grid import Lattice, Window

SIDE_PX: Final = 8192
LEVELS: Final = 4  # of division: 8192, 4096, 2048, 1024 pixels
_BITS: Final = 21  # of a rectangle's row and column; 2^20 is added to them
_HALF: Final = 1 << (_BITS - 1)
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class GridPart:
    """The lattice that some sites are measured on, and how blocks lie on it.

    Parameters
    ----------
    lattice : Lattice
        The pixel grid.
    row, col : int
        A corner of a block.
    height, width : int
        Size of the rectangles of level 0.
    levels : int
        How often rectangles can be halved, plus 1, so that their edges are edges of blocks.
    """

    lattice: Lattice
    row: int = 0
    col: int = 0
    height: int = SIDE_PX
    width: int = SIDE_PX
    levels: int = LEVELS

    @classmethod
    def around(cls, lattice: Lattice, block: Window) -> GridPart:
        """Describe a lattice of which one block is known; all others have the same size."""
        height, width = (-(-SIDE_PX // size) * size for size in (block.height, block.width))
        levels = 1
        while levels < LEVELS and all(
            size % (2**levels) == 0 and size // 2**levels % b == 0
            for size, b in ((height, block.height), (width, block.width))
        ):
            levels += 1
        return cls(
            lattice=lattice, row=block.row % block.height, col=block.col % block.width, height=height, width=width,
            levels=levels,
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GridPart:
        """Read what `as_dict` returned."""
        return cls(**{**values, "lattice": Lattice(**values["lattice"])})


class Layout:
    """The rectangles of a run and the chunk of each.

    Parameters
    ----------
    grids : sequence of GridPart
        The pixel grids.
    divided : int array
        Keys of rectangles that are divided into four.
    keys, chunks : int array, shape (rectangles,)
        Keys of the rectangles, ascending, and the chunk that each belongs to.
    """

    def __init__(self, grids: Sequence[GridPart], divided: Ints, keys: Ints, chunks: Ints) -> None:
        self.grids, self.divided, self.keys, self.chunks = tuple(grids), divided, keys, chunks

    def key(self, grid: Any, row: Any, col: Any) -> Ints:
        """Return the keys of the rectangles that hold pixels of grids, all three arrays or numbers."""
        grid, row, col = np.broadcast_arrays(*(np.asarray(v, np.int64) for v in (grid, row, col)))
        found = np.zeros(grid.shape, np.int64)
        undecided = np.ones(grid.shape, np.bool_)
        for level in range(LEVELS):
            found[undecided] = keys_at(self.grids, level, grid[undecided], row[undecided], col[undecided])
            undecided &= np.isin(found, self.divided)
            if not undecided.any():
                break
        return found

    def chunk(self, keys: Ints) -> Ints:
        """Return the chunks of rectangles; -1 for one that belongs to none."""
        if not len(self.keys):
            return np.full(np.shape(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.chunks[at], -1)

    def as_dict(self) -> dict[str, Any]:
        """Return the layout as JSON has it."""
        arrays = {name: getattr(self, name).tolist() for name in ("divided", "keys", "chunks")}
        return {"grids": [grid.as_dict() for grid in self.grids], **arrays}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Layout:
        """Read what `as_dict` returned."""
        arrays = [np.array(values[name], np.int64) for name in ("divided", "keys", "chunks")]
        return cls([GridPart.from_dict(grid) for grid in values["grids"]], *arrays)


def keys_at(grids: Sequence[GridPart], level: int, grid: Ints, row: Ints, col: Ints) -> Ints:
    """Return a number for each rectangle of a level that holds a pixel; the same number for the same rectangle."""
    if not len(grids):
        return np.zeros(len(grid), np.int64)
    first_row, first_col, height, width = (
        np.array([getattr(g, name) for g in grids], np.int64)[grid] for name in ("row", "col", "height", "width")
    )
    y, x = (row - first_row) // (height >> level) + _HALF, (col - first_col) // (width >> level) + _HALF
    return ((grid * LEVELS + level) << (2 * _BITS)) | (y << _BITS) | x


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Bounding boxes of sites on the pixel grids of a run.

    Parameters
    ----------
    grid : int array, shape (sites,)
        Number of each site's grid.
    row, col, row_last, col_last : int array, shape (sites,)
        First and last pixel of each box.
    """

    grid: Ints
    row: Ints
    col: Ints
    row_last: Ints
    col_last: Ints

    @property
    def middle(self) -> tuple[Ints, Ints]:
        """Row and column of the middles."""
        return (self.row + self.row_last) // 2, (self.col + self.col_last) // 2


def make_layout(
    grids: Sequence[GridPart], boxes: Boxes, order: Ints, *, most: int
) -> tuple[Layout, Ints, dict[int, list[int]]]:
    """Divide the grids under sites into chunks of at most about `most` sites.

    Parameters
    ----------
    grids : sequence of GridPart
        The pixel grids.
    boxes : Boxes
        Where the sites lie.
    order : int array, shape (sites,)
        Hilbert keys: rectangles near each other come into one chunk.
    most : int
        Rectangles with more sites are divided, and a chunk is full when it has half of this.

    Returns
    -------
    layout : Layout
    chunk : int array, shape (sites,)
        Chunk of each site's middle; chunks are numbered from 0 in the order of their least keys.
    others : dict of int to list of int
        Sites whose boxes touch other chunks, and these chunks.
    """
    levels = np.array([g.levels for g in grids], np.int64)
    row, col = boxes.middle
    n = len(row)
    key = np.zeros(n, np.int64)
    undecided, divided = np.arange(n), []
    for level in range(LEVELS):
        key[undecided] = keys_at(grids, level, boxes.grid[undecided], row[undecided], col[undecided])
        crowded, which, count = np.unique(key[undecided], return_inverse=True, return_counts=True)
        again = (count[which] > most) & (levels[boxes.grid[undecided]] > level + 1)
        divided.append(np.unique(crowded[which[again]]))
        undecided = undecided[again]
    keys, place, counts = np.unique(key, return_inverse=True, return_counts=True)
    least = np.full(len(keys), np.iinfo(np.int64).max)
    np.minimum.at(least, place, order)
    grid_of = keys >> (2 * _BITS)
    chunks = np.zeros(len(keys), np.int64)
    current, held, last_grid = -1, 0, -1
    for i in np.lexsort((least, grid_of // LEVELS)):
        if grid_of[i] // LEVELS != last_grid or held + counts[i] > most // 2 or current < 0:
            current, held, last_grid = current + 1, 0, int(grid_of[i] // LEVELS)
        chunks[i] = current
        held += int(counts[i])
    layout = Layout(grids, np.unique(np.concatenate(divided)), keys, chunks)
    chunk = chunks[place]
    touched = _touched(layout, boxes, key)
    # a rectangle without a site's middle goes to the chunk of the first site that reaches into it
    new: dict[int, int] = {}
    known = set(keys.tolist())
    for site, reached in touched.items():
        for other in reached:
            if other not in known:
                new.setdefault(other, int(chunk[site]))
    if new:
        joined = np.concatenate([keys, np.array(list(new), np.int64)])
        at = np.argsort(joined)
        layout = Layout(
            grids, layout.divided, joined[at], np.concatenate([chunks, np.array(list(new.values()), np.int64)])[at]
        )
    others = {}
    for site, reached in touched.items():
        found = sorted(set(layout.chunk(np.array(reached, np.int64)).tolist()) - {int(chunk[site])})
        if found:
            others[site] = found
    return layout, chunk, others


def _touched(layout: Layout, boxes: Boxes, key: Ints) -> dict[int, list[int]]:
    """Return, for sites whose boxes reach past their own rectangle, the keys of the rectangles that they touch."""
    corners = [
        layout.key(boxes.grid, row, col) for row in (boxes.row, boxes.row_last) for col in (boxes.col, boxes.col_last)
    ]
    across = np.flatnonzero(np.any([corner != key for corner in corners], axis=0))
    found = {}
    for site in across.tolist():
        grid = layout.grids[boxes.grid[site]]
        step_y, step_x = grid.height >> (grid.levels - 1), grid.width >> (grid.levels - 1)
        rows, cols = (
            np.unique(np.append(np.arange(first, last + 1, step), last))
            for first, last, step in (
                (int(boxes.row[site]), int(boxes.row_last[site]), step_y),
                (int(boxes.col[site]), int(boxes.col_last[site]), step_x),
            )
        )
        found[site] = np.unique(layout.key(int(boxes.grid[site]), rows[:, None], cols[None, :])).tolist()
    return found

"""Finds the blocks that polygons touch and orders them as a plan, for all pixel sources; reads nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gee_polygons.reduction.overlaps import take_precedence
from gee_polygons.reduction.plan import BlockedRaster, BlockRef, Failure, Job, Piece, Plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.zonal.coverage import Coverage, compute_coverage
from gee_polygons.zonal.grid import Lattice, Window
from gee_polygons.zonal.projection import Rings
from gee_polygons.zonal.ragged import owners, ranges


@dataclass(frozen=True)
class _Touched:
    """The pieces that touch a block, and the lattice rows that they lie in."""

    pieces: list[int]
    first_row: int
    row_stop: int

    @classmethod
    def of(cls, pieces: list[int], bounds: NDArray[np.float64], numbers: NDArray[np.int64]) -> _Touched:
        here = bounds[np.searchsorted(numbers, pieces)]
        return cls(pieces, int(np.floor(here[:, 1].min())), int(np.ceil(here[:, 3].max())))


def make_plan(
    *,
    source: str,
    polygons: Polygons,
    years: Sequence[int],
    pieces: Sequence[Piece],
    tiles: Iterable[BlockedRaster],
    failures: Sequence[Failure] = (),
) -> Plan:
    """Find the blocks that each piece touches, and order them.

    Parameters
    ----------
    source : str
        Name of the source.
    polygons : Polygons
        The polygons planned for.
    years : sequence of int
        Years asked for.
    pieces : sequence of Piece
        Polygons, or their parts per zone.
    tiles : iterable of BlockedRaster
        Tiles that may hold pieces; those that no piece touches aren't read.
    failures : sequence of Failure
        Tiles that are known to be unreadable.

    Returns
    -------
    Plan
    """
    by_lattice: dict[Lattice, list[BlockedRaster]] = defaultdict(list)
    by_place: dict[tuple[str, int], BlockedRaster] = {}
    for tile in tiles:
        by_lattice[tile.grid.lattice].append(tile)
        by_place[tile.place, tile.year] = tile
    # Years share a job only where their tiles hold the same part of the block. Otherwise a piece that lies in the part
    # that one tile holds would be taken for one that the other tile holds, too.
    members_of: dict[tuple[Lattice, Window, Window], set[int]] = defaultdict(set)
    reads_of: dict[tuple[Lattice, Window, Window], list[BlockRef]] = defaultdict(list)
    requests = n_bytes = 0
    for lattice, members in by_lattice.items():
        numbers = np.array([i for i, p in enumerate(pieces) if p.lattice is lattice or p.lattice == lattice], np.int64)
        if not len(numbers):
            continue
        rings = polygons.pieces([pieces[i] for i in numbers])
        bounds = rings.bounds()
        touched: dict[Any, dict[tuple[int, int], _Touched]] = {}  # tiles of several years share a layout
        for tile in sorted(members, key=lambda t: (t.year, t.place)):
            layout = (tile.grid, tile.block_shape)
            if layout not in touched:
                blocks = _blocks_touched(tile, rings, bounds, numbers)
                touched[layout] = {block: _Touched.of(inside, bounds, numbers) for block, inside in blocks.items()}
            earlier = take_precedence(members, tile)
            for (row, col), found in touched[layout].items():
                if all(tile.year in pieces[i].skip for i in found.pieces):
                    continue
                ref = BlockRef.at(tile, row, col).limited_to(found.first_row, found.row_stop)
                if preceding := tuple(part for other in earlier for part in blocks_in(other, ref.inside)):
                    ref = replace(ref, preceding=preceding)
                job = lattice, ref.window, ref.inside
                members_of[job].update(found.pieces)
                reads_of[job].append(ref)
                costs = [tile.cost(ref), *(by_place[part.tile, part.year].cost(part, 1) for part in ref.preceding)]
                requests += sum(cost[0] for cost in costs)
                n_bytes += sum(cost[1] for cost in costs)
    jobs = [
        Job(
            lattice=lattice, window=window, pieces=tuple(sorted(members_of[lattice, window, inside])),
            reads=tuple(sorted(reads, key=lambda ref: (ref.year, ref.tile))),
        )
        for (lattice, window, inside), reads in reads_of.items()
    ]  # fmt: skip
    jobs.sort(key=lambda job: (job.lattice, job.window))
    return Plan(
        source=source, years=tuple(years), n_polygons=len(polygons), pieces=tuple(pieces), jobs=tuple(jobs),
        requests=requests, bytes=n_bytes, failures=tuple(failures),
    )  # fmt: skip


def _blocks_touched(
    tile: BlockedRaster, rings: Rings, bounds: NDArray[np.float64], numbers: NDArray[np.int64]
) -> dict[tuple[int, int], list[int]]:
    """Return, for each block (row, column) of the file, the numbers of the pieces that cover some of its pixels."""
    window = tile.grid.window
    col0, row0 = np.floor(bounds[:, 0]), np.floor(bounds[:, 1])
    col1, row1 = np.ceil(bounds[:, 2]), np.ceil(bounds[:, 3])
    near = np.flatnonzero(
        (col0 < window.col_stop) & (col1 > window.col) & (row0 < window.row_stop) & (row1 > window.row)
    )
    if not len(near):
        return {}
    # file block numbers of the bounding box's corners
    rows = np.stack([row0[near], row1[near] - 1]).clip(window.row, window.row_stop - 1).astype(np.int64)
    cols = np.stack([col0[near], col1[near] - 1]).clip(window.col, window.col_stop - 1).astype(np.int64)
    rows, cols = tile.grid.in_file(rows, cols)
    rows, cols = rows // tile.block_shape[0], cols // tile.block_shape[1]
    inside = (col0[near] >= window.col) & (col1[near] <= window.col_stop)
    inside &= (row0[near] >= window.row) & (row1[near] <= window.row_stop)
    one = inside & (rows[0] == rows[1]) & (cols[0] == cols[1])

    blocks: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in np.flatnonzero(one):
        blocks[int(rows[0, i]), int(cols[0, i])].append(int(numbers[near[i]]))
    # a polygon whose bounding box lies in several blocks need not touch each of them: compute its coverage
    several = near[~one]
    if len(several):
        for block, members in _blocks_covered(tile, compute_coverage(rings.take(several))).items():
            blocks[block].extend(int(numbers[several[i]]) for i in members)
    return blocks


def _blocks_covered(tile: BlockedRaster, coverage: Coverage) -> dict[tuple[int, int], list[int]]:
    """Return, for each block (row, column) of the file, the polygons of a coverage that have a pixel in it."""
    window, in_file = tile.grid.window, tile.grid.in_file
    height, width = tile.block_shape
    owner = np.concatenate([owners(coverage.run_offsets), owners(coverage.edge_offsets)])
    spans = np.concatenate([coverage.runs, coverage.edges]).astype(np.int64)
    row, first, last = spans[:, 0], spans[:, 1].clip(window.col), spans[:, 1].copy()
    last[: len(coverage.runs)] += coverage.runs[:, 2] - 1
    last = last.clip(max=window.col_stop - 1)
    keep = (row >= window.row) & (row < window.row_stop) & (first <= last)
    owner, (_, first), (row, last) = owner[keep], in_file(row[keep], first[keep]), in_file(row[keep], last[keep])
    row, first, last = row // height, np.minimum(first, last) // width, np.maximum(first, last) // width
    n = last - first + 1
    across = -(-window.width // width)
    block = np.repeat(row, n) * across + ranges(first, n)
    found = np.unique(block * len(coverage) + np.repeat(owner, n))  # one number for each (block, polygon)
    blocks: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, polygon in zip(*(part.tolist() for part in np.divmod(found, len(coverage))), strict=True):
        blocks[divmod(number, across)].append(polygon)
    return blocks


def blocks_in(tile: BlockedRaster, window: Window) -> Iterator[BlockRef]:
    """Yield the blocks of a tile that share pixels with a window."""
    return (BlockRef.at(tile, row, col) for row, col in tile.grid.blocks(window, tile.block_shape))

"""Which blocks hold which polygons: pieces + tiles -> jobs. Shared by all pixel sources; reads nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gee_polygons.reduction.overlaps import take_precedence
from gee_polygons.reduction.plan import BlockRef, Failure, Job, Piece, Plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.zonal.coverage import Coverage, compute_coverage
from gee_polygons.zonal.grid import Grid, Lattice, Window
from gee_polygons.zonal.projection import Rings


class Blocked(Protocol):
    """A raster in blocks, for one year."""

    @property
    def place(self) -> str:
        """Path or URL."""
        ...

    @property
    def year(self) -> int:
        """Year of its pixels."""
        ...

    @property
    def grid(self) -> Grid:
        """Where its pixels are."""
        ...

    @property
    def block_shape(self) -> tuple[int, int]:
        """(height, width) of a block."""
        ...

    def ref(self, row: int, col: int) -> BlockRef:
        """Describe a block."""
        ...

    def cost(self, ref: BlockRef, n_bands: int | None = None) -> tuple[int, int]:
        """Return the requests and bytes that reading a block costs: all bands, or the first few."""
        ...


@dataclass
class _Draft:
    """A job being gathered."""

    pieces: set[int] = field(default_factory=set)
    reads: list[BlockRef] = field(default_factory=list)


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
    tiles: Iterable[Blocked],
    failures: Sequence[Failure] = (),
) -> Plan:
    """Find the blocks that each piece touches, and order them.

    Parameters
    ----------
    source : str
        Name of the source.
    polygons : Polygons
        What is asked for.
    years : sequence of int
        Years asked for.
    pieces : sequence of Piece
        Polygons, or their parts per zone.
    tiles : iterable of Blocked
        Candidates; those that nothing touches cost nothing.
    failures : sequence of Failure
        What is known already to be unreadable.

    Returns
    -------
    Plan
    """
    by_lattice: dict[Lattice, list[Blocked]] = defaultdict(list)
    by_place: dict[tuple[str, int], Blocked] = {}
    for tile in tiles:
        by_lattice[tile.grid.lattice].append(tile)
        by_place[tile.place, tile.year] = tile
    # years share a job where their tiles hold the same part of the block: else a piece that lies in one tile's part
    # would pass for one that the other tile holds, too
    drafts: dict[tuple[Lattice, Window, Window], _Draft] = defaultdict(_Draft)
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
            beneath = take_precedence(members, tile)
            for (row, col), found in touched[layout].items():
                inside = found.pieces
                wanted = [i for i in inside if tile.year not in pieces[i].skip]
                if not wanted:
                    continue
                ref = _with_beneath(tile.ref(row, col).holding(found.first_row, found.row_stop), beneath)
                draft = drafts[lattice, ref.window, ref.inside]
                draft.pieces.update(inside)
                draft.reads.append(ref)
                costs = [tile.cost(ref), *(by_place[part.tile, part.year].cost(part, 1) for part in ref.beneath)]
                requests += sum(cost[0] for cost in costs)
                n_bytes += sum(cost[1] for cost in costs)
    jobs = [_job(lattice, window, draft) for (lattice, window, _), draft in drafts.items()]
    jobs.sort(key=lambda job: (job.lattice, job.window))
    return Plan(
        source=source, years=tuple(years), n_polygons=len(polygons), pieces=tuple(pieces), jobs=tuple(jobs),
        requests=requests, bytes=n_bytes, failures=tuple(failures),
    )  # fmt: skip


def _job(lattice: Lattice, window: Window, draft: _Draft) -> Job:
    reads = tuple(sorted(draft.reads, key=lambda ref: (ref.year, ref.tile)))
    return Job(lattice=lattice, window=window, pieces=tuple(sorted(draft.pieces)), reads=reads)


def _blocks_touched(
    tile: Blocked, rings: Rings, bounds: NDArray[np.float64], numbers: NDArray[np.int64]
) -> dict[tuple[int, int], list[int]]:
    """Block (row, column) of the file -> numbers of the pieces that cover some of its pixels."""
    window = tile.grid.window
    col0, row0 = np.floor(bounds[:, 0]), np.floor(bounds[:, 1])
    col1, row1 = np.ceil(bounds[:, 2]), np.ceil(bounds[:, 3])
    near = np.flatnonzero(
        (col0 < window.col_stop) & (col1 > window.col) & (row0 < window.row_stop) & (row1 > window.row)
    )
    if not len(near):
        return {}
    # file block numbers of the bounding box's corners
    rows = np.stack([row0[near], row1[near] - 1]).clip(window.row, window.row_stop - 1).astype(np.int64) - window.row
    cols = np.stack([col0[near], col1[near] - 1]).clip(window.col, window.col_stop - 1).astype(np.int64) - window.col
    rows = (window.height - 1 - rows if tile.grid.flip_y else rows) // tile.block_shape[0]
    cols = (window.width - 1 - cols if tile.grid.flip_x else cols) // tile.block_shape[1]
    inside = (col0[near] >= window.col) & (col1[near] <= window.col_stop)
    inside &= (row0[near] >= window.row) & (row1[near] <= window.row_stop)
    one = inside & (rows[0] == rows[1]) & (cols[0] == cols[1])

    blocks: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in np.flatnonzero(one):
        blocks[int(rows[0, i]), int(cols[0, i])].append(int(numbers[near[i]]))
    # a box over several blocks says little about the polygon inside it: ask the coverage
    several = near[~one]
    if len(several):
        for block, members in _blocks_covered(tile, compute_coverage(rings.take(several))).items():
            blocks[block].extend(int(numbers[several[i]]) for i in members)
    return blocks


def _blocks_covered(tile: Blocked, coverage: Coverage) -> dict[tuple[int, int], list[int]]:
    """Block -> polygons of a coverage with a pixel in it."""
    window = tile.grid.window
    height, width = tile.block_shape
    owners, rows, firsts, lasts = [], [], [], []
    for offsets, spans, is_run in (
        (coverage.run_offsets, coverage.runs, True),
        (coverage.edge_offsets, coverage.edges, False),
    ):
        owners.append(np.repeat(np.arange(len(coverage)), np.diff(offsets)))
        rows.append(spans[:, 0])
        firsts.append(spans[:, 1])
        lasts.append(spans[:, 1] + (spans[:, 2] - 1 if is_run else 0))
    owner, row = np.concatenate(owners), np.concatenate(rows).astype(np.int64)
    first = np.concatenate(firsts).astype(np.int64).clip(window.col)
    last = np.concatenate(lasts).astype(np.int64).clip(max=window.col_stop - 1)
    keep = (row >= window.row) & (row < window.row_stop) & (first <= last)
    owner, row, first, last = owner[keep], row[keep] - window.row, first[keep] - window.col, last[keep] - window.col
    if tile.grid.flip_y:
        row = window.height - 1 - row
    if tile.grid.flip_x:
        first, last = window.width - 1 - last, window.width - 1 - first
    row, first, last = row // height, first // width, last // width
    n = last - first + 1
    column = np.repeat(first - np.concatenate([[0], np.cumsum(n)[:-1]]), n) + np.arange(n.sum())
    across = -(-window.width // width)
    block = np.repeat(row, n) * across + column
    found = np.unique(block * len(coverage) + np.repeat(owner, n))  # one number for each (block, polygon)
    blocks: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, polygon in zip(*(part.tolist() for part in np.divmod(found, len(coverage))), strict=True):
        blocks[divmod(number, across)].append(polygon)
    return blocks


def _with_beneath(ref: BlockRef, earlier: Sequence[Blocked]) -> BlockRef:
    """Add the blocks of earlier tiles that share pixels with this one."""
    found: list[BlockRef] = []
    for tile in earlier:
        common = tile.grid.window.intersection(ref.inside)
        if common is None:
            continue
        down, across = -(-tile.grid.shape[0] // tile.block_shape[0]), -(-tile.grid.shape[1] // tile.block_shape[1])
        candidates = (tile.ref(row, col) for row in range(down) for col in range(across))
        found.extend(other for other in candidates if other.inside.intersection(common) is not None)
    if not found:
        return ref
    return replace(ref, beneath=tuple(found))

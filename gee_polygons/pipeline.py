"""Plan -> read -> reduce: from polygons to their numbers, on one machine.

Blocks are read in order, a few ahead, and reduced by a few threads that share nothing: each block gives integer partial
sums, and the calling thread merges them. So the result doesn't depend on the number of threads.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import NODATA
from gee_polygons.errors import ReadError
from gee_polygons.sources._polygons import Polygons
from gee_polygons.sources._window import paste
from gee_polygons.sources.base import Block, BlockRef, Failure, Job, PixelSource, Plan
from gee_polygons.zonal.coverage import FULL, BlockCoverage, Coverage, clip_to_block, compute_coverage
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.medoid import Candidates, find_candidates
from gee_polygons.zonal.partials import CODE_UNIT, Partials
from gee_polygons.zonal.reduce import BlockReducer, DamagedPixels, Reduced
from gee_polygons.zonal.statistics import Needs, parse_statistics, quantile_of, quantiles

__all__ = ["Progress", "Results", "reduce_polygons"]

Progress = bool | Callable[[int, int], object]
T = TypeVar("T")


@dataclass(kw_only=True)
class Results:
    """Numbers of all polygons and years.

    Parameters
    ----------
    statistics : dict of name to float64 array, shape (polygons, years, bands)
        NaN without a valid pixel. Always has ``"mean"``.
    n_pixels, valid_fraction : float64 array, shape (polygons, years)
        Coverage-weighted valid pixels, and their share of the polygon's area.
    similarity : float64 array, shape (polygons, years)
        Cosine of the medoid to the mean; NaN unless the medoid was asked for.
    status : object array, shape (polygons, years)
        ``"ok"``, ``"masked"``, ``"no_data"`` or ``"error"``.
    failures : list of Failure
        What couldn't be read.
    """

    statistics: dict[str, NDArray[np.float64]]
    n_pixels: NDArray[np.float64]
    valid_fraction: NDArray[np.float64]
    similarity: NDArray[np.float64]
    status: NDArray[np.object_]
    failures: list[Failure] = field(default_factory=list)

    @classmethod
    def empty(cls, n: int, n_years: int, n_bands: int, names: Sequence[str]) -> Results:
        """Return results of polygons that no tile holds."""
        return cls(
            statistics={name: np.full((n, n_years, n_bands), np.nan) for name in dict.fromkeys(["mean", *names])},
            n_pixels=np.zeros((n, n_years)),
            valid_fraction=np.zeros((n, n_years)),
            similarity=np.full((n, n_years), np.nan),
            status=np.full((n, n_years), "no_data", object),
        )

    def numbers(self) -> Iterator[NDArray[np.float64]]:
        """Yield every array that a failed read must blank."""
        yield from (*self.statistics.values(), self.n_pixels, self.valid_fraction, self.similarity)


def reduce_polygons(
    source: PixelSource,
    polygons: NDArray[Any],
    years: Sequence[int],
    *,
    bands: Sequence[str],
    statistics: Sequence[str] = ("mean",),
    on_error: str = "raise",
    progress: Progress = False,
    max_workers: int | None = None,
) -> Results:
    """Reduce a pixel source over polygons.

    Parameters
    ----------
    source : PixelSource
        Where the pixels are.
    polygons : array of shapely Polygon or MultiPolygon
        EPSG:4326, valid.
    years, bands, statistics : sequences
        What is wanted.
    on_error : {"raise", "collect"}
        Whether a failed read stops everything or only spoils the polygons it concerns.
    progress : bool or callable
        A bar, or a function called with (blocks done, blocks in all).
    max_workers : int, optional
        Threads. Default: one per core.

    Returns
    -------
    Results

    Raises
    ------
    ReadError
        With ``on_error="raise"``, for the first read that failed.
    """
    names, needs = parse_statistics(statistics)
    asked = Polygons(polygons)
    plan = source.plan(asked, years)
    results = Results.empty(len(asked), len(years), len(bands), names)
    merger = _Merger(plan, years, names, needs, results, on_error)
    runner = _Runner(source, plan, asked, tuple(bands), max_workers or os.cpu_count() or 1)
    with _reporter(progress, plan.blocks * (2 if needs.medoid else 1)) as advance:
        for job, ref, outcome in runner.run(_summing(len(bands), needs, merger)):
            merger.add(job, ref, outcome)
            advance()
        merger.finish(asked)
        if needs.medoid:
            for job, ref, candidates in runner.run(_looking_for_medoids(merger)):
                merger.add_candidates(job, ref, candidates)
                advance()
    merger.blank_failures()
    return results


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A block that was fetched, and what its pixels mean."""

    job: Job
    ref: BlockRef
    block: Block
    coverage: BlockCoverage
    areas: NDArray[np.int64]  # of the job's pieces, whole, in 2^-24 pixels
    hidden: NDArray[np.int64] | None


@dataclass(frozen=True)
class _Runner:
    """Reads the blocks of a plan in order and works on them in threads."""

    source: PixelSource
    plan: Plan
    polygons: Polygons
    bands: tuple[str, ...]
    workers: int

    def run(self, work: Callable[[_Task], T]) -> Iterator[tuple[Job, BlockRef, T | ReadError]]:
        """Yield each block's outcome, in the plan's order; at most one block more than there are threads waits."""
        steps = [
            (job, coverage, ref)
            for job in self.plan.jobs
            for coverage in [_JobCoverage(self.plan, self.polygons, job)]
            for ref in job.reads
        ]
        blocks = self.source.read([part for _, _, ref in steps for part in (*ref.beneath, ref)], self.bands)

        def one(job: Job, coverage: _JobCoverage, ref: BlockRef, fetched: Sequence[Block | ReadError]) -> T | ReadError:
            inside = coverage.in_block(ref)
            failed = next((part for part in fetched if isinstance(part, ReadError)), None)
            if failed is not None:
                return failed
            *above, block = [part for part in fetched if not isinstance(part, ReadError)]
            try:
                hidden = _hidden(ref, above)
                return work(_Task(job=job, ref=ref, block=block, coverage=inside, areas=coverage.areas, hidden=hidden))
            except DamagedPixels as damage:
                return _damage(ref, self.bands, damage)
            except ReadError as error:
                return error

        with ThreadPoolExecutor(self.workers, thread_name_prefix="reduce") as pool:
            waiting: deque[tuple[Job, BlockRef, Future[T | ReadError]]] = deque()
            try:
                for job, coverage, ref in steps:
                    fetched = [next(blocks) for _ in range(len(ref.beneath) + 1)]
                    waiting.append((job, ref, pool.submit(one, job, coverage, ref, fetched)))
                    if len(waiting) > self.workers:
                        yield _result(waiting.popleft())
                while waiting:
                    yield _result(waiting.popleft())
            finally:  # an error or Ctrl-C: don't start what is still waiting
                pool.shutdown(cancel_futures=True)


def _result(waited: tuple[Job, BlockRef, Future[T]]) -> tuple[Job, BlockRef, T]:
    job, ref, future = waited
    return job, ref, future.result()


def _summing(n_bands: int, needs: Needs, merger: _Merger) -> Callable[[_Task], tuple[Reduced, NDArray[np.int64]]]:
    """Return the first pass's work: everything that adds up. Each thread keeps its scratch buffer."""
    local = threading.local()

    def work(task: _Task) -> tuple[Reduced, NDArray[np.int64]]:
        if not hasattr(local, "reducer"):
            local.reducer = BlockReducer(n_bands, needs)
        reducer: BlockReducer = local.reducer
        reduced = reducer.reduce(
            task.block,
            task.coverage,
            alone=merger.alone(task.job, task.ref),
            hidden=task.hidden,
            check_norms=task.block.checks_norms,
        )
        return reduced, task.areas

    return work


def _looking_for_medoids(merger: _Merger) -> Callable[[_Task], Candidates]:
    """Return the second pass's work: the pixel nearest each polygon's mean."""

    def work(task: _Task) -> Candidates:
        ref = task.ref
        return find_candidates(
            task.block,
            task.coverage,
            merger.means(task.job, ref),
            window=ref.window,
            flip_y=ref.flip_y,
            flip_x=ref.flip_x,
            hidden=task.hidden,
        )

    return work


def _hidden(ref: BlockRef, above: Sequence[Block]) -> NDArray[np.int64] | None:
    """Positions, in a block's stored order, of pixels that earlier tiles hold too and have data for."""
    if not above:
        return None
    window = ref.window
    codes = np.full((1, window.height, window.width), NODATA, np.int8)
    for block in above:
        paste(codes, window, _FirstBand(block))
    taken = codes[0] != NODATA
    return np.flatnonzero(taken[:: -1 if ref.flip_y else 1, :: -1 if ref.flip_x else 1])


class _FirstBand:
    """A block with its first part only: enough to know which pixels are valid."""

    checks_norms = False

    def __init__(self, block: Block) -> None:
        self._block, self.ref = block, block.ref

    n_parts = 1

    def part_bands(self, part: int) -> Sequence[int]:
        return (0,)

    def decode(self, part: int, scratch: NDArray[Any] | None = None) -> NDArray[Any]:
        return self._block.decode(0)[:1]


def _damage(ref: BlockRef, bands: Sequence[str], damage: DamagedPixels) -> ReadError:
    row, col = divmod(int(damage.positions[0]), ref.window.width)
    return ReadError(
        f"{ref.tile}: block (row {ref.index[0]}, column {ref.index[1]}), band {bands[damage.band]} (most likely): "
        f"damaged: {len(damage.positions)} pixels aren't unit vectors; the first (row {row}, column {col}) has "
        f"length {damage.norm:.3f}; fetch the tile again",
        url=ref.tile,
        year=ref.year,
    )


class _JobCoverage:
    """A job's coverage: computed once, by the first thread that needs it, for all years."""

    def __init__(self, plan: Plan, polygons: Polygons, job: Job) -> None:
        self._plan, self._polygons, self._job = plan, polygons, job
        self._lock = threading.Lock()
        self._coverage: Coverage | None = None
        self._in_block: dict[tuple[Window, Window, bool, bool], BlockCoverage] = {}
        self._left = len(job.reads)
        self.areas = np.zeros(0, np.int64)
        """Covered area of each piece, whole, in pixels * 2^24; known once a block has been asked for."""

    def in_block(self, ref: BlockRef) -> BlockCoverage:
        """Return the coverage inside a block of this job."""
        with self._lock:
            if self._coverage is None:
                pieces = [self._plan.pieces[i] for i in self._job.pieces]
                self._coverage = compute_coverage(self._polygons.pieces(pieces))
                self.areas = self._coverage.weights
            key = (ref.window, ref.inside, ref.flip_y, ref.flip_x)
            if key not in self._in_block:
                self._in_block[key] = clip_to_block(
                    self._coverage, ref.window, inside=ref.inside, flip_y=ref.flip_y, flip_x=ref.flip_x
                )
            found = self._in_block[key]
            self._left -= 1
            if self._left == 0:  # the last year: free the memory
                self._coverage, self._in_block = None, {}
            return found


class _Merger:
    """Adds blocks' partials, and turns them into numbers as soon as a polygon's last block is in."""

    def __init__(
        self, plan: Plan, years: Sequence[int], names: Sequence[str], needs: Needs, results: Results, on_error: str
    ) -> None:
        self._plan, self._names, self._needs, self._results, self._on_error = plan, names, needs, results, on_error
        self._column = {year: i for i, year in enumerate(years)}
        self._owner = np.array([piece.polygon for piece in plan.pieces], np.int64)
        self._skips = {i: frozenset(piece.skip) for i, piece in enumerate(plan.pieces) if piece.skip}
        self._piece_area = np.zeros(len(plan.pieces), np.int64)
        n, n_years, n_bands = results.statistics["mean"].shape
        self._blocks_left = np.zeros((n, n_years), np.int64)
        for job in plan.jobs:
            for ref in job.reads:
                owner = self._owner[self._pieces(job, ref)[0]]
                self._blocks_left[:, self._column[ref.year]] += np.bincount(owner, minlength=n)
        results.status[self._blocks_left > 0] = "masked"
        # most polygons lie in one block and are finished at once; only the others' sums are kept
        several = self._blocks_left > 1
        self._slot = np.full((n, n_years), -1, np.int64)
        self._slot[several] = np.arange(several.sum())
        self._kept = Partials.zeros(int(several.sum()), n_bands, needs)
        self._histograms: dict[int, NDArray[np.int64]] = {}  # slot -> (bands, 256), while blocks are missing
        self._candidates: dict[tuple[int, int], Candidates] = {}
        self._unit = CODE_UNIT
        self._failed = np.zeros((n, n_years), np.bool_)
        for failure in plan.failures:
            self._fail(failure)

    def _pieces(self, job: Job, ref: BlockRef) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the job's pieces that want a block (another zone may serve some in its year), and which they are."""
        pieces = np.array(job.pieces, np.int64)
        wanted = np.ones(len(pieces), np.bool_)
        if self._skips:
            wanted[:] = [ref.year not in self._skips.get(i, ()) for i in job.pieces]
        return pieces[wanted], wanted

    def alone(self, job: Job, ref: BlockRef) -> NDArray[np.bool_]:
        """Which of a job's pieces are all of their polygon, and in this block."""
        alone: NDArray[np.bool_] = self._slot[self._owner[list(job.pieces)], self._column[ref.year]] < 0
        return alone

    def means(self, job: Job, ref: BlockRef) -> NDArray[np.float64]:
        """Return the finished means of a job's polygons, shape (pieces, bands)."""
        means: NDArray[np.float64] = self._results.statistics["mean"][
            self._owner[list(job.pieces)], self._column[ref.year]
        ]
        return means

    def add(self, job: Job, ref: BlockRef, outcome: tuple[Reduced, NDArray[np.int64]] | ReadError) -> None:
        pieces, wanted = self._pieces(job, ref)
        owner, year = self._owner[pieces], self._column[ref.year]
        self._blocks_left[owner, year] -= 1
        if isinstance(outcome, ReadError):
            polygons = tuple(np.unique(owner).tolist())
            self._fail(Failure(str(outcome), ref.year, polygons, outcome.url))
            return
        reduced, areas = outcome
        self._piece_area[list(job.pieces)] = areas
        self._unit = reduced.unit
        slots = self._slot[owner, year]
        alone = slots < 0
        rows = np.flatnonzero(wanted)
        self._write(owner[alone], year, reduced.partials.take(rows[alone]), reduced.quantiles[rows[alone]])
        # pieces of one polygon lie in different zones, so no slot comes twice
        self._kept.add(reduced.partials.take(rows[~alone]), slots[~alone])
        if self._needs.quantiles:
            in_several = np.cumsum(~self.alone(job, ref)) - 1  # row among the histograms
            for row, slot, polygon in zip(rows[~alone], slots[~alone], owner[~alone], strict=True):
                self._add_histogram(int(slot), int(polygon), year, reduced.histograms[in_several[row]])

    def _add_histogram(self, slot: int, polygon: int, year: int, histogram: NDArray[np.int64]) -> None:
        known = self._histograms.get(slot)
        self._histograms[slot] = histogram.copy() if known is None else known + histogram
        if self._blocks_left[polygon, year] == 0:
            finished = quantiles(self._histograms.pop(slot), self._needs.quantiles)
            self._write_quantiles(polygon, year, finished)

    def add_candidates(self, job: Job, ref: BlockRef, outcome: Candidates | ReadError) -> None:
        _, wanted = self._pieces(job, ref)
        year = self._column[ref.year]
        owner = self._owner[list(job.pieces)]
        if isinstance(outcome, ReadError):
            polygons = tuple(np.unique(owner[wanted]).tolist())
            self._fail(Failure(str(outcome), ref.year, polygons, outcome.url))
            return
        values, similarity = self._results.statistics["medoid"], self._results.similarity
        for row in np.flatnonzero(wanted & np.isfinite(outcome.similarity)):
            key = (int(owner[row]), year)
            here = outcome.take([row])
            if key not in self._candidates or self._candidates[key].better(here)[0]:
                self._candidates[key] = here
                values[key], similarity[key] = here.vectors[0], here.similarity[0]

    def finish(self, polygons: Polygons) -> None:
        """Write the polygons of several blocks, and each polygon's valid fraction."""
        for year in self._column.values():
            rows = np.flatnonzero(self._slot[:, year] >= 0)
            self._write(rows, year, self._kept.take(self._slot[rows, year]), None)
        area = self._areas(polygons) / FULL
        np.divide(self._results.n_pixels, area, out=self._results.valid_fraction, where=area > 0)

    def blank_failures(self) -> None:
        """Let no number stand whose polygon has a block that couldn't be read."""
        self._results.status[self._failed] = "error"
        for numbers in self._results.numbers():
            numbers[self._failed] = np.nan

    def _fail(self, failure: Failure) -> None:
        if self._on_error == "raise":
            raise ReadError(failure.message, url=failure.url, year=failure.year)
        if failure not in self._results.failures:
            self._results.failures.append(failure)
        self._failed[list(failure.polygons), self._column[failure.year]] = True

    def _write(
        self, rows: NDArray[np.int64], year: int, partials: Partials, quantiles_: NDArray[np.float64] | None
    ) -> None:
        values = self._results.statistics
        n_pixels = partials.n_pixels()
        values["mean"][rows, year] = partials.means(self._unit)
        if "std" in values:
            values["std"][rows, year] = partials.stds(self._unit)
        for name, end in (("min", "low"), ("max", "high")):
            if name in values:
                values[name][rows, year] = partials.extremes(self._unit, end)
        if "count" in values:
            counts = partials["count"][:, None].astype(np.float64)
            values["count"][rows, year] = np.where(counts > 0, counts, np.nan)
        if quantiles_ is not None:
            self._write_quantiles(rows, year, quantiles_)
        self._results.n_pixels[rows, year] = n_pixels
        self._results.status[rows, year] = np.where(n_pixels > 0, "ok", "masked")

    def _write_quantiles(self, rows: Any, year: int, finished: NDArray[np.float64]) -> None:
        """`finished` has a last axis of levels, in the order they were asked for."""
        for level, name in enumerate(name for name in self._names if quantile_of(name) is not None):
            self._results.statistics[name][rows, year] = finished[..., level]

    def _areas(self, polygons: Polygons) -> NDArray[np.int64]:
        """Return the polygons' whole areas in 2^-24 pixels, in the zones that serve each year, shape (n, years)."""
        area = np.zeros(self._results.n_pixels.shape, np.int64)
        n_pieces = np.bincount(self._owner, minlength=len(area))
        alone = n_pieces[self._owner] == 1
        area[self._owner[alone]] = self._piece_area[alone, None]
        for i in np.flatnonzero(~alone).tolist():
            piece = self._plan.pieces[i]
            if not self._piece_area[i]:  # no tile holds this piece, but one may hold another of the polygon's
                self._piece_area[i] = compute_coverage(polygons.pieces([piece])).weights[0]
            served = [column for year, column in self._column.items() if year not in piece.skip]
            area[self._owner[i], served] += self._piece_area[i]
        return area


@contextmanager
def _reporter(progress: Progress, total: int) -> Iterator[Callable[[], object]]:
    """Report finished blocks: to nobody, to a bar, or to the caller's function."""
    if callable(progress):
        count = itertools.count(1)
        yield lambda: progress(next(count), total)
    elif progress:
        from tqdm.auto import tqdm

        with tqdm(total=total, unit="block", desc="extract") as bar:

            def advance() -> None:
                bar.update(1)

            yield advance
    else:
        yield lambda: None

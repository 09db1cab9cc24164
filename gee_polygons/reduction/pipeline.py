"""Plan -> read -> reduce: from polygons to their numbers, on one machine.

Blocks are read in order, a few ahead, and reduced by a few threads that share nothing: each block gives integer partial
sums, and the calling thread merges them. So the result doesn't depend on the number of threads.
"""

from __future__ import annotations

import gc
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import NODATA
from gee_polygons.errors import ReadError
from gee_polygons.reduction.coverages import Coverages
from gee_polygons.reduction.merging import Merger, Results, StoppedError
from gee_polygons.reduction.plan import Block, BlockRef, Job, PixelSource, Plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.windows import paste
from gee_polygons.zonal.areas import weigh
from gee_polygons.zonal.coverage import BlockCoverage, Coverage, clip_to_block
from gee_polygons.zonal.damage import DamagedPixels
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.medoid import Candidates, find_candidates
from gee_polygons.zonal.reduce import BlockReducer, Reduced
from gee_polygons.zonal.statistics import Needs, parse_statistics

Progress = bool | Callable[[int, int], object]
T = TypeVar("T")


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
    names: Sequence[object] | None = None,
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
    names : sequence, optional
        What the polygons are called, for messages.

    Returns
    -------
    Results

    Raises
    ------
    ReadError
        With ``on_error="raise"``, for the first read that failed.
    """
    wanted, needs = parse_statistics(statistics)
    asked = Polygons(polygons)
    how = _How(source, asked, tuple(years), tuple(bands), wanted, needs, on_error, max_workers or os.cpu_count() or 1)
    with _collector_paused():
        plan = source.plan(asked, years)
    try:
        with _reporter(progress, plan.blocks * (2 if needs.medoid else 1)) as advance:
            return _reduce(source, plan, how, advance)
    except StoppedError as stopped:
        raise stopped.named(names) from stopped.__cause__


def _reduce(source: PixelSource, plan: Plan, how: _How, advance: Callable[[], object]) -> Results:
    """Work a plan, and another for what turned out to have no data."""
    results = _run_plan(plan, how, advance)
    if isinstance(source, Replanning) and (incomplete := _incomplete(results, how.years)):
        with _collector_paused():
            again = source.replan(how.polygons, incomplete)
        if again is not None:
            _improve(results, _run_plan(again, how, lambda: None))
    return results


@runtime_checkable
class Replanning(Protocol):
    """A source that may know another way to pixels that turned out to have no data."""

    def replan(self, polygons: Polygons, incomplete: Sequence[tuple[int, int]]) -> Plan | None:
        """Plan anew for (polygon, year) pairs, or say that nothing else can be had."""
        ...


@dataclass(frozen=True)
class _How:
    """What is wanted, from where, and how."""

    source: PixelSource
    polygons: Polygons
    years: tuple[int, ...]
    bands: tuple[str, ...]
    names: tuple[str, ...]
    needs: Needs
    on_error: str
    workers: int


def _run_plan(plan: Plan, how: _How, advance: Callable[[], object]) -> Results:
    results = Results.empty(len(how.polygons), len(how.years), len(how.bands), how.names)
    merger = Merger(plan, how.years, how.names, how.needs, results, how.on_error)
    runner = _Runner(how.source, plan, how.polygons, how.bands, how.workers)
    for job, ref, outcome in runner.run(_summing(len(how.bands), how.needs, merger)):
        merger.add(job, ref, outcome)
        advance()
    merger.finish(how.polygons)
    if how.needs.medoid:
        for job, ref, candidates in runner.run(_looking_for_medoids(merger)):
            merger.add_candidates(job, ref, candidates)
            advance()
    merger.blank_failures()
    return results


def _incomplete(results: Results, years: Sequence[int]) -> list[tuple[int, int]]:
    """List the (polygon, year) pairs that were covered by tiles but lack pixels."""
    short = np.isin(results.status, ("ok", "masked")) & (results.valid_fraction < 1)
    return [(int(polygon), years[year]) for polygon, year in np.argwhere(short)]


def _improve(results: Results, others: Results) -> None:
    """Take over what another plan found where there was nothing, or where it has half a pixel more.

    Half a pixel, because the pixels of two zones differ a little in size.
    """
    share = results.valid_fraction
    area = np.divide(results.n_pixels, share, out=np.zeros_like(share), where=share > 0)
    gained = (others.valid_fraction - share) * area
    better = (gained > 0.5) | ((results.n_pixels == 0) & (others.n_pixels > 0)) | (others.status == "error")
    for mine, theirs in zip(results.numbers(), others.numbers(), strict=True):
        mine[better] = theirs[better]
    results.status[better] = others.status[better]
    results.failures += [failure for failure in others.failures if failure not in results.failures]


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
        coverages = Coverages(self.plan, self.polygons)
        steps = [
            (job, coverage, ref)
            for job in self.plan.jobs
            for coverage in [_JobCoverage(self.plan, coverages, job)]
            for ref in job.reads
        ]
        blocks = self.source.read([ref for _, _, ref in steps], self.bands)
        # of an overlapping tile that comes first, one band says which pixels it holds
        hiding = self.source.read([part for _, _, ref in steps for part in ref.beneath], self.bands[:1])

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
                    fetched = [*(next(hiding) for _ in ref.beneath), next(blocks)]
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


def _summing(n_bands: int, needs: Needs, merger: Merger) -> Callable[[_Task], tuple[Reduced, NDArray[np.int64]]]:
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


def _looking_for_medoids(merger: Merger) -> Callable[[_Task], Candidates]:
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
        paste(codes, window, block)
    taken = codes[0] != NODATA
    return np.flatnonzero(taken[:: -1 if ref.flip_y else 1, :: -1 if ref.flip_x else 1])


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

    def __init__(self, plan: Plan, coverages: Coverages, job: Job) -> None:
        self._plan, self._coverages, self._job = plan, coverages, job
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
                self._coverage = self._coverages.of(self._job.pieces)
                self.areas = self._coverage.weights
            key = (ref.window, ref.inside, ref.flip_y, ref.flip_x)
            if key not in self._in_block:
                clipped = clip_to_block(
                    self._coverage, ref.window, inside=ref.inside, flip_y=ref.flip_y, flip_x=ref.flip_x
                )
                if self._plan.by_area:
                    clipped = weigh(clipped, self._job.lattice, ref.window, flip_y=ref.flip_y)
                self._in_block[key] = clipped
            found = self._in_block[key]
            self._left -= 1
            if self._left == 0:  # the last year: free the memory
                self._coverage, self._in_block = None, {}
            return found


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python's cycle collector still while a plan is made.

    A plan is tens of thousands of small objects without a cycle; counting them brings on full collections, which go
    through all that the process holds: 0.05 to 0.1 s each, of the second that 10,000 fields take.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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

"""Reduces a source's pixels over polygons on one machine: plans, reads blocks, reduces them in threads, merges.

Blocks are read in order, a few ahead, and reduced by a few threads that share nothing: each block gives integer partial
sums, and the calling thread merges them. So the result doesn't depend on the number of threads.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import NODATA
from gee_polygons.errors import ReadError, warn_data
from gee_polygons.network.hosts import interruptible
from gee_polygons.progress import Progress, heeding_interrupts, report_progress, report_stage
from gee_polygons.reduction.checking import BlockDamage, damage_error, describe_damage, reduce_checked
from gee_polygons.reduction.coverages import JobCoverage, PieceCoverages
from gee_polygons.reduction.merging import BlockSums, Merger, Results, StoppedError
from gee_polygons.reduction.plan import Block, BlockRef, BlockSource, Job, PixelSource, Plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.sharing import SharedSums
from gee_polygons.reduction.threads import in_order
from gee_polygons.reduction.windows import paste
from gee_polygons.zonal.clipping import BlockCoverage
from gee_polygons.zonal.damage import NO_SUSPECTS, Suspects
from gee_polygons.zonal.medoid import Candidates, find_candidates
from gee_polygons.zonal.reduce import BlockReducer, Reduced
from gee_polygons.zonal.statistics import Needs, parse_statistics

T = TypeVar("T")


def reduce_polygons(
    source: BlockSource,
    polygons: NDArray[Any],
    years: Sequence[int],
    *,
    bands: Sequence[str],
    statistics: Sequence[str] = ("mean",),
    on_error: str = "raise",
    on_damage: str = "warn",
    progress: Progress = False,
    max_workers: int | None = None,
    names: Sequence[object] | None = None,
) -> Results:
    """Reduce a pixel source over polygons.

    Parameters
    ----------
    source : BlockSource
        Where the pixels are.
    polygons : array of shapely Polygon or MultiPolygon
        EPSG:4326, valid.
    years, bands, statistics : sequences
        What to compute.
    on_error : {"raise", "collect"}
        Whether a failed read stops everything or only spoils the polygons it concerns.
    on_damage : {"warn", "raise"}
        Whether pixels that can't be unit vectors, although two readings agree on them, count with a `DataWarning`, or
        are a failed read.
    progress : bool or callable
        A bar, or a function called with (blocks done, blocks in all).
    max_workers : int, optional
        Threads. Default: one per core.
    names : sequence, optional
        Names of the polygons, for messages.

    Returns
    -------
    Results

    Raises
    ------
    ReadError
        With ``on_error="raise"``, for the first read that failed.
    """
    statistic_names, needs = parse_statistics(statistics)
    prepared = Polygons.of(polygons)
    settings = _Settings(
        source=source, polygons=prepared, years=tuple(years), bands=tuple(bands), names=statistic_names, needs=needs,
        on_error=on_error, on_damage=on_damage, workers=max_workers or os.cpu_count() or 1,
    )  # fmt: skip
    with heeding_interrupts():
        with report_stage(progress, "planning"), _collector_paused():
            plan = source.plan(prepared, years)
        try:
            total = plan.blocks * (2 if needs.medoid else 1)
            with report_progress(progress, total, unit="block", title="extract") as advance:
                results = _reduce(plan, settings, advance)
        except StoppedError as stopped:
            raise stopped.named(names) from stopped.__cause__
    if results.damage:
        warn_data(f"{describe_damage(results.damage)}. on_damage='raise' stops instead")
    return results


@runtime_checkable
class ReplanningSource(Protocol):
    """A source that may find pixels elsewhere for polygons whose tiles turned out to have no data."""

    def replan(self, polygons: Polygons, incomplete: Sequence[tuple[int, int]]) -> Plan | None:
        """Plan anew for (polygon, year) pairs; None if there is nothing else to read."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The arguments of `reduce_polygons`."""

    source: BlockSource
    polygons: Polygons
    years: tuple[int, ...]
    bands: tuple[str, ...]
    names: tuple[str, ...]
    """Of the statistics."""
    needs: Needs
    on_error: str
    on_damage: str
    workers: int


def _reduce(plan: Plan, settings: _Settings, advance: Callable[[int], object]) -> Results:
    """Reduce what a plan reads; then, if the source can, plan again for site-years that lack pixels."""
    source = settings.source
    results = _run_plan(plan, settings, advance)
    if isinstance(source, ReplanningSource) and (incomplete := _incomplete(results, settings.years)):
        with _collector_paused():
            again = source.replan(settings.polygons, incomplete)
        if again is not None:
            _improve(results, _run_plan(again, settings, lambda n: None))
    return results


def _run_plan(plan: Plan, settings: _Settings, advance: Callable[[int], object]) -> Results:
    results = _no_results(settings)
    merger = Merger(plan, settings.years, settings.needs, results, settings.on_error)
    _merge_plan(plan, settings, merger, advance)
    return results


def _no_results(settings: _Settings) -> Results:
    return Results.empty(len(settings.polygons), len(settings.years), len(settings.bands), settings.names)


def _merge_plan(plan: Plan, settings: _Settings, merger: Merger, advance: Callable[[int], object]) -> None:
    """Read and merge all blocks of a plan, which may be a part of the merger's."""
    left_out: dict[BlockRef, NDArray[np.int64]] = {}
    for job, ref, outcome in _run(plan, settings, _summing(settings, merger, left_out)):
        merger.add(job, ref, outcome)
        advance(1)
    merger.finish(settings.polygons)
    if settings.needs.medoid:
        for job, ref, candidates in _run(plan, settings, _looking_for_medoids(merger, left_out)):
            merger.add_candidates(job, ref, candidates)
            advance(1)
    merger.blank_failures()


@dataclass(frozen=True, kw_only=True)
class ChunkResults:
    """What `reduce_chunk` found.

    Parameters
    ----------
    results : Results
        Of all polygons given; valid for those with all of their blocks here.
    here, elsewhere : bool array, shape (polygons,)
        Whether a polygon has blocks in this chunk, and in others.
    shared : SharedSums
        Sums of the polygons with blocks both here and elsewhere.
    plan : Plan
        Of the blocks in this chunk.
    """

    results: Results
    here: NDArray[np.bool_]
    elsewhere: NDArray[np.bool_]
    shared: SharedSums
    plan: Plan


def reduce_chunk(
    source: PixelSource,
    polygons: NDArray[Any],
    years: Sequence[int],
    *,
    bands: Sequence[str],
    statistics: Sequence[str],
    choose: Callable[[Plan], tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    max_workers: int | None = None,
) -> ChunkResults:
    """Reduce the blocks that belong to one chunk of a run, of which each block is read in one chunk only.

    Parameters
    ----------
    source, polygons, years, bands, statistics, max_workers
        See `reduce_polygons`; failed reads are collected.
    choose : callable
        Takes the plan of whole polygons. Returns which of its jobs belong to this chunk, and which polygons count here.
    """
    names, needs = parse_statistics(statistics)
    prepared = Polygons.of(polygons)
    settings = _Settings(
        source=source, polygons=prepared, years=tuple(years), bands=tuple(bands), names=names, needs=needs,
        on_error="collect", on_damage="warn", workers=max_workers or os.cpu_count() or 1,
    )  # fmt: skip
    with heeding_interrupts():
        with _collector_paused():
            whole = source.plan(prepared, years)
        mine, counted = choose(whole)
        owner = np.array([piece.polygon for piece in whole.pieces], np.int64)
        here, elsewhere = np.zeros(len(prepared), np.bool_), np.zeros(len(prepared), np.bool_)
        jobs = []
        for job, is_mine in zip(whole.jobs, mine, strict=True):
            (here if is_mine else elsewhere)[owner[list(job.pieces)]] = True
            if is_mine and (pieces := tuple(i for i in job.pieces if counted[owner[i]])):
                jobs.append(replace(job, pieces=pieces))
        plan = replace(whole, jobs=tuple(jobs))
        results = _no_results(settings)
        merger = Merger(whole, years, needs, results, "collect", shared=here & elsewhere)
        _merge_plan(plan, settings, merger, lambda n: None)
    shared = merger.shared_sums(prepared, np.flatnonzero(here & elsewhere & counted))
    return ChunkResults(results=results, here=here, elsewhere=elsewhere, shared=shared, plan=plan)


def _incomplete(results: Results, years: Sequence[int]) -> list[tuple[int, int]]:
    """List the (polygon, year) pairs that were covered by tiles but lack pixels."""
    short = np.isin(results.status, ("ok", "masked")) & (results.valid_fraction < 1)
    return [(int(polygon), years[year]) for polygon, year in np.argwhere(short)]


def _improve(results: Results, others: Results) -> None:
    """Replace results by those of another plan where there were none, or where it found at least half a pixel more.

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
    known = {(block.tile, block.year, block.index) for block in results.damage}
    results.damage += [block for block in others.damage if (block.tile, block.year, block.index) not in known]


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A fetched block, with the coverage of the pieces that touch it."""

    job: Job
    ref: BlockRef
    block: Block
    coverage: BlockCoverage
    areas: NDArray[np.int64]  # of the job's pieces, whole, in units of 2^-24 pixels
    hidden: NDArray[np.int64] | None  # pixels that are counted from another tile


def _run(plan: Plan, settings: _Settings, work: Callable[[_Task], T]) -> Iterator[tuple[Job, BlockRef, T | ReadError]]:
    """Read a plan's blocks in order and work on them in threads; yield the outcomes in the same order.

    At most one block more than there are threads waits.
    """
    pieces = PieceCoverages(plan, settings.polygons)
    steps = [
        (job, coverage, ref) for job in plan.jobs for coverage in [JobCoverage(plan, pieces, job)] for ref in job.reads
    ]
    blocks = settings.source.read([ref for _, _, ref in steps], settings.bands)
    # of tiles that take precedence, one band says where they have data
    hiding = settings.source.read([part for _, _, ref in steps for part in ref.preceding], settings.bands[:1])

    fetched = ([*(next(hiding) for _ in ref.preceding), next(blocks)] for _, _, ref in steps)

    def one(step: tuple[tuple[Job, JobCoverage, BlockRef], list[Block | ReadError]]) -> T | ReadError:
        (job, coverage, ref), parts = step
        inside = coverage.in_block(ref)
        failed = next((part for part in parts if isinstance(part, ReadError)), None)
        if failed is not None:
            return failed
        *preceding, block = [part for part in parts if not isinstance(part, ReadError)]
        try:
            hidden = _hidden(ref, preceding)
            return work(_Task(job=job, ref=ref, block=block, coverage=inside, areas=coverage.areas, hidden=hidden))
        except ReadError as error:
            return error

    with interruptible():
        outcomes = in_order(settings.workers, one, zip(steps, fetched, strict=True))
        for (job, _, ref), outcome in zip(steps, outcomes, strict=True):
            yield job, ref, outcome


def _summing(
    settings: _Settings, merger: Merger, left_out: dict[BlockRef, NDArray[np.int64]]
) -> Callable[[_Task], BlockSums]:
    """Return the first pass's work: all sums over a block. Pixels that lack some bands are put into `left_out`."""
    local = threading.local()  # each thread keeps its reducer, and with it the array that blocks are decoded into

    def work(task: _Task) -> BlockSums:
        if not hasattr(local, "reducer"):
            local.reducer = BlockReducer(len(settings.bands), settings.needs)
        reducer: BlockReducer = local.reducer
        alone = merger.alone(task.job, task.ref)

        def reduce(block: Block, suspects: Suspects = NO_SUSPECTS, hidden: Any = task.hidden) -> Reduced:
            return reducer.reduce(
                block, task.coverage, alone=alone, hidden=hidden, check_lengths=block.checks_norms, suspects=suspects
            )

        def fetch_again() -> Block:
            found = next(settings.source.read([task.ref], settings.bands))
            if isinstance(found, ReadError):
                raise found
            return found

        reduced, pixels = reduce_checked(reduce, task.block, fetch_again)
        if pixels is None:
            return BlockSums(reduced, task.areas)
        if settings.on_damage == "raise":
            raise damage_error(task.ref, settings.bands, pixels)
        if len(pixels.incomplete):
            hidden = [pixels.incomplete] if task.hidden is None else [pixels.incomplete, task.hidden]
            left_out[task.ref] = np.unique(np.concatenate(hidden))
            reduced = reduce(fetch_again(), hidden=left_out[task.ref])
        return BlockSums(reduced, task.areas, BlockDamage.of(task.ref, pixels))

    return work


def _looking_for_medoids(merger: Merger, left_out: dict[BlockRef, NDArray[np.int64]]) -> Callable[[_Task], Candidates]:
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
            hidden=left_out.get(ref, task.hidden),
        )

    return work


def _hidden(ref: BlockRef, preceding: Sequence[Block]) -> NDArray[np.int64] | None:
    """Return the positions, in a block's stored order, of pixels that are counted from tiles that take precedence."""
    if not preceding:
        return None
    window = ref.window
    codes = np.full((1, window.height, window.width), NODATA, np.int8)
    for block in preceding:
        paste(codes, window, block)
    taken = codes[0] != NODATA
    return np.flatnonzero(taken[:: -1 if ref.flip_y else 1, :: -1 if ref.flip_x else 1])


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Switch Python's cyclic garbage collector off while a plan is made.

    A plan is tens of thousands of small objects without a cycle. Creating them sets off full collections, which go
    through every object of the process: 0.05 to 0.1 s each, of the second that 10,000 fields take.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

"""Polygons in, a table out: plan -> read -> reduce -> table, on one machine.

Pixel sources are reduced here, block by block, by a few threads that share nothing: each block gives integer partial
sums, and the calling thread adds them up. Sources that reduce on their own side (Earth Engine) join at the table.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.embeddings.directional import mean_resultant_length
from gee_polygons.embeddings.quantization import BANDS, NODATA
from gee_polygons.errors import ReadError, SiteError, UsageError
from gee_polygons.sources._planning import piece_rings
from gee_polygons.sources._window import paste
from gee_polygons.sources.base import Block, BlockRef, Failure, Job, PixelSource, Plan, Source, open_source
from gee_polygons.tables import columns, provenance
from gee_polygons.zonal.coverage import FULL, BlockCoverage, Coverage, clip_to_block, compute_coverage
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.partials import Partials
from gee_polygons.zonal.reduce import BlockReducer, DamagedPixels
from gee_polygons.zonal.zones import unwrap

if TYPE_CHECKING:
    from gee_polygons.layers import ContinuousLayer
    from gee_polygons.site import SiteCollection

__all__ = ["extract_continuous", "extract_embeddings"]

Progress = bool | Callable[[int, int], None]

STATISTICS: Final = ("mean",)
EMBEDDING_COLLECTION: Final = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"


def extract_embeddings(
    sites: Any,
    *,
    years: int | Iterable[int] | None = None,
    source: str | Source | None = None,
    statistics: Sequence[str] = ("mean",),
    bands: Sequence[str] | None = None,
    on_error: str = "raise",
    progress: Progress = False,
    max_workers: int | None = None,
) -> pd.DataFrame:
    """Extract yearly embeddings of polygons, weighted by the exact share of each pixel inside them.

    Parameters
    ----------
    sites : SiteCollection, Site or GeoDataFrame
        Polygons. A GeoDataFrame goes through `sites_from_geodataframe` first.
    years : int or iterable of int, optional
        Years, for example ``range(2018, 2025)``. A year that the source lacks gives rows with status ``"no_data"``.
        Default: all years of the source.
    source : str or Source, optional
        ``"sample"``, ``"source-coop"``, ``"earthengine"``, ``"mosaic"``, or the path or URL of an archive index or a
        GeoTIFF; see `open_source`.
    statistics : sequence of str
        ``"mean"``.
    bands : sequence of str, optional
        Some of A00..A63. `Rbar` needs all of them and is NaN otherwise.
    on_error : {"raise", "collect"}
        What a failed read does: stop, or give its rows the status ``"error"``, with the messages in
        ``table.attrs["errors"]``.
    progress : bool or callable
        A progress bar, or a function called with (blocks done, blocks in all).
    max_workers : int, optional
        Threads that decode and reduce. Default: one per core. The result doesn't depend on it.

    Returns
    -------
    pandas.DataFrame
        One row per site and year, always: site_id, year, A00..A63 (float64 means of unit vectors, not renormalised),
        Rbar (length of the mean), n_pixels (coverage-weighted valid pixels), valid_fraction (of the polygon's area),
        status (``"ok"``, ``"masked"``: covered, but no valid pixel; ``"no_data"``: no tile; ``"error"``).

    Raises
    ------
    UsageError
        Unknown band, statistic or source; years that make no sense.
    ReadError
        A read failed, naming the tile, block and band.

    Examples
    --------
    >>> from gee_polygons.sources.sample import sample_sites
    >>> table = extract_embeddings(sample_sites()[:2], years=2024, source="sample")
    >>> table.shape
    (2, 70)
    """
    collection = _as_sites(sites)
    names = _checked_bands(bands)
    wanted = _checked_statistics(statistics)
    if on_error not in ("raise", "collect"):
        raise UsageError(f"on_error is 'raise' or 'collect', found {on_error!r}")
    opened = open_source(source)
    if not isinstance(opened, PixelSource):
        raise UsageError(f"the source {opened.name!r} can't be reduced here")
    asked = _checked_years(years, opened)
    reduced = _reduce(opened, collection.polygons, asked, names, on_error, progress, max_workers)
    table = _table(collection.site_ids, asked, names, wanted, reduced)
    table.attrs["provenance"] = provenance(
        source=opened.name, archive=opened.archive, years=asked, statistics=wanted, bands=names
    )
    if on_error == "collect":
        table.attrs["errors"] = [_error_row(f, collection.site_ids) for f in reduced.failures]
    return table


def extract_continuous(
    sites: Any,
    layer: ContinuousLayer,
    *,
    start_date: str,
    end_date: str,
    reducer: str = "mean",
    frequency: str = "yearly",
    source: str | Source | None = None,
    progress: Progress = False,
) -> pd.DataFrame:
    """Reduce a layer to one row per site and year, as the Earth Engine package this one descends from does.

    Parameters
    ----------
    sites : SiteCollection, Site or GeoDataFrame
        Polygons.
    layer : ContinuousLayer
        `ALPHA_EMBEDDINGS`; other layers need Earth Engine.
    start_date, end_date : str
        ``"YYYY-MM-DD"``. An annual layer gives every year that the dates touch; both days count.
    reducer : {"mean"}
        Statistic.
    frequency : {"yearly"}
        One row per year.
    source, progress
        See `extract_embeddings`.

    Returns
    -------
    pandas.DataFrame
        Exactly the columns site_id, year, A00..A63. Site-years without data have no row.

    Raises
    ------
    UsageError
        For dates, a reducer, a frequency or a layer that can't be served.
    """
    if layer.collection_id != EMBEDDING_COLLECTION:
        raise UsageError(f"layer {layer.name!r} is on Earth Engine only, which comes with a later version")
    if frequency != "yearly":
        raise UsageError(f"{layer.name!r} is an annual layer: frequency is 'yearly', found {frequency!r}")
    if reducer != "mean":
        raise UsageError(f"reducer {reducer!r} isn't available for {layer.name!r}; use 'mean'")
    first, last = _date(start_date, "start_date"), _date(end_date, "end_date")
    if last < first:
        raise UsageError(f"end_date {end_date} is before start_date {start_date}; swap them")
    table = extract_embeddings(sites, years=range(first.year, last.year + 1), source=source, progress=progress)
    found = table.loc[table["status"] == "ok", ["site_id", "year", *layer.bands]].reset_index(drop=True)
    found.attrs = table.attrs
    return found


@dataclass
class _Reduced:
    """Results of all polygons and years, and what failed."""

    means: NDArray[np.float64]  # (polygons, years, bands)
    n_pixels: NDArray[np.float64]  # (polygons, years)
    valid_fraction: NDArray[np.float64]
    status: NDArray[np.object_]
    failures: list[Failure] = field(default_factory=list)


def _reduce(
    source: PixelSource,
    polygons: NDArray[Any],
    years: tuple[int, ...],
    bands: tuple[str, ...],
    on_error: str,
    progress: Progress,
    max_workers: int | None,
) -> _Reduced:
    polygons = unwrap(polygons)
    plan = source.plan(polygons, years)
    shape = (len(polygons), len(years))
    found = _Reduced(
        means=np.full((*shape, len(bands)), np.nan),
        n_pixels=np.zeros(shape),
        valid_fraction=np.zeros(shape),
        status=np.full(shape, "no_data", object),
    )
    merger = _Merger(plan, years, len(bands), found)
    for failure in plan.failures:
        merger.fail(failure, on_error)
    total = plan.blocks
    with _reporter(progress, total) as done:
        for job, ref, outcome in _reduced_blocks(source, plan, polygons, bands, max_workers):
            if isinstance(outcome, ReadError):
                spoiled = {plan.pieces[i].polygon for i in job.pieces if ref.year not in plan.pieces[i].skip}
                merger.fail(Failure(str(outcome), ref.year, tuple(sorted(spoiled)), outcome.url), on_error)
            else:
                merger.add(job, ref, outcome)
            done(1)
    merger.finish(polygons)
    return found


@dataclass(frozen=True)
class _Outcome:
    partials: Partials
    unit: float
    areas: NDArray[np.int64]  # of the job's pieces, pixels * 2^24


def _reduced_blocks(
    source: PixelSource, plan: Plan, polygons: NDArray[Any], bands: tuple[str, ...], max_workers: int | None
) -> Iterator[tuple[Job, BlockRef, _Outcome | ReadError]]:
    """Read blocks in order and reduce them in threads; at most one block more than there are threads waits."""
    workers = max_workers or os.cpu_count() or 1
    tasks = [
        (job, cover, ref) for job in plan.jobs for cover in [_JobCoverage(plan, polygons, job)] for ref in job.reads
    ]
    blocks = source.read([part for _, _, ref in tasks for part in (*ref.beneath, ref)], bands)
    local = threading.local()  # each thread keeps its scratch buffer

    def work(cover: _JobCoverage, ref: BlockRef, block: Block, above: Sequence[Block]) -> _Outcome | ReadError:
        if not hasattr(local, "reducer"):
            local.reducer = BlockReducer(len(bands))
        try:
            partials, unit = local.reducer.reduce(
                block, cover.in_block(ref), hidden=_hidden(ref, above), check_norms=block.checks_norms
            )
        except DamagedPixels as damage:
            return _damage(ref, bands, damage)
        except ReadError as error:
            return error
        return _Outcome(partials, unit, cover.areas)

    with ThreadPoolExecutor(workers, thread_name_prefix="reduce") as pool:
        waiting: deque[tuple[Job, BlockRef, Future[_Outcome | ReadError]]] = deque()
        try:
            for job, cover, ref in tasks:
                *above, block = [next(blocks) for _ in range(len(ref.beneath) + 1)]
                waiting.append((job, ref, pool.submit(_unless_failed, work, cover, ref, block, above)))
                if len(waiting) > workers:
                    job, ref, future = waiting.popleft()
                    yield job, ref, future.result()
            while waiting:
                job, ref, future = waiting.popleft()
                yield job, ref, future.result()
        finally:  # an error or Ctrl-C: don't start what is still waiting
            pool.shutdown(cancel_futures=True)


def _unless_failed(
    work: Callable[..., _Outcome | ReadError],
    cover: _JobCoverage,
    ref: BlockRef,
    block: Block | ReadError,
    above: Sequence[Block | ReadError],
) -> _Outcome | ReadError:
    failed = next((part for part in (block, *above) if isinstance(part, ReadError)), None)
    return failed if failed is not None else work(cover, ref, block, above)


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

    def __init__(self, plan: Plan, polygons: NDArray[Any], job: Job) -> None:
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
                self._coverage = compute_coverage(piece_rings(self._polygons, pieces))
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
    """Adds blocks' partials and turns them into numbers as soon as a polygon's last block is in."""

    def __init__(self, plan: Plan, years: Sequence[int], n_bands: int, found: _Reduced) -> None:
        self._plan, self._found = plan, found
        self._column = {year: i for i, year in enumerate(years)}
        self._owner = np.array([piece.polygon for piece in plan.pieces], np.int64)
        self._skips = {i: frozenset(piece.skip) for i, piece in enumerate(plan.pieces) if piece.skip}
        shape = found.n_pixels.shape
        reads = np.zeros(shape, np.int64)
        for job in plan.jobs:
            pieces = np.array(job.pieces, np.int64)
            for ref in job.reads:
                owner = self._owner[pieces[self._wanted(job, ref)]]
                reads[:, self._column[ref.year]] += np.bincount(owner, minlength=shape[0])
        found.status[reads > 0] = "masked"
        # most polygons lie in one block and are finished at once; only the others' sums are kept
        self._slot = np.full(shape, -1, np.int64)
        self._slot[reads > 1] = np.arange((reads > 1).sum())
        self._kept = Partials.zeros(int((reads > 1).sum()), n_bands)
        self._unit = 1.0
        self._piece_area = np.zeros(len(plan.pieces), np.int64)
        self._failed = np.zeros(shape, np.bool_)

    def _wanted(self, job: Job, ref: BlockRef) -> NDArray[np.bool_]:
        """Which of a job's pieces want a block; all but those that another zone serves in its year."""
        if not self._skips:
            return np.ones(len(job.pieces), np.bool_)
        return np.array([ref.year not in self._skips.get(i, ()) for i in job.pieces])

    def add(self, job: Job, ref: BlockRef, outcome: _Outcome) -> None:
        pieces = np.array(job.pieces, np.int64)
        self._piece_area[pieces] = outcome.areas
        self._unit = outcome.unit
        wanted = self._wanted(job, ref)
        owner, year = self._owner[pieces], self._column[ref.year]
        slots = self._slot[owner, year]
        alone = wanted & (slots < 0)
        self._write(owner[alone], np.full(alone.sum(), year), outcome.partials.take(alone))
        shared = wanted & (slots >= 0)
        self._kept.add(outcome.partials.take(shared), slots[shared])

    def fail(self, failure: Failure, on_error: str) -> None:
        if on_error == "raise":
            raise ReadError(failure.message, url=failure.url, year=failure.year)
        self._found.failures.append(failure)
        self._failed[list(failure.polygons), self._column[failure.year]] = True

    def finish(self, polygons: NDArray[Any]) -> None:
        rows, years = np.nonzero(self._slot >= 0)
        self._write(rows, years, self._kept.take(self._slot[rows, years]))
        area = self._areas(polygons) / FULL
        np.divide(self._found.n_pixels, area, out=self._found.valid_fraction, where=area > 0)
        self._found.status[self._failed] = "error"
        for values in (self._found.means, self._found.n_pixels, self._found.valid_fraction):
            values[self._failed] = np.nan

    def _write(self, rows: NDArray[np.int64], years: NDArray[np.int64], partials: Partials) -> None:
        n_pixels = partials.n_pixels()
        self._found.means[rows, years] = partials.means(self._unit)
        self._found.n_pixels[rows, years] = n_pixels
        self._found.status[rows, years] = np.where(n_pixels > 0, "ok", "masked")

    def _areas(self, polygons: NDArray[Any]) -> NDArray[np.int64]:
        """Return the polygons' whole areas in 2^-24 pixels, in the zones that serve each year, shape (n, years)."""
        area = np.zeros(self._found.n_pixels.shape, np.int64)
        n_pieces = np.bincount(self._owner, minlength=len(area))
        alone = n_pieces[self._owner] == 1
        area[self._owner[alone]] = self._piece_area[alone, None]
        for i in np.flatnonzero(~alone).tolist():
            piece = self._plan.pieces[i]
            if not self._piece_area[i]:  # no tile holds this piece, but one may hold another of the polygon's
                self._piece_area[i] = compute_coverage(piece_rings(polygons, [piece])).weights[0]
            served = [column for year, column in self._column.items() if year not in piece.skip]
            area[self._owner[i], served] += self._piece_area[i]
        return area


def _table(
    site_ids: Sequence[int | str],
    years: Sequence[int],
    bands: Sequence[str],
    statistics: Sequence[str],
    found: _Reduced,
) -> pd.DataFrame:
    """Lay results out: site after site, year after year."""
    n_sites, n_years = found.n_pixels.shape
    means = found.means.reshape(n_sites * n_years, len(bands))
    frame = pd.DataFrame(means, columns=columns(bands, statistics), copy=False)
    frame.insert(0, "site_id", np.repeat(np.array(site_ids, dtype=_id_type(site_ids)), n_years))
    frame.insert(1, "year", np.tile(np.array(years, np.int64), n_sites))
    frame["Rbar"] = mean_resultant_length(means)
    frame["n_pixels"] = found.n_pixels.ravel()
    frame["valid_fraction"] = found.valid_fraction.ravel()
    frame["status"] = found.status.ravel().astype(str)
    return frame


def _id_type(site_ids: Sequence[int | str]) -> type:
    return int if all(isinstance(site_id, int) for site_id in site_ids) and site_ids else object


def _error_row(failure: Failure, site_ids: Sequence[int | str]) -> dict[str, Any]:
    return {
        "year": failure.year,
        "site_ids": [site_ids[i] for i in failure.polygons],
        "url": failure.url,
        "message": failure.message,
    }


def _as_sites(sites: Any) -> SiteCollection:
    from gee_polygons.site import Site, SiteCollection, sites_from_geodataframe

    if isinstance(sites, SiteCollection):
        return sites
    if isinstance(sites, Site):
        return SiteCollection([sites])
    if hasattr(sites, "geometry") and hasattr(sites, "crs"):
        return sites_from_geodataframe(sites)
    if isinstance(sites, Sequence) and sites and all(isinstance(site, Site) for site in sites):
        return SiteCollection(sites)
    raise SiteError(
        f"sites are a SiteCollection, a Site or a GeoDataFrame, found {type(sites).__name__}; see load_sites"
    )


def _checked_bands(bands: Sequence[str] | None) -> tuple[str, ...]:
    names = BANDS if bands is None else tuple([bands] if isinstance(bands, str) else bands)
    unknown = [name for name in names if name not in BANDS]
    if unknown:
        raise UsageError(f"unknown band {unknown[0]!r}; there are A00..A63")
    if not names or len(set(names)) != len(names):
        raise UsageError(f"bands are some of A00..A63, each once, found {list(names)}")
    return names


def _checked_statistics(statistics: Sequence[str]) -> tuple[str, ...]:
    names = tuple([statistics] if isinstance(statistics, str) else statistics)
    unknown = [name for name in names if name not in STATISTICS]
    if unknown or not names:
        raise UsageError(f"unknown statistic {unknown[0] if unknown else ''!r}; there are {', '.join(STATISTICS)}")
    return names


def _checked_years(years: int | Iterable[int] | None, source: Source) -> tuple[int, ...]:
    if years is None:
        return tuple(source.years())
    asked = [years] if isinstance(years, (int, np.integer)) else list(years)
    whole = [int(year) for year in asked if isinstance(year, (int, np.integer))]
    if len(whole) != len(asked) or any(not 1900 <= year <= 2200 for year in whole):
        raise UsageError(f"years are whole numbers such as 2024, found {asked}")
    if not whole:
        raise UsageError("no years: the range is empty; is its end before its start?")
    if len(set(whole)) != len(whole):
        raise UsageError(f"years are given twice: {whole}")
    return tuple(sorted(whole))


def _date(text: str, name: str) -> pd.Timestamp:
    try:
        return pd.Timestamp(text)
    except ValueError as error:
        raise UsageError(f"{name} is a date such as '2018-01-01', found {text!r}") from error


@contextmanager
def _reporter(progress: Progress, total: int) -> Iterator[Callable[[int], None]]:
    """Report finished blocks: to nobody, to a bar, or to the caller's function."""
    if callable(progress):
        count = itertools.count(1)
        yield lambda _: progress(next(count), total)
    elif progress:
        from tqdm.auto import tqdm

        with tqdm(total=total, unit="block", desc="extract") as bar:

            def advance(n: int) -> None:
                bar.update(n)

            yield advance
    else:
        yield lambda _: None

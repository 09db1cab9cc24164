"""Merges the partial sums of blocks into the statistics of polygons.

Most polygons lie in one block: their statistics are finished as soon as that is merged. Only sums of others are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gee_polygons.errors import ReadError, TileError
from gee_polygons.reduction.checking import BlockDamage
from gee_polygons.reduction.plan import BlockRef, Failure, Job, Plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.reduction.sharing import SharedSums
from gee_polygons.zonal.coverage import FULL, compute_coverage
from gee_polygons.zonal.medoid import Candidates
from gee_polygons.zonal.partials import CODE_SCALE, Partials
from gee_polygons.zonal.reduce import Reduced
from gee_polygons.zonal.statistics import Needs, quantile_of, quantiles


@dataclass(kw_only=True)
class Results:
    """Statistics of all polygons and years.

    Parameters
    ----------
    statistics : dict of name to float64 array, shape (polygons, years, bands)
        NaN without a valid pixel. Always has ``"mean"``.
    n_pixels, valid_fraction : float64 array, shape (polygons, years)
        Coverage-weighted valid pixels, and their share of the polygon's area.
    similarity : float64 array, shape (polygons, years)
        Cosine of the medoid to the mean; NaN unless the medoid is among the statistics.
    status : object array, shape (polygons, years)
        ``"ok"``, ``"masked"``, ``"no_data"`` or ``"error"``.
    failures : list of Failure
        Reads that failed.
    damage : list of BlockDamage
        Blocks with pixels that can't be unit vectors, and count all the same.
    """

    statistics: dict[str, NDArray[np.float64]]
    n_pixels: NDArray[np.float64]
    valid_fraction: NDArray[np.float64]
    similarity: NDArray[np.float64]
    status: NDArray[np.object_]
    failures: list[Failure] = field(default_factory=list)
    damage: list[BlockDamage] = field(default_factory=list)

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

    def write(self, rows: Any, year: Any, partials: Partials, scale: float) -> None:
        """Write the statistics of sums into rows, in a year or, as pairs, in one year each; all but quantiles."""
        n_pixels = partials.n_pixels()
        for name, values in self.statistics.items():
            if name == "mean":
                values[rows, year] = partials.means(scale)
            elif name == "std":
                values[rows, year] = partials.stds(scale)
            elif name in ("min", "max"):
                values[rows, year] = partials.extremes(scale, "low" if name == "min" else "high")
            elif name == "count":
                counts = partials["count"][:, None].astype(np.float64)
                values[rows, year] = np.where(counts > 0, counts, np.nan)
        self.n_pixels[rows, year] = n_pixels
        self.status[rows, year] = np.where(n_pixels > 0, "ok", "masked")

    def write_quantiles(self, rows: Any, year: Any, finished: NDArray[np.float64]) -> None:
        """Write quantiles whose last axis is the levels, in the order of the statistics' names."""
        names = [name for name in self.statistics if quantile_of(name) is not None]
        for level, name in enumerate(names):
            self.statistics[name][rows, year] = finished[..., level]

    def take(self, rows: NDArray[np.int64]) -> Results:
        """Return the results of some polygons, with all failures and damage."""
        return replace(
            self,
            statistics={name: values[rows] for name, values in self.statistics.items()},
            n_pixels=self.n_pixels[rows], valid_fraction=self.valid_fraction[rows],
            similarity=self.similarity[rows], status=self.status[rows],
        )  # fmt: skip

    def numbers(self) -> Iterator[NDArray[np.float64]]:
        """Yield every array that a failed read must blank."""
        yield from (*self.statistics.values(), self.n_pixels, self.valid_fraction, self.similarity)


@dataclass(frozen=True)
class BlockSums:
    """What a block contributes to the pieces of its job.

    Parameters
    ----------
    reduced : Reduced
        Its sums.
    areas : int64 array, shape (pieces,)
        Covered area of each piece as a whole, in units of 2^-24 pixels.
    damage : BlockDamage, optional
        Its pixels that can't be unit vectors.
    """

    reduced: Reduced
    areas: NDArray[np.int64]
    damage: BlockDamage | None = None


class StoppedError(Exception):
    """A block can't be read; internal: the caller adds the sites' names (`named`) and raises that error instead."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    def named(self, names: Sequence[object] | None = None) -> ReadError | TileError:
        """Return the error to be raised, with the first site's name in front."""
        failure, more = self.failure, len(self.failure.polygons) - 1
        text = failure.message
        if names is not None and failure.polygons:
            text = f"site {names[failure.polygons[0]]!r}{f' and {more} more' if more > 0 else ''}: {text}"
        if failure.code == TileError.code:
            return TileError(text)
        return ReadError(text, url=failure.url, year=failure.year)


class Merger:
    """Adds the partial sums of blocks, and turns them into statistics as soon as a polygon's last block is merged.

    Parameters
    ----------
    plan : Plan
        The plan whose blocks are merged.
    years : sequence of int
        Years of the results.
    needs : Needs
        What the statistics need.
    results : Results
        Filled here.
    on_error : {"raise", "collect"}
        Whether a failed read raises `StoppedError` or is listed in `Results.failures`.
    shared : bool array, shape (polygons,), optional
        Polygons whose other blocks somebody else merges: their sums are kept for `shared_sums`.
    """

    def __init__(
        self,
        plan: Plan,
        years: Sequence[int],
        needs: Needs,
        results: Results,
        on_error: str,
        shared: NDArray[np.bool_] | None = None,
    ) -> None:
        self._plan, self._needs, self._results, self._on_error = plan, needs, results, on_error
        self._column = {year: i for i, year in enumerate(years)}
        self._owner = np.array([piece.polygon for piece in plan.pieces], np.int64)
        self._skips = {i: frozenset(piece.skip) for i, piece in enumerate(plan.pieces) if piece.skip}
        self._piece_area = np.zeros(len(plan.pieces), np.int64)
        n, n_years, n_bands = results.statistics["mean"].shape
        self._blocks_left = np.zeros((n, n_years), np.int64)
        for job in plan.jobs:
            for ref in job.reads:
                np.add.at(self._blocks_left[:, self._column[ref.year]], self._owner[self._pieces(job, ref)[0]], 1)
        self._blocks = self._blocks_left.copy()
        results.status[self._blocks_left > 0] = "masked"
        # most polygons lie in one block and are finished at once; only the others' sums are kept
        self._shared = np.zeros(n, np.bool_) if shared is None else shared
        several = (self._blocks_left > 1) | (self._shared[:, None] & (self._blocks_left > 0))
        self._slot = np.full((n, n_years), -1, np.int64)
        self._slot[several] = np.arange(several.sum())
        self._kept = Partials.zeros(int(several.sum()), n_bands, needs)
        self._histograms: dict[int, NDArray[np.int64]] = {}  # slot -> (bands, 256), while blocks are missing
        self._candidates: dict[tuple[int, int], Candidates] = {}
        self._scale = CODE_SCALE
        self._failed = np.zeros((n, n_years), np.bool_)
        for failure in plan.failures:
            self._fail(failure)

    def _pieces(self, job: Job, ref: BlockRef) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the job's pieces that are measured in a block's year and a mask of them."""
        pieces = np.array(job.pieces, np.int64)
        measured = np.ones(len(pieces), np.bool_)
        if self._skips:
            measured[:] = [ref.year not in self._skips.get(i, ()) for i in job.pieces]
        return pieces[measured], measured

    def alone(self, job: Job, ref: BlockRef) -> NDArray[np.bool_]:
        """Whether each of a job's pieces is its whole polygon, and lies in this block alone."""
        return self._slot[self._owner[list(job.pieces)], self._column[ref.year]] < 0

    def means(self, job: Job, ref: BlockRef) -> NDArray[np.float64]:
        """Return the finished means of a job's polygons, shape (pieces, bands)."""
        return self._results.statistics["mean"][self._owner[list(job.pieces)], self._column[ref.year]]

    def add(self, job: Job, ref: BlockRef, outcome: BlockSums | ReadError) -> None:
        """Merge one block, or note that it can't be read."""
        pieces, measured = self._pieces(job, ref)
        owner, year = self._owner[pieces], self._column[ref.year]
        self._blocks_left[owner, year] -= 1
        if isinstance(outcome, ReadError):
            self._fail_block(ref, owner, outcome)
            return
        reduced = outcome.reduced
        self._piece_area[list(job.pieces)] = outcome.areas
        if outcome.damage is not None:
            self._results.damage.append(outcome.damage)
        self._scale = reduced.scale
        slots = self._slot[owner, year]
        alone = slots < 0
        rows = np.flatnonzero(measured)
        self._results.write(owner[alone], year, reduced.partials.take(rows[alone]), self._scale)
        self._results.write_quantiles(owner[alone], year, reduced.quantiles[rows[alone]])
        # pieces of one polygon lie in different zones, so no slot comes twice
        self._kept.add(reduced.partials.take(rows[~alone]), slots[~alone])
        if self._needs.quantiles:
            in_several = np.cumsum(~self.alone(job, ref)) - 1  # row among the histograms
            for row, slot, polygon in zip(rows[~alone], slots[~alone], owner[~alone], strict=True):
                self._add_histogram(int(slot), int(polygon), year, reduced.histograms[in_several[row]])

    def _add_histogram(self, slot: int, polygon: int, year: int, histogram: NDArray[np.int64]) -> None:
        known = self._histograms.get(slot)
        self._histograms[slot] = histogram.copy() if known is None else known + histogram
        if self._blocks_left[polygon, year] == 0 and not self._shared[polygon]:
            finished = quantiles(self._histograms.pop(slot), self._needs.quantiles)
            self._results.write_quantiles(polygon, year, finished)

    def add_candidates(self, job: Job, ref: BlockRef, outcome: Candidates | ReadError) -> None:
        """Merge the medoid candidates of one block."""
        _, measured = self._pieces(job, ref)
        year = self._column[ref.year]
        owner = self._owner[list(job.pieces)]
        if isinstance(outcome, ReadError):
            self._fail_block(ref, owner[measured], outcome)
            return
        values, similarity = self._results.statistics["medoid"], self._results.similarity
        for row in np.flatnonzero(measured & np.isfinite(outcome.similarity)):
            key = (int(owner[row]), year)
            here = outcome.take([row])
            if key not in self._candidates or self._candidates[key].better(here)[0]:
                self._candidates[key] = here
                values[key], similarity[key] = here.vectors[0], here.similarity[0]

    def finish(self, polygons: Polygons) -> None:
        """Write the statistics of polygons in several blocks, and the valid fraction of all polygons."""
        for year in self._column.values():
            rows = np.flatnonzero(self._slot[:, year] >= 0)
            self._results.write(rows, year, self._kept.take(self._slot[rows, year]), self._scale)
        area = self._areas(polygons) / FULL
        np.divide(self._results.n_pixels, area, out=self._results.valid_fraction, where=area > 0)

    def shared_sums(self, polygons: Polygons, rows: NDArray[np.int64]) -> SharedSums:
        """Return the sums of some polygons over the blocks merged here; called after `finish`."""
        area, slot = self._areas(polygons)[rows], self._slot[rows]
        at = np.nonzero(slot >= 0)  # (polygon, year) pairs that have blocks at all
        chosen = slot[at]
        return SharedSums(
            polygon=rows[at[0]],
            year=at[1],
            blocks=self._blocks[rows][at],
            merged=(self._blocks - self._blocks_left)[rows][at],
            failed=self._failed[rows][at],
            area=area[at],
            partials=self._kept.take(chosen),
            histograms={i: self._histograms[int(s)] for i, s in enumerate(chosen) if int(s) in self._histograms},
            scale=self._scale,
        )

    def blank_failures(self) -> None:
        """Set everything to NaN for polygons with a block that couldn't be read."""
        self._results.status[self._failed] = "error"
        for numbers in self._results.numbers():
            numbers[self._failed] = np.nan

    def _fail_block(self, ref: BlockRef, polygons: NDArray[np.int64], error: ReadError) -> None:
        self._fail(Failure(str(error), ref.year, tuple(np.unique(polygons).tolist()), error.url))

    def _fail(self, failure: Failure) -> None:
        if self._on_error == "raise":
            raise StoppedError(failure)
        if failure not in self._results.failures:
            self._results.failures.append(failure)
        self._failed[list(failure.polygons), self._column[failure.year]] = True

    def _areas(self, polygons: Polygons) -> NDArray[np.int64]:
        """Return the polygons' whole areas in units of 2^-24 pixels, as measured in each year, shape (n, years)."""
        area = np.zeros(self._results.n_pixels.shape, np.int64)
        n_pieces = np.bincount(self._owner, minlength=len(area))
        alone = n_pieces[self._owner] == 1
        area[self._owner[alone]] = self._piece_area[alone, None]
        for i in np.flatnonzero(~alone).tolist():
            piece = self._plan.pieces[i]
            if not self._piece_area[i]:  # no tile holds this piece, but another piece of the polygon may have one
                self._piece_area[i] = compute_coverage(polygons.pieces([piece])).weights[0]
            served = [column for year, column in self._column.items() if year not in piece.skip]
            area[self._owner[i], served] += self._piece_area[i]
        return area

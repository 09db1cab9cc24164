"""Computes the coverage of a plan's pieces when a job needs it, and keeps it as long as it is needed again.

A job's blocks need the coverage of all its pieces. A piece in a few jobs is computed again for each, which costs less
than keeping it; one that is a hundred kilometres long lies in thousands of small chunks, and is computed once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from gee_polygons.reduction.plan import BlockRef, Job, Plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.zonal.areas import weigh
from gee_polygons.zonal.clipping import BlockCoverage, clip_to_block
from gee_polygons.zonal.coverage import Coverage, compute_coverage
from gee_polygons.zonal.grid import Window
from gee_polygons.zonal.ragged import offsets_of

MANY_JOBS: Final = 6


class PieceCoverages:
    """Coverage of a plan's pieces, of which those in many jobs are computed once.

    Parameters
    ----------
    plan : Plan
        Its pieces and jobs.
    polygons : Polygons
        The polygons planned for.
    """

    def __init__(self, plan: Plan, polygons: Polygons) -> None:
        self._plan, self._polygons = plan, polygons
        counts = Counter(piece for job in plan.jobs for piece in job.pieces)
        self._jobs_left = {piece: n for piece, n in counts.items() if n > MANY_JOBS}
        self._kept: dict[int, Coverage] = {}
        self._lock = threading.Lock()

    def of(self, pieces: Sequence[int]) -> Coverage:
        """Return the coverage of a job's pieces, in their order."""
        if self._jobs_left.keys().isdisjoint(pieces):
            return self._compute(pieces)
        return _join([self._shared(piece) if piece in self._jobs_left else self._compute([piece]) for piece in pieces])

    def _shared(self, piece: int) -> Coverage:
        with self._lock:
            if piece not in self._kept:
                self._kept[piece] = self._compute([piece])
            found = self._kept[piece]
            self._jobs_left[piece] -= 1
            if not self._jobs_left[piece]:  # its last job
                del self._kept[piece]
            return found

    def _compute(self, pieces: Sequence[int]) -> Coverage:
        return compute_coverage(self._polygons.pieces([self._plan.pieces[i] for i in pieces]))


class JobCoverage:
    """The coverage of one job: computed by the first thread that needs it, for the blocks of all years.

    Parameters
    ----------
    plan : Plan
        The plan of the job.
    coverages : PieceCoverages
        Coverage of its pieces.
    job : Job
        The job.
    """

    def __init__(self, plan: Plan, coverages: PieceCoverages, job: Job) -> None:
        self._plan, self._coverages, self._job = plan, coverages, job
        self._lock = threading.Lock()
        self._coverage: Coverage | None = None
        self._in_block: dict[tuple[Window, Window, bool, bool], BlockCoverage] = {}
        self._blocks_left = len(job.reads)
        self.areas = np.zeros(0, np.int64)
        """Covered area of each piece as a whole, in units of 2^-24 pixels; known after the first `in_block`."""

    def in_block(self, ref: BlockRef) -> BlockCoverage:
        """Return the coverage inside a block of this job; called once for each."""
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
            self._blocks_left -= 1
            if self._blocks_left == 0:  # the last year: free the memory
                self._coverage, self._in_block = None, {}
            return found


def _join(parts: Sequence[Coverage]) -> Coverage:
    """Return coverages of one polygon each as one coverage."""
    return Coverage(
        offsets_of([len(part.runs) for part in parts]), np.concatenate([part.runs for part in parts]),
        offsets_of([len(part.edges) for part in parts]), np.concatenate([part.edges for part in parts]),
    )  # fmt: skip

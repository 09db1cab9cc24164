"""The coverage of a plan's pieces: computed when a job needs it, and kept for those that lie in many jobs.

A job's blocks need the coverage of all its pieces. A piece in a few blocks is computed again for each, which costs less
than keeping it; one of a hundred kilometres lies in thousands of small chunks, and is computed once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from gee_polygons.reduction.plan import Plan
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.zonal.coverage import Coverage, compute_coverage

MANY_JOBS: Final = 6


class Coverages:
    """Coverage of a plan's pieces, for each job once.

    Parameters
    ----------
    plan : Plan
        Its pieces and jobs.
    polygons : Polygons
        Whose pieces they are.
    """

    def __init__(self, plan: Plan, polygons: Polygons) -> None:
        self._plan, self._polygons = plan, polygons
        counts = Counter(piece for job in plan.jobs for piece in job.pieces)
        self._left = {piece: n for piece, n in counts.items() if n > MANY_JOBS}
        self._kept: dict[int, Coverage] = {}
        self._lock = threading.Lock()

    def of(self, pieces: Sequence[int]) -> Coverage:
        """Return the coverage of a job's pieces, in their order."""
        if self._left.keys().isdisjoint(pieces):
            return self._compute(pieces)
        few = [piece for piece in pieces if piece not in self._left]
        small = self._compute(few) if few else None
        place = {piece: i for i, piece in enumerate(few)}
        parts = []
        for piece in pieces:
            if small is not None and piece in place:
                parts.append((small, place[piece]))
            else:
                parts.append((self._large(piece), 0))
        return _joined(parts)

    def _large(self, piece: int) -> Coverage:
        with self._lock:
            if piece not in self._kept:
                self._kept[piece] = self._compute([piece])
            found = self._kept[piece]
            self._left[piece] -= 1
            if not self._left[piece]:  # its last job
                del self._kept[piece]
            return found

    def _compute(self, pieces: Sequence[int]) -> Coverage:
        return compute_coverage(self._polygons.pieces([self._plan.pieces[i] for i in pieces]))


def _joined(parts: Sequence[tuple[Coverage, int]]) -> Coverage:
    """Put single polygons of several coverages together."""
    runs = [c.runs[c.run_offsets[i] : c.run_offsets[i + 1]] for c, i in parts]
    edges = [c.edges[c.edge_offsets[i] : c.edge_offsets[i + 1]] for c, i in parts]
    return Coverage(
        np.cumsum([0, *map(len, runs)], dtype=np.int64),
        np.concatenate(runs),
        np.cumsum([0, *map(len, edges)], dtype=np.int64),
        np.concatenate(edges),
    )

"""Finds pixels whose codes can't be those of a unit vector: a sign that bytes are damaged.

Published blocks carry no checksum. A hole in a compressed block mostly makes the codec fail. Where it doesn't, it
leaves other codes, and with them pixels that can't be embeddings: those are looked for in every block reduced.

What rounding can reach. A component v of a unit vector is stored as the magnitude k = rint(x) of x = 127.5 sqrt(|v|),
so k - 1/2 <= x <= k + 1/2, and the sum of x^4 over the bands is 127.5^4 times the squared length, which is 1. Codes can
therefore be those of a unit vector if, and only if,

    sum max(k - 1/2, 0)^4  <=  127.5^4  <=  sum (k + 1/2)^4,

because the sum takes every value between its two ends as the x move through their intervals. By Minkowski's inequality
for the exponent 4, the length of the stored vector is then between (1 - sqrt(2) / 127.5)^2 = 0.9779 and
(1 + sqrt(2) / 127.5)^2 = 1.0223 (64 bands times (1/2)^4, to the power of 1/4, is sqrt(2)); both ends are nearly reached
where all components are alike. A pixel with a few large components has narrower bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS, NODATA
from gee_polygons.embeddings.quantization import SCALE, signed_squares
from gee_polygons.zonal.clipping import BlockCoverage
from gee_polygons.zonal.kernels import CHUNK, add_norms, off_norm, touched_chunks

# The check of all pixels finds those whose length is off by more than this; their codes are then judged by the bounds
# above. Real pixels are within 0.010, so a sound block is hardly ever read twice.
LENGTH_TOLERANCE: Final = 0.012
# the same in the units of `add_norms`, which rounds down 64 times and so is up to 64 too low
_NORM_LIMITS: Final = (
    int((1 - LENGTH_TOLERANCE) ** 2 * 127.5**4 / 2**14) + 1,
    int((1 + LENGTH_TOLERANCE) ** 2 * 127.5**4 / 2**14) - 64,
)
# A vector of float32 has length 1 within 2e-7, and its square root in float32 shifts x by as much.
_ROUNDING: Final = 1e-5
_MOST_WITNESSES: Final = 1000  # damaged pixels that the guess of the damaged band is made from


@dataclass(frozen=True, kw_only=True)
class DamagedPixels:
    """Valid pixels of a block whose codes can't be those of a unit vector.

    Parameters
    ----------
    positions : int64 array, shape (n,)
        Where they are in the block's stored order, ascending.
    lengths : float64 array, shape (n,)
        Lengths of their vectors; NaN for pixels that are nodata in some bands only.
    band : int
        The band that was most likely damaged.
    n_checked : int
        Pixels that were looked at: touched by a polygon, and not nodata in all bands.
    """

    positions: NDArray[np.int64]
    lengths: NDArray[np.float64]
    band: int
    n_checked: int

    @property
    def incomplete(self) -> NDArray[np.int64]:
        """Positions of the pixels that are nodata in some bands only."""
        return self.positions[np.isnan(self.lengths)]


@dataclass(frozen=True)
class Suspects:
    """Pixels whose length is off by more than `LENGTH_TOLERANCE`, to be judged when the block is read again.

    Parameters
    ----------
    positions : int64 array, shape (n,)
        Where they are in the block's stored order, ascending.
    neighbours : int64 array, shape (n,)
        Pixels of good length close to them, to guess the damaged band from; without any, the suspects themselves.
    """

    positions: NDArray[np.int64]
    neighbours: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)


NO_SUSPECTS: Final = Suspects(np.zeros(0, np.int64), np.zeros(0, np.int64))


class LengthCheck:
    """The lengths of a block's touched pixels, summed band by band while the block is reduced.

    Parameters
    ----------
    coverage : BlockCoverage
        Which pixels are touched.
    suspects : Suspects
        Found by a former reading of the block; their codes are kept for `damage`.
    """

    def __init__(self, coverage: BlockCoverage, suspects: Suspects = NO_SUSPECTS) -> None:
        self._coverage = coverage
        self._chunks = touched_chunks(coverage.shape[0] * coverage.shape[1], coverage.runs, coverage.positions)
        self._norms = np.zeros(len(self._chunks) * CHUNK, np.uint16)
        self._missing = np.zeros(len(self._chunks) * CHUNK, np.uint8)
        self._suspects = suspects
        self._codes, self._near_codes = np.zeros((2, N_BANDS, len(suspects)), np.int8)

    def add(self, band: int, plane: NDArray[np.int8]) -> None:
        """Add one band's plane."""
        add_norms(plane, self._chunks, self._norms, self._missing)
        if len(self._suspects):
            self._codes[band] = plane[self._suspects.positions]
            self._near_codes[band] = plane[self._suspects.neighbours]

    @cached_property
    def _touched(self) -> NDArray[np.bool_]:
        """Which pixels of the chunks are touched: chunks reach past the polygons."""
        touched = np.zeros(-(-self._coverage.shape[0] * self._coverage.shape[1] // CHUNK) * CHUNK, np.bool_)
        touched[self._coverage.pixels()[1]] = True
        return touched.reshape(-1, CHUNK)[self._chunks].ravel()

    def suspects(self) -> Suspects:
        """Return the touched pixels that are neither nodata nor of length 1 within the tolerance."""
        wrong = off_norm(self._norms, self._missing, *_NORM_LIMITS, N_BANDS)
        if not wrong.any():
            return NO_SUSPECTS
        positions = (self._chunks[:, None].astype(np.int64) * CHUNK + np.arange(CHUNK)).ravel()
        found = positions[wrong & self._touched]
        good = positions[self._touched & ~wrong & (self._missing == 0)]
        return Suspects(found, _nearest(found, good, self._coverage.shape) if len(good) else found)

    def same_as(self, other: LengthCheck) -> bool:
        """Whether two readings of a block agree on the length of every touched pixel."""
        touched = self._touched
        return np.array_equal(self._norms[touched], other._norms[touched]) and np.array_equal(
            self._missing[touched], other._missing[touched]
        )

    def damage(self) -> DamagedPixels | None:
        """Judge the suspects by their codes; None if rounding explains them all."""
        missing, fourth, lowest, highest = np.zeros((4, len(self._suspects)), np.int64)
        for codes in self._codes:
            magnitude = np.abs(codes.astype(np.int64))
            missing += codes == NODATA
            fourth += magnitude**4
            lowest += np.maximum(2 * magnitude - 1, 0) ** 4
            highest += (2 * magnitude + 1) ** 4
        unit = 255**4  # 127.5^4, in halves as the bounds are
        reachable = (lowest <= unit * (1 + _ROUNDING)) & (highest >= unit * (1 - _ROUNDING))
        incomplete = (missing > 0) & (missing < N_BANDS)
        damaged = incomplete | (missing == 0) & ~reachable
        if not damaged.any():
            return None
        lengths = np.where(incomplete, np.nan, np.sqrt(fourth) / SCALE)
        return DamagedPixels(
            positions=self._suspects.positions[damaged],
            lengths=lengths[damaged],
            band=self._damaged_band(damaged),
            n_checked=int((self._touched & (self._missing < N_BANDS)).sum()),
        )

    def _damaged_band(self, damaged: NDArray[np.bool_]) -> int:
        """Guess which band is damaged.

        Nodata in a few bands, or data in a few bands of nodata, names the band outright. Else it is the band whose
        value in a good pixel close by would bring the damaged pixel nearest to length 1: neighbours are alike, so any
        other band changes little.
        """
        witnesses = np.flatnonzero(damaged)[:: -(-damaged.sum() // _MOST_WITNESSES)]
        codes, near = self._codes[:, witnesses], self._near_codes[:, witnesses]
        if self._suspects.neighbours is self._suspects.positions:
            near = np.zeros_like(codes)
        stray = (codes == NODATA).sum(axis=1)
        if stray.any():
            return int(np.argmax(stray) if np.median(stray) == 0 else np.argmin(stray))
        squares, near_squares = ((signed_squares(some) / SCALE) ** 2 for some in (codes, near))
        excess = squares.sum(axis=0) - 1.0
        return int(np.argmin(np.abs(excess - (squares - near_squares)).mean(axis=1)))


def _nearest(pixels: NDArray[np.int64], good: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return the good pixel nearest above or below each pixel; damage runs along the rows."""
    height, width = shape
    by_column = np.sort(good % width * height + good // width)
    wanted = pixels % width * height + pixels // width
    place = np.searchsorted(by_column, wanted)
    before, after = by_column[np.maximum(place - 1, 0)], by_column[np.minimum(place, len(by_column) - 1)]
    column, row = np.divmod(np.where(abs(wanted - before) < abs(after - wanted), before, after), height)
    return row * width + column

"""Partial sums of many polygons, and how they become numbers.

A partial is integers only, so merging is plain adding and neither order nor grouping changes a bit. A sum is
``full + edge / 2^24`` in units of 1 / 127.5^2 (codes) or 2^-30 (float vectors); an area is the same in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import SCALE
from gee_polygons.zonal.coverage import FULL

__all__ = ["CODE_UNIT", "FLOAT_UNIT", "Partials"]

CODE_UNIT: Final = 1.0 / SCALE
FLOAT_UNIT: Final = 2.0**-30

_Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Partials:
    """Integer sums of n polygons in one year.

    Parameters
    ----------
    sum_full, sum_edge : int64 array, shape (n, bands)
        Sums over fully covered pixels, and weighted sums over edge pixels in 2^-24.
    area_full, area_edge : int64 array, shape (n,)
        Valid covered area: pixels, and 2^-24 pixels.
    """

    sum_full: _Ints
    sum_edge: _Ints
    area_full: _Ints
    area_edge: _Ints

    @classmethod
    def zeros(cls, n: int, n_bands: int) -> Partials:
        """Return the partial of nothing."""
        return cls(
            sum_full=np.zeros((n, n_bands), np.int64), sum_edge=np.zeros((n, n_bands), np.int64),
            area_full=np.zeros(n, np.int64), area_edge=np.zeros(n, np.int64),
        )  # fmt: skip

    def add(self, other: Partials, rows: Any) -> None:
        """Add another partial into some rows of this one; `rows` are distinct."""
        self.sum_full[rows] += other.sum_full
        self.sum_edge[rows] += other.sum_edge
        self.area_full[rows] += other.area_full
        self.area_edge[rows] += other.area_edge

    def take(self, rows: Any) -> Partials:
        """Return some rows."""
        return Partials(
            sum_full=self.sum_full[rows], sum_edge=self.sum_edge[rows],
            area_full=self.area_full[rows], area_edge=self.area_edge[rows],
        )  # fmt: skip

    def n_pixels(self) -> NDArray[np.float64]:
        """Return the coverage-weighted number of valid pixels, shape (n,)."""
        area: NDArray[np.float64] = self.area_full + self.area_edge / FULL
        return area

    def means(self, unit: float) -> NDArray[np.float64]:
        """Return the coverage-weighted means over valid pixels, shape (n, bands); NaN without a valid pixel.

        Parameters
        ----------
        unit : float
            `CODE_UNIT` or `FLOAT_UNIT`.
        """
        area = self.n_pixels()[:, None]
        sums = self.sum_full + self.sum_edge / FULL
        empty = np.full(sums.shape, np.nan)
        means: NDArray[np.float64] = np.divide(sums * unit, area, out=empty, where=area > 0)
        return means

"""Partial sums of many polygons, how they are merged, and the statistics that they come to.

Partial sums are integers, so neither the order nor the grouping of merging changes a bit. A sum is
``full + edge / 2^24``, divided by a scale of 127.5^2 (codes) or 2^30 (float vectors); a sum of squares is divided by
the scale's square; an area is in pixels.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import SCALE, signed_squares
from gee_polygons.zonal.coverage import FULL
from gee_polygons.zonal.statistics import Needs, std

CODE_SCALE: Final = SCALE
FLOAT_SCALE: Final = 2.0**30

_PER_POLYGON: Final = ("area_full", "area_edge", "pixels_full", "pixels_edge", "count")
_MERGE: Final = {"low": np.minimum, "high": np.maximum}  # everything else adds


class Partials:
    """Partial sums of n polygons in one year.

    Parameters
    ----------
    arrays : dict of arrays
        ``sum_full``, ``sum_edge`` (n, bands): sums over fully covered pixels, and weighted sums over edge pixels in
        units of 2^-24. ``area_full``, ``area_edge`` (n,): sums of the weights. ``pixels_full``, ``pixels_edge`` (n,):
        covered valid pixels; equal to the areas, unless pixels weigh by their area. ``count`` (n,): touched valid
        pixels. With `Needs.squares` also ``square_full``, ``square_edge``; with `Needs.extremes` ``low``, ``high``, in
        codes or units of 2^-30.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.arrays = arrays

    @classmethod
    def zeros(cls, n: int, n_bands: int, needs: Needs) -> Partials:
        """Return sums over no pixel."""
        per_band = ["sum_full", "sum_edge"] + (["square_full", "square_edge"] if needs.squares else [])
        arrays: dict[str, NDArray[Any]] = {name: np.zeros((n, n_bands), np.int64) for name in per_band}
        arrays |= {name: np.zeros(n, np.int64) for name in _PER_POLYGON}
        if needs.extremes:
            arrays["low"] = np.full((n, n_bands), np.iinfo(np.int32).max, np.int32)
            arrays["high"] = np.full((n, n_bands), np.iinfo(np.int32).min, np.int32)
        return cls(arrays)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def add(self, other: Partials, rows: Any) -> None:
        """Merge other partial sums into some rows of these; `rows` are distinct."""
        for name, mine in self.arrays.items():
            mine[rows] = _MERGE.get(name, np.add)(mine[rows], other.arrays[name])

    def take(self, rows: Any) -> Partials:
        """Return some rows."""
        return Partials({name: values[rows] for name, values in self.arrays.items()})

    def n_pixels(self) -> NDArray[np.float64]:
        """Return the coverage-weighted number of valid pixels, shape (n,)."""
        return self["pixels_full"] + self["pixels_edge"] / FULL

    def means(self, scale: float) -> NDArray[np.float64]:
        """Return the coverage-weighted means over valid pixels, shape (n, bands); NaN without a valid pixel.

        Parameters
        ----------
        scale : float
            `CODE_SCALE` or `FLOAT_SCALE`.
        """
        return self._average("sum", scale)

    def stds(self, scale: float) -> NDArray[np.float64]:
        """Return the population standard deviations, weighted by coverage, shape (n, bands)."""
        # scaled last, so that a constant band's deviation is exactly 0
        return std(self._average("sum", 1.0), self._average("square", 1.0)) / scale

    def extremes(self, scale: float, name: str) -> NDArray[np.float64]:
        """Return the least (``"low"``) or greatest (``"high"``) values, shape (n, bands)."""
        found = self[name]
        # values rise with codes; a polygon without a pixel keeps the start values, which become NaN
        is_code = scale == CODE_SCALE
        values = (signed_squares(np.clip(found, -127, 127).astype(np.int8)) if is_code else found) / scale
        return np.where(self["count"][:, None] > 0, values, np.nan)

    def _average(self, name: str, scale: float) -> NDArray[np.float64]:
        area = (self["area_full"] + self["area_edge"] / FULL)[:, None]
        sums = self[f"{name}_full"] + self[f"{name}_edge"] / FULL
        return np.divide(sums / scale, area, out=np.full(sums.shape, np.nan), where=area > 0)

"""Defines the statistics of a polygon's pixels: their names, their formulas and the sums that they need.

w_i is the exact fraction of pixel i inside the polygon, v_i a band's value there; only valid pixels count.

=========  =================================================  ==========================  =========================
name       definition here                                    exactextract                Earth Engine
=========  =================================================  ==========================  =========================
mean       sum(w v) / sum(w)                                  mean: the same              mean: the same, weights in
                                                                                          steps of 1/255
std        sqrt(sum(w v^2) / sum(w) - mean^2), population     stdev: the same             stdDev: the same, weighted
min, max   over pixels with w > 0                             min, max: the same          over pixels whose centre is
                                                                                          inside
count      number of pixels with w > 0                        count is sum(w), our        count: pixels whose centre
                                                              n_pixels                    is inside
median     p50                                                median: the same            weighted; of many pixels,
                                                                                          from a histogram's buckets
pNN        weighted quantile, below                           quantile: the same          as the median
medoid     the pixel whose vector is nearest the mean's       none                        none
           direction: its values, and `medoid_similarity`
=========  =================================================  ==========================  =========================

Quantiles: the n distinct values x_j, sorted, with summed weights w_j, have positions
S_j = j w_j + (n - 1) sum_{i<j} w_i, and the quantile q is linear between them at q S_{n-1}, S_{n-1} = (n - 1) sum w.
Source: exactextract's ``weighted_quantiles.h``, after the formula of wikipedia's *Percentile, weighted percentile*
discussion. `median` and `p0`..`p100` are exact, because 255 levels fit a histogram.

The population variance is computed from exact integer sums and clamped at 0, where rounding could leave -1e-18.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import SCALE, signed_squares
from gee_polygons.errors import UsageError
from gee_polygons.zonal.compiled import compiled

STATISTICS: Final = ("mean", "std", "min", "max", "median", "count", "medoid", "pNN")

# the value of each histogram bin (code + 128), ascending; bin 0 is nodata and never filled
_VALUES: NDArray[np.float64] = signed_squares(np.arange(-128, 128).astype(np.int8)) / SCALE


# 255 times this fits 64 bits; the weights of a polygon of more than 10^9 pixels are rounded to sum up to this
_MOST_WEIGHT: Final = 2**55


@dataclass(frozen=True)
class Needs:
    """What must be computed from the pixels for some statistics, besides sums and counts.

    Parameters
    ----------
    squares, extremes : bool
        Sums of v^2; least and greatest code.
    quantiles : tuple of float
        Levels of quantiles, 0..1, in the order asked for.
    medoid : bool
        Whether the medoid is needed, and with it a second pass over the blocks.
    """

    squares: bool = False
    extremes: bool = False
    quantiles: tuple[float, ...] = ()
    medoid: bool = False

    @property
    def codes_only(self) -> bool:
        """Whether they can be computed from int8 codes only."""
        return self.squares or self.medoid or bool(self.quantiles)


def parse_statistics(statistics: str | Sequence[str]) -> tuple[tuple[str, ...], Needs]:
    """Check names of statistics.

    Returns
    -------
    names : tuple of str
    needs : Needs

    Raises
    ------
    UsageError
        For an unknown or repeated name.

    Examples
    --------
    >>> parse_statistics(["mean", "p10", "median"])[1].quantiles
    (0.1, 0.5)
    """
    names = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    for name in names:
        if quantile_of(name) is None and name not in STATISTICS[:-1]:
            raise UsageError(f"unknown statistic {name!r}; use {', '.join(STATISTICS[:-1])} or p0..p100")
    if not names or len(set(names)) != len(names):
        raise UsageError(f"statistics must be one or more names, each once, found {list(names)}")
    levels = tuple(level for name in names if (level := quantile_of(name)) is not None)
    return names, Needs("std" in names, "min" in names or "max" in names, levels, "medoid" in names)


def quantile_of(name: str) -> float | None:
    """Return the level (0..1) of ``"median"`` or ``"pNN"``; None for another statistic.

    Examples
    --------
    >>> quantile_of("median"), quantile_of("p2.5"), quantile_of("mean")
    (0.5, 0.025, None)
    """
    if name == "median":
        return 0.5
    match = re.fullmatch(r"p(\d{1,3}(?:\.\d+)?)", name)
    level = float(match.group(1)) / 100 if match else None
    return level if level is not None and level <= 1 else None


def std(means: NDArray[np.float64], mean_squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the population standard deviation from mean(v) and mean(v^2).

    Examples
    --------
    >>> std(np.array([0.5]), np.array([0.25 - 1e-18])).tolist()
    [0.0]
    """
    return np.sqrt(np.maximum(mean_squares - means * means, 0.0))


def quantiles(histograms: NDArray[np.int64], levels: Sequence[float]) -> NDArray[np.float64]:
    """Return weighted quantiles of codes, as vector components.

    Parameters
    ----------
    histograms : int64 array, shape (n, 256)
        Summed weights of each code (bin = code + 128), in any unit; bin 0 is empty.
    levels : sequence of float
        Quantiles, 0..1.

    Returns
    -------
    float64 array, shape (n, levels)
        NaN for an empty histogram.

    Examples
    --------
    >>> weights = np.zeros((1, 256), np.int64); weights[0, [128, 178]] = 1, 1
    >>> quantiles(weights, [0.5]).round(6).tolist()
    [[0.076894]]
    """
    total = histograms.sum(axis=1)
    if total.max(initial=0) > _MOST_WEIGHT:
        shift = np.ceil(np.log2(np.maximum(total, 1) / _MOST_WEIGHT)).clip(0).astype(np.int64)[:, None]
        histograms = np.where(histograms > 0, np.maximum(histograms >> shift, 1), 0)
    return np.asarray(_quantiles(histograms, _VALUES, np.asarray(levels, np.float64)))


@compiled
def _quantiles(histograms: Any, values: Any, levels: Any) -> Any:
    out = np.full((len(histograms), len(levels)), np.nan)
    position = np.empty(256, np.int64)
    bins = np.empty(256, np.int64)
    for row in range(len(histograms)):
        n = 0
        for b in range(1, 256):
            if histograms[row, b] > 0:
                bins[n] = b
                n += 1
        before = np.int64(0)
        for j in range(n):
            weight = histograms[row, bins[j]]
            position[j] = j * weight + (n - 1) * before
            before += weight
        for q in range(len(levels)):
            if n == 0:
                continue
            target = levels[q] * ((n - 1) * before)
            j = 0
            while j + 1 < n and position[j + 1] <= target:
                j += 1
            left = values[bins[j]]
            out[row, q] = left
            if j + 1 < n:
                span = position[j + 1] - position[j]
                out[row, q] = left + (target - position[j]) * (values[bins[j + 1]] - left) / span
    return out

"""Compares sites with unchanged sites: p-values from their upper tail, and robust z-scores of single years.

Sources: Epstein & Sobel, *Life testing*, JASA 48 (1953), for ratios of exponential variables; Efron, *Large-scale
simultaneous hypothesis testing: the choice of a null hypothesis*, JASA 99 (2004); Wilson & Hilferty, *The distribution
of chi-square*, PNAS 17 (1931). The constants of tails are means over 8 real scenes, years as they are and shuffled:
`benchmarks/bench_semireal.py` prints them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.background import without_gaps
from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.series import in_parts

ENOUGH_UNCHANGED: Final = 10  # sites for the level to hold
_MAD_OF_NORMAL: Final = 0.6744897501960817  # median absolute deviation of a standard normal distribution
_LEAST_KNOWN: Final = 3  # unchanged sites whose median counts
_LEAST_SITES: Final = 4  # whose steps of a year show what is usual


class Tail(NamedTuple):
    """How a statistic of unchanged sites scatters on real land.

    Parameters
    ----------
    excess : float
        Mean excess of its upper half over the median; nearly the same for 3 to 8 years and for all scenes.
    above_quartile : float
        Median less lower quartile.
    median : float
        Its own, for tables of fewer than three sites: of the longest series, which have the largest.
    """

    excess: float
    above_quartile: float
    median: float


LOG_RATIO_TAIL: Final = Tail(excess=0.36, above_quartile=0.24, median=1.1)
Z_TAIL: Final = Tail(excess=1.4, above_quartile=0.65, median=0.9)


def upper_tail(values: Floats, sample: Floats, tail: Tail, *, is_known: bool) -> Floats:
    """Return the chance of exceeding each value without a change: 0.5 at the median, then an exponential tail.

    The n values of the sample above its median have excesses with the sum S. If they are exponential, a new one is
    larger than x with the probability ``(1 + x / S)^-n``: n x / S follows F(2, 2n). Fewer than ten are filled up with
    excesses of real land. If nothing is known to be unchanged, the median is estimated from the lower quartile, which
    holds while less than half of the sites changed, and all excesses are those of real land.

    Parameters
    ----------
    values : float array, shape (sites,)
    sample : float array, shape (n,)
        The statistic of unchanged sites, or of all sites.
    tail : Tail
        Of this statistic.
    is_known : bool
        Whether the sample's sites are known to be unchanged.
    """
    sample = sample[np.isfinite(sample)]
    excess = np.zeros(0)
    if len(sample) < _LEAST_KNOWN:
        median = tail.median
    elif is_known:
        median = float(np.median(sample))
        excess = sample[sample > median] - median
    else:
        median = float(np.quantile(sample, 0.25)) + tail.above_quartile
    lacking = max(ENOUGH_UNCHANGED - len(excess), 0)
    n, total = len(excess) + lacking, float(excess.sum()) + lacking * tail.excess
    p = 0.5 * np.exp(-n * np.log1p(np.maximum(values - median, 0.0) / total))
    return np.where(np.isnan(values), np.nan, np.where(values < median, 1.0, np.maximum(p, 1e-300)))


def adjusted_p_values(p: Floats, method: str = "BH") -> Floats:
    """Return p-values adjusted for their number: rejecting those <= q gives a false-discovery rate <= q.

    ``q_(i) = min over j >= i of c m p_(j) / j`` over the m p-values that aren't NaN, with c = 1 (Benjamini & Hochberg,
    JRSS B 57, 1995), or ``c = sum 1/j``, for any dependence (Benjamini & Yekutieli, Ann. Statist. 29, 2001).

    Examples
    --------
    >>> adjusted_p_values(np.array([0.01, 0.04, 0.03, np.nan, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, nan, 0.5]
    """
    found = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    rank = np.arange(1, len(order) + 1)
    raised = p[order] * len(order) / rank * (np.sum(1 / rank) if method == "BY" else 1)
    found[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return found


def yearly_departures(units: Floats, years: NDArray[np.int64]) -> Floats:
    """Return each year's distance from the mean of the years before and after; of the last year, from the one before.

    Shape (sites, years); the first year, and years at the ends of a series, are NaN. Missing years are interpolated.
    """
    found = np.full(units.shape[:2], np.nan)
    for part in in_parts(len(units)):
        own, filled = units[part], without_gaps(units[part], years)
        found[part, 1:-1] = np.linalg.norm(own[:, 1:-1] - (filled[:, :-2] + filled[:, 2:]) / 2, axis=2)
        if len(years) > 2:  # else nothing shows what is usual
            found[part, -1] = np.linalg.norm(own[:, -1] - filled[:, -2], axis=1)
    return found


def robust_z(lengths: Floats) -> Floats:
    """Return robust z-scores, year by year, over all sites: ``(x - median) / (1.4826 MAD)`` of ``x = length^(2/3)``.

    The power makes chi-squared distributed lengths nearly normal (Wilson & Hilferty).
    """
    z = np.full(lengths.shape, np.nan)
    enough = np.isfinite(lengths).sum(axis=0) >= _LEAST_SITES
    x = lengths[:, enough] ** (2 / 3)
    centre = np.nanmedian(x, axis=0)
    scale = np.nanmedian(np.abs(x - centre), axis=0) / _MAD_OF_NORMAL
    z[:, enough] = (x - centre) / np.where(scale > 1e-9, scale, np.nan)
    return z


def unusual_years(departures: Floats, controls: Flags) -> tuple[Floats, NDArray[np.intp], Floats]:
    """Return z-scores, shape (sites, years), the column of each site's largest, and its p-value without an event."""
    z = robust_z(departures)
    column = np.where(np.isfinite(z), z, -np.inf).argmax(axis=1)
    largest = z[np.arange(len(z)), column]
    sample = largest[controls] if controls.any() else largest
    return z, column, upper_tail(largest, sample, Z_TAIL, is_known=bool(controls.any()))

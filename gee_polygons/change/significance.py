"""Compares sites with unchanged sites: p-values from their upper tail, and robust z-scores of single years.

Sources: Epstein & Sobel, *Life testing*, JASA 48 (1953), for ratios of exponential variables; Efron, *Large-scale
simultaneous hypothesis testing: the choice of a null hypothesis*, JASA 99 (2004); Wilson & Hilferty, *The distribution
of chi-square*, PNAS 17 (1931). The constants of tails are means over 8 real scenes, years as they are and shuffled:
`benchmarks/bench_semireal.py` prints them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.background import without_gaps
from gee_polygons.change.numerics import Floats, median_and_scale
from gee_polygons.change.series import has_data, in_parts

ENOUGH_UNCHANGED: Final = 10  # sites for the level to hold
_LEAST_KNOWN: Final = 3  # unchanged sites whose median counts
_LEAST_SITES: Final = 4  # whose steps of a year show what is usual


@dataclass(frozen=True, kw_only=True)
class Tail:
    """How a statistic of unchanged sites scatters on real land.

    Parameters
    ----------
    excess : float
        Mean excess of its upper half over the median; nearly the same for 3 to 8 years and for all scenes.
    above_quartile : float
        Median less lower quartile.
    median : float
        Median for three years.
    by_year : float
        What each further year adds to the median.
    """

    excess: float
    above_quartile: float
    median: float
    by_year: float


LOG_RATIO_TAIL: Final = Tail(excess=0.36, above_quartile=0.24, median=0.65, by_year=0.15)
Z_TAIL: Final = Tail(excess=1.4, above_quartile=0.65, median=0.0, by_year=0.2)


def upper_tail(values: Floats, sample: Floats, tail: Tail, *, is_known: bool, n_years: int) -> Floats:
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
    n_years : int
        Years with data.
    """
    sample = sample[np.isfinite(sample)]
    excess = np.zeros(0)
    if len(sample) < _LEAST_KNOWN:
        median = tail.median + tail.by_year * (n_years - 3)
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
        found[part, -1] = np.linalg.norm(own[:, -1] - filled[:, -2], axis=1)
    return found


def robust_z(lengths: Floats) -> Floats:
    """Return robust z-scores, year by year, over all sites: ``(x - median) / (1.4826 MAD)`` of ``x = length^(2/3)``.

    The power makes chi-squared distributed lengths nearly normal (Wilson & Hilferty).
    """
    x = lengths ** (2 / 3)
    z = np.full(x.shape, np.nan)
    for year in range(x.shape[1]):
        own = x[np.isfinite(x[:, year]), year]
        centre, scale = median_and_scale(own) if len(own) >= _LEAST_SITES else (0.0, 0.0)
        if scale > 1e-9:
            z[:, year] = (x[:, year] - centre) / scale
    return z


def event_p_values(z: Floats, unchanged: Floats) -> Floats:
    """Return the chance that a site's largest z of a year, shape (sites, years), is so large without an event."""
    largest, sample = (np.nanmax(part, axis=1, initial=-np.inf) for part in (z, unchanged if len(unchanged) else z))
    n_years = int(np.isfinite(z).any(axis=0).sum()) + 1
    p = upper_tail(largest, sample, Z_TAIL, is_known=len(unchanged) > 0, n_years=n_years)
    return np.where(has_data(z[..., None]).any(axis=1), p, np.nan)

"""Many tests at once: false-discovery rate, robust z, and a null that learns from the sites at hand.

Sources: Benjamini & Hochberg, *Controlling the false discovery rate*, JRSS B 57 (1995); Efron, *Large-scale
simultaneous hypothesis testing: the choice of a null hypothesis*, JASA 99 (2004); Wilson & Hilferty, PNAS 17 (1931).
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Final

import numpy as np

from gee_polygons.change.series import Flags, Floats

MIN_FOR_NULL: Final = 50  # sites that an empirical null needs; with fewer the simulated one stands
_MODE_SHARE: Final = (
    0.2  # the shortest interval with so many of the sites, among the lowest so many, holds unchanged ones:
)
_LOWER_SHARE: Final = 0.4
_FEWEST_KNOWN: Final = 3
_PRIOR_SITES: Final = 10.0  # that count against known unchanged ones
_MAD: Final = 0.6744897501960817  # of a standard normal
_Z_MAX: Final = 37.0  # what a float64 can hold as a p-value


def adjusted_p_values(p: Floats) -> Floats:
    """Return Benjamini-Hochberg adjusted p-values: those at most q are discoveries with a false share of q at most.

    ``q_(i) = min over j >= i of m p_(j) / j`` over the m p-values that aren't NaN.

    Examples
    --------
    >>> adjusted_p_values(np.array([0.01, 0.04, 0.03, np.nan, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, nan, 0.5]
    """
    found = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    m = len(order)
    raised = p[order] * m / np.arange(1, m + 1)
    found[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return found


def to_z(p: Floats) -> Floats:
    """Turn upper-tail p-values into standard normal scores."""
    normal = NormalDist()
    low = np.clip(p, 1e-300, 1 - 1e-16)
    return np.array([np.nan if np.isnan(v) else -normal.inv_cdf(float(v)) for v in low])


def to_p(z: Floats) -> Floats:
    """Turn standard normal scores into upper-tail p-values."""
    from math import erfc, sqrt

    return np.array([np.nan if np.isnan(v) else 0.5 * erfc(min(float(v), _Z_MAX) / sqrt(2)) for v in z])


def learned_null(z: Floats, known: Flags | None = None) -> tuple[float, float]:
    """Return centre and scale of the unchanged sites' z: at least 0 and 1, so tests only become more cautious.

    Series of real land have more to them than simulated noise: unchanged sites then have z above 0. With `known`
    unchanged sites (controls) they tell, by median and MAD, drawn towards 0 and 1 as if by ten sites that simulated
    noise describes. Else the densest part of the lowest z does, and what lies below it, since a change can only raise
    z: changed sites may be alike too, but they are above.
    """
    present = np.isfinite(z)
    if known is not None and (known & present).sum() >= _FEWEST_KNOWN:
        own = z[known & present]
        centre = float(np.median(own))
        scale = float(np.median(np.abs(own - centre))) / _MAD
        weight = len(own) / (len(own) + _PRIOR_SITES)
        return weight * max(centre, 0.0), 1 + weight * max(scale - 1, 0.0)
    if present.sum() < MIN_FOR_NULL:
        return 0.0, 1.0
    ordered = np.sort(z[present])
    k = max(2, int(_MODE_SHARE * len(ordered)))
    lower = ordered[: max(k, int(_LOWER_SHARE * len(ordered)))]
    width = lower[k - 1 :] - lower[: len(lower) - k + 1]
    first = int(np.argmin(width))
    centre = float((lower[first] + lower[first + k - 1]) / 2)
    below = centre - lower[lower <= centre]
    scale = float(np.median(below)) / _MAD if len(below) else 1.0
    return max(centre, 0.0), max(scale, 1.0)


def robust_z(lengths: Floats, background: Flags) -> Floats:
    """Return robust z of distances: ``(x - median) / (1.4826 MAD)`` of ``x = length^(2/3)`` over the background.

    The power makes a chi-squared length nearly normal (Wilson-Hilferty), so that z = 2 is as rare as it sounds.
    """
    x = np.asarray(lengths, np.float64) ** (2 / 3)
    own = x[background & np.isfinite(x)]
    if len(own) < 3:
        return np.full(x.shape, np.nan)
    centre = float(np.median(own))
    scale = float(np.median(np.abs(own - centre))) / _MAD
    if scale <= 0:
        return np.full(x.shape, np.nan)
    return (x - centre) / scale

"""Sets site statistics against the sites that didn't change: an empirical null distribution, and robust z-scores.

Sources: Efron, *Large-scale simultaneous hypothesis testing: the choice of a null hypothesis*, JASA 99 (2004);
Wilson & Hilferty, *The distribution of chi-square*, PNAS 17 (1931).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gee_polygons.change.numerics import Flags, Floats, half_normal_scale, median_and_scale

_LEAST_SITES: Final = 50  # for an empirical null; with fewer sites the simulated null stands
_MODE_SHARE: Final = 0.2  # the shortest interval with this share of the sites,
_LOWER_SHARE: Final = 0.4  # among this share with the lowest z, is taken to hold unchanged sites
_LEAST_KNOWN: Final = 3
_PRIOR_SITES: Final = 10.0  # weight of the simulated null against known unchanged sites


def empirical_null(z: Floats, unchanged: Flags | None = None) -> tuple[float, float]:
    """Estimate centre and scale of the z-scores of unchanged sites.

    Series of real land vary in more ways than simulated noise, so that z of unchanged sites lies above 0. The centre
    is at least 0 and the scale at least 1: tests only become more cautious.

    Parameters
    ----------
    z : float array, shape (sites,)
        Standard normal scores of the simulated null; NaN where a site couldn't be tested.
    unchanged : bool array, shape (sites,), optional
        Sites known not to change. With three or more, their median and MAD are used, shrunk towards 0 and 1 as if by
        ten sites of simulated noise. Otherwise the mode of the lowest z is the centre, and the z below it give the
        scale: a change only raises z, so that changed sites lie above even if they are alike.
    """
    present = np.isfinite(z)
    if unchanged is not None and (unchanged & present).sum() >= _LEAST_KNOWN:
        own = z[unchanged & present]
        centre, scale = median_and_scale(own)
        weight = len(own) / (len(own) + _PRIOR_SITES)
        return weight * max(centre, 0.0), 1 + weight * max(scale - 1, 0.0)
    if present.sum() < _LEAST_SITES:
        return 0.0, 1.0
    ordered = np.sort(z[present])
    k = max(2, int(_MODE_SHARE * len(ordered)))
    lower = ordered[: max(k, int(_LOWER_SHARE * len(ordered)))]
    width = lower[k - 1 :] - lower[: len(lower) - k + 1]
    first = int(np.argmin(width))
    centre = float((lower[first] + lower[first + k - 1]) / 2)
    below = centre - lower[lower <= centre]
    scale = half_normal_scale(below) if len(below) else 1.0
    return max(centre, 0.0), max(scale, 1.0)


def robust_z(lengths: Floats, background: Flags) -> Floats:
    """Return robust z-scores of lengths, ``(x - median) / (1.4826 MAD)`` of ``x = length^(2/3)`` over the background.

    The power makes chi-squared distributed lengths nearly normal (Wilson & Hilferty). All NaN if the background has
    fewer than three values, or no spread.
    """
    x = np.asarray(lengths, np.float64) ** (2 / 3)
    own = x[background & np.isfinite(x)]
    centre, scale = median_and_scale(own) if len(own) >= 3 else (0.0, 0.0)
    return (x - centre) / scale if scale > 0 else np.full(x.shape, np.nan)

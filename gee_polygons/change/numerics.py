"""Provides the few statistical functions that NumPy lacks, so that SciPy isn't a dependency; tests compare with it."""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_MAD_OF_NORMAL: Final = 0.6744897501960817  # median absolute deviation of a standard normal distribution
_T_QUANTILES: Final = 100  # degrees of freedom that are tabulated, evenly in their inverse
_SWEEPS: Final = 200  # of coordinate descent: a handful of unknowns converge in a few tens


def median_and_scale(values: Floats) -> tuple[float, float]:
    """Return the median, and the median absolute deviation scaled to the standard deviation of a normal."""
    centre = float(np.median(values))
    return centre, float(np.median(np.abs(values - centre))) / _MAD_OF_NORMAL


def nonnegative_least_squares(gram: Floats, projections: Floats) -> Floats:
    """Solve many small least-squares problems with weights >= 0, by coordinate descent.

    Parameters
    ----------
    gram : float array, shape (problems, k, k)
        ``A^T A`` of each problem; columns of A that are 0 get the weight 0.
    projections : float array, shape (problems, k)
        ``A^T b`` of each problem.

    Returns
    -------
    float64 array, shape (problems, k): the weights w that minimise ``|A w - b|``.
    """
    weight = np.zeros_like(projections)
    for _ in range(_SWEEPS):
        for j in range(weight.shape[1]):
            own = gram[:, j, j]
            rest = projections[:, j] - np.einsum("nl,nl->n", gram[:, j], weight) + own * weight[:, j]
            weight[:, j] = np.where(own > 0, np.maximum(rest, 0) / np.where(own > 0, own, 1.0), 0.0)
    return weight


def student_t_quantile(probability: float, freedom: Floats) -> Floats:
    """Return quantiles of Student's t distribution for a probability from 0.5 to 1, to 4 digits.

    With ``t = sqrt(nu) tan(theta)`` the density is ``cos(theta)^(nu - 1)``; ``sqrt(nu) theta`` hardly depends on nu.

    Examples
    --------
    >>> student_t_quantile(0.95, np.array([1.0, 5.0, 1e9])).round(2).tolist()
    [6.31, 2.02, 1.64]
    """
    root = np.sqrt(np.clip(freedom, 1.0, 1e12))
    scaled = np.interp(1 / root**2, np.linspace(0, 1, _T_QUANTILES + 1), _scaled_t_quantiles(probability))
    found: Floats = root * np.tan(scaled / root)
    return found


@lru_cache(maxsize=8)
def _scaled_t_quantiles(probability: float) -> Floats:
    """Return ``sqrt(nu) theta`` at 1/nu = 0, ..., 1."""
    found = [NormalDist().inv_cdf(probability)]
    for nu in _T_QUANTILES / np.arange(1, _T_QUANTILES + 1):
        theta = np.linspace(0, min(np.pi / 2, 10 / np.sqrt(nu)), 4001)
        middle = (theta[1:] + theta[:-1]) / 2
        area = np.concatenate([[0.0], np.cumsum(np.cos(middle) ** (nu - 1))])
        found.append(float(np.sqrt(nu) * np.interp((2 * probability - 1) * area[-1], area, theta)))
    return np.array(found)

"""Provides the few statistical functions that NumPy lacks, so that SciPy isn't a dependency; tests compare with it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_SWEEPS: Final = 200  # of coordinate descent: a handful of unknowns converge in a few tens


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
            weight[:, j] = np.maximum(rest, 0) / np.where(own > 0, own, np.inf)
    return weight


@lru_cache(maxsize=256)
def student_t(freedom: float, confidence: float) -> float:
    """Return the t that a two-sided interval of Student's distribution reaches, to 4 digits.

    With ``t = sqrt(nu) tan(theta)`` the density is ``cos(theta)^(nu - 1)``.

    Examples
    --------
    >>> [round(student_t(freedom, 0.9), 2) for freedom in (1.0, 5.0, 1e9)]
    [6.31, 2.02, 1.64]
    """
    theta = np.linspace(0.0, min(np.pi / 2, 10 / np.sqrt(freedom)), 4_001)
    area = np.append(0.0, np.cumsum(np.cos((theta[1:] + theta[:-1]) / 2) ** (freedom - 1)))
    return float(np.sqrt(freedom) * np.tan(np.interp(confidence * area[-1], area, theta)))

"""Computes directional statistics: the length of a mean of unit vectors, and its direction.

Source: Mardia & Jupp, *Directional Statistics* (2000), chapters 9 and 10. The mean of unit vectors is not a unit
vector; its length, the mean resultant length `Rbar`, measures how similar the pixels are: their mean pairwise cosine
is Rbar^2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.errors import UsageError


def mean_resultant_length(means: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return Rbar, the length of mean vectors; NaN unless all 64 bands are given.

    Parameters
    ----------
    means : float array, shape (..., bands)
        Means of unit vectors, *not* renormalised.

    Returns
    -------
    float64 array, shape (...). 1 = all pixels are equal; NaN where a band is NaN or `bands` isn't 64.

    Examples
    --------
    >>> means = np.zeros((2, 64)); means[0, 0] = 1.0; means[1, :2] = 0.5
    >>> mean_resultant_length(means).round(4).tolist()
    [1.0, 0.7071]
    >>> bool(np.isnan(mean_resultant_length(means[:1, :3]))[0])
    True
    """
    m = _vectors(means)
    if m.shape[-1] != N_BANDS:
        return np.full(m.shape[:-1], np.nan)
    # hypot-like summation isn't needed: components are at most 1
    return np.sqrt(np.sum(m * m, axis=-1))


def normalize(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Scale vectors to length 1; a zero vector, which has no direction, becomes NaN.

    Parameters
    ----------
    vectors : float array, shape (..., bands)
        Any vectors.

    Returns
    -------
    float64 array of the same shape.

    Examples
    --------
    >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [nan, nan]]
    """
    v = _vectors(vectors)
    length = np.sqrt(np.sum(v * v, axis=-1, keepdims=True))
    return np.divide(v, length, out=np.full(v.shape, np.nan), where=length > 0)


def _vectors(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    v = np.asarray(vectors)
    if not np.issubdtype(v.dtype, np.floating):
        raise UsageError(f"vectors must be floats, found {v.dtype}; de-quantise codes with codes_to_vectors first")
    return v.astype(np.float64)

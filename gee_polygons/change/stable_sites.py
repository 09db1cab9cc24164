"""Guesses which sites of a table are stable: those whose trajectories are most alike.

Stable sites share the drift of the scene and little else, so their trajectories lie close together, even if they are
a minority; changed sites differ from them, and mostly from each other, in timing, pace and direction. The densest
subset estimates the mode where a median would need a majority: see the half-sample mode and the minimum covariance
determinant in Rousseeuw & Leroy, *Robust Regression and Outlier Detection* (1987).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.series import Series, has_data

_SHARE: Final = 0.2  # of the sites that form the subset,
_LEAST: Final = 3  # but at least so many
_MOST: Final = 2_000  # sites compared with each other; of more, evenly spaced ones


def most_similar_sites(series: Series, base: Flags) -> Flags:
    """Return, as a mask, the fifth of the sites whose movements since the base years are most alike."""
    usable = np.flatnonzero(series.present[:, base].any(axis=1) & (series.present.sum(axis=1) > 1))
    if len(usable) > _MOST:
        usable = usable[np.linspace(0, len(usable) - 1, _MOST).astype(int)]
    found = np.zeros(len(series.site_ids), np.bool_)
    k = max(_LEAST, int(_SHARE * len(usable)))
    if len(usable) <= k:
        found[usable] = True
        return found
    distance = _movement_distances(series.take(usable), base)
    np.fill_diagonal(distance, 0.0)
    nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
    spread = np.take_along_axis(distance, nearest, axis=1).sum(axis=1)
    found[usable[nearest[int(np.argmin(spread))]]] = True
    return found


def _movement_distances(series: Series, base: Flags) -> Floats:
    """Return pairwise mean squared differences of sites' movements, relative to the noise that their sizes imply."""
    home = np.nanmean(series.units[:, base], axis=1, keepdims=True)
    moved = series.units - home
    n = len(series.site_ids)
    total, years = np.zeros((n, n)), np.zeros((n, n))
    for y in np.flatnonzero(~base):
        seen = has_data(moved[:, y]).astype(np.float64)
        m = np.nan_to_num(moved[:, y])
        square = np.sum(m * m, axis=1)
        both = seen[:, None] * seen[None]
        total += both * (square[:, None] + square[None] - 2 * m @ m.T)
        years += both
    variance = 1 / series.n_effective
    return np.where(years > 0, total / np.maximum(years, 1) / (variance[:, None] + variance[None]), np.inf)

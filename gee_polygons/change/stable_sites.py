"""Which sites of a table didn't change, when nobody says so: those that moved alike, and only as the scene did.

Unchanged sites make the same steps, the scene's; changed ones differ from them and mostly from each other, in when,
how fast and whereto. So the unchanged ones are where series lie closest together, even if they are the fewer: the
densest part, as in the mode of half-samples or the minimum covariance determinant (Rousseeuw & Leroy, *Robust
Regression and Outlier Detection*, 1987). A median needs them to be the majority.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gee_polygons.change.series import Flags, Floats, Series

_SHARE: Final = 0.2  # of the sites that the densest part is looked for with, and at least so many:
_LEAST: Final = 3
_MOST: Final = 2_000  # sites that are compared with each other; of more, evenly spaced ones


def densest(series: Series, base: Flags) -> Flags:
    """Return the fifth of the sites whose movements since the base years are most alike, as a mask."""
    usable = series.present[:, base].any(axis=1) & (series.present.sum(axis=1) > 1)
    rows = np.flatnonzero(usable)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST)).astype(int)] if len(rows) else rows
    found = np.zeros(len(usable), np.bool_)
    k = max(_LEAST, int(_SHARE * len(rows)))
    if len(rows) <= k:
        found[rows] = True
        return found
    apart = _apart(series, rows, base)
    np.fill_diagonal(apart, 0.0)
    nearest = np.argpartition(apart, k - 1, axis=1)[:, :k]
    spread = np.take_along_axis(apart, nearest, axis=1).sum(axis=1)
    found[rows[nearest[int(np.argmin(spread))]]] = True
    return found


def _apart(series: Series, rows: np.typing.NDArray[np.intp], base: Flags) -> Floats:
    """Return the mean squared difference of two sites' movements, in units of what their sizes let expect."""
    units = series.units[rows]
    home = np.nanmean(units[:, base], axis=1, keepdims=True)
    moved = units - home
    total, years = np.zeros((len(rows), len(rows))), np.zeros((len(rows), len(rows)))
    for y in np.flatnonzero(~base):
        seen = np.isfinite(moved[:, y, 0]).astype(np.float64)
        m = np.nan_to_num(moved[:, y])
        square = np.sum(m * m, axis=1)
        both = seen[:, None] * seen[None]
        total += both * (square[:, None] + square[None] - 2 * m @ m.T)
        years += both
    expected = 1 / series.n_effective[rows]
    scale = expected[:, None] + expected[None]
    found: Floats = np.where(years > 0, total / np.maximum(years, 1) / scale, np.inf)
    return found

"""Estimates how unchanged sites move from year to year, and how sites of one cover differ, along any direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.numerics import Floats
from gee_polygons.change.series import has_data

DIRECTIONS: Final = 17.0  # of yearly noise: median participation ratio on 16 real scenes
LAND_SCATTER: Final = 1 - (0.818 / 0.905) ** 2  # for a single site: squares of 20 x 20 px in their square kilometre
_PRIOR_NOISE: Final = 0.004  # variance of a mean over 20 alike pixels, for tables without unchanged sites
_PRIOR_VECTORS: Final = 20.0  # vectors that "the same in 17 directions" counts for
_PRIOR_SITES: Final = 0.5  # sites whose scatter, shared out between directions as noise is, is added: cautious
_ROUNDS: Final = 20  # of filling gaps


@dataclass(frozen=True, kw_only=True, eq=False)
class Scatter:
    """Variance of vectors about their mean.

    Parameters
    ----------
    matrix : float array, shape (64, 64)
        ``d' matrix d`` is the variance along the unit vector d.
    total : float
        Mean squared distance from the mean.
    freedom : float
        Degrees of freedom of the variance along a direction.
    n : int
        Number of sites.
    """

    matrix: Floats
    total: float
    freedom: float
    n: int

    def along(self, direction: Floats) -> Floats:
        """Return the variance along unit vectors, shape (..., 64)."""
        return np.asarray(np.sum((direction @ self.matrix) * direction, axis=-1), np.float64)

    @property
    def radius_deg(self) -> float:
        """Angle from the mean that 95 % of further sites of this cover don't exceed, over 17 directions."""
        distance = np.sqrt(self.total * (1 + 1 / self.n)) * (1 + 1.645 / np.sqrt(2 * DIRECTIONS * max(self.n - 1, 1)))
        return float(np.degrees(2 * np.arcsin(min(distance / 2, 1.0))))


def yearly_noise(units: Floats, lost: float = 0.0) -> Scatter:
    """Return how unchanged sites (sites, years, 64) scatter about their own means over the years.

    `lost` is the fraction of the variance that was removed with a background made of these very sites.
    """
    seen = has_data(units)
    deviations = (units - np.nanmean(units, axis=1, keepdims=True))[seen]
    n = (len(deviations) - len(units)) * (1 - lost)
    covariance = deviations.T @ deviations
    total = float(np.trace(covariance))
    shape = _PRIOR_VECTORS / DIRECTIONS * np.eye(N_BANDS)
    if total > 0:
        shape += n * covariance / total
    variance = total / n if n >= 1 else _PRIOR_NOISE
    return Scatter(matrix=variance * shape / (n + _PRIOR_VECTORS), total=variance, freedom=DIRECTIONS, n=len(units))


def scatter_of(units: Floats, noise: Scatter) -> Scatter:
    """Return how sites of one cover (sites, years, 64, without gaps) differ from their mean."""
    own = np.nanmean(units, axis=1)
    m = len(own)
    deviations = own - own.mean(axis=0)
    total = float(np.sum(deviations**2)) / (m - 1) if m > 1 else LAND_SCATTER
    fraction = noise.matrix / noise.total if noise.total > 0 else np.eye(N_BANDS) / DIRECTIONS
    matrix = (deviations.T @ deviations + _PRIOR_SITES * total * fraction) / max(m - 1, _PRIOR_SITES)
    return Scatter(matrix=matrix, total=total, freedom=max(m - 1, 1) + _PRIOR_SITES, n=m)


def fill_gaps(units: Floats) -> Floats:
    """Fill gaps of series (sites, years, 64) with the year's mean plus the site's own mean deviation from it.

    Otherwise the mean of few sites jumps in a year without data of one of them. Years without any data stay NaN.
    """
    seen = has_data(units)
    years = seen.any(axis=0)
    if seen[:, years].all():
        return units
    known, held = units[:, years], seen[:, years, None]
    filled = np.where(held, known, np.nanmean(known, axis=0))
    for _ in range(_ROUNDS):
        own = filled.mean(axis=1, keepdims=True)
        filled = np.where(held, known, own + np.mean(filled - own, axis=0))
    found = np.full(units.shape, np.nan)
    found[:, years] = filled
    return found

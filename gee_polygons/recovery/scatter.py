"""Estimates how unchanged sites move from year to year, and how sites of one cover differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.numerics import Floats
from gee_polygons.change.series import has_data
from gee_polygons.embeddings.directional import normalize
from gee_polygons.recovery.classes import LEAST_MOVE_DEG

DIRECTIONS: Final = 17.0  # of yearly noise: median participation ratio on 16 real scenes
LAND_SCATTER: Final = 1 - (0.818 / 0.905) ** 2  # for a single site: squares of 20 x 20 px in their square kilometre
_ONE_COVER_DEG: Final = 20.0  # what counts as near the references where a single one doesn't show how they differ
_PRIOR_NOISE: Final = 0.004  # variance of a mean over 20 alike pixels, for tables without unchanged sites
_PRIOR_SITES: Final = 0.5  # sites whose scatter, the same in all directions of noise, is added: cautious


@dataclass(frozen=True, kw_only=True, eq=False)
class Cover:
    """Sites of one cover: their mean, and how they differ from it.

    Parameters
    ----------
    mean : float array, shape (years, 64)
        Mean of the sites' unit vectors.
    matrix : float array, shape (64, 64)
        ``d' matrix d`` is the variance of sites along the unit vector d.
    total : float
        Mean squared distance of sites from their mean.
    n : int
        Number of sites.
    """

    mean: Floats
    matrix: Floats
    total: float
    n: int

    def along(self, direction: Floats) -> Floats:
        """Return the variance of sites along unit vectors, shape (..., 64)."""
        return np.asarray(np.sum((direction @ self.matrix) * direction, axis=-1), np.float64)

    @property
    def direction(self) -> Floats:
        """Mean direction over the years, shape (64,)."""
        return normalize(np.nansum(self.mean, axis=0))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance along a direction."""
        return max(self.n - 1, 1) + _PRIOR_SITES

    @property
    def radius_deg(self) -> float:
        """Angle from the mean that 95 % of further sites of this cover don't exceed, and at least 10 degrees."""
        if self.n < 2:
            return _ONE_COVER_DEG
        distance = np.sqrt(self.total * (1 + 1 / self.n)) * (1 + 1.645 / np.sqrt(2 * DIRECTIONS * (self.n - 1)))
        return max(float(np.degrees(2 * np.arcsin(min(distance / 2, 1.0)))), LEAST_MOVE_DEG)


def cover_of(units: Floats) -> Cover:
    """Describe sites of one cover, shape (sites, years, 64); a year without any of them has a mean of NaN."""
    whole = fill_gaps(units)
    own = np.nanmean(whole, axis=1)
    m = len(own)
    deviations = own - own.mean(axis=0)
    total = float(np.sum(deviations**2)) / (m - 1) if m > 1 else LAND_SCATTER
    matrix = deviations.T @ deviations + _PRIOR_SITES * total / DIRECTIONS * np.eye(N_BANDS)
    return Cover(mean=whole.mean(axis=0), matrix=matrix / max(m - 1, _PRIOR_SITES), total=total, n=m)


def yearly_noise(units: Floats, lost: float = 0.0) -> float:
    """Return the mean squared distance of unchanged sites (sites, years, 64) from their own means over the years.

    `lost` is the fraction of the variance that was removed with a background made of these very sites.
    """
    deviations = (units - np.nanmean(units, axis=1, keepdims=True))[has_data(units)]
    n = (len(deviations) - len(units)) * (1 - lost)
    return float(np.sum(deviations**2) / n) if n >= 1 else _PRIOR_NOISE


def fill_gaps(units: Floats) -> Floats:
    """Fill gaps of series (sites, years, 64) with the site's own mean plus the mean deviation of the others that year.

    Otherwise the mean of few sites jumps in a year without data of one of them. Years without any data stay NaN.
    """
    seen = has_data(units)
    if seen[:, seen.any(axis=0)].all():
        return units
    own = np.nanmean(units, axis=1, keepdims=True)
    missing = np.isnan(units).all(axis=0)
    shift = np.where(missing, np.nan, np.nanmean(np.where(missing, 0.0, units - own), axis=0))
    return np.where(seen[..., None], units, own + shift)

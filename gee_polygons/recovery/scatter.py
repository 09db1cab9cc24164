"""Estimates how sites of one cover differ, and so how far the mean of a few of them (references) may be off.

For m sites the error of their mean along a direction has Student's t distribution with m - 1 degrees of freedom: with
two sites 6.3 standard errors at 90 %, with ten 1.8. A plain bootstrap of few sites is too narrow for two reasons: its
variance lacks the factor m / (m - 1), and it draws from a normal distribution (Hesterberg, *What teachers should know
about the bootstrap*, Am. Stat. 69, 2015). So sites are resampled with normal weights (the multiplier bootstrap; Wu,
*Ann. Stat.* 14, 1986), and each draw is multiplied by ``sqrt(nu / chi2_nu)``, which makes it exactly that t.

A few sites have 63 directions, though, and show how far they scatter on average; only the difference of one direction
from the average is uncertain. That knowledge is an inverse-Wishart prior, the same in all directions (Gelman et al.,
*Bayesian Data Analysis*, 2013, 3.6). It counts for as many sites as the directions of real noise are alike: for
eigenvalues l of mean 1, a scaled inverse chi-squared of d0 degrees of freedom has the variance 2 / d0, so
``d0 = 2 / mean((l - 1)^2)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.numerics import Floats
from gee_polygons.change.series import has_data
from gee_polygons.embeddings.directional import normalize

# For a single site: squares of 20 x 20 px about the mean of their square kilometre, from Rbar 0.905 and 0.818
LAND_SCATTER: Final = 1 - (0.818 / 0.905) ** 2
_FREE: Final = N_BANDS - 1  # directions of the sphere
_PRIOR_SITES: Final = (1.0, 30.0)  # least and most that the average over directions counts for
_ROUNDS: Final = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Scatter:
    """How sites of one cover scatter about their mean.

    Parameters
    ----------
    deviations : float array, shape (sites, 64)
        Of each from the mean of all, averaged over the years.
    average : float
        Variance of a site along a direction, averaged over the directions.
    prior : float
        Number of sites that this average counts for.
    """

    deviations: Floats
    average: float
    prior: float

    @property
    def n_sites(self) -> int:
        """Number of sites."""
        return len(self.deviations)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance along a direction."""
        return self.n_sites - 1 + self.prior

    @property
    def length(self) -> float:
        """Root mean square distance of a site from the mean."""
        return float(np.sqrt(self.average * _FREE))

    def stretches(self, draws: int, rng: np.random.Generator) -> Floats:
        """Draw ``sqrt(nu / chi2_nu)``, shape (draws,): the ratio of the true scatter to the one seen."""
        return np.sqrt(self.freedom / rng.chisquare(self.freedom, draws))

    def draw_mean(self, gradient: Floats, stretches: Floats, rng: np.random.Generator) -> Floats:
        """Draw the error of the mean along gradients (sites, years, 64), the same for all: (draws, sites, years)."""
        draws = len(stretches)
        drawn = rng.normal(size=(draws, self.n_sites)) @ self.deviations
        drawn += rng.normal(size=(draws, N_BANDS)) * np.sqrt(self.prior * self.average)
        drawn *= (stretches / np.sqrt(self.freedom * self.n_sites))[:, None]
        found: Floats = np.einsum("db,ntb->dnt", drawn, gradient, optimize=True)
        return found

    def draw_site(self, gradient: Floats, stretches: Floats, rng: np.random.Generator) -> Floats:
        """Draw how far one more site lies off the mean along gradients: shape (draws, sites, years)."""
        draws = len(stretches)
        along = np.einsum("ntb,mb->ntm", gradient, self.deviations, optimize=True)
        found: Floats = np.einsum("dm,ntm->dnt", rng.normal(size=(draws, self.n_sites)), along, optimize=True)
        even = np.linalg.norm(gradient, axis=2) * np.sqrt(self.prior * self.average)
        found += rng.normal(size=(draws, 1, 1)) * even
        found *= (stretches / np.sqrt(self.freedom))[:, None, None]
        return found


def estimate_scatter(units: Floats, shape: Floats, fallback: float = LAND_SCATTER) -> Scatter:
    """Estimate how sites scatter about their mean.

    Parameters
    ----------
    units : float array, shape (sites, years, 64)
        Unit vectors; in a year either all sites have data or none (see `fill_gaps`).
    shape : float array, shape (64, 64)
        Covariance of the noise, which tells how much directions differ.
    fallback : float
        Squared distance of a site from the mean, for use with a single site.
    """
    own = units[:, has_data(units).all(axis=0)].mean(axis=1)
    deviations = own - own.mean(axis=0)
    m = len(own)
    average = float(np.sum(deviations**2)) / (m - 1) / _FREE if m > 1 else fallback / _FREE
    values = np.linalg.eigvalsh(shape) * N_BANDS / np.trace(shape)
    prior = float(np.clip(2 / max(float(np.mean((values - 1) ** 2)), 1e-9), *_PRIOR_SITES))
    return Scatter(deviations=deviations, average=average, prior=prior)


def fill_gaps(units: Floats) -> Floats:
    """Fill gaps of series (sites, years, 64) with the year's mean plus the site's own mean deviation from it.

    Otherwise the mean of few sites jumps in a year without data of one of them. Years without any data stay NaN;
    sites without any are left out.
    """
    seen = has_data(units)
    if seen.all() or not seen.any():
        return units
    filled = np.where(seen[..., None], units, 0.0)
    weight = seen[..., None].astype(np.float64)
    own = np.zeros((len(units), 1, units.shape[2]))
    for _ in range(_ROUNDS):
        year = ((filled - own) * weight).sum(axis=0, keepdims=True) / np.maximum(weight.sum(axis=0), 1.0)
        own = ((filled - year) * weight).sum(axis=1, keepdims=True) / np.maximum(weight.sum(axis=1), 1.0)[:, None]
        own -= own[seen.any(axis=1)].mean(axis=0)
    found = np.where(seen[..., None], units, normalize(year + own))
    found[:, ~seen.any(axis=0)] = np.nan
    return found[seen.any(axis=1)]

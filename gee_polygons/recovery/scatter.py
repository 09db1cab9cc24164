"""How sites of one cover differ, and so what the mean of a few of them says: the references, or degraded stand-ins.

For m sites the error of their mean along a direction is Student's t with m - 1 degrees of freedom: with two sites
6.3 standard errors at 90 %, with ten 1.8. A plain bootstrap of few sites is too narrow twice: its variance lacks the
factor m / (m - 1), and it draws from a normal (Hesterberg, *What teachers should know about the bootstrap*, Am. Stat.
69, 2015). So sites are resampled with normal weights (the multiplier bootstrap; Wu, *Ann. Stat.* 14, 1986), and each
draw is stretched by ``sqrt(nu / chi2_nu)``, which makes exactly that t of it.

A few sites have 63 directions, though, and tell how far they scatter on average; only how this direction differs from
the average is left open. That knowledge is an inverse-Wishart prior, all directions alike at the average (Gelman et
al., *Bayesian Data Analysis*, 2013, 3.6), worth as many sites as the directions of real noise are alike: for
eigenvalues l of mean 1, a scaled inverse chi-squared of d0 degrees of freedom has the variance 2 / d0, so
``d0 = 2 / mean((l - 1)^2)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.series import Flags, Floats
from gee_polygons.embeddings.directional import normalize

# Where one site stands alone: squares of 20 x 20 px about the mean of their square kilometre, by Rbar 0.905 and 0.818
LAND_SCATTER: Final = 1 - (0.818 / 0.905) ** 2
_FREE: Final = N_BANDS - 1  # directions of the sphere
_PRIOR_SITES: Final = (1.0, 30.0)  # least and most that the average over directions counts for
_ROUNDS: Final = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Scatter:
    """How sites of one cover lie about their mean.

    Parameters
    ----------
    deviations : float array, shape (sites, 64)
        Of each from the mean of all, over the years.
    average : float
        Variance of a site in a direction, averaged over the directions.
    prior : float
        Sites that this average counts for.
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
        """Degrees of freedom of the variance in a direction."""
        return self.n_sites - 1 + self.prior

    @property
    def length(self) -> float:
        """Root mean square distance of a site from the mean of its kind."""
        return float(np.sqrt(self.average * _FREE))

    def stretches(self, draws: int, rng: np.random.Generator) -> Floats:
        """Return ``sqrt(nu / chi2_nu)``, shape (draws,): how far the true scatter may be from the one seen."""
        found: Floats = np.sqrt(self.freedom / rng.chisquare(self.freedom, draws))
        return found

    def of_mean(self, slope: Floats, stretches: Floats, rng: np.random.Generator) -> Floats:
        """Draw the error of the mean along slopes (sites, years, 64): shape (draws, sites, years), one for all."""
        draws = len(stretches)
        drawn = rng.normal(size=(draws, self.n_sites)) @ self.deviations
        drawn += rng.normal(size=(draws, N_BANDS)) * np.sqrt(self.prior * self.average)
        drawn *= (stretches / np.sqrt(self.freedom * self.n_sites))[:, None]
        found: Floats = np.einsum("db,ntb->dnt", drawn, slope, optimize=True)
        return found

    def of_one(self, slope: Floats, stretches: Floats, rng: np.random.Generator) -> Floats:
        """Draw how far one more site lies off the mean: shape (draws, sites, years)."""
        draws = len(stretches)
        along = np.einsum("ntb,mb->ntm", slope, self.deviations, optimize=True)
        found: Floats = np.einsum("dm,ntm->dnt", rng.normal(size=(draws, self.n_sites)), along, optimize=True)
        even = np.linalg.norm(slope, axis=2) * np.sqrt(self.prior * self.average)
        found += rng.normal(size=(draws, 1, 1)) * even
        found *= (stretches / np.sqrt(self.freedom))[:, None, None]
        return found


def scatter_of(units: Floats, shape: Floats, fallback: float = LAND_SCATTER) -> Scatter:
    """Return how sites of shape (sites, years, 64) scatter.

    Parameters
    ----------
    units : float array
        Unit vectors without gaps in years that have any (see `balanced`).
    shape : float array, shape (64, 64)
        Covariance of the noise: how alike directions are.
    fallback : float
        Squared distance of a site from the mean of its kind, if there is one site only.
    """
    with_data = np.isfinite(units[..., 0]).all(axis=0)
    own = units[:, with_data].mean(axis=1)
    deviations = own - own.mean(axis=0)
    m = len(own)
    average = float(np.sum(deviations**2)) / (m - 1) / _FREE if m > 1 else fallback / _FREE
    values = np.linalg.eigvalsh(shape) * N_BANDS / np.trace(shape)
    prior = float(np.clip(2 / max(float(np.mean((values - 1) ** 2)), 1e-9), *_PRIOR_SITES))
    return Scatter(deviations=deviations, average=average, prior=prior)


def balanced(units: Floats) -> Floats:
    """Fill gaps of series (sites, years, 64) with the year's mean and the site's own deviation from it.

    Otherwise the mean of few sites jumps in a year that one of them misses. Years without any data stay NaN.
    """
    seen: Flags = np.isfinite(units[..., 0])
    filled = np.where(seen[..., None], units, 0.0)
    if seen.all() or not seen.any():
        return units
    weight = seen[..., None].astype(np.float64)
    own = np.zeros((len(units), 1, units.shape[2]))
    for _ in range(_ROUNDS):
        year = ((filled - own) * weight).sum(axis=0, keepdims=True) / np.maximum(weight.sum(axis=0), 1.0)
        own = ((filled - year) * weight).sum(axis=1, keepdims=True) / np.maximum(weight.sum(axis=1), 1.0)[:, None]
        own -= own[seen.any(axis=1)].mean(axis=0)
    found = np.where(seen[..., None], units, normalize(year + own))
    found[:, ~seen.any(axis=0)] = np.nan
    return found[seen.any(axis=1)]

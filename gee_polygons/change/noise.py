"""Estimates the yearly noise of sites: its variance, its directions, and its autocorrelation.

A series is ``x(y) = state + path + noise``. Taking out the state (and, of a site that may change, its best path)
leaves ``r = M x`` with a projection M over the years. For noise of variance s^2 a year with AR(1) correlation
``C = phi^|i - j|``, the expected products of r are ``s^2 M C M``. Two moments, the size and the lag-1 product, give s^2
and phi; with M they are free of the bias that plain residual autocorrelations have in short series.

The variance of one site is known only as well as its years allow, so it is shrunk towards the variance that all sites
let expect for its size: ``(d0 v + d s^2) / (d0 + d)``, with d0 from how much sites differ beyond chance.

Sources: Marriott & Pope, *Bias in the estimation of autocorrelations*, Biometrika 41 (1954); Smyth, *Linear models and
empirical Bayes methods for assessing differential expression in microarray experiments*, Stat. Appl. Genet. Mol. Biol.
3 (2004), eqs. for the moderated variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.numerics import Flags, Floats, ar1_correlation, effective_dimensions, median_and_scale
from gee_polygons.change.series import has_data
from gee_polygons.change.templates import MIN_YEARS, Templates, fit_templates
from gee_polygons.embeddings.directional import normalize

# Without enough data: the squared step of a pixel from year to year is 2 (1 - 0.973) by its median cosine. 0.655 of it
# was taken to be shared by the scene (measured since: 0.23..0.67, median 0.41); a step has the noise of two years.
PRIOR_VARIANCE: Final = (1 - 0.655) * 2 * (1 - 0.973) / 2
_ENOUGH: Final = 30.0  # degrees of freedom in years known to be stable; with more, only these years are used
_PRIOR_YEARS: Final = 5.0  # weight of a covariance that is the same in all directions
_COEFFICIENTS: Final = np.linspace(0.0, 0.9, 19)  # AR(1) coefficients to interpolate between
_OUTLIER: Final = 3.0  # larger variances, relative to the expected one, are cut to this when sites are pooled
_FEW: Final = 5  # with fewer sites the effect of size, and how much sites differ, can't be estimated
_FEW_FREEDOM: Final = 4.0  # d0 in that case
_FIT_ROUNDS: Final = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """The noise of yearly means.

    Parameters
    ----------
    shape : float array, shape (64, 64)
        Its covariance, scaled to a trace of 1.
    variance : float array, shape (sites,)
        Its squared length.
    ar1 : float
        AR(1) coefficient from year to year, 0..0.9.
    """

    shape: Floats
    variance: Floats
    ar1: float

    def along(self, directions: Floats) -> Floats:
        """Return the standard deviation of noise of variance 1 along vectors of shape (..., 64)."""
        found: Floats = np.sqrt(np.maximum(np.einsum("...b,...b->...", directions @ self.shape, directions), 0.0))
        return found


def estimate_noise(units: Floats, n_effective: Floats, stable: Flags) -> Noise:
    """Estimate the noise of series with the drift removed.

    Parameters
    ----------
    units : float array, shape (sites, years, 64)
        NaN without data.
    n_effective : float array, shape (sites,)
        Effective sample size in pixels.
    stable : bool array, shape (sites, years)
        Years in which a site is known not to change: all years of references, the years before the start of
        restoration sites. Directions and autocorrelation are estimated from them; if they are too few, from all
        series without their best paths.
    """
    t = units.shape[1]
    expected = PRIOR_VARIANCE / n_effective
    isotropic = np.eye(N_BANDS) / N_BANDS
    still = _mean_remover(has_data(units) & stable)
    moving, left = _without_path(units)
    always = (stable | ~has_data(units)).all(axis=1)
    moving[always] = still[always]
    x = np.nan_to_num(units)
    left[always] = still[always] @ x[always]
    enough = np.trace(still, axis1=1, axis2=2).sum() >= _ENOUGH
    m, r = (still, still @ x) if enough else (moving, left)
    freedom = np.trace(m, axis1=1, axis2=2)
    square = np.einsum("ntb,ntb->n", r, r)
    use = (freedom > 0.5) & (square > 1e-12)
    if not use.any():
        return Noise(shape=isotropic, variance=expected, ar1=0.0)
    ar1 = _ar1_coefficient(r[use], square[use], m[use], freedom[use])
    scaled = (r[use] * np.sqrt(freedom[use] / square[use])[:, None, None]).reshape(-1, N_BANDS)  # sites weigh by years
    weight = float(freedom[use].sum())
    shape = (scaled.T @ scaled + _PRIOR_YEARS * isotropic) / (weight + _PRIOR_YEARS)
    years = np.einsum("nij,jk,nki->n", moving, ar1_correlation(t, ar1), moving)
    square = np.einsum("ntb,ntb->n", left, left)
    use = (years > 0.5) & (square > 1e-12)
    variance = expected
    if use.any():
        own, freedom = square[use] / years[use], years[use] * effective_dimensions(shape)
        variance, d0 = _expected_variance(own, freedom, n_effective, use)
        variance[use] = (d0 * variance[use] + freedom * own) / (d0 + freedom)
    return Noise(shape=shape / np.trace(shape), variance=variance, ar1=ar1)


def _mean_remover(seen: Flags) -> Floats:
    """Return the projection of each site's years that subtracts their mean, shape (sites, years, years)."""
    one = seen.astype(np.float64)
    count = np.maximum(one.sum(axis=1), 1.0)
    found: Floats = np.eye(seen.shape[1])[None] * one[:, None, :]
    found -= one[:, :, None] * one[:, None, :] / count[:, None, None]
    return found


def _without_path(units: Floats) -> tuple[Floats, Floats]:
    """Return the projection that takes out mean and best path, and what is left, shape (sites, years, 64).

    No template is quite the true path, and a path on a sphere is curved. So what is left in the plane of the path (the
    mean and the path's direction) is taken out too, at the cost of two of the 64 dimensions.
    """
    t = units.shape[1]
    seen = has_data(units)
    found, x = _mean_remover(seen), np.nan_to_num(units)
    if t < MIN_YEARS:
        return np.zeros_like(found), np.zeros_like(x)
    bank = Templates.over(t)
    template = fit_templates(units, bank).template
    one, count = seen.astype(np.float64), np.maximum(seen.sum(axis=1), 1.0)
    path = np.where((template >= 0)[:, None], bank.paths[template], 0.0) * one
    path -= one * path.sum(axis=1, keepdims=True) / count[:, None]
    path /= np.maximum(np.linalg.norm(path, axis=1, keepdims=True), 1e-12)
    found -= path[:, :, None] * path[:, None, :]
    found[template < 0] = 0.0
    left = found @ x
    for direction in (x.sum(axis=1), np.einsum("nt,ntb->nb", path, x)):
        direction = normalize(direction + 1e-15)
        left -= np.einsum("ntb,nb->nt", left, direction)[..., None] * direction[:, None]
    return found, left * np.sqrt(N_BANDS / (N_BANDS - 2))


def _ar1_coefficient(left: Floats, square: Floats, m: Floats, freedom: Floats) -> float:
    """Return the AR(1) coefficient whose expected lag-1 products match those seen; sites weigh by their years."""
    lag_one = np.einsum("ntb,ntb->n", left[:, 1:], left[:, :-1]) / square
    seen = float(np.average(lag_one, weights=freedom))
    expected = []
    for coefficient in _COEFFICIENTS:
        c = m @ ar1_correlation(m.shape[1], coefficient) @ m
        ratio = np.trace(c[:, 1:, :-1], axis1=1, axis2=2) / np.maximum(np.trace(c, axis1=1, axis2=2), 1e-12)
        expected.append(float(np.average(ratio, weights=freedom)))
    return float(np.interp(seen, np.maximum.accumulate(expected), _COEFFICIENTS))


def _expected_variance(own: Floats, freedom: Floats, n_effective: Floats, use: Flags) -> tuple[Floats, float]:
    """Return the variance expected of each site, and the degrees of freedom d0 that it counts for.

    A part that averages over pixels and a part that doesn't: ``v = v0 + v1 / n_effective``, neither negative.
    """
    x, all_x = 1 / n_effective[use], 1 / n_effective
    if len(own) < _FEW:
        # too few to separate the two parts: all of it averages over pixels, at the level of these sites
        level = float(np.median(own / x)) if len(own) > 1 else float(np.sqrt(own[0] / x[0] * PRIOR_VARIANCE))
        return level * all_x, _FEW_FREEDOM
    v0, v1 = 0.0, float(np.median(own / x))
    for _ in range(_FIT_ROUNDS):
        now = v0 + v1 * x
        v0, v1 = _nonnegative_line(x, np.minimum(own, _OUTLIER * now), 1 / now**2)
    _, spread = median_and_scale(np.log(own / (v0 + v1 * x)))
    extra = spread**2 - float(np.mean(2 / freedom))
    return v0 + v1 * all_x, 2 / max(extra, 1e-3)


def _nonnegative_line(x: Floats, y: Floats, weights: Floats) -> tuple[float, float]:
    """Fit a line by weighted least squares; return its intercept and slope, neither negative."""
    mx, my = float(np.average(x, weights=weights)), float(np.average(y, weights=weights))
    spread = float(np.average((x - mx) ** 2, weights=weights))
    slope = float(np.average((x - mx) * (y - my), weights=weights)) / spread if spread > 1e-12 else 0.0
    intercept = my - slope * mx
    if slope <= 0:
        return my, 0.0
    if intercept < 0:
        return 0.0, float(np.average(x * y, weights=weights) / np.average(x * x, weights=weights))
    return intercept, slope

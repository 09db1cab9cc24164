"""How large a site's yearly noise is, which directions it has, and how long it remembers.

A series is ``x(y) = state + path + noise``. What is left when the state is taken out (and, for a site that may change,
its best path) is ``r = M x`` with a projection M over the years, so for noise of variance s^2 a year that remembers
like an AR(1) process, ``C = phi^|i - j|``, its expected squares are ``s^2 M C M``. Two moments, the size and the lag-1
product, give s^2 and phi; M does away with the bias that plain residual autocorrelations have in short series.

A site's own variance is known as well as its years allow; all sites together tell what to expect of one of its size.
The two are weighed as Smyth has it: ``(d0 v + d s^2) / (d0 + d)``, with d0 from how much sites differ beyond chance.

Sources: Marriott & Pope, *Bias in the estimation of autocorrelations*, Biometrika 41 (1954); Smyth, *Linear models and
empirical Bayes methods for assessing differential expression in microarray experiments*, Stat. Appl. Genet. Mol. Biol.
3 (2004), eqs. for the moderated variance; Satterthwaite, *Biometrics* 2 (1946), for the number of free directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.series import Flags, Floats, ar1
from gee_polygons.change.templates import MIN_YEARS, Templates, fit_templates
from gee_polygons.embeddings.directional import normalize

# Where the table can't tell: a pixel's squared step from year to year is 2 (1 - 0.973) by the median cosine; the scene
# shares 0.44..0.87 of it, the middle is 0.655; a step has the noise of two years.
PRIOR_VARIANCE: Final = (1 - 0.655) * 2 * (1 - 0.973) / 2
_ENOUGH: Final = 30.0  # years in which sites are known not to change, beyond their means: then these alone tell
_PRIOR_YEARS: Final = 5.0  # that the prior counts for, of directions
_MEMORIES: Final = np.linspace(0.0, 0.9, 19)
_OUTLIER: Final = 3.0  # a variance beyond so many times what is expected counts as that when all sites are pooled
_FEW: Final = 5  # sites; fewer don't tell how much sites differ, nor how size matters
_FEW_COUNT: Final = 4.0  # degrees of freedom that the law of size then has against a site's own
_MAD: Final = 0.6744897501960817
_FIT_ROUNDS: Final = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """The noise of one year's mean.

    Parameters
    ----------
    shape : float array, shape (64, 64)
        Its covariance, scaled to a trace of 1.
    variance : float array, shape (sites,)
        Its squared length.
    memory : float
        AR(1) coefficient from year to year, 0..0.9.
    """

    shape: Floats
    variance: Floats
    memory: float

    def along(self, directions: Floats) -> Floats:
        """Return the standard deviation of the noise of variance 1 along vectors of shape (..., 64)."""
        found: Floats = np.sqrt(np.maximum(np.einsum("...b,...b->...", directions @ self.shape, directions), 0.0))
        return found


def spectral_freedom(shape: Floats) -> float:
    """Return how many directions of equal size would scatter alike: ``(sum l)^2 / sum l^2`` (Satterthwaite 1946)."""
    return float(np.trace(shape) ** 2 / np.sum(shape * shape))


def estimate_noise(units: Floats, n_effective: Floats, known: Flags) -> Noise:
    """Estimate the noise of series of shape (sites, years, 64), NaN = no data, with the common drift taken off.

    Parameters
    ----------
    units : float array, shape (sites, years, 64)
    n_effective : float array, shape (sites,)
        Effective pixels.
    known : bool array, shape (sites, years)
        Years in which a site is known not to change: references always, restoration sites before their start. They
        tell the noise's directions and memory; where there are too few, all series do, without their best paths.
    """
    t = units.shape[1]
    expected = PRIOR_VARIANCE / n_effective
    prior = np.eye(N_BANDS) / N_BANDS
    still = _without_mean(np.isfinite(units[..., 0]) & known)
    moving, left = _without_path(units)
    always = (known | ~np.isfinite(units[..., 0])).all(axis=1)
    moving[always] = still[always]
    x = np.nan_to_num(units)
    left[always] = still[always] @ x[always]
    enough = np.trace(still, axis1=1, axis2=2).sum() >= _ENOUGH
    m, r = (still, still @ x) if enough else (moving, left)
    freedom = np.trace(m, axis1=1, axis2=2)
    square = np.einsum("ntb,ntb->n", r, r)
    use = (freedom > 0.5) & (square > 1e-12)
    if not use.any():
        return Noise(shape=prior, variance=expected, memory=0.0)
    memory = _memory(r[use], square[use], m[use], freedom[use])
    flat = (r[use] * np.sqrt(freedom[use] / square[use])[:, None, None]).reshape(-1, N_BANDS)  # sites count by years
    weight = float(freedom[use].sum())
    shape = (flat.T @ flat + _PRIOR_YEARS * prior) / (weight + _PRIOR_YEARS)
    years = np.einsum("nij,jk,nki->n", moving, ar1(t, memory), moving)
    square = np.einsum("ntb,ntb->n", left, left)
    use = (years > 0.5) & (square > 1e-12)
    if not use.any():
        return Noise(shape=shape / np.trace(shape), variance=expected, memory=memory)
    own, freedom = square[use] / years[use], years[use] * spectral_freedom(shape)
    variance, d0 = _expected(own, freedom, n_effective, use)
    variance[use] = (d0 * variance[use] + freedom * own) / (d0 + freedom)
    return Noise(shape=shape / np.trace(shape), variance=variance, memory=memory)


def _without_mean(seen: Flags) -> Floats:
    """Return M of each site, shape (sites, years, years): onto what is not the mean of the years seen."""
    one = seen.astype(np.float64)
    count = np.maximum(one.sum(axis=1), 1.0)
    found: Floats = np.eye(seen.shape[1])[None] * one[:, None, :]
    found -= one[:, :, None] * one[:, None, :] / count[:, None, None]
    return found


def _without_path(units: Floats) -> tuple[Floats, Floats]:
    """Return M onto what is neither mean nor best path, and what is left, shape (sites, years, 64).

    No template is quite the true path, and a path on a sphere bends: so what is left in the plane that it runs in
    (the mean and the path's direction) is taken out too. Two of 64 directions are lost.
    """
    t = units.shape[1]
    seen = np.isfinite(units[..., 0])
    found, x = _without_mean(seen), np.nan_to_num(units)
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


def _memory(left: Floats, square: Floats, m: Floats, freedom: Floats) -> float:
    """Return the AR(1) coefficient whose expected lag-1 products are those seen; every site counts by its years."""
    lag_one = np.einsum("ntb,ntb->n", left[:, 1:], left[:, :-1]) / square
    seen = float(np.average(lag_one, weights=freedom))
    expected = []
    for memory in _MEMORIES:
        c = m @ ar1(m.shape[1], memory) @ m
        ratio = np.trace(c[:, 1:, :-1], axis1=1, axis2=2) / np.maximum(np.trace(c, axis1=1, axis2=2), 1e-12)
        expected.append(float(np.average(ratio, weights=freedom)))
    return float(np.interp(seen, np.maximum.accumulate(expected), _MEMORIES))


def _expected(own: Floats, freedom: Floats, n_effective: Floats, use: Flags) -> tuple[Floats, float]:
    """Return the variance to expect of each site, and for how many of its own degrees of freedom that counts.

    A part that averages over pixels and one that doesn't: ``v = v0 + v1 / n_effective``, neither negative.
    """
    x, every = 1 / n_effective[use], 1 / n_effective
    if len(own) < _FEW:
        # too few to tell the two parts apart: the known law of size, at the level of these sites
        level = float(np.median(own / x)) if len(own) > 1 else float(np.sqrt(own[0] / x[0] * PRIOR_VARIANCE))
        return level * every, _FEW_COUNT
    v0, v1 = 0.0, float(np.median(own / x))
    for _ in range(_FIT_ROUNDS):
        now = v0 + v1 * x
        y, w = np.minimum(own, _OUTLIER * now), 1 / now**2
        v0, v1 = _line(x, y, w)
    expected = v0 + v1 * x
    ratio = np.log(own / expected)
    spread = float(np.median(np.abs(ratio - np.median(ratio)))) / _MAD
    extra = spread**2 - float(np.mean(2 / freedom))
    return v0 + v1 * every, 2 / max(extra, 1e-3)


def _line(x: Floats, y: Floats, w: Floats) -> tuple[float, float]:
    """Weighted least squares of a line whose two coefficients aren't negative."""
    mx, my = float(np.average(x, weights=w)), float(np.average(y, weights=w))
    spread = float(np.average((x - mx) ** 2, weights=w))
    v1 = float(np.average((x - mx) * (y - my), weights=w)) / spread if spread > 1e-12 else 0.0
    v0 = my - v1 * mx
    if v1 <= 0:
        return my, 0.0
    if v0 < 0:
        return 0.0, float(np.average(x * y, weights=w) / np.average(x * x, weights=w))
    return v0, v1

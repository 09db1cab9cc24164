"""Is the best fit more than noise? The null distribution of the templates' statistic, from the table's own noise.

Noise is simulated and searched for the best path as the sites were: that gives the chance of so good a fit by noise
alone. What fits depend on is learnt from the sites, as what their best paths leave over (only years x years products
matter, as the statistic knows lengths alone):

* the memory: an AR(1) coefficient and the part of the noise that has it. One number alone can't tell noise of which
  half lasts from noise that fades, and neighbouring years alone can't even tell the former from none;
* how noisy each year is (a year of few images is), and how unevenly site-years are beyond that;
* in how many directions a site's own noise points: the fewer, the more two years of noise look like a path.

The best path takes much of all that out of a series. How much, simulated noise tells: each number is changed until the
residuals of simulated noise match (indirect inference; Gourieroux, Monfort & Renault, J. Appl. Econometrics 8, 1993).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.series import Floats, ar1
from gee_polygons.change.templates import MIN_YEARS, Fit, Templates, centred, explained_by, log_ratio

_DRAWS: Final = 8_000  # with 2,000 a p-value of 0.001 is off by half, the same way in every table
_TAIL: Final = 0.01  # beyond this the null is continued by an exponential tail, on the log scale: cautious
_ROUNDS: Final = 3  # of matching the noise to its residuals
_ROUGH_DRAWS: Final = 1_000  # are enough to tell which sites are suspect
_MATCHED: Final = 400  # series that are simulated for that
_LAGS: Final = (1, 2, 3)  # years; that the memory is told from
_MEMORIES: Final = (0.3, 0.5, 0.7, 0.9)  # that are tried, each with
_PARTS: Final = (0.25, 0.5, 0.75, 1.0)  # of the noise that have it; then nearer to the best of them:
_STEPS: Final = (0.1, 0.1, 0.05, 0.05)
_UNEVEN: Final = (0.0, 0.1, 0.2, 0.3, 0.45, 0.65, 0.9)  # standard deviations of log size that are tried
_FADING: Final = (64.0, 32.0, 20.0, 12.0, 8.0, 5.0, 3.0, 2.0, 1.2)  # scales of the eigenvalues' fall that are tried


@dataclass(frozen=True, kw_only=True, eq=False)
class NullNoise:
    """The noise of unchanged sites, as far as fits depend on it.

    Parameters
    ----------
    years : float array, shape (years,)
        Relative size of each year's noise, mean square 1.
    uneven : float
        Standard deviation of the logarithm of a site-year's size about that.
    memory : float
        AR(1) coefficient of the part that lasts.
    lasting : float
        That part's share of the variance.
    fading : float
        Eigenvalues of a site's noise fall as ``exp(-i / fading)``, i from 0 to 63.
    """

    years: Floats
    uneven: float = 0.0
    memory: float = 0.0
    lasting: float = 0.0
    fading: float = _FADING[0]

    def products(self, draws: Draws) -> Floats:
        """Return the years x years products of series of this noise, shape (n, years, years)."""
        values = np.exp(-np.arange(N_BANDS) / self.fading)
        x = draws.bands * np.sqrt(values / values.sum())
        root = np.asarray(np.linalg.cholesky(ar1(len(self.years), self.memory, self.lasting)), np.float64)
        size = self.years * np.exp(self.uneven * draws.sizes)
        found: Floats = (root @ (x @ x.transpose(0, 2, 1)) @ root.T) * (size[:, :, None] * size[:, None, :])
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """Standard normal numbers that noise is made from: the same ones whatever is tried, so that only that differs."""

    bands: Floats  # (n, years, 64)
    sizes: Floats  # (n, years)

    @classmethod
    def of(cls, n: int, n_years: int, seed: int) -> Draws:
        """Draw them."""
        rng = np.random.default_rng(seed)
        return cls(bands=rng.normal(size=(n, n_years, N_BANDS)), sizes=rng.normal(size=(n, n_years)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Left:
    """What residuals show, each series scaled to a length of 1."""

    lags: Floats  # mean products of years one, two and three apart
    years: Floats  # squared distance of each year from the one most like it, as a share of the mean over the years
    uneven: float  # median sum of squared squares
    aligned: float  # median sum of squared products of different years

    @classmethod
    def of(cls, whole: Floats, paths: Floats) -> _Left:
        """Take residuals from series' products."""
        products = _residual_products(whole, paths)
        products = products / np.trace(products, axis1=1, axis2=2)[:, None, None]
        diagonal = np.einsum("ntt->nt", products)
        squares = np.sum(diagonal**2, axis=1)
        return cls(
            lags=_lag_products(products).mean(axis=0),
            years=_apart(whole),
            uneven=float(np.median(squares)),
            aligned=float(np.median(np.sum(products**2, axis=(1, 2)) - squares)),
        )


def null_noise(units: Floats, bank: Templates, rounds: int = _ROUNDS) -> NullNoise:
    """Estimate the noise from what the best paths leave of series (sites, years, 64), each site counting the same."""
    t = units.shape[1]
    noise = NullNoise(years=np.ones(t))
    seen_years = np.isfinite(units[..., 0])
    mean = np.nan_to_num(units).sum(axis=1) / np.maximum(seen_years.sum(axis=1), 1)[:, None]
    x = np.where(seen_years[..., None], units - mean[:, None], 0.0)
    use = np.sum(x * x, axis=(1, 2)) > 1e-12
    if not use.any():
        return noise
    # a gap breaks a lag: series without one tell the noise, if there are some
    whole = use & seen_years.all(axis=1)
    x = x[whole] if whole.any() else x[use]
    paths, usable = centred(bank, np.ones(t, np.bool_))
    paths, draws = paths[usable], Draws.of(_MATCHED, t, 1)
    seen = _Left.of(x @ x.transpose(0, 2, 1), paths)
    for _ in range(rounds):
        noise = _with_directions(noise, draws, paths, seen)
        noise = _with_memory(noise, draws, paths, seen)
        noise = _with_sizes(noise, draws, paths, seen)
    return noise


def _residual_products(products: Floats, paths: Floats) -> Floats:
    """Return products of what each series' own best path leaves."""
    t = paths.shape[1]
    centre = np.eye(t) - 1 / t
    x = centre @ products @ centre
    best = paths[explained_by(paths, x).argmax(axis=1)]
    out = np.eye(t) - best[:, :, None] * best[:, None, :]
    found: Floats = out @ x @ out
    return found


def _apart(products: Floats) -> Floats:
    """Return how far each year is from the one most like it (squared; median over series), relative to the others.

    A path takes a noisy first or last year for its own; but a year that is unlike all others is noisy, path or not.
    """
    diagonal = np.einsum("ntt->nt", products)
    square = diagonal[:, :, None] + diagonal[:, None, :] - 2 * products
    t = square.shape[1]
    square[:, np.arange(t), np.arange(t)] = np.inf
    nearest = square.min(axis=2)
    found: Floats = np.median(nearest / nearest.mean(axis=1, keepdims=True), axis=0)
    return found


def _lag_products(products: Floats) -> Floats:
    """Return the products of years one, two and three apart, of series' years x years products, shape (n, 3)."""
    found: Floats = np.stack([np.trace(products, offset=k, axis1=1, axis2=2) for k in _LAGS], axis=1)
    return found


def _with_directions(noise: NullNoise, draws: Draws, paths: Floats, seen: _Left) -> NullNoise:
    """Match how much years of a site's noise are aligned."""
    aligned = []
    for fading in _FADING:
        tried = replace(noise, fading=fading)
        aligned.append(_Left.of(tried.products(draws), paths).aligned)
        if aligned[-1] > seen.aligned:
            break
    fading = np.interp(seen.aligned, np.maximum.accumulate(aligned), np.log(_FADING[: len(aligned)]))
    return replace(noise, fading=float(np.exp(fading)))


def _with_sizes(noise: NullNoise, draws: Draws, paths: Floats, seen: _Left) -> NullNoise:
    """Match how noisy each year is, and how unevenly site-years are."""
    left = _Left.of(noise.products(draws), paths)
    years = noise.years * np.sqrt(seen.years / left.years)
    noise = replace(noise, years=years / np.sqrt(np.mean(years**2)))
    found = []
    for uneven in _UNEVEN:
        tried = replace(noise, uneven=uneven)
        found.append(_Left.of(tried.products(draws), paths).uneven)
        if found[-1] > seen.uneven:
            break
    return replace(noise, uneven=float(np.interp(seen.uneven, np.maximum.accumulate(found), _UNEVEN[: len(found)])))


def _with_memory(noise: NullNoise, draws: Draws, paths: Floats, seen: _Left) -> NullNoise:
    """Match the lag products; misfits are weighed by how much each product scatters from series to series."""

    def simulated(memory: float, part: float) -> Floats:
        left = _residual_products(replace(noise, memory=memory, lasting=part).products(draws), paths)
        return _lag_products(left / np.trace(left, axis1=1, axis2=2)[:, None, None])

    inverse = np.linalg.pinv(np.cov(simulated(0.0, 0.0).T))

    def misfit(memory: float, part: float) -> float:
        apart = simulated(memory, part).mean(axis=0) - seen.lags
        return float(apart @ inverse @ apart)

    tried = {(0.0, 0.0): misfit(0.0, 0.0)}
    tried |= {(memory, part): misfit(memory, part) for memory in _MEMORIES for part in _PARTS}
    for step in _STEPS:
        memory, part = min(tried, key=tried.__getitem__)
        for near in ((memory - step, part), (memory + step, part), (memory, part - step), (memory, part + step)):
            if near not in tried and 0 < near[0] <= _MEMORIES[-1] and 0 < near[1] <= 1:
                tried[near] = misfit(*near)
    memory, part = min(tried, key=tried.__getitem__)
    return replace(noise, memory=memory, lasting=part)


def null_p_values(fit: Fit, units: Floats, bank: Templates, *, rough: bool = False, seed: int = 0) -> Floats:
    """Return the chance of so good a fit by noise alone, for each site; NaN where there are too few years."""
    draws, rounds = (_ROUGH_DRAWS, 1) if rough else (_DRAWS, _ROUNDS)
    present = np.isfinite(units[..., 0])
    # the same noise for every pattern of gaps: a gap changes nothing else
    products = null_noise(units, bank, rounds).products(Draws.of(draws, units.shape[1], seed))
    p = np.full(len(units), np.nan)
    for years in np.unique(present, axis=0):
        if years.sum() < MIN_YEARS:
            continue
        rows = np.flatnonzero((present == years).all(axis=1))
        paths, usable = centred(bank, years)
        centre = np.eye(int(years.sum())) - 1 / years.sum()
        own = centre @ products[:, years][:, :, years] @ centre
        null = log_ratio(explained_by(paths[usable], own).max(axis=1), np.trace(own, axis1=1, axis2=2))
        p[rows] = _upper_tail(fit.statistic[rows], np.sort(null))
    return p


def _upper_tail(values: Floats, null: Floats) -> Floats:
    """Share of the null at or above each value; beyond its last per cent, continued exponentially."""
    m = len(null)
    above = m - np.searchsorted(null, values, side="left")
    p = (above + 1) / (m + 1)
    edge = float(np.quantile(null, 1 - _TAIL))
    excess = null[null > edge] - edge
    decay = max(float(excess.mean()) if len(excess) else 0.0, 1e-6)
    tail = _TAIL * np.exp(-np.maximum(values - edge, 0.0) / decay)
    found: Floats = np.where(values > edge, np.maximum(tail, 1e-300), p)
    return found

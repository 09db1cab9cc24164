"""Tests whether a best fit is more than noise, against noise simulated as the table's own sites show it.

Simulated noise is searched for the best path as the sites were, which gives the probability of so good a fit by noise
alone. The properties of noise that fits depend on are estimated from the residuals of the sites' best paths (only years
x years products matter, as the statistic depends on lengths alone):

* its autocorrelation: an AR(1) coefficient, and the share of the noise that has it. One number alone can't distinguish
  noise of which half persists from noise that fades, and lag 1 alone can't even distinguish the former from none;
* how noisy each year is (a year of few images is noisier), and how much site-years differ beyond that;
* in how many directions a site's own noise points: the fewer, the more two years of noise look like a path.

The best path takes much of all that out of a series. Simulated noise tells how much: each property is adjusted until
the residuals of simulated noise match (indirect inference; Gourieroux, Monfort & Renault, J. Appl. Econometrics 8,
1993).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.numerics import Floats, ar1_correlation
from gee_polygons.change.series import has_data
from gee_polygons.change.templates import MIN_YEARS, Fit, Templates, centred_paths, explained_by, log_ratio

_DRAWS: Final = 8_000  # with 2,000 a p-value of 0.001 is off by half, the same way in every table
_TAIL: Final = 0.01  # above this quantile the null continues as an exponential tail, on the log scale: cautious
_ROUNDS: Final = 3  # of matching the noise to its residuals
_ROUGH_DRAWS: Final = 1_000  # are enough to find the sites that may have changed
_MATCHED: Final = 400  # series simulated for matching
_LAGS: Final = (1, 2, 3)  # years; for the autocorrelation
_COEFFICIENTS: Final = (0.3, 0.5, 0.7, 0.9)  # of AR(1), tried with each of
_AR1_SHARES: Final = (0.25, 0.5, 0.75, 1.0)  # of the noise; the best pair is then refined by steps of
_STEPS: Final = (0.1, 0.1, 0.05, 0.05)
_UNEVEN: Final = (0.0, 0.1, 0.2, 0.3, 0.45, 0.65, 0.9)  # standard deviations of log size that are tried
_FADING: Final = (64.0, 32.0, 20.0, 12.0, 8.0, 5.0, 3.0, 2.0, 1.2)  # decay constants of the eigenvalues that are tried


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseModel:
    """The noise of unchanged sites, as far as fits depend on it.

    Parameters
    ----------
    years : float array, shape (years,)
        Relative size of each year's noise, mean square 1.
    uneven : float
        Standard deviation of the logarithm of a site-year's size about that.
    ar1 : float
        AR(1) coefficient of the part that persists.
    ar1_share : float
        Share of the variance that persists.
    fading : float
        Eigenvalues of a site's noise fall as ``exp(-i / fading)``, i from 0 to 63.
    """

    years: Floats
    uneven: float = 0.0
    ar1: float = 0.0
    ar1_share: float = 0.0
    fading: float = _FADING[0]

    def products(self, draws: StandardDraws) -> Floats:
        """Return the years x years products of series of this noise, shape (n, years, years)."""
        values = np.exp(-np.arange(N_BANDS) / self.fading)
        x = draws.bands * np.sqrt(values / values.sum())
        correlation = ar1_correlation(len(self.years), self.ar1, self.ar1_share)
        root = np.asarray(np.linalg.cholesky(correlation), np.float64)
        size = self.years * np.exp(self.uneven * draws.sizes)
        found: Floats = (root @ (x @ x.transpose(0, 2, 1)) @ root.T) * (size[:, :, None] * size[:, None, :])
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class StandardDraws:
    """Standard normal numbers to make noise from: the same ones for all models, so that only the models differ."""

    bands: Floats  # (n, years, 64)
    sizes: Floats  # (n, years)

    @classmethod
    def of(cls, n: int, n_years: int, seed: int) -> StandardDraws:
        """Draw them."""
        rng = np.random.default_rng(seed)
        return cls(bands=rng.normal(size=(n, n_years, N_BANDS)), sizes=rng.normal(size=(n, n_years)))


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidualSummary:
    """Statistics of residuals, each series scaled to a length of 1.

    Parameters
    ----------
    lags : float array, shape (3,)
        Mean products of years one, two and three apart.
    years : float array, shape (years,)
        Squared distance of each year from the year most like it, relative to the mean over the years.
    uneven : float
        Median over series of the sum of the years' squared squares.
    aligned : float
        Median over series of the sum of squared products of different years.
    """

    lags: Floats
    years: Floats
    uneven: float
    aligned: float

    @classmethod
    def of(cls, whole: Floats, paths: Floats) -> ResidualSummary:
        """Summarise what the best paths leave of series, given by their years x years products."""
        products = _unit_residuals(whole, paths)
        squares = np.sum(np.einsum("ntt->nt", products) ** 2, axis=1)
        return cls(
            lags=_lag_products(products).mean(axis=0),
            years=_nearest_year_distances(whole),
            uneven=float(np.median(squares)),
            aligned=float(np.median(np.sum(products**2, axis=(1, 2)) - squares)),
        )


def estimate_noise_model(units: Floats, bank: Templates, rounds: int = _ROUNDS) -> NoiseModel:
    """Estimate the noise from what the best paths leave of series (sites, years, 64); sites have the same weight."""
    t = units.shape[1]
    model = NoiseModel(years=np.ones(t))
    present = has_data(units)
    mean = np.nan_to_num(units).sum(axis=1) / np.maximum(present.sum(axis=1), 1)[:, None]
    x = np.where(present[..., None], units - mean[:, None], 0.0)
    use = np.sum(x * x, axis=(1, 2)) > 1e-12
    if not use.any():
        return model
    # a gap breaks a lag: only series without one are used, if there are any
    whole = use & present.all(axis=1)
    x = x[whole] if whole.any() else x[use]
    paths, usable = centred_paths(bank, np.ones(t, np.bool_))
    paths, draws = paths[usable], StandardDraws.of(_MATCHED, t, 1)
    seen = ResidualSummary.of(x @ x.transpose(0, 2, 1), paths)

    def summary(model: NoiseModel) -> ResidualSummary:
        return ResidualSummary.of(model.products(draws), paths)

    for _ in range(rounds):
        fading, aligned = _tried(model, "fading", _FADING, lambda m: summary(m).aligned, seen.aligned)
        model = replace(model, fading=float(np.exp(np.interp(seen.aligned, aligned, np.log(fading)))))
        model = _match_autocorrelation(model, draws, paths, seen.lags)
        years = model.years * np.sqrt(seen.years / summary(model).years)
        model = replace(model, years=years / np.sqrt(np.mean(years**2)))
        sizes, uneven = _tried(model, "uneven", _UNEVEN, lambda m: summary(m).uneven, seen.uneven)
        model = replace(model, uneven=float(np.interp(seen.uneven, uneven, sizes)))
    return model


def _tried(
    model: NoiseModel,
    parameter: str,
    values: tuple[float, ...],
    statistic: Callable[[NoiseModel], float],
    target: float,
) -> tuple[tuple[float, ...], Floats]:
    """Return values of a parameter up to the first whose statistic exceeds the target, and their statistics.

    The statistics are made monotonic, for interpolation.
    """
    found: list[float] = []
    for value in values:
        found.append(statistic(NoiseModel(**(vars(model) | {parameter: value}))))
        if found[-1] > target:
            break
    return values[: len(found)], np.maximum.accumulate(found)


def _unit_residuals(products: Floats, paths: Floats) -> Floats:
    """Return the products of what its own best path leaves of each series, scaled to a trace of 1."""
    t = paths.shape[1]
    centre = np.eye(t) - 1 / t
    x = centre @ products @ centre
    best = paths[explained_by(paths, x).argmax(axis=1)]
    out = np.eye(t) - best[:, :, None] * best[:, None, :]
    left = out @ x @ out
    found: Floats = left / np.trace(left, axis1=1, axis2=2)[:, None, None]
    return found


def _nearest_year_distances(products: Floats) -> Floats:
    """Return each year's squared distance to the year most like it, relative to the mean; median over series.

    A path can follow a noisy first or last year; but a year that is unlike all others is noisy, path or not.
    """
    diagonal = np.einsum("ntt->nt", products)
    square = diagonal[:, :, None] + diagonal[:, None, :] - 2 * products
    t = square.shape[1]
    square[:, np.arange(t), np.arange(t)] = np.inf
    nearest = square.min(axis=2)
    found: Floats = np.median(nearest / nearest.mean(axis=1, keepdims=True), axis=0)
    return found


def _lag_products(products: Floats) -> Floats:
    """Return the summed products of years one, two and three apart, shape (series, 3)."""
    return np.stack([np.trace(products, offset=k, axis1=1, axis2=2) for k in _LAGS], axis=1)


def _match_autocorrelation(model: NoiseModel, draws: StandardDraws, paths: Floats, lags: Floats) -> NoiseModel:
    """Match the lag products; misfits are weighed by how much each product scatters from series to series."""

    def simulated(ar1: float, share: float) -> Floats:
        varied = replace(model, ar1=ar1, ar1_share=share)
        return _lag_products(_unit_residuals(varied.products(draws), paths))

    precision = np.linalg.pinv(np.cov(simulated(0.0, 0.0).T))

    def misfit(ar1: float, share: float) -> float:
        difference = simulated(ar1, share).mean(axis=0) - lags
        return float(difference @ precision @ difference)

    tried = {(0.0, 0.0): misfit(0.0, 0.0)}
    tried |= {(ar1, share): misfit(ar1, share) for ar1 in _COEFFICIENTS for share in _AR1_SHARES}
    for step in _STEPS:
        ar1, share = min(tried, key=tried.__getitem__)
        for near in ((ar1 - step, share), (ar1 + step, share), (ar1, share - step), (ar1, share + step)):
            if near not in tried and 0 < near[0] <= _COEFFICIENTS[-1] and 0 < near[1] <= 1:
                tried[near] = misfit(*near)
    ar1, share = min(tried, key=tried.__getitem__)
    return replace(model, ar1=ar1, ar1_share=share)


def null_p_values(fit: Fit, units: Floats, bank: Templates, *, rough: bool = False, seed: int = 0) -> Floats:
    """Return each site's probability of so good a fit by noise alone; NaN with too few years.

    With `rough`, fewer draws: enough to find the sites that may have changed.
    """
    n_draws, rounds = (_ROUGH_DRAWS, 1) if rough else (_DRAWS, _ROUNDS)
    present = has_data(units)
    # the same noise for every pattern of gaps, so that nothing else differs between them
    model = estimate_noise_model(units, bank, rounds)
    products = model.products(StandardDraws.of(n_draws, units.shape[1], seed))
    p = np.full(len(units), np.nan)
    for years in np.unique(present, axis=0):
        if years.sum() < MIN_YEARS:
            continue
        rows = np.flatnonzero((present == years).all(axis=1))
        paths, usable = centred_paths(bank, years)
        centre = np.eye(int(years.sum())) - 1 / years.sum()
        own = centre @ products[:, years][:, :, years] @ centre
        null = log_ratio(explained_by(paths[usable], own).max(axis=1), np.trace(own, axis1=1, axis2=2))
        p[rows] = _upper_tail(fit.statistic[rows], np.sort(null))
    return p


def _upper_tail(values: Floats, null: Floats) -> Floats:
    """Return the share of the sorted null at or above each value; beyond its last per cent, an exponential tail."""
    m = len(null)
    above = m - np.searchsorted(null, values, side="left")
    p = (above + 1) / (m + 1)
    edge = float(np.quantile(null, 1 - _TAIL))
    excess = null[null > edge] - edge
    decay = max(float(excess.mean()) if len(excess) else 0.0, 1e-6)
    tail = _TAIL * np.exp(-np.maximum(values - edge, 0.0) / decay)
    return np.where(values > edge, np.maximum(tail, 1e-300), p)

"""Is the best fit more than noise? The null distribution of the templates' statistic, from the table's own noise.

Simulated noise has the eigenvalues of the pooled residuals (only they matter, as lengths are all that counts) and their
memory; searching it for the best path, as the sites were searched, gives the chance of so good a fit by noise alone.

The best path takes more out of the noise's main directions than out of the others, and most of what a memory makes:
residuals look rounder and whiter than the noise is. How much, simulated noise tells: eigenvalues and memory are changed
until its residuals match (indirect inference; Gourieroux, Monfort & Renault, J. Appl. Econometrics 8, 1993). The memory
has two numbers, an AR(1) coefficient and the part of the noise that has it: one alone can't tell noise of which half
lasts from noise that fades, and neighbouring years alone can't even tell the former from none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gee_polygons._change.series import Floats, ar1
from gee_polygons._change.templates import MIN_YEARS, Fit, Templates, centred, explained_by, log_ratio
from gee_polygons.embeddings.quantization import N_BANDS

__all__ = ["NullNoise", "null_noise", "null_p_values"]

_DRAWS: Final = 20_000  # with 2,000 a p-value of 0.001 is off by half, the same way in every table
_TAIL: Final = 0.01  # beyond this the null is continued by an exponential tail, on the log scale: cautious
_ROUNDS: Final = 3  # of matching the noise to its residuals
_MATCHED: Final = 500  # series that are simulated for that
_LAGS: Final = (1, 2, 3)  # years; that the memory is told from
_MEMORIES: Final = (0.3, 0.5, 0.7, 0.9)  # that are tried, each with
_PARTS: Final = (0.25, 0.5, 0.75, 1.0)  # of the noise that have it; then nearer to the best of them:
_STEPS: Final = (0.1, 0.1, 0.05, 0.05)


@dataclass(frozen=True, kw_only=True, eq=False)
class NullNoise:
    """The noise of unchanged sites, as far as fits depend on it.

    Parameters
    ----------
    spectrum : float array, shape (64,)
        Eigenvalues, summing to 1.
    memory : float
        AR(1) coefficient of the part that lasts.
    lasting : float
        That part's share of the variance.
    """

    spectrum: Floats
    memory: float = 0.0
    lasting: float = 0.0

    def root(self, n_years: int) -> Floats:
        """Return the years x years matrix that gives noise without a memory this one."""
        return np.asarray(np.linalg.cholesky(ar1(n_years, self.memory, self.lasting)), np.float64)


def null_noise(fit: Fit, bank: Templates) -> NullNoise:
    """Estimate the noise from what the best paths leave, each site counting the same."""
    r = np.nan_to_num(fit.residuals)
    square = np.einsum("ntb,ntb->n", r, r)
    use = square > 1e-12
    if not use.any():
        return NullNoise(spectrum=np.full(N_BANDS, 1 / N_BANDS))
    r = r[use] / np.sqrt(square[use])[:, None, None]
    flat = r.reshape(-1, N_BANDS)
    values = np.clip(np.linalg.eigvalsh(flat.T @ flat / use.sum()), 1e-9, None)
    seen = values / values.sum()
    # a gap breaks a lag: series without one tell the memory, if there are some
    whole = np.isfinite(fit.residuals[use][..., 0]).all(axis=1)
    r = r[whole] if whole.any() else r
    lags = _lag_products(r @ r.transpose(0, 2, 1)).mean(axis=0)
    t = bank.paths.shape[1]
    paths, usable = centred(bank, np.ones(t, np.bool_))
    paths, noise = paths[usable], NullNoise(spectrum=seen)
    drawn = np.random.default_rng(1).normal(size=(_MATCHED, t, N_BANDS))
    for _ in range(_ROUNDS):
        white = drawn * np.sqrt(noise.spectrum)
        memory, lasting = _memory(white @ white.transpose(0, 2, 1), paths, lags)
        noise = NullNoise(spectrum=noise.spectrum, memory=memory, lasting=lasting)
        root = _centre(t) @ noise.root(t)
        x = root @ white
        left = _taken_out(x @ x.transpose(0, 2, 1), paths) @ x
        left /= np.linalg.norm(left, axis=(1, 2), keepdims=True)
        values = noise.spectrum * seen / np.mean(np.sum(left**2, axis=1), axis=0)
        noise = NullNoise(spectrum=values / values.sum(), memory=memory, lasting=lasting)
    return noise


def _centre(n_years: int) -> Floats:
    found: Floats = np.eye(n_years) - 1 / n_years
    return found


def _taken_out(products: Floats, paths: Floats) -> Floats:
    """Return the projection off each series' own best path, shape (series, years, years)."""
    best = paths[explained_by(paths, products).argmax(axis=1)]
    found: Floats = np.eye(paths.shape[1]) - best[:, :, None] * best[:, None, :]
    return found


def _lag_products(products: Floats) -> Floats:
    """Return the products of years one, two and three apart, of series' years x years products, shape (n, 3)."""
    found: Floats = np.stack([np.trace(products, offset=k, axis1=1, axis2=2) for k in _LAGS], axis=1)
    return found


def _memory(white: Floats, paths: Floats, lags: Floats) -> tuple[float, float]:
    """Return the memory, and the part that has it, whose residuals have the lag products seen.

    Parameters
    ----------
    white : float array, shape (n, years, years)
        Products of noise without a memory.
    paths : float array, shape (paths, years)
    lags : float array, shape (3,)
        Means over the series, each scaled to a length of 1. Misfits are weighed by how much each product scatters.
    """
    t = paths.shape[1]

    def simulated(memory: float, part: float) -> Floats:
        root = _centre(t) @ np.linalg.cholesky(ar1(t, memory, part))
        x = root @ white @ root.T
        out = _taken_out(x, paths)
        left = out @ x @ out
        return _lag_products(left / np.trace(left, axis1=1, axis2=2)[:, None, None])

    inverse = np.linalg.pinv(np.cov(simulated(0.0, 0.0).T))

    def misfit(memory: float, part: float) -> float:
        apart = simulated(memory, part).mean(axis=0) - lags
        return float(apart @ inverse @ apart)

    tried = {(0.0, 0.0): misfit(0.0, 0.0)}
    tried |= {(memory, part): misfit(memory, part) for memory in _MEMORIES for part in _PARTS}
    for step in _STEPS:
        memory, part = min(tried, key=tried.__getitem__)
        for near in ((memory - step, part), (memory + step, part), (memory, part - step), (memory, part + step)):
            if near not in tried and 0 < near[0] <= _MEMORIES[-1] and 0 < near[1] <= 1:
                tried[near] = misfit(*near)
    return min(tried, key=tried.__getitem__)


def null_p_values(fit: Fit, units: Floats, bank: Templates, *, draws: int = _DRAWS, seed: int = 0) -> Floats:
    """Return the chance of so good a fit by noise alone, for each site; NaN where there are too few years."""
    present = np.isfinite(units[..., 0])
    noise, t = null_noise(fit, bank), units.shape[1]
    # the same noise for every pattern of gaps: a gap changes nothing else
    x = np.random.default_rng(seed).normal(size=(draws, t, N_BANDS)) * np.sqrt(noise.spectrum)
    products = noise.root(t) @ (x @ x.transpose(0, 2, 1)) @ noise.root(t).T
    p = np.full(len(units), np.nan)
    for years in np.unique(present, axis=0):
        if years.sum() < MIN_YEARS:
            continue
        rows = np.flatnonzero((present == years).all(axis=1))
        paths, usable = centred(bank, years)
        centre = _centre(int(years.sum()))
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

"""When did a series change, and is it more than noise? A bank of templates, its best fit, and that fit's null.

A changed site is ``x(y) = a + g(y) d + noise`` with a path g of one of three shapes: a step that lasts, a rise over
some years that then stays, a pulse that returns. For a path centred over the years with data and of length 1, least
squares gives ``d = sum g x`` and explains ``|d|^2`` of the squared variation. The statistic is
``log(explained / left over)`` of the best path: the site's own residual is its yardstick, so large and small sites,
calm and restless ones are tested alike. Its null distribution, with the search over all paths included, comes from
simulated noise that has the eigenvalues of the pooled residuals (only they matter, as lengths are all that counts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons._change.series import Flags, Floats, ar1
from gee_polygons.embeddings.quantization import N_BANDS

__all__ = ["Fit", "Templates", "fit_templates", "null_p_values"]

MIN_YEARS: Final = 3  # two years differ, but there is nothing to compare the difference with
_SITES_AT_A_TIME: Final = 1_000  # x years x 64 bands: about 5 MB
_NULL_DRAWS: Final = 2_000
_TAIL: Final = 0.01  # beyond this the null is continued by an exponential tail, on the log scale: cautious
_ROUNDS: Final = 3  # of matching the noise to its residuals
_MATCHED: Final = 500  # series that are simulated for that
_MEMORIES: Final = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)  # that are tried
_SUPPORT: Final = 2.0  # units of log-likelihood within which two paths fit alike
_PULSE_YEARS: Final = (1, 2, 3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Templates:
    """Paths over the years, shape (templates, years), 0 before the start and 1 at most."""

    paths: Floats
    start: NDArray[np.int64]  # column of the first year that shows the change
    rise: NDArray[np.int64]  # years that the way up takes: 1 for a step, and for all that returns
    returns: Flags  # whether the path goes back to 0 within the years

    @classmethod
    def over(cls, n_years: int) -> Templates:
        """Return the bank for so many years."""
        paths, start, rises, returns = [], [], [], []
        y = np.arange(n_years)
        for first in range(1, n_years):
            for rise in range(1, n_years - first + 1):  # 1 is a step; the longest never levels off
                paths.append(np.clip((y - first + 1) / rise, 0, 1))
                start.append(first)
                rises.append(rise)
                returns.append(False)
            for length in _PULSE_YEARS:
                if first + length < n_years:  # at least one year after it
                    paths.append(((y >= first) & (y < first + length)).astype(np.float64))
                    start.append(first)
                    rises.append(1)
                    returns.append(True)
        return cls(
            paths=np.array(paths), start=np.array(start), rise=np.array(rises, np.int64), returns=np.array(returns)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """The best path of each site."""

    template: NDArray[np.int64]  # row of the bank, -1 where there are too few years; of like fits the shortest rise
    statistic: Floats  # log(explained / left over), NaN where there are too few years
    step_template: NDArray[np.int64]  # the best lasting step alone
    residuals: Floats  # (sites, years, 64), NaN where there is no data


def fit_templates(units: Floats, bank: Templates) -> Fit:
    """Fit every template to every site, shape (sites, years, 64), NaN = no data; keep the best."""
    n = len(units)
    present = np.isfinite(units[..., 0])
    template, step = np.full(n, -1), np.full(n, -1)
    statistic, residuals = np.full(n, np.nan), np.full(units.shape, np.nan)
    is_step = (bank.rise == 1) & ~bank.returns
    fits = []
    for years in np.unique(present, axis=0):
        if years.sum() < MIN_YEARS:
            continue
        rows = np.flatnonzero((present == years).all(axis=1))
        paths, usable = _centred(bank, years)
        for start in range(0, len(rows), _SITES_AT_A_TIME):
            part = rows[start : start + _SITES_AT_A_TIME]
            x = units[part][:, years]
            x = x - x.mean(axis=1, keepdims=True)
            explained, total = _explained(paths, x)
            explained = np.where(usable, explained, -1.0)
            best = explained.argmax(axis=1)
            step[part] = np.where(is_step, explained, -1.0).argmax(axis=1)
            statistic[part] = _ratio(explained[np.arange(len(part)), best], total)
            residuals[np.ix_(part, years)] = _leftover(paths[best], x)
            fits.append((part, explained, total, int(years.sum())))
    freedom = _freedom(residuals)
    for part, explained, total, count in fits:
        template[part] = _shortest(bank, explained, total, freedom * max(count - 2, 1))
    return Fit(template=template, statistic=statistic, step_template=step, residuals=residuals)


def _shortest(bank: Templates, explained: Floats, total: Floats, freedom: float) -> NDArray[np.int64]:
    """Return, of the paths that fit as well as the best, the one with the shortest rise.

    As well: a log-likelihood at most 2 less (Edwards, *Likelihood*, 1972), that is ``freedom / 2 log(left / least)``.
    A gap makes a step look like a slow rise that began before it; nothing but the wish for a good fit speaks for that.
    """
    left = np.maximum(total[:, None] - explained, 1e-12)
    best = explained.argmax(axis=1)
    alike = freedom / 2 * np.log(left / left.min(axis=1, keepdims=True)) <= _SUPPORT
    alike &= (explained >= 0) & (bank.returns[None] == bank.returns[best][:, None])
    rise = np.where(alike, bank.rise, bank.paths.shape[1] + 1)
    shortest = rise == rise.min(axis=1, keepdims=True)
    chosen: NDArray[np.int64] = np.where(shortest, explained, -2.0).argmax(axis=1)
    return chosen


def _freedom(residuals: Floats) -> float:
    """Return in how many directions the residuals scatter, as if alike in each (Satterthwaite 1946)."""
    r = np.nan_to_num(residuals)
    square = np.einsum("ntb,ntb->n", r, r)
    r = r[square > 1e-12] / np.sqrt(square[square > 1e-12])[:, None, None]
    flat = r.reshape(-1, N_BANDS)
    covariance = flat.T @ flat
    return float(np.trace(covariance) ** 2 / max(float(np.sum(covariance**2)), 1e-300)) if len(r) else 1.0


def _centred(bank: Templates, years: Flags) -> tuple[Floats, Flags]:
    """Paths over the years with data, centred and of length 1; which of them can be told apart from no change."""
    paths = bank.paths[:, years]
    paths = paths - paths.mean(axis=1, keepdims=True)
    length = np.linalg.norm(paths, axis=1)
    usable = length > 1e-9
    # a start hidden in a gap is the same path as a later start: take the first year that can show it
    columns = np.flatnonzero(years)
    usable &= np.isin(bank.start, columns[1:])
    return paths / np.where(usable, length, 1.0)[:, None], usable


def _explained(paths: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Return what each path explains of each site, shape (sites, paths), and each site's whole squared variation."""
    # |sum g x|^2 = g^T (x x^T) g: with years x years products in place of 64 bands, the search costs next to nothing
    products = x @ x.transpose(0, 2, 1)
    pairs = (paths[:, :, None] * paths[:, None, :]).reshape(len(paths), -1)
    explained: Floats = products.reshape(len(x), -1) @ pairs.T
    return explained, np.trace(products, axis1=1, axis2=2)


def _leftover(path: Floats, x: Floats) -> Floats:
    """Return x without what its own path, shape (sites, years), explains."""
    along = np.einsum("nt,ntb->nb", path, x)
    left: Floats = x - path[:, :, None] * along[:, None, :]
    return left


def _ratio(explained: Floats, total: Floats) -> Floats:
    left = np.maximum(total - explained, 1e-12)
    return np.log(np.maximum(explained, 1e-12) / left)


@dataclass(frozen=True, kw_only=True, eq=False)
class NullNoise:
    """The noise of unchanged sites, as far as fits depend on it."""

    spectrum: Floats  # eigenvalues, summing to 1
    memory: float  # AR(1) coefficient

    def of(self, drawn: Floats) -> Floats:
        """Make series of standard normal numbers of shape (n, years, 64)."""
        root = np.linalg.cholesky(ar1(drawn.shape[1], self.memory))
        found: Floats = root @ (drawn * np.sqrt(self.spectrum))
        return found


def null_noise(fit: Fit, bank: Templates) -> NullNoise:
    """Estimate the noise from what the best paths leave, each site counting the same.

    The best path takes more out of the noise's main directions than out of the others, and most of what a memory makes:
    residuals look rounder and whiter than the noise is. How much, simulated noise tells: eigenvalues and memory are
    raised until its residuals match (indirect inference; Gourieroux, Monfort & Renault, J. Appl. Econometrics 8, 1993).
    """
    r = np.nan_to_num(fit.residuals)
    square = np.einsum("ntb,ntb->n", r, r)
    use = square > 1e-12
    if not use.any():
        return NullNoise(spectrum=np.full(N_BANDS, 1 / N_BANDS), memory=0.0)
    r = r[use] / np.sqrt(square[use])[:, None, None]
    flat = r.reshape(-1, N_BANDS)
    seen = np.clip(np.linalg.eigvalsh(flat.T @ flat / use.sum()), 1e-9, None)
    seen /= seen.sum()
    lag_one = float(np.mean(np.einsum("ntb,ntb->n", r[:, 1:], r[:, :-1])))
    years = np.isfinite(fit.residuals[use][..., 0])
    paths, usable = _centred(bank, np.ones(bank.paths.shape[1], np.bool_))
    whole = years.all(axis=1)
    if whole.any():  # a gap breaks a lag: series without one tell the memory, if there are some
        lag_one = float(np.mean(np.einsum("ntb,ntb->n", r[whole, 1:], r[whole, :-1])))
    values, memory = seen, 0.0
    drawn = np.random.default_rng(1).normal(size=(_MATCHED, bank.paths.shape[1], N_BANDS))
    for _ in range(_ROUNDS):
        simulated = []
        for candidate in _MEMORIES:
            left = _null_residuals(NullNoise(spectrum=values, memory=candidate), drawn, paths[usable])
            simulated.append(float(np.mean(np.einsum("ntb,ntb->n", left[:, 1:], left[:, :-1]))))
            if simulated[-1] > lag_one:
                break
        tried = _MEMORIES[: len(simulated)]
        memory = float(np.interp(lag_one, np.maximum.accumulate(simulated), tried))
        left = _null_residuals(NullNoise(spectrum=values, memory=memory), drawn, paths[usable])
        values = values * seen / np.mean(np.sum(left**2, axis=1), axis=0)
        values = values / values.sum()
    return NullNoise(spectrum=values, memory=memory)


def _null_residuals(noise: NullNoise, drawn: Floats, paths: Floats) -> Floats:
    """Return what best paths leave of noise made from standard normal numbers, each series scaled to a length of 1."""
    x = noise.of(drawn)
    x -= x.mean(axis=1, keepdims=True)
    explained, _ = _explained(paths, x)
    left = _leftover(paths[explained.argmax(axis=1)], x)
    left /= np.linalg.norm(left, axis=(1, 2), keepdims=True)
    return left


def null_p_values(fit: Fit, units: Floats, bank: Templates, *, seed: int = 0) -> Floats:
    """Return the chance of so good a fit by noise alone, for each site; NaN where there are too few years."""
    present = np.isfinite(units[..., 0])
    noise = null_noise(fit, bank)
    p = np.full(len(units), np.nan)
    for years in np.unique(present, axis=0):
        if years.sum() < MIN_YEARS:
            continue
        rows = np.flatnonzero((present == years).all(axis=1))
        rng = np.random.default_rng(seed)  # the same noise for every pattern: a gap changes nothing else
        paths, usable = _centred(bank, years)
        null = []
        for _ in range(0, _NULL_DRAWS, _SITES_AT_A_TIME):
            x = noise.of(rng.normal(size=(_SITES_AT_A_TIME, len(years), N_BANDS)))[:, years]
            x -= x.mean(axis=1, keepdims=True)
            explained, total = _explained(paths[usable], x)
            null.append(_ratio(explained.max(axis=1), total))
        p[rows] = _upper_tail(fit.statistic[rows], np.sort(np.concatenate(null)))
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

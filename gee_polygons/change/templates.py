"""When did a series change? A bank of templates, and its best fit; `null` says whether that is more than noise.

A changed site is ``x(y) = a + g(y) d + noise`` with a path g of one of three shapes: a step that lasts, a rise over
some years that then stays, a pulse that returns. For a path centred over the years with data and of length 1, least
squares gives ``d = sum g x`` and explains ``|d|^2`` of the squared variation. The statistic is
``log(explained / left over)`` of the best path: the site's own residual is its yardstick, so large and small sites,
calm and restless ones are tested alike.

All that is needed of a series is its years x years products: ``|sum g x|^2 = g^T (x x^T) g``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.series import Flags, Floats

MIN_YEARS: Final = 3  # two years differ, but there is nothing to compare the difference with
_SITES_AT_A_TIME: Final = 1_000  # x years x 64 bands: about 5 MB
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
        paths, usable = centred(bank, years)
        for start in range(0, len(rows), _SITES_AT_A_TIME):
            part = rows[start : start + _SITES_AT_A_TIME]
            x = units[part][:, years]
            x = x - x.mean(axis=1, keepdims=True)
            products = x @ x.transpose(0, 2, 1)
            explained, total = explained_by(paths, products), np.trace(products, axis1=1, axis2=2)
            explained = np.where(usable, explained, -1.0)
            best = explained.argmax(axis=1)
            step[part] = np.where(is_step, explained, -1.0).argmax(axis=1)
            statistic[part] = log_ratio(explained[np.arange(len(part)), best], total)
            residuals[np.ix_(part, years)] = _left_over(paths[best], x)
            fits.append((part, explained, total, int(years.sum())))
    freedom = _freedom(residuals)
    for part, explained, total, count in fits:
        template[part] = _shortest(bank, explained, total, freedom * max(count - 2, 1))
    return Fit(template=template, statistic=statistic, step_template=step)


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


def centred(bank: Templates, years: Flags) -> tuple[Floats, Flags]:
    """Paths over the years with data, centred and of length 1; which of them can be told apart from no change."""
    paths = bank.paths[:, years]
    paths = paths - paths.mean(axis=1, keepdims=True)
    length = np.linalg.norm(paths, axis=1)
    usable = length > 1e-9
    # a start hidden in a gap is the same path as a later start: take the first year that can show it
    columns = np.flatnonzero(years)
    usable &= np.isin(bank.start, columns[1:])
    return paths / np.where(usable, length, 1.0)[:, None], usable


def explained_by(paths: Floats, products: Floats) -> Floats:
    """Return what each path, shape (paths, years), explains of each series' products: shape (series, paths)."""
    pairs = (paths[:, :, None] * paths[:, None, :]).reshape(len(paths), -1)
    found: Floats = products.reshape(len(products), -1) @ pairs.T
    return found


def _left_over(path: Floats, x: Floats) -> Floats:
    """Return x without what its own path, shape (sites, years), explains."""
    along = np.einsum("nt,ntb->nb", path, x)
    left: Floats = x - path[:, :, None] * along[:, None, :]
    return left


def log_ratio(explained: Floats, total: Floats) -> Floats:
    """Return the statistic of paths that explain so much of a series' squared variation."""
    left = np.maximum(total - explained, 1e-12)
    found: Floats = np.log(np.maximum(explained, 1e-12) / left)
    return np.where(total > 1e-12, found, -np.inf)  # what varies by rounding alone has no path at all

"""Dates a change: fits a bank of template paths over the years to each series, and keeps the best.

A changed site is ``x(y) = a + g(y) d + noise``, with a path g of one of three shapes: a step that lasts, a rise over
some years that then stays, a pulse that returns. For a path centred over the years with data and of length 1, least
squares gives ``d = sum g x``, which explains ``|d|^2`` of the squared variation. The statistic is
``log(explained / left over)`` of the best path: relative to the site's own residual, so that large and small, stable
and variable sites are tested alike. `null_distribution` tells how large noise alone makes it.

Only the years x years products of a series are needed: ``|sum g x|^2 = g^T (x x^T) g``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.numerics import Flags, Floats, effective_dimensions
from gee_polygons.change.series import has_data

MIN_YEARS: Final = 3  # with two years there is nothing to compare their difference with
_SITES_AT_A_TIME: Final = 1_000  # x years x 64 bands: about 5 MB
_SUPPORT: Final = 2.0  # units of log-likelihood within which two paths fit equally well
_PULSE_YEARS: Final = (1, 2, 3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Templates:
    """A bank of paths over the years.

    Parameters
    ----------
    paths : float array, shape (templates, years)
        0 before the start, at most 1 after it.
    start : int array, shape (templates,)
        Column of the first year that shows the change.
    rise : int array, shape (templates,)
        Years until the path is at 1: 1 for a step, and for all that returns.
    returns : bool array, shape (templates,)
        Whether the path goes back to 0 within the years.
    """

    paths: Floats
    start: NDArray[np.int64]
    rise: NDArray[np.int64]
    returns: Flags

    @classmethod
    def over(cls, n_years: int) -> Templates:
        """Return the bank for a number of years, two or more."""
        y = np.arange(n_years)
        rows = []
        for first in range(1, n_years):
            for rise in range(1, n_years - first + 1):  # 1 is a step; the longest never levels off
                rows.append((np.clip((y - first + 1) / rise, 0, 1), first, rise, False))
            for length in _PULSE_YEARS:
                if first + length < n_years:  # at least one year after it
                    rows.append((((y >= first) & (y < first + length)).astype(np.float64), first, 1, True))
        paths, start, rises, returns = (np.array(column) for column in zip(*rows, strict=True))
        return cls(paths=paths, start=start, rise=rises, returns=returns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """The best path of each site.

    Parameters
    ----------
    template : int array, shape (sites,)
        Row of the bank, -1 with too few years; among equally good fits the one with the shortest rise.
    statistic : float array, shape (sites,)
        log(explained / left over), NaN with too few years.
    step_template : int array, shape (sites,)
        Row of the best lasting step.
    """

    template: NDArray[np.int64]
    statistic: Floats
    step_template: NDArray[np.int64]


def fit_templates(units: Floats, bank: Templates) -> Fit:
    """Fit every template to every site, shape (sites, years, 64), NaN = no data; keep the best."""
    n = len(units)
    present = has_data(units)
    template, step = np.full(n, -1), np.full(n, -1)
    statistic, residuals = np.full(n, np.nan), np.zeros(units.shape)
    is_step = (bank.rise == 1) & ~bank.returns
    fits = []
    for years in np.unique(present, axis=0):
        if years.sum() < MIN_YEARS:
            continue
        rows = np.flatnonzero((present == years).all(axis=1))
        paths, usable = centred_paths(bank, years)
        for first in range(0, len(rows), _SITES_AT_A_TIME):
            part = rows[first : first + _SITES_AT_A_TIME]
            x = units[part][:, years]
            x = x - x.mean(axis=1, keepdims=True)
            products = x @ x.transpose(0, 2, 1)
            explained, total = explained_by(paths, products), np.trace(products, axis1=1, axis2=2)
            explained = np.where(usable, explained, -1.0)
            best = explained.argmax(axis=1)
            step[part] = np.where(is_step, explained, -1.0).argmax(axis=1)
            statistic[part] = log_ratio(explained[np.arange(len(part)), best], total)
            along = np.einsum("nt,ntb->nb", paths[best], x)
            residuals[np.ix_(part, years)] = x - paths[best][:, :, None] * along[:, None, :]
            fits.append((part, explained, total, int(years.sum())))
    dimensions = _residual_dimensions(residuals)
    for part, explained, total, count in fits:
        template[part] = _shortest_rise(bank, explained, total, dimensions * max(count - 2, 1))
    return Fit(template=template, statistic=statistic, step_template=step)


def _shortest_rise(bank: Templates, explained: Floats, total: Floats, freedom: float) -> NDArray[np.int64]:
    """Return, among the paths that fit as well as the best one, the path with the shortest rise.

    As well: a log-likelihood at most 2 less (Edwards, *Likelihood*, 1972), that is ``freedom / 2 log(left / least)``.
    A step inside a gap is fitted as well by a slow rise that begins before it; nothing else speaks for that rise.
    """
    left = np.maximum(total[:, None] - explained, 1e-12)
    best = explained.argmax(axis=1)
    as_good = freedom / 2 * np.log(left / left.min(axis=1, keepdims=True)) <= _SUPPORT
    as_good &= (explained >= 0) & (bank.returns[None] == bank.returns[best][:, None])
    rise = np.where(as_good, bank.rise, bank.paths.shape[1] + 1)
    shortest = rise == rise.min(axis=1, keepdims=True)
    chosen: NDArray[np.int64] = np.where(shortest, explained, -2.0).argmax(axis=1)
    return chosen


def _residual_dimensions(residuals: Floats) -> float:
    """Return the effective number of dimensions in which residuals scatter; each site has the same weight."""
    square = np.einsum("ntb,ntb->n", residuals, residuals)
    use = square > 1e-12
    flat = (residuals[use] / np.sqrt(square[use])[:, None, None]).reshape(-1, N_BANDS)
    return effective_dimensions(flat.T @ flat) if use.any() else 1.0


def centred_paths(bank: Templates, years: Flags) -> tuple[Floats, Flags]:
    """Return the paths over the years with data, centred and of length 1, and which of them differ from no change."""
    paths = bank.paths[:, years]
    paths = paths - paths.mean(axis=1, keepdims=True)
    length = np.linalg.norm(paths, axis=1)
    # a start inside a gap is the same path as a later start: only the first year that can show it is used
    usable = (length > 1e-9) & np.isin(bank.start, np.flatnonzero(years)[1:])
    return paths / np.where(length > 1e-9, length, 1.0)[:, None], usable


def explained_by(paths: Floats, products: Floats) -> Floats:
    """Return what each path, shape (paths, years), explains of each series' products: shape (series, paths)."""
    pairs = (paths[:, :, None] * paths[:, None, :]).reshape(len(paths), -1)
    return products.reshape(len(products), -1) @ pairs.T


def log_ratio(explained: Floats, total: Floats) -> Floats:
    """Return log(explained / left over); -inf for series that vary by rounding alone."""
    left = np.maximum(total - explained, 1e-12)
    found: Floats = np.log(np.maximum(explained, 1e-12) / left)
    return np.where(total > 1e-12, found, -np.inf)

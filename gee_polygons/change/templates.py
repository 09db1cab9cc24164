"""Dates a change: fits steps, ramps and pulses to each site's series, and compares the best with unchanged sites.

A changed site is ``x(y) = a + g(y) d + noise`` with a path g: 0, then 1 from a start on (a step), or for one to three
years (a pulse), or rising to 1 in three or five years (a ramp). For a path centred over the years with data and of
length 1, least squares gives ``d = sum g x``, which explains ``|d|^2`` of the squared variation. The statistic is
``log(explained / ((left over + typical) / 2))`` of the best path, with the median left over of the unchanged sites as
`typical`: a few years show a site's own noise badly, so half of it is what unchanged sites let expect (Smyth 2004).

Only the years x years products of a series are needed: ``|sum g x|^2 = g^T (x x^T) g``.

Source: Smyth, *Linear models and empirical Bayes methods for assessing differential expression in microarray
experiments*, Stat. Appl. Genet. Mol. Biol. 3 (2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.series import has_data
from gee_polygons.change.significance import LOG_RATIO_TAIL, upper_tail

MIN_YEARS: Final = 3  # with two years there is nothing to compare their difference with
_RISING_YEARS: Final = (1, 3, 5)  # 1 is a step
_PULSE_YEARS: Final = (1, 2, 3)
_MOST_COMPARED: Final = 1_000  # unchanged sites that are fitted; of more, evenly spaced ones
_SITES_AT_A_TIME: Final = 1_000  # x years x 64 bands: about 5 MB


@dataclass(frozen=True, kw_only=True, eq=False)
class Templates:
    """A bank of paths over the years.

    Parameters
    ----------
    paths : float array, shape (templates, years)
        0 before the change, 1 where it is complete.
    start : int array, shape (templates,)
        Column of the first year that shows the change.
    returns : bool array, shape (templates,)
        Whether the path goes back to 0 within the years.
    """

    paths: Floats
    start: NDArray[np.int64]
    returns: Flags

    @classmethod
    def over(cls, n_years: int) -> Templates:
        """Return the bank for a number of years, two or more."""
        y = np.arange(n_years)
        rows: list[tuple[Floats, int, bool]] = [
            (np.clip((y - first + 1) / length, 0.0, 1.0), first, False)
            for first in range(1, n_years)
            for length in _RISING_YEARS
            if length == 1 or first < n_years - 1  # in the last year all of them are the same
        ]
        rows += [
            (((y >= first) & (y < first + length)).astype(np.float64), first, True)
            for first in range(1, n_years)
            for length in _PULSE_YEARS
            if first + length < n_years  # at least one year after it
        ]
        paths, start, returns = (np.array(column) for column in zip(*rows, strict=True))
        return cls(paths=paths, start=start, returns=returns)

    def centred(self, years: Flags) -> tuple[Floats, Flags]:
        """Return the paths over the years with data, centred and of length 1, and which of them are of use."""
        paths = self.paths[:, years] - self.paths[:, years].mean(axis=1, keepdims=True)
        length = np.linalg.norm(paths, axis=1)
        # a start inside a gap is the same path as a later start: only the first year that can show it is used
        usable = (length > 1e-9) & np.isin(self.start, np.flatnonzero(years)[1:])
        rising = (self.paths > 0) & (self.paths < 1)  # within a gap alone, a ramp is a step
        usable &= rising[:, years].any(axis=1) | ~rising[:, ~years].any(axis=1)
        return paths / np.where(length > 1e-9, length, 1.0)[:, None], usable


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """The best path of each site.

    Parameters
    ----------
    template : int array, shape (sites,)
        Row of the bank, -1 with too few years.
    lasting : int array, shape (sites,)
        Row of the best path that doesn't return.
    p : float array, shape (sites,)
        Chance of so good a fit without a change, NaN with too few years.
    """

    template: NDArray[np.int64]
    lasting: NDArray[np.int64]
    p: Floats


def fit_templates(units: Floats, bank: Templates, unchanged: Floats) -> Fit:
    """Fit every template to every site, and compare the best with how well templates fit unchanged sites.

    Parameters
    ----------
    units : float array, shape (sites, years, 64)
        NaN = no data.
    bank : Templates
        Over these years.
    unchanged : float array, shape (series, years, 64)
        Series that didn't change, of the table or not. Without any, all sites are compared with each other.
    """
    n = len(units)
    found = Fit(template=np.full(n, -1), lasting=np.full(n, -1), p=np.full(n, np.nan))
    is_known = len(unchanged) > 0
    compared = unchanged if is_known else units
    if len(compared) > _MOST_COMPARED:
        compared = compared[np.linspace(0, len(compared) - 1, _MOST_COMPARED).astype(int)]
    patterns, which = np.unique(has_data(units), axis=0, return_inverse=True)
    for number, years in enumerate(patterns):
        if years.sum() < MIN_YEARS:
            continue
        paths, usable = bank.centred(years)
        # unchanged sites in the same years, so that gaps are no difference
        alike = compared[:, years][has_data(compared[:, years]).all(axis=1)]
        explained, left = _explained(alike, paths)
        explained = explained[:, usable].max(axis=1)
        left = _per_degree(left, explained, years)
        typical = float(np.median(left)) if len(left) else None
        sample = _log_ratio(explained, left, typical)
        rows = np.flatnonzero(which.ravel() == number)
        for first in range(0, len(rows), _SITES_AT_A_TIME):
            part = rows[first : first + _SITES_AT_A_TIME]
            explained, total = _explained(units[part][:, years], paths)
            explained = np.where(usable, explained, -1.0)
            best = explained.max(axis=1)
            found.template[part] = explained.argmax(axis=1)
            found.lasting[part] = np.where(bank.returns, -1.0, explained).argmax(axis=1)
            statistic = _log_ratio(best, _per_degree(total, best, years), typical)
            found.p[part] = upper_tail(statistic, sample, LOG_RATIO_TAIL, is_known=is_known, n_years=int(years.sum()))
    return found


def _explained(units: Floats, paths: Floats) -> tuple[Floats, Floats]:
    """Return what each path explains of each series' squared variation, shape (series, paths), and all of it."""
    x = units - units.mean(axis=1, keepdims=True)
    products = x @ x.transpose(0, 2, 1)
    pairs = (paths[:, :, None] * paths[:, None, :]).reshape(len(paths), -1)
    return products.reshape(-1, pairs.shape[1]) @ pairs.T, np.trace(products, axis1=1, axis2=2)


def _per_degree(total: Floats, explained: Floats, years: Flags) -> Floats:
    """Return what a path leaves per degree of freedom: years less the mean and the path."""
    return np.maximum(total - explained, 0.0) / (int(years.sum()) - 2)


def _log_ratio(explained: Floats, left: Floats, typical: float | None) -> Floats:
    """Return log(explained / noise), the noise half a site's own and half the typical; -inf for rounding alone."""
    noise = left if typical is None else (left + typical) / 2
    found: Floats = np.log(np.maximum(explained, 1e-12) / np.maximum(noise, 1e-12))
    return np.where(explained > 1e-12, found, -np.inf)

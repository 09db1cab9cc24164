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

from gee_polygons.change.numerics import Floats
from gee_polygons.change.series import has_data
from gee_polygons.change.significance import LOG_RATIO_TAIL, upper_tail

MIN_YEARS: Final = 3  # with two years there is nothing to compare their difference with
_RISING_YEARS: Final = (1, 3, 5)  # 1 is a step
_PULSE_YEARS: Final = (1, 2, 3)
_MOST_COMPARED: Final = 1_000  # unchanged sites that are fitted; of more, evenly spaced ones
_SITES_AT_A_TIME: Final = 1_000  # x years x 64 bands: about 5 MB


def paths_over(n_years: int) -> Floats:
    """Return paths over some years, shape (paths, years)."""
    y, found = np.arange(n_years), []
    for start in range(1, n_years):
        for length in _RISING_YEARS if start < n_years - 1 else (1,):  # in the last year all are the same
            found.append(np.clip((y - start + 1) / length, 0.0, 1.0))
        for length in _PULSE_YEARS:
            if start + length < n_years:  # at least one year after it
                found.append(((y >= start) & (y < start + length)).astype(np.float64))
    return np.array(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """The best path of each site.

    Parameters
    ----------
    path : float array, shape (sites, years)
        0 before the change, 1 where it is complete; a path that returns ends with 0.
    start, lasting : int array, shape (sites,)
        Column of the first year that shows the change, and that of the best path that doesn't return.
    p : float array, shape (sites,)
        Chance of so good a fit without a change, NaN with too few years.
    """

    path: Floats
    start: NDArray[np.intp]
    lasting: NDArray[np.intp]
    p: Floats


def fit_templates(units: Floats, unchanged: Floats) -> Fit:
    """Fit every template to every site, and compare the best with how well templates fit unchanged sites.

    Parameters
    ----------
    units : float array, shape (sites, years, 64)
        NaN = no data.
    unchanged : float array, shape (series, years, 64)
        Series that didn't change, of the table or not. Without any, all sites are compared with each other.
    """
    paths = paths_over(units.shape[1])
    starts, returns = (paths > 0).argmax(axis=1), paths[:, -1] == 0
    best, lasting = np.zeros((2, len(units)), np.intp)
    p = np.full(len(units), np.nan)
    compared = unchanged if len(unchanged) else units
    compared = compared[:: len(compared) // _MOST_COMPARED + 1]
    patterns, which = np.unique(has_data(units), axis=0, return_inverse=True)
    for number, years in enumerate(patterns):
        if years.sum() < MIN_YEARS:
            continue
        # a start inside a gap is the same path as a later start: only the first year that can show it is used
        usable = np.flatnonzero(np.isin(starts, np.flatnonzero(years)[1:]))
        # unchanged sites in the same years, so that gaps are no difference
        alike = compared[has_data(compared[:, years]).all(axis=1)]
        explained, left = explained_and_left(alike[:, years], paths[np.ix_(usable, years)])
        typical = float(np.median(left)) if len(left) else np.nan
        sample = log_ratio(explained.max(axis=1), left, typical)
        sites = np.flatnonzero(which.ravel() == number)
        for first in range(0, len(sites), _SITES_AT_A_TIME):
            part = sites[first : first + _SITES_AT_A_TIME]
            explained, left = explained_and_left(units[part][:, years], paths[np.ix_(usable, years)])
            best[part] = usable[explained.argmax(axis=1)]
            lasting[part] = usable[np.where(returns[usable], -1.0, explained).argmax(axis=1)]
            statistic = log_ratio(explained.max(axis=1), left, typical)
            p[part] = upper_tail(statistic, sample, LOG_RATIO_TAIL, is_known=len(unchanged) > 0)
    return Fit(path=paths[best], start=starts[best], lasting=starts[lasting], p=p)


def explained_and_left(units: Floats, paths: Floats) -> tuple[Floats, Floats]:
    """Return what each path explains of each series' squared variation, and what the best leaves per degree of freedom.

    Shapes (series, paths) and (series,); the degrees of freedom are the years less the mean and the path.
    """
    x = units - units.mean(axis=1, keepdims=True)
    g = paths - paths.mean(axis=1, keepdims=True)
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    products, pairs = x @ x.transpose(0, 2, 1), (g[:, :, None] * g[:, None, :]).reshape(len(g), -1)
    explained = products.reshape(-1, pairs.shape[1]) @ pairs.T
    left = np.trace(products, axis1=1, axis2=2) - explained.max(axis=1)
    return explained, np.maximum(left, 0.0) / (g.shape[1] - 2)


def log_ratio(explained: Floats, left: Floats, typical: float) -> Floats:
    """Return log(explained / noise), the noise half a site's own and half the typical; -inf for rounding alone."""
    noise = left if np.isnan(typical) else (left + typical) / 2
    ratio = np.maximum(explained, 1e-12) / np.maximum(noise, 1e-12)
    return np.where(explained > 1e-12, np.log(ratio), -np.inf)

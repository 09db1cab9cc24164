"""Removes from a table's series the drift of a background: control sites, rings, or the table's own stable sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from gee_polygons.change.drift import Drift, base_years, estimate_drift
from gee_polygons.change.null_distribution import null_p_values
from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.rings import subtract_ring_drift
from gee_polygons.change.series import Series, series_from_table, site_positions
from gee_polygons.change.stable_sites import most_similar_sites
from gee_polygons.change.templates import MIN_YEARS, Templates, fit_templates
from gee_polygons.errors import UsageError, warn_data

SUSPECT_P: Final = 0.2  # sites with a smaller p-value of "no change" aren't used as background, if there are others
_MODELS: Final = ("auto", "translation", "rotation")
_ROUNDS: Final = 3  # of finding changed sites and estimating the drift without them
_LEAST_SHARE: Final = 0.2  # of the sites that always stays in the background: those with the largest p-values
_LEAST_SITES: Final = 4  # for a background of all sites


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrected:
    """A table's series with the background's drift removed.

    Parameters
    ----------
    raw : Series
        As in the table.
    units : float array, shape (sites, years, 64)
        Vectors as they would be if every year were the base year.
    drift : Drift
        What was removed.
    is_background : bool array, shape (sites,)
        Which of the table's own sites the drift was estimated from.
    words : str
        The background in words.
    is_named : bool
        Whether the user named the sites that don't change.
    background : Series, optional
        The sites that the drift was estimated from.
    """

    raw: Series
    units: Floats
    drift: Drift
    is_background: Flags
    words: str
    is_named: bool = False
    background: Series | None = None


def corrected(
    table: pd.DataFrame, *, background: str | pd.DataFrame | list[Any] | None = "all", drift: str = "auto"
) -> Corrected:
    """Return a table's series with the background's drift removed; for the parameters see `change`."""
    if drift not in _MODELS:
        raise UsageError(f"drift is one of {', '.join(_MODELS)}, found {drift!r}")
    series = series_from_table(table)
    if background is None:
        return _uncorrected(series, "nothing")
    if isinstance(background, pd.DataFrame):
        return _by_table(series, background, drift)
    if isinstance(background, str):
        if background != "all":
            raise UsageError(f"background is 'all', a list of site ids, a table or None, found {background!r}")
        return _by_stable_sites(series, drift)
    named = np.sort(site_positions(series, background, "background"))
    rows = named[series.with_data[named]]
    if not len(rows):
        raise UsageError(
            f"background: none of the {len(named)} named site{'s' if len(named) > 1 else ''} has data in any year; "
            "name others, or background=None to remove nothing"
        )
    controls = series.take(rows)
    mask = np.isin(np.arange(len(series.site_ids)), rows)
    found = estimate_drift(controls, base_years(controls.present), drift)
    words = f"the drift of {len(rows)} control site{'s' if len(rows) > 1 else ''}"
    return _by_own_sites(series, found, mask, words, is_named=True)


def _uncorrected(series: Series, words: str) -> Corrected:
    none = np.zeros(len(series.site_ids), np.bool_)
    return Corrected(
        raw=series, units=series.units, drift=Drift.none(len(series.years)), is_background=none, words=words
    )


def _by_own_sites(series: Series, drift: Drift, mask: Flags, words: str, is_named: bool) -> Corrected:
    _warn_of_gaps(series, drift)
    return Corrected(
        raw=series,
        units=drift.remove(series.units),
        drift=drift,
        is_background=mask,
        words=words,
        is_named=is_named,
        background=series.take(mask),
    )


def _by_stable_sites(series: Series, model: str) -> Corrected:
    """Find the stable sites of the table, and remove their drift."""
    n = int(series.with_data.sum())
    if n < _LEAST_SITES:
        sites = f"{n} site{'s' if n > 1 else ''}"
        warn_data(
            f"a table of {sites} is too small to estimate the drift that all land shares: nothing is removed; name "
            "control sites, or give a table of rings (ring_sites)"
        )
        return _uncorrected(series, f"nothing (a table of {sites} is too small to estimate the drift)")
    base = base_years(series.present)
    found = estimate_drift(series.take(most_similar_sites(series, base)), base, model)
    stable = series.with_data
    if len(series.years) >= MIN_YEARS:
        bank = Templates.over(len(series.years))
        for _ in range(_ROUNDS):
            units = found.remove(series.units)
            p = np.nan_to_num(null_p_values(fit_templates(units, bank), units, bank, rough=True), nan=1.0)
            least = np.sort(p)[::-1][max(2, int(_LEAST_SHARE * n)) - 1]
            stable = (p >= SUSPECT_P) | (p >= least)
            found = estimate_drift(series.take(stable), base, model)
    n_stable = int((stable & series.with_data).sum())
    if 2 * n_stable < n:
        warn_data(
            f"only {n_stable} of {n} sites look unchanged; these, which moved most alike, are the background. If most "
            "sites changed alike, it may be wrong: name control sites, or give a table of rings (ring_sites)"
        )
    words = f"the drift of the table's own sites ({n_stable} of {n}, the most stable)"
    return _by_own_sites(series, found, stable, words, is_named=False)


def _by_table(series: Series, table: pd.DataFrame, model: str) -> Corrected:
    """Remove the drift of another table's sites; if they have the same ids, also that of each site's own ring."""
    other = series_from_table(table, series.years)
    if not other.present.any():
        raise UsageError("the background table has no year in common with the table")
    found = estimate_drift(other, base_years(other.present), model)
    _warn_of_gaps(series, found)
    units = found.remove(series.units)
    words = f"the drift of {len(other.site_ids)} background polygons"
    shared = {str(s) for s in series.site_ids} & {str(s) for s in other.site_ids}
    if 2 * len(shared) > len(series.site_ids):
        units, share = subtract_ring_drift(series, units, other, found)
        words += f", each site's own ring counting {share:.0%}"
    none = np.zeros(len(series.site_ids), np.bool_)
    return Corrected(raw=series, units=units, drift=found, is_background=none, words=words, background=other)


def _warn_of_gaps(series: Series, drift: Drift) -> None:
    gaps = ", ".join(str(year) for year in series.years[~drift.known])
    if gaps:
        warn_data(f"the background has no data in {gaps}: nothing is removed there")

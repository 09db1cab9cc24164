"""Estimates the movement that sites share with a background, and removes it.

The shared movement of a year is the median, band by band, of the background sites' steps from the year before: named
controls, rings around the sites, or all sites of the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.series import Series, has_data, in_parts, series_from_table, site_positions
from gee_polygons.embeddings.directional import normalize
from gee_polygons.errors import UsageError, warn_data

_LEAST_SITES: Final = 4  # with data, for a background from the table itself
_MOST: Final = 5_000  # sites that a background is estimated from; of more, evenly spaced ones
_OWN_RING: Final = 0.5  # weight of a site's own ring beside the median of all
_EXPLAINS_LITTLE: Final = 0.1  # of the sites' squared movement


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrected:
    """A table's series with the background's movement removed.

    Parameters
    ----------
    units : float array, shape (sites, years, 64)
        Vectors as they would be if every year were the first.
    drift : float array, shape (1 or sites, years, 64)
        The background's movement since the first year, which was removed.
    controls : bool array, shape (sites,)
        Sites of the table that the user named as unchanged.
    unchanged : float array, shape (series, years, 64)
        Series that are known not to have changed: controls, or polygons of a background table.
    words : str
        The background in words.
    explained : float array, shape (years,)
        Share of the sites' squared movement since the first year that the background explains.
    """

    units: Floats
    drift: Floats
    controls: Flags
    unchanged: Floats
    words: str
    explained: Floats


def corrected(
    series: Series, background: str | pd.DataFrame | list[Any] | None, calm: Flags | None = None
) -> Corrected:
    """Return a table's series with the background's movement removed; for the parameters see `change`.

    Of the background "all" only the sites of the mask `calm` count, if it is given.
    """
    rows = np.flatnonzero(series.present.any(axis=1))
    n, controls = len(rows), np.zeros(len(series.site_ids), np.bool_)
    drift, others = np.zeros((1, *series.units.shape[1:])), None
    if background is None:
        words = "nothing"
    elif isinstance(background, pd.DataFrame):
        drift, others, words = _of_table(series, background)
    elif isinstance(background, str) and background != "all":
        raise UsageError(f"background is 'all', a list of site ids, a table or None, found {background!r}")
    elif isinstance(background, str) and n < _LEAST_SITES:
        small = f"a table of {n} site{'s' if n > 1 else ''} is too small to estimate the drift that all land shares"
        warn_data(f"{small}: nothing is removed; name control sites, or give a table of rings (ring_sites)")
        words = f"nothing ({small})"
    elif isinstance(background, str):
        used = rows if calm is None else np.flatnonzero(calm)
        drift = _cumulated_median(series.units[used[:: len(used) // _MOST + 1]], series.years)[None]
        words = f"the median step of {'all' if calm is None else 'the calmer half of'} {n} sites"
    else:
        named = site_positions(series, background, "background")
        controls[np.intersect1d(named, rows)] = True
        if not controls.any():
            raise UsageError(
                f"background: none of the {len(named)} named site{'s' if len(named) > 1 else ''} has data in any year; "
                "name others, or background=None to remove nothing"
            )
        drift = _cumulated_median(series.units[controls], series.years)[None]
        words = f"the median step of {controls.sum()} control site{'s' if controls.sum() > 1 else ''}"
    units = series.units.copy()
    for part in in_parts(len(units)) if drift.any() else ():
        units[part] = normalize(series.units[part] - (drift if len(drift) == 1 else drift[part]))
    before, after = _movement(series.units), _movement(units)
    return Corrected(
        units=units,
        drift=drift,
        controls=controls,
        unchanged=units[controls] if others is None else others,
        words=words,
        explained=np.divide(before - after, before, out=np.full(len(before), np.nan), where=before > 0),
    )


def without_gaps(units: Floats, years: NDArray[np.int64]) -> Floats:
    """Interpolate missing years between others, so that the steps over a gap aren't lost; ends stay NaN."""
    seen, t = has_data(units), np.arange(len(years))
    before = np.maximum.accumulate(np.where(seen, t, -1), axis=1)
    after = np.minimum.accumulate(np.where(seen, t, len(t))[:, ::-1], axis=1)[:, ::-1]
    i, y = np.nonzero(~seen & (before >= 0) & (after < len(t)))
    a, b = before[i, y], after[i, y]
    part = ((years[y] - years[a]) / (years[b] - years[a]))[:, None]
    found = units.copy()
    found[i, y] = (1 - part) * units[i, a] + part * units[i, b]
    return found


def _cumulated_median(units: Floats, years: NDArray[np.int64]) -> Floats:
    """Return the cumulated median steps of background sites, shape (years, 64); 0 where none has both years."""
    steps = np.diff(without_gaps(units, years), axis=1)
    seen = has_data(steps).any(axis=0)
    if not seen.all():
        gaps = ", ".join(str(year) for year in years[1:][~seen])
        warn_data(f"the background has no data for the steps to {gaps}: nothing is removed there")
    found = np.zeros(units.shape[1:])
    found[1:][seen] = np.nanmedian(steps[:, seen], axis=0)
    return found.cumsum(axis=0)


def _of_table(series: Series, table: pd.DataFrame) -> tuple[Floats, Floats, str]:
    """Return the movement of another table's polygons, their vectors without it, and words.

    A site's own ring shows the local drift, with noise: where sites have one, it counts half.
    """
    other = series_from_table(table, series.years)
    if not other.present.any():
        raise UsageError("the background table has no year in common with the table")
    shared = _cumulated_median(other.units, series.years)
    words = f"the median step of {len(other.site_ids)} background polygons"
    place = {str(site_id): i for i, site_id in enumerate(other.site_ids)}
    rings = {i: place[str(site_id)] for i, site_id in enumerate(series.site_ids) if str(site_id) in place}
    drift = shared[None]
    if rings:
        drift = np.repeat(drift, len(series.site_ids), axis=0)
        steps = np.diff(without_gaps(other.units[[*rings.values()]], series.years) - shared, axis=1)
        drift[[*rings], 1:] += _OWN_RING * np.nan_to_num(steps).cumsum(axis=1)
        words += f", each site's own ring counting {_OWN_RING:.0%}"
    return drift, normalize(other.units - shared), words


def _movement(units: Floats) -> Floats:
    """Return the sum over sites of the squared movement since each site's first year with data, shape (years,)."""
    first = units[np.arange(len(units)), has_data(units).argmax(axis=1)]
    return np.array([np.nansum((units[:, year] - first) ** 2) for year in range(units.shape[1])])


def warn_if_it_explains_little(found: Corrected) -> None:
    """Warn if the background hardly moves as the sites do, as in tables of several scenes."""
    if found.drift.any() and (share := float(np.nanmedian(found.explained))) < _EXPLAINS_LITTLE:
        warn_data(
            f"the background explains {max(share, 0):.0%} of the sites' movement (on real scenes about half): if the "
            "table holds several scenes, call this once per region, with controls of that region"
        )

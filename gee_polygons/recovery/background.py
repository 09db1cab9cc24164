"""Estimates the movement that sites share with a background, and removes it.

The shared movement of a year is the median, band by band, of the background sites' steps from the year before. On real
land this simple estimate gives better shares and intervals than the model of drift in `gee_polygons.change.drift`: see
docs/methods_recovery.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.series import Series, series_from_table, site_positions
from gee_polygons.embeddings.directional import normalize
from gee_polygons.errors import UsageError, warn_data

_LEAST_SITES: Final = 4  # with data, for a background from the table itself
_EXPLAINS_LITTLE: Final = 0.1  # of the sites' squared movement


@dataclass(frozen=True, kw_only=True, eq=False)
class CorrectedSeries:
    """A table's series with the background's movement removed.

    Parameters
    ----------
    raw : Series
        As in the table.
    units : float array, shape (sites, years, 64)
        Vectors as they would be if every year were the first.
    controls : bool array, shape (sites,)
        Sites of the table that the user named as unchanged.
    words : str
        The background in words.
    """

    raw: Series
    units: Floats
    controls: Flags
    words: str


def without_shared_movement(table: pd.DataFrame, background: str | pd.DataFrame | list[Any] | None) -> CorrectedSeries:
    """Return a table's series with the background's movement removed; for the parameters see `recovery`."""
    series = series_from_table(table)
    drift, words = np.zeros((1, len(series.years), series.units.shape[2])), "nothing"
    controls = np.zeros(len(series.site_ids), np.bool_)
    if isinstance(background, pd.DataFrame):
        drift, words = _by_table(series, background)
    elif isinstance(background, str):
        if background != "all":
            raise UsageError(
                f"background is 'references', 'all', a list of site ids, a table or None, found {background!r}"
            )
        n = int(series.with_data.sum())
        if n < _LEAST_SITES:
            sites = f"{n} site{'s' if n > 1 else ''}"
            warn_data(
                f"a table of {sites} is too small to estimate the movement that all land shares: nothing is removed; "
                "name control sites, or give a table of rings (ring_sites)"
            )
            words = f"nothing (a table of {sites} is too small)"
        else:
            drift, words = shared_drift(series.units, series.years)[None], f"the median step of all {n} sites"
    elif background is not None:
        named = np.sort(site_positions(series, background, "background"))
        rows = named[series.with_data[named]]
        if not len(rows):
            raise UsageError(
                f"background: none of the {len(named)} named site{'s' if len(named) > 1 else ''} has data in any year; "
                "name others, or background=None to remove nothing"
            )
        controls[rows] = True
        drift = shared_drift(series.units[rows], series.years)[None]
        words = f"the median step of {len(rows)} control site{'s' if len(rows) > 1 else ''}"
    units = normalize(series.units - drift) if drift.any() else series.units
    found = CorrectedSeries(raw=series, units=units, controls=controls, words=words)
    if drift.any():
        _warn_if_it_explains_little(found)
    return found


def shared_drift(units: Floats, years: NDArray[np.int64]) -> Floats:
    """Return the cumulated median steps of background sites, shape (years, 64); 0 where none has both years."""
    steps = np.diff(without_gaps(units, years), axis=1)
    seen = np.isfinite(steps[..., 0]).any(axis=0)
    if not seen.all():
        gaps = ", ".join(str(year) for year in years[1:][~seen])
        warn_data(f"the background has no data for the steps to {gaps}: nothing is removed there")
    found = np.zeros(units.shape[1:])
    found[1:][seen] = np.nanmedian(steps[:, seen], axis=0)
    return found.cumsum(axis=0)


def without_gaps(units: Floats, years: NDArray[np.int64]) -> Floats:
    """Interpolate missing years between others, so that the steps over a gap aren't lost; ends stay NaN."""
    seen = np.isfinite(units[..., 0])
    inside = np.logical_or.accumulate(seen, axis=1) & np.logical_or.accumulate(seen[:, ::-1], axis=1)[:, ::-1]
    rows = np.flatnonzero((inside & ~seen).any(axis=1))
    if not len(rows):
        return units
    found = units.copy()
    for i in rows:
        held = np.flatnonzero(seen[i])
        for y in np.flatnonzero(inside[i] & ~seen[i]):
            after = np.searchsorted(held, y)
            a, b = held[after - 1], held[after]
            part = (years[y] - years[a]) / (years[b] - years[a])
            found[i, y] = (1 - part) * units[i, a] + part * units[i, b]
    return found


def _by_table(series: Series, table: pd.DataFrame) -> tuple[Floats, str]:
    """Return the drift of another table's sites; with the same ids, also a share of what each site's own ring adds."""
    other = series_from_table(table, series.years)
    if not other.present.any():
        raise UsageError("the background table has no year in common with the table")
    drift = shared_drift(other.units, series.years)[None]
    words = f"the median step of {len(other.site_ids)} background polygons"
    place = {str(site_id): i for i, site_id in enumerate(other.site_ids)}
    ring = np.array([place.get(str(site_id), -1) for site_id in series.site_ids])
    has_ring = ring >= 0
    if 2 * has_ring.sum() <= len(ring):
        return drift, words
    # a ring measures the local drift with noise: its share is the median regression of site steps on ring steps
    own, around = (
        np.nan_to_num(np.diff(without_gaps(units, series.years) - drift, axis=1))
        for units in (series.units[has_ring], other.units[ring[has_ring]])
    )
    both, square = (np.einsum("ntb,ntb->n", part, around) for part in (own, around))
    share = float(np.clip(np.median(both[square > 0] / square[square > 0]), 0, 1)) if (square > 0).any() else 0.0
    drift = np.repeat(drift, len(ring), axis=0)
    drift[has_ring, 1:] += share * around.cumsum(axis=1)
    return drift, f"{words}, each site's own ring counting {share:.0%}"


def _movement(units: Floats) -> Floats:
    """Return the sum over sites of the squared movement since each site's first year with data, shape (years,)."""
    seen = np.isfinite(units[..., 0])
    first = units[np.arange(len(units)), seen.argmax(axis=1)]
    return np.asarray(np.nansum((units - first[:, None]) ** 2, axis=(0, 2)), np.float64)


def _warn_if_it_explains_little(found: CorrectedSeries) -> None:
    total = _movement(found.raw.units).sum()
    share = 1 - _movement(found.units).sum() / total if total > 0 else 1.0
    if share < _EXPLAINS_LITTLE:
        warn_data(
            f"the background explains {max(share, 0):.0%} of the sites' movement (on real scenes about half): if the "
            "table holds several scenes, call this once per region, with controls of that region"
        )

"""Estimates the movement that sites share with a background, and removes it.

The shared movement of a year is the median, band by band, of the background sites' steps from the year before: named
controls, rings around the sites, all sites of the table, or for each site the sites that are most like it.
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

N_ALIKE: Final = 8  # sites that a site is compared with
_LEAST_SITES: Final = 4  # with data, for a background from the table itself
FEW_SITES: Final = 40  # in smaller tables neither half of the sites nor those most alike are enough
_MOST: Final = 5_000  # sites that a background is estimated from; of more, evenly spaced ones
_SITES_AT_A_TIME: Final = 256  # rows of the matrix of cosines that are held
_EXPLAINS_LITTLE: Final = 0.1  # of the sites' squared movement


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrected:
    """A table's series with the background's movement removed.

    Parameters
    ----------
    raw : Series
        As in the table.
    units : float array, shape (sites, years, 64)
        Vectors as they would be if every year were the first.
    drift : float array, shape (1 or sites, years, 64)
        The background's movement since the first year, which was removed.
    controls : bool array, shape (sites,)
        Sites of the table that the user named as unchanged.
    others : float array, shape (polygons, years, 64), optional
        Vectors of a background table, without their median movement.
    words : str
        The background in words.
    """

    raw: Series
    units: Floats
    drift: Floats
    controls: Flags
    words: str
    others: Floats | None = None

    @property
    def unchanged(self) -> Floats:
        """Series that are known not to have changed, shape (series, years, 64)."""
        return self.units[self.controls] if self.others is None else self.others

    @property
    def explained(self) -> Floats:
        """Share of the sites' squared movement since the first year that the background explains, shape (years,)."""
        before, after = (_movement(units) for units in (self.raw.units, self.units))
        found: Floats = np.divide(before - after, before, out=np.full(len(before), np.nan), where=before > 0)
        return found


def corrected(
    series: Series, background: str | pd.DataFrame | list[Any] | None, calm: Flags | None = None
) -> Corrected:
    """Return a table's series with the background's movement removed; for the parameters see `change`.

    Of the background "all" only the sites of the mask `calm` count, if it is given.
    """
    n = int(series.with_data.sum())
    controls = np.zeros(len(series.site_ids), np.bool_)
    drift, others = np.zeros((1, *series.units.shape[1:])), None
    if background is None:
        words = "nothing"
    elif isinstance(background, pd.DataFrame):
        drift, others, words = _of_table(series, background)
    elif isinstance(background, str):
        if background not in ("alike", "all"):
            raise UsageError(f"background is 'all', 'alike', a list of site ids, a table or None, found {background!r}")
        if n < _LEAST_SITES:
            small = f"a table of {n} site{'s' if n > 1 else ''} is too small to estimate the drift that all land shares"
            warn_data(f"{small}: nothing is removed; name control sites, or give a table of rings (ring_sites)")
            words = f"nothing ({small})"
        elif background == "all" or n < FEW_SITES:
            used = series.with_data if calm is None else calm
            drift = _cumulated_median(series.units[_some(np.flatnonzero(used))], series.years)[None]
            words = f"the median step of {'all' if calm is None else 'the calmer half of'} {n} sites"
        else:
            drift, words = _of_alike_sites(series), f"the median step of the {N_ALIKE} most alike sites"
    else:
        named = np.sort(site_positions(series, background, "background"))
        rows = named[series.with_data[named]]
        if not len(rows):
            raise UsageError(
                f"background: none of the {len(named)} named site{'s' if len(named) > 1 else ''} has data in any year; "
                "name others, or background=None to remove nothing"
            )
        controls[rows] = True
        drift = _cumulated_median(series.units[rows], series.years)[None]
        words = f"the median step of {len(rows)} control site{'s' if len(rows) > 1 else ''}"
    units = series.units
    if drift.any():
        units = np.empty_like(series.units)
        for part in in_parts(len(units)):
            units[part] = normalize(series.units[part] - (drift if len(drift) == 1 else drift[part]))
    return Corrected(raw=series, units=units, drift=drift, controls=controls, words=words, others=others)


def most_alike_sites(series: Series, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the other sites whose mean directions are nearest to those of some rows: shape (rows, 8 or fewer)."""
    mean = np.nan_to_num(normalize(series.units.sum(axis=1, where=series.present[..., None])))
    candidates = _some(np.flatnonzero(series.with_data))
    k = min(N_ALIKE, len(candidates) - 1)
    found = np.empty((len(rows), max(k, 0)), np.intp)
    for first in range(0, len(rows) if k > 0 else 0, _SITES_AT_A_TIME):
        part = rows[first : first + _SITES_AT_A_TIME]
        cosine = mean[part] @ mean[candidates].T
        cosine[part[:, None] == candidates] = -2.0
        found[first : first + len(part)] = candidates[np.argpartition(-cosine, k - 1, axis=1)[:, :k]]
    return found


def _some(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return at most 5,000 rows, evenly spaced."""
    return rows if len(rows) <= _MOST else rows[np.linspace(0, len(rows) - 1, _MOST).astype(int)]


def without_gaps(units: Floats, years: NDArray[np.int64]) -> Floats:
    """Interpolate missing years between others, so that the steps over a gap aren't lost; ends stay NaN."""
    seen = has_data(units)
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


def _of_alike_sites(series: Series) -> Floats:
    """Return each site's background movement, shape (sites, years, 64): the median steps of its most alike sites."""
    alike = most_alike_sites(series, np.arange(len(series.site_ids)))
    drift = np.zeros(series.units.shape)
    for first in range(0, len(alike), _SITES_AT_A_TIME):
        part = slice(first, first + _SITES_AT_A_TIME)
        near, place = np.unique(alike[part], return_inverse=True)
        steps = np.diff(without_gaps(series.units[near], series.years), axis=1)
        ordered = np.sort(steps[place.reshape(alike[part].shape)], axis=1)  # NaN last
        count = np.maximum(has_data(ordered).sum(axis=1), 1)[:, None, :, None]
        low, high = (np.take_along_axis(ordered, k, axis=1)[:, 0] for k in ((count - 1) // 2, count // 2))
        drift[part, 1:] = np.nan_to_num((low + high) / 2).cumsum(axis=1)
    return drift


def _of_table(series: Series, table: pd.DataFrame) -> tuple[Floats, Floats, str]:
    """Return the movement of another table's polygons, with a share of each site's own ring if it has rings."""
    other = series_from_table(table, series.years)
    if not other.present.any():
        raise UsageError("the background table has no year in common with the table")
    drift = _cumulated_median(other.units, series.years)[None]
    others = normalize(other.units - drift)
    words = f"the median step of {len(other.site_ids)} background polygons"
    place = {str(site_id): i for i, site_id in enumerate(other.site_ids)}
    ring = np.array([place.get(str(site_id), -1) for site_id in series.site_ids])
    has_ring = ring >= 0
    if 2 * has_ring.sum() <= len(ring):
        return drift, others, words
    # a ring measures the local drift with noise: its share is the median regression of site steps on ring steps
    own, around = (
        np.nan_to_num(np.diff(without_gaps(units, series.years) - drift, axis=1))
        for units in (series.units[has_ring], other.units[ring[has_ring]])
    )
    both, square = (np.einsum("ntb,ntb->n", part, around) for part in (own, around))
    share = float(np.clip(np.median(both[square > 0] / square[square > 0]), 0, 1)) if (square > 0).any() else 0.0
    drift = np.repeat(drift, len(ring), axis=0)
    drift[has_ring, 1:] += share * around.cumsum(axis=1)
    return drift, others, f"{words}, each site's own ring counting {share:.0%}"


def _movement(units: Floats) -> Floats:
    """Return the sum over sites of the squared movement since each site's first year with data, shape (years,)."""
    first = units[np.arange(len(units)), has_data(units).argmax(axis=1)]
    return np.array([np.nansum((units[:, year] - first) ** 2) for year in range(units.shape[1])])


def warn_if_it_explains_little(found: Corrected) -> None:
    """Warn if the background hardly moves as the sites do, as in tables of several scenes."""
    total = _movement(found.raw.units).sum() if found.drift.any() else 0.0
    if total <= 0:
        return
    share = 1 - _movement(found.units).sum() / total
    if share < _EXPLAINS_LITTLE:
        warn_data(
            f"the background explains {max(share, 0):.0%} of the sites' movement (on real scenes about half): if the "
            "table holds several scenes, call this once per region, with controls of that region"
        )

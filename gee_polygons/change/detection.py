"""Tests whether each site changed, and says when, how much and towards what, from a table of yearly embeddings.

A large part of each year's step is shared by the whole scene: on real pixels the mean step is 0.48-0.82 times as long
as the root mean square step (median 0.64), which is 23-67 % of the squared step (median 41 %). `change` removes what a
*background* shows of it, and reports angles with and without.

    >>> from gee_polygons import extract_embeddings
    >>> from gee_polygons.sources.sample import sample_sites
    >>> table = extract_embeddings(sample_sites(), years=range(2018, 2025), source="sample")
    >>> found = change(table, background=["pasture-control", "forest-reference-1", "forest-reference-2"])
    >>> print(*found.sites.set_index("site_id").loc["cleared", ["flag", "start", "kind"]])
    True 2021 persistent

Every formula, with its assumptions, is in docs/methods_change.md, the limits in docs/what_cant_be_concluded.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.change.background import Corrected, corrected, warn_if_it_explains_little
from gee_polygons.change.direction import direction_shares
from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.series import Series, baseline_mask, has_data, in_parts, series_from_table
from gee_polygons.change.significance import ENOUGH_UNCHANGED, adjusted_p_values, unusual_years, yearly_departures
from gee_polygons.change.templates import Fit, fit_templates
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.errors import UsageError

LEAST_SIZE_DEG: Final = 10.0  # smaller flags on real land are mostly not real
_FEW_SITES: Final = 40  # of smaller tables the calmer half is too few
_HALF: Final = 0.5  # of a change: a site that keeps less has returned; alike sites that moved so far made it, too
_N_ALIKE: Final = 8  # sites that a flagged site is compared with, of
_CANDIDATES: Final = 5_000  # evenly spaced ones at most


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """Result of `change`.

    Parameters
    ----------
    yearly : DataFrame
        One row per site and year: `site_id`, `year`; `angle_deg`, angle to the site's mean direction of the baseline
        years; `relative_deg`, the same with the background's movement removed; `z`, robust z-score among all sites of
        the year's distance from the mean of the years before and after (of the last year, from the year before);
        `is_baseline`.
    sites : DataFrame
        One row per site: `site_id`; `n_years` with data; `flag` (q at most the level, and the size at least the least
        size); `p` and `q` (p-value of "no change", and adjusted for the number of sites); for flagged sites `start`
        (first year that shows the change), `largest_year` (first year after the largest lasting difference),
        `size_deg` (angle between the mean directions before the change and while it is complete), `kind`:
        ``"persistent"``, ``"returned"`` (more than half of the change was undone), ``"last year only"`` (may be a
        single-year jump), ``"none"`` (not flagged) or ``"no data"`` (fewer than three years), and `also_elsewhere`
        (whether the most alike other sites made at least half of the same change: it may be drift of that cover, or
        something that was done to all of them).
        A second test looks for single years that are unlike those around them: `event_year` (with the largest z),
        `event_z`, `event_q` and `event` (event_q at most the level, and a distance of at least the least size).
        With prototypes also `towards_<label>` (shares of the change, summing to 1) and `towards_fit` (cosine of the
        change and what the labels explain of it, 0..1).
    level : float
        False-discovery rate of `flag`, and of `event`.
    is_guaranteed : bool
        Whether ten or more unchanged sites (controls, or polygons of a background table) stand for the level. Otherwise
        it isn't guaranteed: it holds if most sites of the table didn't change and are as noisy as real land mostly is.
    background : str
        What was removed, in words.
    drift : DataFrame
        `year`; `drift_deg`, the background's movement since the first year as an angle (median over sites); `share` of
        the sites' squared movement that it explains.
    """

    yearly: pd.DataFrame
    sites: pd.DataFrame
    level: float
    is_guaranteed: bool
    background: str
    drift: pd.DataFrame


def change(
    table: pd.DataFrame,
    *,
    baseline: int | list[int] | Mapping[Any, Any] | None = None,
    background: str | pd.DataFrame | list[Any] | None = "all",
    level: float = 0.1,
    adjustment: str = "BH",
    least_size_deg: float = LEAST_SIZE_DEG,
    prototypes: pd.DataFrame | Mapping[str, Any] | None = None,
) -> Change:
    """Test each site for a change against its own past, relative to a background.

    Parameters
    ----------
    table : DataFrame
        Columns `site_id`, `year`, ``A00``..``A63``. From any source. Years in which no site has data change nothing.
    baseline : int, list of int, or mapping from site id to these, optional
        Year or years that the angles of `yearly` are measured from. Default: each site's first year with data. It has
        no effect on the tests.
    background : list of site ids, DataFrame, "all", or None
        What the shared movement is estimated from, and what unchanged sites look like. A list: control sites of the
        table, which didn't change; with ten or more the level holds. A DataFrame: another table, of controls or of
        rings around the sites (`ring_sites`; with the sites' ids, each site's own ring counts half). ``"all"``: the
        median step of the half of the sites that changed least (in tables of fewer than 40 sites with three years, of
        all); if most of them changed alike, name controls instead. None: nothing is removed.
    level : float
        False-discovery rate of `flag`: the expected share of flagged sites that didn't change.
    adjustment : {"BH", "BY"}
        Benjamini-Hochberg, or Benjamini-Yekutieli, which holds for any dependence between sites and finds less.
    least_size_deg : float
        Changes below this angle aren't flagged.
    prototypes : DataFrame or mapping, optional
        Labelled vectors for the direction of change: a table with a column `label` and bands (and, if it has one,
        `year`), or a mapping from label to vector(s).

    Returns
    -------
    Change

    Raises
    ------
    UsageError
        For a level outside 0..1, unknown sites or years, a background without a year in common.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> rng = np.random.default_rng(0)
    >>> v = np.eye(64)[0] + rng.normal(size=(20, 8, 64)) * 0.01
    >>> v[0, 4:, 1] += 0.5  # one site changes in 2021
    >>> table = pd.DataFrame(v.reshape(-1, 64), columns=list(BANDS))
    >>> table = table.assign(site_id=np.repeat(np.arange(20), 8), year=np.tile(np.arange(2017, 2025), 20))
    >>> found = change(table, level=0.05).sites
    >>> found.loc[found["flag"], ["site_id", "start", "kind"]].values.tolist()
    [[0, 2021, 'persistent']]
    """
    if not 0 < level < 1:
        raise UsageError(f"level is a false-discovery rate between 0 and 1, found {level!r}")
    if adjustment not in ("BH", "BY"):
        raise UsageError(f"adjustment is 'BH' or 'BY', found {adjustment!r}")
    if not least_size_deg >= 0:
        raise UsageError(f"least_size_deg is an angle of 0 or more degrees, found {least_size_deg!r}")
    series = series_from_table(table)
    if len(series.years) < 2:
        raise UsageError(f"the table has one year only, {series.years[0]}; a change needs two, its test three")
    fixed = corrected(series, background)
    fit = fit_templates(fixed.units, fixed.unchanged)
    is_tested = np.isfinite(fit.p)
    if isinstance(background, str) and is_tested.sum() >= _FEW_SITES:
        calm = is_tested & (fit.p >= np.nanmedian(fit.p))  # sites that changed alike would be taken for drift
        del fixed
        fixed = corrected(series, background, calm)
        fit = fit_templates(fixed.units, fixed.unchanged)
    warn_if_it_explains_little(fixed)
    q = adjusted_p_values(fit.p, adjustment)
    changes, before, moved = _changes(series, fixed, fit, np.flatnonzero(q <= level), least_size_deg)
    sites = pd.DataFrame({"site_id": np.array(series.site_ids, object), "n_years": series.present.sum(axis=1)})
    sites["flag"], sites["p"], sites["q"] = np.isin(sites.index, changes.index), fit.p, q
    sites = sites.join(changes.astype({"also_elsewhere": "boolean"})).infer_objects()
    sites["kind"] = sites["kind"].where(sites["flag"], np.where(is_tested, "none", "no data"))
    departures = yearly_departures(fixed.units, series.years)
    z, column, event_p = unusual_years(departures, fixed.controls)
    largest, event_q = (np.arange(len(z)), column), adjusted_p_values(event_p, adjustment)
    size = np.degrees(2 * np.arcsin(np.clip(departures[largest] / 2, 0, 1)))
    sites["event"] = (event_q <= level) & (size >= least_size_deg)
    sites["event_year"] = pd.Series(series.years[column]).where(np.isfinite(event_p)).astype("Int64")
    sites["event_z"], sites["event_q"] = z[largest], event_q
    if prototypes is not None:
        movement = np.median(fixed.drift, axis=0)
        sites = sites.join(direction_shares(before, moved, prototypes, series.years, movement).set_index(changes.index))
    return Change(
        yearly=_year_rows(series, fixed, baseline_mask(series, baseline), z),
        sites=sites,
        level=level,
        is_guaranteed=len(fixed.unchanged) >= ENOUGH_UNCHANGED,
        background=fixed.words,
        drift=_drift_rows(series, fixed),
    )


def _changes(
    series: Series, fixed: Corrected, fit: Fit, rows: NDArray[np.intp], least_size_deg: float
) -> tuple[pd.DataFrame, Floats, Floats]:
    """Describe the changes of some sites, those that are large enough, in a table indexed by their rows.

    Also returns their mean vectors before it, and how these moved until it was complete: shape (changes, 64).
    """
    candidates = np.flatnonzero(series.present.any(axis=1))
    candidates = candidates[:: len(candidates) // _CANDIDATES + 1]
    directions = normalize(np.nansum(fixed.units[candidates], axis=1))
    found: dict[int, dict[str, Any]] = {}
    vectors = np.empty((2, len(rows), fixed.units.shape[2]))
    for i in rows:
        units, path, start = fixed.units[i], fit.path[i], fit.start[i]
        seen = has_data(units)
        early, late = seen & (np.arange(len(path)) < start), seen & (path == path[seen].max())
        before, complete = units[early].mean(axis=0), units[late].mean(axis=0)
        size = float(angular_distance_deg(complete, before))
        if size < least_size_deg:
            continue
        moved = complete - before
        returned = path[-1] == 0 or np.mean((units[seen][-2:] - before) @ moved) < _HALF * (moved @ moved)
        nearest = candidates[np.argsort(-(directions @ np.nansum(units, axis=0)))]
        alike = fixed.units[nearest[nearest != i][:_N_ALIKE]]
        alike = alike[has_data(alike[:, early]).any(axis=1) & has_data(alike[:, late]).any(axis=1)]
        along = (np.nanmean(alike[:, late], axis=1) - np.nanmean(alike[:, early], axis=1)) @ moved / (moved @ moved)
        vectors[:, len(found)] = before, moved
        found[int(i)] = {
            "start": series.years[start],
            "largest_year": series.years[fit.lasting[i]],
            "size_deg": size,
            "kind": "last year only" if seen[start:].sum() == 1 else "returned" if returned else "persistent",
            "also_elsewhere": len(along) > 0 and np.median(along) >= _HALF,
        }
    types: Any = {"start": "Int64", "largest_year": "Int64", "size_deg": float, "kind": object, "also_elsewhere": bool}
    table = pd.DataFrame([*found.values()], index=pd.Index([*found], dtype=int), columns=[*types]).astype(types)
    return table, *vectors[:, : len(found)]


def _year_rows(series: Series, fixed: Corrected, is_baseline: Flags, z: Floats) -> pd.DataFrame:
    """Return the angles to the baseline with and without the background's movement, and z-scores of years."""
    n, t = is_baseline.shape
    found = pd.DataFrame({"site_id": np.repeat(np.array(series.site_ids, object), t), "year": np.tile(series.years, n)})
    for name, units in (("angle_deg", series.units), ("relative_deg", fixed.units)):
        angle = np.empty((n, t))
        for part in in_parts(n):
            home = normalize(units[part].sum(axis=1, where=is_baseline[part][..., None]))
            angle[part] = angular_distance_deg(units[part], home[:, None])
        found[name] = angle.ravel()
    return found.assign(z=z.ravel(), is_baseline=is_baseline.ravel()).infer_objects()


def _drift_rows(series: Series, fixed: Corrected) -> pd.DataFrame:
    """Describe the background's movement of each year."""
    home = normalize(fixed.units.sum(axis=1, where=series.present[..., None]))
    moved = [np.nanmedian(angular_distance_deg(normalize(home + by), home)) for by in fixed.drift.transpose(1, 0, 2)]
    return pd.DataFrame({"year": series.years, "drift_deg": moved, "share": fixed.explained})

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

from gee_polygons.change.background import (
    FEW_SITES,
    Corrected,
    corrected,
    most_alike_sites,
    warn_if_it_explains_little,
)
from gee_polygons.change.direction import direction_shares
from gee_polygons.change.numerics import Flags, Floats
from gee_polygons.change.series import Series, baseline_mask, has_data, in_parts, series_from_table
from gee_polygons.change.significance import (
    ENOUGH_UNCHANGED,
    adjusted_p_values,
    event_p_values,
    robust_z,
    yearly_departures,
)
from gee_polygons.change.templates import Fit, Templates, fit_templates
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.errors import UsageError, warn_data

LEAST_SIZE_DEG: Final = 10.0  # smaller flags on real land are mostly not real
_NAMED: Final = 3  # sites that a message names
_RETURNED_BELOW: Final = 0.5  # of the largest excursion: below this a site has returned
_ELSEWHERE: Final = 0.5  # of a site's change: alike sites that moved so much along it made it, too


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
    background : list of site ids, DataFrame, "all", "alike", or None
        What the shared movement is estimated from, and what unchanged sites look like. A list: control sites of the
        table, which didn't change; with ten or more the level holds. A DataFrame: another table, of controls or of
        rings around the sites (`ring_sites`; with the sites' ids, a share of each site's own ring counts, too).
        ``"all"``: the median step of the half of the sites that changed least (in tables of fewer than 40 sites with
        three years, of all); if most of them changed alike, name controls instead. ``"alike"``: for each site the
        median step of the 8 most alike other sites (in tables of fewer than 40 sites, of all): it misses changes that
        alike sites share. None: nothing is removed.
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
    bank = Templates.over(len(series.years))
    fixed = corrected(series, background)
    fit = fit_templates(fixed.units, bank, fixed.unchanged)
    is_tested = np.isfinite(fit.p)
    if isinstance(background, str) and background == "all" and is_tested.sum() >= FEW_SITES:
        calm = is_tested & (fit.p >= np.nanmedian(fit.p))  # sites that changed alike would be taken for drift
        del fixed
        fixed = corrected(series, background, calm)
        fit = fit_templates(fixed.units, bank, fixed.unchanged)
    warn_if_it_explains_little(fixed)
    q = adjusted_p_values(fit.p, adjustment)
    sites = _site_rows(fixed, bank, fit, q <= level, least_size_deg)
    sites.insert(3, "p", fit.p)
    sites.insert(4, "q", q)
    z = np.full(series.present.shape, np.nan)
    if len(series.years) > 2:
        departures = yearly_departures(fixed.units, series.years)
        z = robust_z(departures)
        event_q = adjusted_p_values(event_p_values(z, z[fixed.controls]), adjustment)
        largest = np.where(np.isfinite(z), z, -np.inf).argmax(axis=1)
        of_largest = (np.arange(len(z)), largest)
        has_z = np.isfinite(z[of_largest])
        size = np.degrees(2 * np.arcsin(np.clip(departures[of_largest] / 2, 0, 1)))
        sites["event"] = has_z & (event_q <= level) & (size >= least_size_deg)
        sites["event_year"] = pd.array(np.where(has_z, series.years[largest], -1), "Int64")
        sites.loc[~has_z, "event_year"] = pd.NA
        sites["event_z"], sites["event_q"] = z[of_largest], event_q
    if prototypes is not None:
        before, after = _mean_states(fixed.units, bank, fit, sites["flag"].to_numpy())
        movement = np.median(fixed.drift, axis=0)
        sites = pd.concat([sites, direction_shares(before, after, prototypes, series.years, movement)], axis=1)
    return Change(
        yearly=_year_rows(fixed, _baseline(series, baseline), z),
        sites=sites,
        level=level,
        is_guaranteed=len(fixed.unchanged) >= ENOUGH_UNCHANGED,
        background=fixed.words,
        drift=_drift_rows(fixed),
    )


def _baseline(series: Series, baseline: Any) -> Flags:
    """Return which years are each site's baseline, and warn of sites without data in them."""
    found = baseline_mask(series, baseline)
    without = [series.site_ids[i] for i in np.flatnonzero(series.with_data & ~found.any(axis=1))]
    if without:
        names = ", ".join(map(str, without[:_NAMED])) + (", ..." if len(without) > _NAMED else "")
        warn_data(
            f"{len(without)} site{'s have' if len(without) > 1 else ' has'} no data in the baseline's years and so no "
            f"angles: {names}"
        )
    return found


def _site_rows(fixed: Corrected, bank: Templates, fit: Fit, significant: Flags, least_size_deg: float) -> pd.DataFrame:
    """Describe the change of each flagged site."""
    series, units = fixed.raw, fixed.units
    n = len(series.site_ids)
    found: dict[str, Any] = {"site_id": np.array(series.site_ids, dtype=object)}
    found |= {"n_years": series.present.sum(axis=1), "flag": np.zeros(n, np.bool_)}
    found |= {name: pd.array([pd.NA] * n, "Int64") for name in ("start", "largest_year")}
    found |= {"size_deg": np.full(n, np.nan), "kind": np.where(fit.template < 0, "no data", "none").astype(object)}
    found["also_elsewhere"] = pd.array([pd.NA] * n, "boolean")
    rows = np.flatnonzero(significant)
    for i, alike in zip(rows, most_alike_sites(series, rows), strict=True):
        seen, path, start = has_data(units[i]), bank.paths[fit.template[i]], int(bank.start[fit.template[i]])
        before, complete = seen & (path == 0), seen & (path == path[seen].max())
        moved = units[i, complete].mean(axis=0) - units[i, before].mean(axis=0)
        size = float(angular_distance_deg(units[i, complete].mean(axis=0), units[i, before].mean(axis=0)))
        if size < least_size_deg:
            continue
        found["flag"][i], found["size_deg"][i] = True, size
        found["start"][i], found["largest_year"][i] = series.years[start], series.years[bank.start[fit.lasting[i]]]
        found["kind"][i] = _kind(units[i], np.flatnonzero(seen), start)
        elsewhere = normalize(series.units[alike] - fixed.drift[i if len(fixed.drift) > 1 else 0])
        found["also_elsewhere"][i] = _share_moved(elsewhere, moved, before, complete) >= _ELSEWHERE
    return pd.DataFrame(found).infer_objects()


def _share_moved(units: Floats, moved: Floats, before: Flags, complete: Flags) -> float:
    """Return how far sites (sites, years, 64) moved along a change, as a share of it: their median; 0 without data."""
    whole = units[has_data(units[:, before]).any(axis=1) & has_data(units[:, complete]).any(axis=1)]
    if not len(whole):
        return 0.0
    own = np.nanmean(whole[:, complete], axis=1) - np.nanmean(whole[:, before], axis=1)
    return float(np.median(own @ moved)) / float(moved @ moved)


def _kind(units: Floats, present: NDArray[np.intp], start: int) -> str:
    """Distinguish a lasting change from one that returned, and from one that only the last year shows."""
    after = present[present >= start]
    if len(after) == 1:
        return "last year only"
    moved = units[after] - units[present[present < start]].mean(axis=0)
    largest = moved[np.argmax(np.linalg.norm(moved, axis=1))]
    share = moved @ largest / (largest @ largest)
    last = float(share[-2:].mean()) if len(share) > 3 else float(share[-1])
    return "returned" if last < _RETURNED_BELOW else "persistent"


def _year_rows(fixed: Corrected, is_baseline: Flags, z: Floats) -> pd.DataFrame:
    """Return the angles to the baseline with and without the background's movement, and z-scores of years."""
    series = fixed.raw
    n, t = is_baseline.shape
    angle, relative = np.empty((2, n, t))
    for found, units in ((angle, series.units), (relative, fixed.units)):
        for part in in_parts(n):
            home = normalize(units[part].sum(axis=1, where=is_baseline[part][..., None]))
            found[part] = angular_distance_deg(units[part], home[:, None])
    return pd.DataFrame(
        {
            "site_id": np.repeat(np.array(series.site_ids, dtype=object), t),
            "year": np.tile(series.years, n),
            "angle_deg": angle.ravel(),
            "relative_deg": relative.ravel(),
            "z": z.ravel(),
            "is_baseline": is_baseline.ravel(),
        }
    ).infer_objects()


def _mean_states(units: Floats, bank: Templates, fit: Fit, flag: Flags) -> tuple[Floats, Floats]:
    """Return the mean vectors before the change and at its end, shape (sites, 64); NaN for sites without a flag."""
    before, after = np.full((2, len(units), units.shape[2]), np.nan)
    for i in np.flatnonzero(flag):
        present = np.flatnonzero(has_data(units[i]))
        start = int(bank.start[fit.template[i]])
        before[i] = units[i, present[present < start]].mean(axis=0)
        after[i] = units[i, present[present >= start][-2:]].mean(axis=0)  # a slow rise ends in its last years
    return before, after


def _drift_rows(fixed: Corrected) -> pd.DataFrame:
    """Describe the background's movement of each year."""
    home = normalize(fixed.units.sum(axis=1, where=fixed.raw.present[..., None]))
    moved = [
        np.nanmedian(angular_distance_deg(normalize(home + fixed.drift[:, year]), home))
        for year in range(len(fixed.raw.years))
    ]
    return pd.DataFrame({"year": fixed.raw.years, "drift_deg": moved, "share": fixed.explained})

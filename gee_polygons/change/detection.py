"""Tests whether each site changed, and says when, how much and towards what, from a table of yearly embeddings.

A large part of each year's step is shared by the whole scene: on real pixels the mean step is 0.48-0.82 times as long
as the root mean square step (median 0.64), which is 23-67 % of the squared step (median 41 %). `change` removes this
drift, as a *background* shows it, and reports angles with and without it.

    >>> from gee_polygons import extract_embeddings
    >>> from gee_polygons.sources.sample import sample_sites
    >>> table = extract_embeddings(sample_sites(), years=range(2018, 2025), source="sample")
    >>> found = change(table, background=["pasture-control", "forest-reference-1", "forest-reference-2"])
    >>> print(*found.sites.set_index("site_id").loc["cleared", ["flag", "start", "kind"]])
    True 2021 persistent

The methods are described in the modules of this package: `drift`, `templates`, `null_distribution`, `significance`.
Their limits are listed in docs/what_cant_be_concluded.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.change.background import SUSPECT_P, Corrected, corrected
from gee_polygons.change.direction import direction_shares
from gee_polygons.change.drift import base_years
from gee_polygons.change.null_distribution import null_p_values
from gee_polygons.change.numerics import Flags, Floats, adjusted_p_values, p_to_z, z_to_p
from gee_polygons.change.series import Series, baseline_mask, has_data
from gee_polygons.change.significance import empirical_null, robust_z
from gee_polygons.change.templates import Fit, Templates, fit_templates
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.errors import UsageError, warn_data

_NAMED: Final = 3  # sites that a message names
_RETURNED_BELOW: Final = 0.5  # of the largest excursion: below this a site has returned


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """Result of `change`.

    Parameters
    ----------
    yearly : DataFrame
        One row per site and year: `site_id`, `year`; `angle_deg`, angle to the site's mean direction of the baseline
        years; `relative_deg`, the same with the background's drift removed; `z`, robust z-score, over all years and
        sites of the background, of ``(relative_deg * sqrt(n_effective))^(2/3)``: angles weighted by the effective
        sample size (large sites vary less), to the power that makes lengths nearly normal; `is_baseline`.
    sites : DataFrame
        One row per site: `site_id`; `n_years` with data; `p` and `q` (p-value of "only noise", the same after
        Benjamini-Hochberg); `flag` (q at most the level); for flagged sites `start` (first year that shows the change),
        `largest_year` (first year after the largest lasting difference), `size_deg` (angle between the mean
        directions before and after it) and `kind`: ``"persistent"``, ``"returned"`` (more than half of the change
        was undone), ``"last year only"`` (may be a single-year jump), ``"none"`` (not flagged) or ``"no data"`` (fewer
        than three years). With prototypes also `towards_<label>` (shares of the change, summing to 1) and
        `towards_fit` (cosine of the change and what the labels explain of it, 0..1).
    level : float
        False-discovery rate of the flags.
    background : str
        What was removed, in words.
    drift : DataFrame
        `year`; `drift_deg`, angle of the background's mean direction to that of the base year; `share` of the sites'
        squared movement that the drift explains.
    """

    yearly: pd.DataFrame
    sites: pd.DataFrame
    level: float
    background: str
    drift: pd.DataFrame


def change(
    table: pd.DataFrame,
    *,
    baseline: int | list[int] | Mapping[Any, Any] | None = None,
    background: str | pd.DataFrame | list[Any] | None = "all",
    level: float = 0.1,
    prototypes: pd.DataFrame | Mapping[str, Any] | None = None,
    drift: str = "auto",
) -> Change:
    """Test each site for a change against its own past, relative to a background.

    Parameters
    ----------
    table : DataFrame
        Columns `site_id`, `year`, ``A00``..``A63``; `n_pixels` if it is known. From any source.
    baseline : int, list of int, or mapping from site id to these, optional
        Year or years that the angles of `yearly` are measured from. Default: each site's first year with data. It has
        no effect on `p`, `q`, `flag`, `start` and `size_deg`: the test looks for a change in any year, and compares
        the years before with those after it.
    background : "all", list of site ids, DataFrame, or None
        What the drift is estimated from. ``"all"``: the table's own stable sites, starting from those that moved most
        alike; it needs a fifth of the sites to be unchanged, and four sites. A list: control sites of the table. A
        DataFrame: another table, of controls or of rings around the sites (`ring_sites`; with the sites' ids, the
        movement of each site's own ring is removed too, as far as rings explain their sites). None: nothing is
        removed.
    level : float
        False-discovery rate of `flag`: the expected share of flagged sites that didn't change.
    prototypes : DataFrame or mapping, optional
        Labelled vectors for the direction of change: a table with a column `label` and bands (and, if it has one,
        `year`), or a mapping from label to vector(s).
    drift : {"auto", "translation", "rotation"}
        Model of the drift; ``"auto"`` chooses the one that leaves less of the background's own movement.

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
    fixed = corrected(table, background=background, drift=drift)
    series, units = fixed.raw, fixed.units
    if len(series.years) < 2:
        raise UsageError(f"the table has one year only, {series.years[0]}; a change needs two, its test three")
    bank = Templates.over(len(series.years))
    fit = fit_templates(units, bank)
    p = _calibrated(null_p_values(fit, units, bank), fixed)
    q = adjusted_p_values(p)
    flag = q <= level
    sites = _site_rows(series, units, bank, fit, flag).assign(p=p, q=q, flag=flag)
    sites = sites[["site_id", "n_years", "flag", "p", "q", "start", "largest_year", "size_deg", "kind"]]
    if prototypes is not None:
        before, after = _mean_states(units, bank, fit, flag)
        shares = direction_shares(before, after, prototypes, series.years, fixed.drift)
        sites = pd.concat([sites, shares], axis=1)
    stable = ~(p < SUSPECT_P)
    if fixed.is_background.any():
        stable &= fixed.is_background
    return Change(
        yearly=_year_rows(series, units, _baseline(series, baseline), stable),
        sites=sites,
        level=level,
        background=fixed.words,
        drift=_drift_rows(fixed),
    )


def _calibrated(p: Floats, fixed: Corrected) -> Floats:
    """Make p-values cautious where unchanged sites vary more than simulated noise."""
    z = p_to_z(p)
    # named controls show how much unchanged sites vary; sites chosen for being stable can't
    centre, scale = empirical_null(z, fixed.is_background if fixed.is_named else None)
    return z_to_p((z - centre) / scale)


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


def _site_rows(series: Series, units: Floats, bank: Templates, fit: Fit, flag: Flags) -> pd.DataFrame:
    """Describe the change of each flagged site."""
    rows = []
    for i, site_id in enumerate(series.site_ids):
        present = np.flatnonzero(has_data(units[i]))
        row: dict[str, Any] = {"site_id": site_id, "n_years": len(present), "kind": "none"}
        if fit.template[i] < 0:
            row["kind"] = "no data"
        elif flag[i]:
            start, step = int(bank.start[fit.template[i]]), int(bank.start[fit.step_template[i]])
            before, after = (
                units[i, part].mean(axis=0) for part in (present[present < step], present[present >= step])
            )
            row |= {"start": int(series.years[start]), "largest_year": int(series.years[step])}
            row["size_deg"] = float(angular_distance_deg(after, before))
            row["kind"] = _kind(units[i], present, start, bool(bank.returns[fit.template[i]]))
        rows.append(row)
    found = pd.DataFrame(rows, columns=["site_id", "n_years", "start", "largest_year", "size_deg", "kind"])
    return found.astype({"start": "Int64", "largest_year": "Int64", "size_deg": np.float64})


def _kind(units: Floats, present: NDArray[np.intp], start: int, returns: bool) -> str:
    """Distinguish a lasting change from one that returned, and from one that only the last year shows."""
    after = present[present >= start]
    if len(after) == 1:
        return "last year only"
    moved = units[after] - units[present[present < start]].mean(axis=0)
    largest = moved[np.argmax(np.linalg.norm(moved, axis=1))]
    share = moved @ largest / (largest @ largest)
    last = float(share[-2:].mean()) if len(share) > 3 else float(share[-1])
    return "returned" if returns and last < _RETURNED_BELOW else "persistent"


def _year_rows(series: Series, units: Floats, is_baseline: Flags, stable: Flags) -> pd.DataFrame:
    """Return the angles to the baseline with and without drift, and robust z-scores."""
    n, t = is_baseline.shape
    angle, relative = (
        angular_distance_deg(v, normalize(np.where(is_baseline[..., None], v, 0.0).sum(axis=1))[:, None])
        for v in (series.units, units)
    )
    usable = stable[:, None] & ~is_baseline & np.isfinite(relative)
    z = robust_z(relative * np.sqrt(series.n_effective)[:, None], usable)
    z[is_baseline] = np.nan
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
    """Describe the drift of each year."""
    series, drift = fixed.raw, fixed.drift
    home = series.units[:, base_years(series.present)].mean(axis=1)
    moved = angular_distance_deg(normalize(drift.centre + drift.steps), drift.centre) if drift.centre.any() else 0.0
    with np.errstate(invalid="ignore"):
        before = np.nansum((series.units - home[:, None]) ** 2, axis=(0, 2))
        after = np.nansum((fixed.units - home[:, None]) ** 2, axis=(0, 2))
        share = np.where(before > 0, 1 - after / np.where(before > 0, before, 1.0), np.nan)
    return pd.DataFrame({"year": series.years, "drift_deg": moved, "share": share})

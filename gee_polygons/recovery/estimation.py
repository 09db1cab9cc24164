"""Measures the recovery of restoration sites towards reference sites, with confidence intervals.

The metrics are counterparts, for embeddings, of spectral recovery metrics relative to a reference range (dNBR, RRI,
R80P, YrYr; White et al., *Remote Sensing of Environment* 194, 2017; Kennedy et al., RSE 114, 2010). Each formula, with
its assumptions, is in docs/methods_recovery.md.

    >>> from gee_polygons import extract_embeddings
    >>> from gee_polygons.sources.sample import sample_sites
    >>> sites = sample_sites()
    >>> table = extract_embeddings(sites, years=range(2018, 2025), source="sample")
    >>> found = recovery(table, references=["forest-reference-1", "forest-reference-2"], start_years=sites)
    >>> print(*found.sites.set_index("site_id").loc[["pasture-fast", "stalled"], "group"])
    recovering stalled
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from gee_polygons.change.background import corrected, warn_if_it_explains_little
from gee_polygons.change.series import series_from_table, site_positions, start_years_of
from gee_polygons.embeddings.directional import normalize
from gee_polygons.errors import UsageError
from gee_polygons.recovery.results import site_rows, year_rows
from gee_polygons.recovery.trajectories import Cover, fill_gaps, measure, yearly_noise

_SITES_AT_A_TIME: Final = 5_000  # bounds the memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovery:
    """Result of `recovery`.

    Parameters
    ----------
    yearly : DataFrame
        One row per restoration site and year: `site_id`, `year`, `years_since_start`; `similarity` (cosine to the mean
        direction of that year's references); `share` of recovery, from the site's own starting state (0) to the
        references' mean (1), `share_low`, `share_high` (its confidence interval), `share_raw` (not clipped to 0..1);
        `in_range` (whether it reaches what the lowest tenth of the references have, and isn't far off the trajectory);
        `off_way_deg` (off-trajectory distance, an angle: if large, the site became something else), `off_way_low`,
        `off_way_high` (interval of the part of it that isn't noise); `status` (``"ok"``, ``"at_reference"``: it started
        as near the references as they are to each other, and has nothing to recover; ``"no_baseline"``: no year of
        data before the start; ``"no_data"``; ``"no_reference"``: no reference has data in that year;
        ``"not_started"``: the site's start lies after its last year with data).
    sites : DataFrame
        One row per restoration site: `site_id`, `start_year`, `status`; of the last year with data and that `year`:
        `share`, `share_low`, `share_high`, `similarity`, `off_way_deg`, `off_way_low`, `off_way_high`;
        `similarity_start` (mean over the years before the start); `rate` (share per year since the start) with
        `rate_low`, `rate_high`, `years_to_80` and `years_to_range` (years since the start, interpolated; NaN if not
        reached, or lost again), `expected_years_to_80` (of recovering sites, by their last four years' rate, if within
        10 years), `group` (class of recovery), `evidence` (in words) and
        `rank` (1 = largest share; none for sites that went elsewhere).
        Classes, by what the intervals leave no doubt of: ``"declining"`` (lost a fifth of the recovery, loses 4 % a
        year, or is further from the references than at its start by 10 degrees), ``"recovering"`` (80 % recovered, or
        at least 4 % a year; never if the site is far off the trajectory, or less similar to the references than at its
        start), ``"stalled"`` (less than 4 % a year, over all or the last four years), ``"at reference"`` (started
        there, and stays), else ``"no evidence"``.
    reference : DataFrame
        `year`, `n_sites`, `range_low` (share at which the reference range begins, median over sites), `coherence`
        (mean resultant length of the references' unit means).
    confidence : float
        Of the intervals.
    background : str
        What the shared movement was estimated from, in words.
    """

    yearly: pd.DataFrame
    sites: pd.DataFrame
    reference: pd.DataFrame
    confidence: float
    background: str


def recovery(
    table: pd.DataFrame,
    *,
    references: Sequence[Any],
    start_years: Any,
    background: str | pd.DataFrame | list[Any] | None = "references",
    degraded: Sequence[Any] | None = None,
    confidence: float = 0.9,
) -> Recovery:
    """Measure the recovery of restoration sites towards reference sites, year by year.

    Parameters
    ----------
    table : DataFrame
        Columns `site_id`, `year`, ``A00``..``A63``: restoration and reference sites. From any source. Years in which no
        site has data change nothing.
    references : sequence of site ids
        Mature or secondary forest, chosen by the user: what the sites should become.
    start_years : mapping from site id to year, SiteCollection or GeoDataFrame
        When restoration began. Sites with a start year, other than references and degraded sites, are measured.
    background : "references", "all", list of site ids, DataFrame, or None
        What the movement that all land shares is estimated from. Name controls wherever there are any: sites like the
        restoration sites that didn't change. By default the references. ``"all"``: all sites. A DataFrame: another
        table, of controls or of rings around the sites (`gee_polygons.change.ring_sites`). None: nothing is removed
        (for comparison: it is worse).
    degraded : sequence of site ids, optional
        Sites in the state that the restoration sites were in: the starting state of sites without data before their
        start.
    confidence : float
        Of the intervals: 0.9 = 90 %.

    Returns
    -------
    Recovery

    Raises
    ------
    UsageError
        For unknown sites, no site to measure, no reference with data.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> p = np.linspace(0, 1, 5)[:, None]
    >>> site, forest = (1 - p) * np.eye(64)[0] + p * np.eye(64)[1], np.eye(64)[[1] * 5]
    >>> table = pd.DataFrame(np.vstack([site, forest]), columns=list(BANDS))
    >>> table = table.assign(site_id=["s"] * 5 + ["ref"] * 5, year=[*range(2018, 2023)] * 2)
    >>> recovery(table, references=["ref"], start_years={"s": 2019}).yearly["share"].round(3).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence lies between 0 and 1, found {confidence!r}")
    series = series_from_table(table)
    # sorted by id, so that rounding doesn't depend on the order of the rows
    series = series.take(np.argsort(np.array([str(site_id) for site_id in series.site_ids], object), kind="stable"))
    named = site_positions(series, references, "references")
    rows = named[series.present[named].any(axis=1)]
    if not len(rows):
        raise UsageError("no reference site has data in any year")
    is_own = isinstance(background, str) and background == "references"
    fixed = corrected(series, [series.site_ids[i] for i in rows] if is_own else background)
    warn_if_it_explains_little(fixed)
    stand_ins = np.array([], np.intp) if degraded is None else site_positions(series, degraded, "degraded")
    starts = start_years_of(series, start_years)
    with_start = [i for i, year in enumerate(starts) if year is not None]
    measured = np.setdiff1d(with_start, [*named, *stand_ins]).astype(np.intp)
    if not len(measured):
        raise UsageError("no site of the table (references aside) has a start year; give start_years")
    unchanged = fixed.controls.copy()
    unchanged[rows], unchanged[measured] = True, False
    noise = yearly_noise(fixed.units[unchanged], lost=1 / len(rows) if is_own else 0.0)
    target, centre = Cover.of(fixed.units[rows]), normalize(fill_gaps(series.units[rows]).mean(axis=0))
    stand_ins = stand_ins[series.present[stand_ins].any(axis=1)]
    stand_in = Cover.of(fixed.units[stand_ins]) if len(stand_ins) else None
    like_stand_in = np.nan if stand_in is None else float(np.nanmean(centre @ stand_in.direction))
    parts = []
    for first in range(0, len(measured), _SITES_AT_A_TIME):
        part = measured[first : first + _SITES_AT_A_TIME]
        sites, began = series.take(part), np.array([starts[i] for i in part], np.int64)
        since = sites.years - began[:, None]
        before = sites.present & (since < 0)
        way = measure(fixed.units[part], before, target, stand_in, noise, confidence)
        similarity, n_before = np.sum(sites.units * centre, axis=2), before.sum(axis=1)
        at_start = np.sum(np.where(before, similarity, 0), axis=1) / np.maximum(n_before, 1)
        yearly = year_rows(sites, since, way, similarity)
        of_sites = site_rows(yearly, began, way, np.where(n_before > 0, at_start, like_stand_in))
        parts.append((yearly, of_sites, pd.Series(way.range_low[way.status == "ok"])))
    yearly, of_sites, range_low = (pd.concat(tables) for tables in zip(*parts, strict=True))
    of_sites["rank"] = of_sites["rank"].rank(ascending=False, method="min").astype("Int64")
    reference = pd.DataFrame({"year": series.years, "n_sites": series.present[rows].sum(axis=0)})
    reference["range_low"] = np.where(reference["n_sites"] > 0, range_low.median(), np.nan)
    reference["coherence"] = np.linalg.norm(target.mean, axis=1)
    return Recovery(
        yearly=_in_order_of(table, yearly),
        sites=_in_order_of(table, of_sites),
        reference=reference,
        confidence=confidence,
        background=fixed.words,
    )


def _in_order_of(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by the order of the sites in a table."""
    place = {site_id: i for i, site_id in enumerate(pd.unique(table["site_id"]))}
    return rows.iloc[np.argsort(rows["site_id"].map(place).to_numpy(), kind="stable")].reset_index(drop=True)

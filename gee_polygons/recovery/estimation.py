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
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.change.background import corrected
from gee_polygons.change.numerics import Floats
from gee_polygons.change.series import Series, has_data, series_from_table, site_positions, start_years_of
from gee_polygons.embeddings.directional import normalize
from gee_polygons.errors import UsageError
from gee_polygons.recovery.blocks import block_covariances, check_blocks, owner_column
from gee_polygons.recovery.classes import LEAST_MOVE_DEG
from gee_polygons.recovery.results import site_rows, year_rows
from gee_polygons.recovery.scatter import Scatter, fill_gaps, scatter_of, yearly_noise
from gee_polygons.recovery.trajectories import measure

_ONE_COVER_DEG: Final = 20.0  # what counts as near the references where a single one doesn't show how they differ
_SITES_AT_A_TIME: Final = 5_000
_LARGE_TABLE: Final = 20_000  # sites; larger tables are measured in parts of so many, which bounds the memory


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
    blocks: pd.DataFrame | None = None,
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
    blocks : DataFrame, optional
        A table of parts of the sites (`block_sites`), with `block_id`, `n_pixels`, and the site's id in `block_of`
        (else in `site_id`): a site's yearly noise is then taken from how its blocks differ, instead of from its
        off-trajectory distances.
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
    options: dict[str, Any] = {
        "references": references,
        "start_years": start_years,
        "background": background,
        "degraded": degraded,
    }
    is_large = isinstance(table, pd.DataFrame) and "site_id" in table and table["site_id"].nunique() > _LARGE_TABLE
    if is_large and (background is None or isinstance(background, list) or background == "references"):
        listed = background if isinstance(background, list) else []
        names = {*map(str, references), *map(str, degraded or []), *map(str, listed)}
        return _by_parts(table, names, options | {"confidence": confidence}, blocks)
    return _whole_table(table, **options, blocks=blocks, confidence=confidence)


def _whole_table(
    table: pd.DataFrame,
    *,
    references: Any,
    start_years: Any,
    background: Any,
    degraded: Any,
    blocks: pd.DataFrame | None,
    confidence: float,
) -> Recovery:
    if isinstance(background, pd.DataFrame):
        background = _sorted_by_id(background)
    rows_by_id = _sorted_by_id(table)
    series = series_from_table(rows_by_id)
    named = np.sort(site_positions(series, references, "references"))
    rows = named[series.with_data[named]]
    if not len(rows):
        raise UsageError("no reference site has data in any year")
    is_own = isinstance(background, str) and background == "references"
    fixed = corrected(rows_by_id, [series.site_ids[i] for i in rows] if is_own else background)
    stand_ins = np.array([], np.intp) if degraded is None else np.sort(site_positions(series, degraded, "degraded"))
    starts = dict(enumerate(start_years_of(series, start_years)))
    others = {*named.tolist(), *stand_ins.tolist()}
    measured = np.array([i for i, year in starts.items() if year is not None and i not in others], np.intp)
    if not len(measured):
        raise UsageError("no site of the table (references aside) has a start year; give start_years")
    if blocks is not None:
        check_blocks(blocks, [series.site_ids[i] for i in measured])
    unchanged = fixed.controls.copy()
    unchanged[rows] = True
    unchanged[measured] = False
    noise = yearly_noise(fixed.units[unchanged], lost=1 / len(rows) if is_own else 0.0)
    ends = _ends(series.units[rows], fixed.units[rows], fixed.units[stand_ins[series.with_data[stand_ins]]], noise)
    parts = []
    for first in range(0, len(measured), _SITES_AT_A_TIME):
        part = measured[first : first + _SITES_AT_A_TIME]
        began = np.array([starts[i] for i in part], np.int64)
        parts.append(_measured(series.take(part), fixed.units[part], began, ends, blocks, confidence))
    yearly, sites, range_low = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    sites["rank"] = sites["rank"].rank(ascending=False, method="min").astype("Int64")
    reference = {"year": series.years, "n_sites": series.present[rows].sum(axis=0)}
    reference |= {"range_low": range_low.median().to_numpy(), "coherence": np.linalg.norm(ends.target, axis=1)}
    return Recovery(
        yearly=_in_order_of(table, yearly),
        sites=_in_order_of(table, sites),
        reference=pd.DataFrame(reference),
        confidence=confidence,
        background=fixed.words,
    )


def _by_parts(table: pd.DataFrame, names: set[str], options: dict[str, Any], blocks: pd.DataFrame | None) -> Recovery:
    """Measure a large table in parts, each with all the sites that the options name."""
    ids = pd.unique(table["site_id"]).tolist()
    series = Series(site_ids=ids, years=np.array([]), units=np.empty((0, 0, 0)))
    starts = start_years_of(series, options["start_years"])
    shared = {site_id for site_id in ids if str(site_id) in names}
    measured = [i for i, year in zip(ids, starts, strict=True) if year is not None and i not in shared]
    found = []
    for first in range(0, max(len(measured), 1), _LARGE_TABLE):
        part = measured[first : first + _LARGE_TABLE]
        rows = table[table["site_id"].isin([*shared, *part])]
        own = blocks if blocks is None else blocks[blocks[owner_column(blocks)].astype(str).isin(set(map(str, part)))]
        found.append(_whole_table(rows, blocks=own, **options))
    sites = pd.concat([part.sites for part in found], ignore_index=True)
    is_ranked = sites["rank"].notna()
    sites["rank"] = sites["share"].where(is_ranked).rank(ascending=False, method="min").astype("Int64")
    yearly = pd.concat([part.yearly for part in found], ignore_index=True)
    return replace(found[0], yearly=_in_order_of(table, yearly), sites=_in_order_of(table, sites))


def _sorted_by_id(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by site, so that rounding doesn't depend on their order."""
    if not isinstance(table, pd.DataFrame) or "site_id" not in table.columns:
        return table  # `series_from_table` raises
    return table.iloc[np.argsort(table["site_id"].astype(str).to_numpy(object), kind="stable")]


def _in_order_of(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by the order of the sites in a table."""
    place = {site_id: i for i, site_id in enumerate(pd.unique(table["site_id"]))}
    return rows.iloc[np.argsort(rows["site_id"].map(place).to_numpy(), kind="stable")].reset_index(drop=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ends:
    """What the trajectories of all sites end, or start, at.

    Parameters
    ----------
    centre, target : float arrays, shape (years, 64)
        Mean of the references' unit vectors, as in the table and without the background's movement.
    radius_deg : float
        Angle from the references' mean within which a site is one of them.
    noise, references, degraded : Scatter
        Of unchanged sites between years, of the references, and of the degraded sites if there are any.
    degraded_mean : float array, shape (64,), optional
        Unit vector that stands in for unknown starting states.
    """

    centre: Floats
    target: Floats
    radius_deg: float
    noise: Scatter
    references: Scatter
    degraded: Scatter | None = None
    degraded_mean: Floats | None = None


def _ends(raw: Floats, references: Floats, stand_ins: Floats, noise: Scatter) -> _Ends:
    """Describe references and degraded stand-ins, from their series."""
    whole = fill_gaps(references)
    scatter = scatter_of(whole, noise)
    degraded = fill_gaps(stand_ins) if len(stand_ins) else None
    return _Ends(
        centre=normalize(fill_gaps(raw).mean(axis=0)),
        target=whole.mean(axis=0),
        radius_deg=_ONE_COVER_DEG if scatter.n < 2 else max(scatter.radius_deg, LEAST_MOVE_DEG),
        noise=noise,
        references=scatter,
        degraded=None if degraded is None else scatter_of(degraded, noise),
        degraded_mean=None if degraded is None else normalize(np.nansum(degraded, axis=(0, 1))),
    )


def _measured(
    sites: Series,
    units: Floats,
    start_years: NDArray[np.int64],
    ends: _Ends,
    blocks: pd.DataFrame | None,
    confidence: float,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the rows of years and of sites, and the shares at which the reference range begins."""
    present = has_data(units)
    before = present & (sites.years[None] < start_years[:, None])
    n_before = before.sum(axis=1)
    start = normalize(np.where(before[..., None], units, 0.0).sum(axis=1))
    status = np.where(present.any(axis=1), np.where(n_before > 0, "ok", "no_baseline"), "no_data").astype(object)
    status[(n_before > 0) & (n_before == present.sum(axis=1))] = "not_started"
    similarity = np.sum(sites.units * ends.centre, axis=2)
    weights = before / np.maximum(n_before, 1)[:, None]
    at_start = np.where(n_before > 0, np.sum(np.where(before, np.nan_to_num(similarity), 0) * weights, axis=1), np.nan)
    if ends.degraded_mean is not None:
        stood_in = status == "no_baseline"
        start[stood_in], status[stood_in] = ends.degraded_mean, "ok"
        at_start[stood_in] = np.nanmean(ends.centre @ ends.degraded_mean)
    way = measure(units, start, weights, ends.target, ends.noise, ends.references, ends.degraded, confidence)
    status[(status == "ok") & (way.length_deg <= ends.radius_deg)] = "at_reference"
    if blocks is not None:
        for i, covariance, freedom in block_covariances(blocks, sites, way.gradient, weights):
            way.covariance[i], way.freedom[i] = covariance, freedom
    yearly = year_rows(sites, start_years, way, status, similarity, confidence)
    rows = site_rows(yearly, start_years, way, status, at_start, ends.radius_deg, confidence)
    return yearly, rows, pd.DataFrame(np.where((status == "ok")[:, None], way.range_low, np.nan))

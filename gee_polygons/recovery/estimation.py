"""Measures the recovery of restoration sites towards reference sites, with confidence intervals.

The metrics are counterparts, for embeddings, of spectral recovery metrics relative to a reference range (dNBR, RRI,
R80P, YrYr; White et al., *Remote Sensing of Environment* 194, 2017; Kennedy et al., RSE 114, 2010). References are
taken year by year, so that the drift which all land shares cancels; each site's starting state is carried to each year
by the drift of a background.

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
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.background import Corrected
from gee_polygons.change.drift import step_covariance
from gee_polygons.change.noise import Noise, estimate_noise
from gee_polygons.change.numerics import Floats, effective_dimensions
from gee_polygons.embeddings.directional import normalize
from gee_polygons.errors import UsageError
from gee_polygons.recovery.classes import measure_progress
from gee_polygons.recovery.curvature import estimate_curvature, estimate_end_variance
from gee_polygons.recovery.intervals import bootstrap_deviations, interval
from gee_polygons.recovery.results import site_rows, year_rows
from gee_polygons.recovery.roles import Roles
from gee_polygons.recovery.scatter import LAND_SCATTER, estimate_scatter, fill_gaps
from gee_polygons.recovery.trajectories import Trajectories
from gee_polygons.recovery.uncertainty import Uncertainty

_ONE_COVER_DEG: Final = 20.0  # what counts as near the references where a single one doesn't show how they differ


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovery:
    """Result of `recovery`.

    Parameters
    ----------
    yearly : DataFrame
        One row per restoration site and year: `site_id`, `year`, `years_since_start`; `similarity` (cosine to the mean
        direction of that year's references); `share` of recovery, from the site's own starting state (0) to the
        references' mean (1), `share_low`, `share_high` (its confidence interval), `share_raw` (not clipped to 0..1);
        `in_range` (whether it reaches what the lowest tenth of the references have); `off_way_deg` (off-trajectory
        distance, an angle: if large, the site became something else); `status` (``"ok"``, ``"no_baseline"``: no year of
        data before the start; ``"no_data"``; ``"no_reference"``: no reference has data in that year;
        ``"not_started"``: the site's start lies after its last year with data; ``"too_near"``: the start is as near
        the references as they are to each other).
    sites : DataFrame
        One row per restoration site: `site_id`, `start_year`, `status`, `share`, `share_low`, `share_high` of the last
        year with data and that `year`, `rate` (share per year since the start) with `rate_low`, `rate_high`,
        `years_to_80` and `years_to_range` (years since the start, interpolated; NaN if not reached, or lost again),
        `expected_years_to_80` (of recovering sites, by their last four years' rate, if within 10 years), `group` (class
        of recovery), `evidence` (in words) and `rank` (1 = largest share). Classes, by what the intervals leave no
        doubt of: ``"declining"`` (lost a fifth of the recovery, or loses 4 % a year, over all or the last four years),
        ``"recovering"`` (80 % recovered, or at least 4 % a year), ``"stalled"`` (less than that a year, over all or the
        last four years), else ``"no evidence"``.
    reference : DataFrame
        `year`, `n_sites`, `range_low` (share at which the reference range begins, median over sites), `coherence`
        (mean resultant length of the references' unit means).
    confidence : float
        Of the intervals.
    background : str
        What the drift was estimated from, in words.
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
    draws: int = 2_000,
    seed: int = 0,
) -> Recovery:
    """Measure the recovery of restoration sites towards reference sites, year by year.

    Parameters
    ----------
    table : DataFrame
        Columns `site_id`, `year`, ``A00``..``A63``, `n_pixels`: restoration and reference sites. From any source.
    references : sequence of site ids
        Mature or secondary forest, chosen by the user: what the sites should become.
    start_years : mapping from site id to year, SiteCollection or GeoDataFrame
        When restoration began. Sites with a start year, other than references and degraded sites, are measured.
    background : "references", "all", list of site ids, DataFrame, or None
        What the drift that all land shares is estimated from: by default the references themselves; else as in
        `change`. None: starting states are not carried from year to year (for comparison: it is worse).
    degraded : sequence of site ids, optional
        Sites in the state that the restoration sites were in: the starting state of sites without data before their
        start.
    blocks : DataFrame, optional
        A table of parts of the sites (`block_sites`), with `block_id`, `n_pixels`, and the site's id in `block_of`
        (else in `site_id`): intervals are then drawn by resampling spatial blocks of pixels, instead of from the
        effective sample size.
    confidence : float
        Of the intervals: 0.9 = 90 %.
    draws : int
        Bootstrap draws. With 2,000 the end of an interval is off by 0.01 or 0.02 of the share at most, with 400 by up
        to twice that.
    seed : int
        The same seed gives the same intervals, whatever the order of the rows.

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
    if draws < 20:
        raise UsageError(f"a confidence interval needs at least 20 draws, found {draws}")
    if isinstance(background, pd.DataFrame):
        background = _sorted_by_id(background)
    roles = Roles.of(_sorted_by_id(table), references, start_years, background, degraded)
    sites, since = roles.sites, roles.years_since_start
    trajectories = Trajectories.of(sites, roles.references, roles.starts, roles.fixed.drift)
    position = trajectories.position
    errors = estimate_uncertainty(roles, trajectories)
    near = trajectories.length_deg < np.degrees(2 * np.arcsin(min(_reference_radius(errors) / 2, 1.0)))
    status = np.where((roles.starts.status == "ok") & near, "too_near", roles.starts.status)
    share = np.where((status == "ok")[:, None] & np.isfinite(position.share), position.share, np.nan)
    low, high = np.full((2, *share.shape), np.nan)
    progress = []
    for part, drawn in bootstrap_deviations(position, sites, roles.starts, errors, blocks, draws, seed):
        low[part], high[part] = interval(share[part], drawn, confidence)
        for i, own in enumerate(share[part]):
            progress.append(measure_progress(own, drawn[:, i], since[part][i], confidence))
    shares = np.stack([share, low, high])
    range_low = [float(np.nanmedian(v)) if np.isfinite(v).any() else np.nan for v in trajectories.range_low.T]
    reference = pd.DataFrame(
        {
            "year": sites.years,
            "n_sites": trajectories.count,
            "range_low": range_low,
            "coherence": np.where(trajectories.count > 0, trajectories.coherence, np.nan),
        }
    )
    return Recovery(
        yearly=_in_order_of(table, year_rows(roles, trajectories, status, shares)),
        sites=_in_order_of(table, site_rows(roles, trajectories, status, shares, progress)),
        reference=reference,
        confidence=confidence,
        background=roles.fixed.words,
    )


def _sorted_by_id(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by site, so that neither draws nor rounding depend on their order."""
    if not isinstance(table, pd.DataFrame) or "site_id" not in table.columns:
        return table  # `series_from_table` raises
    return table.iloc[np.argsort(table["site_id"].astype(str).to_numpy(object), kind="stable")]


def _in_order_of(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by the order of the sites in a table."""
    place = {site_id: i for i, site_id in enumerate(pd.unique(table["site_id"]))}
    return rows.iloc[np.argsort(rows["site_id"].map(place).to_numpy(), kind="stable")].reset_index(drop=True)


def estimate_uncertainty(roles: Roles, trajectories: Trajectories) -> Uncertainty:
    """Estimate the errors of shares from the noise, the references and the background of a table."""
    fixed, n_effective = roles.fixed, roles.fixed.raw.n_effective
    noise = estimate_noise(fixed.units, n_effective, roles.stable())
    deviation = np.sum((roles.starts.state - roles.starts.cover) ** 2, axis=1)
    deviation = deviation[deviation > 0]  # not those without a start (NaN), nor those alone
    fallback = float(np.median(deviation)) if len(deviation) > 2 else LAND_SCATTER
    references = estimate_scatter(fill_gaps(fixed.units[roles.reference_rows]), noise.shape, fallback)
    degraded = None
    if len(roles.degraded_rows):
        degraded = estimate_scatter(fill_gaps(fixed.units[roles.degraded_rows]), noise.shape, fallback)
    variances = noise.variance[roles.reference_rows]
    step_variance, covariance = _drift_errors(fixed, float(np.mean(noise.variance * n_effective)))
    errors = Uncertainty(
        noise=Noise(shape=noise.shape, variance=noise.variance[roles.rows], ar1=noise.ar1),
        references=references,
        reference_variance=float(variances.sum()) / len(variances) ** 2,
        degraded=degraded,
        step_variance=step_variance,
        step_covariance=covariance,
        own_background=roles.own_background,
    )
    curvature = estimate_curvature(trajectories.position, roles.starts, errors)
    errors = replace(errors, curvature=curvature)
    return replace(errors, end_variance=estimate_end_variance(trajectories.position, roles.starts, errors))


def _drift_errors(fixed: Corrected, pixel_variance: float) -> tuple[float, Floats]:
    """Return the noise variance of the drift's step, and the covariance of the part of it that isn't determined."""
    background = fixed.background
    if background is None:
        return 0.0, np.zeros((len(fixed.raw.years), N_BANDS, N_BANDS))
    with_data = background.take(background.with_data)
    places = normalize(np.nan_to_num(with_data.units).sum(axis=1))
    covariance = step_covariance(fixed.drift, places, pixel_variance / with_data.n_effective)
    return pixel_variance / float(with_data.n_effective.sum()), covariance


def _reference_radius(errors: Uncertainty) -> float:
    """Return the distance (chord) from the references' mean that 95 % of further references would not exceed."""
    if errors.references.n_sites < 2:
        return float(2 * np.sin(np.radians(_ONE_COVER_DEG) / 2))
    freedom = effective_dimensions(errors.noise.shape) * (errors.references.n_sites - 1)
    return errors.references.length * (1 + NormalDist().inv_cdf(0.95) / float(np.sqrt(2 * freedom)))

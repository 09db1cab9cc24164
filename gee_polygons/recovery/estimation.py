"""Does a restoration site become what it should? Share of the way to reference sites, with a band that says how sure.

The counterparts, for embeddings, of what spectral recovery metrics report against a reference range (dNBR, RRI, R80P,
YrYr; White et al., *Remote Sensing of Environment* 194, 2017; Kennedy et al., RSE 114, 2010). References are taken year
by year, so that the drift which all land shares cancels; each site's own starting state is carried to each year by
the step that its background took.

    >>> from gee_polygons import extract_embeddings
    >>> from gee_polygons.sources.sample import sample_sites
    >>> sites = sample_sites()
    >>> table = extract_embeddings(sites, years=range(2018, 2025), source="sample")
    >>> found = recovery(table, references=["forest-reference-1", "forest-reference-2"], start_years=sites)
    >>> print(*found.sites.set_index("site_id").loc[["pasture-fast", "stalled"], "group"])
    recovering stalled
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.change.detection import Corrected, corrected
from gee_polygons.change.drift import unseen_steps
from gee_polygons.change.noise import Noise, estimate_noise, spectral_freedom
from gee_polygons.change.series import Floats, Series, positions_of, series_of, start_years_of
from gee_polygons.embeddings.directional import normalize
from gee_polygons.errors import UsageError
from gee_polygons.recovery.classes import EIGHTY, Progress, group_of, progress_of
from gee_polygons.recovery.curvature import Shared, fit_bend, own_end
from gee_polygons.recovery.geometry import interpolated_year, mean_start
from gee_polygons.recovery.intervals import Bands, Doubt, bootstrap_bands
from gee_polygons.recovery.scatter import LAND_SCATTER, balanced, scatter_of
from gee_polygons.recovery.trajectories import Starts, Ways, starting_states

if TYPE_CHECKING:
    from gee_polygons.site import Site, SiteCollection

_FORESEEN: Final = 10.0  # years: what lies further ahead isn't foreseen
_LEFT_DEG: Final = 20.0  # a site that was among the references and is so much further off has left them; and what
# counts as near where one reference can't tell


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovery:
    """What `recovery` found.

    Parameters
    ----------
    yearly : DataFrame
        One row per restoration site and year: `site_id`, `year`, `years_since_start`; `similarity` (cosine to the mean
        direction of that year's references); `share` of the way from the site's own starting state to the references'
        centre (0..1), `share_low`, `share_high` (its band), `share_raw` (not cut to 0..1); `in_range` (whether it
        reaches what the lowest tenth of the references have); `off_way_deg` (angle to the nearest point of the way:
        large = it became something else); `status` (``"ok"``, ``"no_baseline"``: no year of data before the start;
        ``"no_data"``; ``"no_reference"``: no reference has data in that year; ``"not_started"``: the site's start lies
        after its last year with data; ``"too_near"``: the start is as near the references as they are to each other).
    sites : DataFrame
        One row per restoration site: `site_id`, `start_year`, `status`, `share`, `share_low`, `share_high` of the last
        year with data and that `year`, `rate` (share per year since the start) with `rate_low`, `rate_high`,
        `years_to_80` and `years_to_range` (years since the start, between years; NaN if not reached, or lost again),
        `expected_years_to_80` (of recovering sites, by their last four years' rate, if within 10 years), `group`,
        `evidence` (in words) and `rank` (1 = largest share). Groups, by what the bands leave no doubt of:
        ``"declining"`` (lost a fifth of the way, or loses 4 % a year, over all or the last four years),
        ``"recovering"`` (80 % of the way, or at least 4 % a year), ``"stalled"`` (less than that a year, over all or
        the last four years), else ``"no evidence"``.
    reference : DataFrame
        `year`, `n_sites`, `range_low` (share at which the range begins, of a way of length 1), `coherence`
        (mean resultant length of the references' unit means).
    confidence : float
        Of the bands.
    background : str
        What carried the starting states from year to year.
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
    """Measure the way of restoration sites towards reference sites, year by year.

    Parameters
    ----------
    table : DataFrame
        Columns `site_id`, `year`, ``A00``..``A63``, `n_pixels`: restoration and reference sites. Of any source.
    references : sequence of site ids
        Mature or secondary forest, chosen by the user: what the sites should become.
    start_years : mapping from site id to year, SiteCollection or GeoDataFrame
        When restoration began. Sites with one, other than references and degraded sites, are measured.
    background : "references", "all", list of site ids, DataFrame, or None
        What tells the step that all land shares in a year: by default the references themselves; else as in `change`.
        None: starting states are not carried from year to year (for comparison: it is worse).
    degraded : sequence of site ids, optional
        Sites that are as the restoration sites were: the starting state of sites that have no data before their start.
    blocks : DataFrame, optional
        A table of parts of the sites (`block_sites`), with `block_id`, `n_pixels`, and the site's id in `block_of`
        (else in `site_id`): the bands then come from resampling spatial blocks of pixels, not from the effective
        number of pixels.
    confidence : float
        Of the bands: 0.9 = 90 %.
    draws : int
        Bootstrap draws. With 2,000 a bound of a band is off by one or two hundredths of the way at most, with 400 by
        up to twice that.
    seed : int
        The same seed gives the same bands, whatever the order of the rows.

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
    >>> way = np.linspace(0, 1, 5)[:, None]
    >>> site, forest = (1 - way) * np.eye(64)[0] + way * np.eye(64)[1], np.eye(64)[[1] * 5]
    >>> table = pd.DataFrame(np.vstack([site, forest]), columns=list(BANDS))
    >>> table = table.assign(site_id=["s"] * 5 + ["ref"] * 5, year=[*range(2018, 2023)] * 2)
    >>> recovery(table, references=["ref"], start_years={"s": 2019}).yearly["share"].round(3).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence lies between 0 and 1, found {confidence!r}")
    if draws < 20:
        raise UsageError(f"a band needs at least 20 draws, found {draws}")
    if isinstance(background, pd.DataFrame):
        background = _by_id(background)
    cast = _Cast.of(_by_id(table), references, start_years, background, degraded)
    ways = Ways.of(cast.sites, cast.reference, cast.starts.state, cast.fixed.drift)
    doubt = _doubt(cast, ways)
    status = cast.starts.status
    near = ways.length_deg < np.degrees(2 * np.arcsin(min(_as_near(doubt) / 2, 1.0)))
    status = np.where((status == "ok") & near, "too_near", status)
    bands = bootstrap_bands(ways, cast.sites, cast.starts, doubt, blocks, draws, seed)
    found = _result(cast, ways, status, bands, confidence)
    return replace(found, yearly=_as_in(table, found.yearly), sites=_as_in(table, found.sites))


def _by_id(table: pd.DataFrame) -> pd.DataFrame:
    """Order rows by site, so that neither draws nor rounding depend on the order that they came in."""
    if not isinstance(table, pd.DataFrame) or "site_id" not in table.columns:
        return table  # `series_of` says what is wrong
    return table.iloc[np.argsort(table["site_id"].astype(str).to_numpy(object), kind="stable")]


def _as_in(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Put rows into the order that the sites have in the table."""
    place = {site_id: i for i, site_id in enumerate(pd.unique(table["site_id"]))}
    return rows.iloc[np.argsort(rows["site_id"].map(place).to_numpy(), kind="stable")].reset_index(drop=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cast:
    """Who is who in the table."""

    everything: Series
    fixed: Corrected
    rows: NDArray[np.intp]  # of the sites to be measured
    reference_rows: NDArray[np.intp]
    degraded_rows: NDArray[np.intp]
    start_years: NDArray[np.int64]  # of the sites to be measured
    starts: Starts
    own_background: bool  # whether the references are the background

    @property
    def sites(self) -> Series:
        return self.everything.take(self.rows)

    @property
    def reference(self) -> Series:
        return self.everything.take(self.reference_rows)

    @classmethod
    def of(cls, table: pd.DataFrame, references: Any, start_years: Any, background: Any, degraded: Any) -> _Cast:
        everything = series_of(table)
        found = np.sort(positions_of(everything, references, "references"))
        reference_rows = found[everything.present[found].any(axis=1)]
        if not len(reference_rows):
            raise UsageError("no reference site has data in any year")
        own = isinstance(background, str) and background == "references"
        fixed = corrected(table, background=[everything.site_ids[i] for i in reference_rows] if own else background)
        years = start_years_of(everything, start_years)
        stand_ins = (
            np.array([], np.intp) if degraded is None else np.sort(positions_of(everything, degraded, "degraded"))
        )
        others = {*found, *stand_ins}
        rows = np.array([i for i, y in enumerate(years) if y is not None and i not in others], np.intp)
        if not len(rows):
            raise UsageError("no site of the table (references aside) has a start year; give start_years")
        stand_ins = stand_ins[everything.present[stand_ins].any(axis=1)]
        began = [y for i in rows if (y := years[i]) is not None]
        units = fixed.units[stand_ins] if len(stand_ins) else None
        return cls(
            everything=everything,
            fixed=fixed,
            rows=rows,
            reference_rows=reference_rows,
            degraded_rows=stand_ins,
            start_years=np.array(began, np.int64),
            starts=starting_states(fixed.units[rows], everything.years, began, units),
            own_background=own,
        )


def _doubt(cast: _Cast, ways: Ways) -> Doubt:
    """Collect what the table says of its own noise, of the references and of the background."""
    fixed, n_effective = cast.fixed, cast.everything.n_effective
    known = np.zeros(cast.everything.present.shape, np.bool_)
    known[[*cast.reference_rows, *cast.degraded_rows]] = True
    known[fixed.is_background & fixed.is_named] = True
    known[cast.rows] = cast.starts.before
    noise = estimate_noise(fixed.units, n_effective, known)
    own = Noise(shape=noise.shape, variance=noise.variance[cast.rows], memory=noise.memory)
    kind = mean_start(cast.starts.state)
    apart = np.sum((cast.starts.state - kind) ** 2, axis=1)
    known = np.isfinite(apart) & (apart > 0)
    fallback = float(np.median(apart[known])) if known.sum() > 2 else LAND_SCATTER
    references = scatter_of(balanced(fixed.units[cast.reference_rows]), noise.shape, fallback)
    variances = noise.variance[cast.reference_rows]
    step, unseen = _of_step(fixed, float(np.mean(noise.variance * n_effective)))
    of_references = float(variances.sum()) / len(variances) ** 2
    shared = Shared(
        step_variance=step + np.trace(unseen, axis1=1, axis2=2),
        reference_variance=of_references,
        own_background=cast.own_background,
    )
    bend = fit_bend(ways, cast.starts, own, references, shared)
    return Doubt(
        noise=own,
        references=references,
        reference_variance=of_references,
        degraded=None
        if not len(cast.degraded_rows)
        else scatter_of(balanced(fixed.units[cast.degraded_rows]), noise.shape, fallback),
        step_variance=step,
        unseen_steps=unseen,
        own_background=cast.own_background,
        own_end=own_end(ways, cast.starts, own, references, bend),
        bend=bend,
    )


def _of_step(fixed: Corrected, variance_of_pixel: float) -> tuple[float, Floats]:
    """Return the noise of the background's step, and the covariance of what it can't tell of a step."""
    other = fixed.witnesses
    if other is None:
        return 0.0, np.zeros((len(fixed.raw.years), N_BANDS, N_BANDS))
    there = other.present.any(axis=1)
    places = normalize(np.nan_to_num(other.units[there]).sum(axis=1))
    unseen = unseen_steps(fixed.drift, places, variance_of_pixel / other.n_effective[there])
    return variance_of_pixel / float(other.n_effective[there].sum()), unseen


def _as_near(doubt: Doubt) -> float:
    """Return the distance from the references' centre that one more reference would hardly exceed (chord)."""
    if doubt.references.n_sites < 2:  # one can't tell how much they differ
        return float(2 * np.sin(np.radians(_LEFT_DEG) / 2))
    free = spectral_freedom(doubt.noise.shape) * max(doubt.references.n_sites - 1, 1)
    return doubt.references.length * (1 + NormalDist().inv_cdf(0.95) / float(np.sqrt(2 * free)))


def _result(cast: _Cast, ways: Ways, status: Any, bands: Iterable[tuple[slice, Bands]], confidence: float) -> Recovery:
    n, t = ways.place.share.shape
    sites, since = cast.sites, cast.everything.years[None] - cast.start_years[:, None]
    usable = (status == "ok")[:, None] & np.isfinite(ways.place.share)
    raw = np.where(usable, ways.place.share, np.nan)
    low, high = np.full((2, n, t), np.nan)
    progress: list[Progress] = []
    for part, drawn in bands:
        low[part], high[part] = drawn.interval(raw[part], confidence)
        progress += progress_of(drawn, raw[part], since[part], confidence)
    state = np.where(np.isfinite(sites.units[..., 0]), np.repeat(status[:, None], t, axis=1), "no_data")
    state = np.where((state == "ok") & (ways.count == 0), "no_reference", state)
    yearly = pd.DataFrame(
        {
            "site_id": np.repeat(np.array(sites.site_ids, dtype=object), t),
            "year": np.tile(sites.years, n),
            "years_since_start": since.ravel(),
            "similarity": ways.similarity.ravel(),
            "share": np.clip(raw, 0, 1).ravel(),
            "share_low": np.clip(low, 0, 1).ravel(),
            "share_high": np.clip(high, 0, 1).ravel(),
            "share_raw": raw.ravel(),
            "in_range": (raw >= ways.range_low).ravel(),
            "off_way_deg": np.where(usable, ways.place.off_deg, np.nan).ravel(),
            "status": state.ravel().astype(str),
        }
    ).infer_objects()
    rows = [
        _site_row(i, sites, since, raw, low, high, progress[i], ways.range_low[i], status[i], ways.similarity[i])
        for i in range(n)
    ]
    summary = pd.DataFrame(rows)
    summary["year"] = summary["year"].astype("Int64")
    summary["rank"] = summary["share"].rank(ascending=False, method="min").astype("Int64")
    middle = [float(np.nanmedian(c)) if np.isfinite(c).any() else np.nan for c in ways.range_low.T]
    about = pd.DataFrame(
        {
            "year": sites.years,
            "n_sites": ways.count,
            "range_low": middle,
            "coherence": np.where(ways.count > 0, ways.coherence, np.nan),
        }
    )
    return Recovery(yearly=yearly, sites=summary, reference=about, confidence=confidence, background=cast.fixed.words)


def _site_row(
    i: int,
    sites: Series,
    since: Any,
    raw: Floats,
    low: Floats,
    high: Floats,
    progress: Progress,
    range_low: Floats,
    status: str,
    similarity: Floats,
) -> dict[str, Any]:
    """Sum up one site."""
    seen = np.flatnonzero(np.isfinite(raw[i]))
    nan = float("nan")
    row: dict[str, Any] = {"site_id": sites.site_ids[i], "start_year": int(sites.years[0] - since[i, 0])}
    row |= {"status": status, "year": None, "share": nan, "share_low": nan, "share_high": nan}
    row |= dict(zip(("rate", "rate_low", "rate_high"), progress.rate, strict=True))
    row |= {"years_to_80": nan, "years_to_range": nan, "expected_years_to_80": nan}
    best_year, best_share = None, nan
    if progress.best >= 0:
        best_year, best_share = int(sites.years[progress.best]), float(raw[i, progress.best])
    if len(seen):
        last = seen[-1]
        row["year"] = int(sites.years[last])
        row["share"], row["share_low"], row["share_high"] = (float(np.clip(v[i, last], 0, 1)) for v in (raw, low, high))
    row["group"], row["evidence"] = group_of(row, progress, best_year, best_share)
    if len(seen):
        after = seen[since[i, seen] >= -1]
        years = since[i, after].astype(np.float64)
        if row["group"] != "declining":  # what was reached and lost again isn't reached
            row["years_to_80"] = interpolated_year(years, raw[i, after], EIGHTY)
            row["years_to_range"] = interpolated_year(years, raw[i, after] - range_low[after], 0.0)
        if np.isnan(row["years_to_80"]) and row["group"] == "recovering":
            rate = progress.rate[0] if np.isnan(progress.recent[0]) else progress.recent[0]
            left = max(EIGHTY - raw[i, last], 0) / rate if rate > 0 else nan
            row["expected_years_to_80"] = float(years[-1] + left) if left <= _FORESEEN else nan
    there = np.flatnonzero(np.isfinite(similarity))
    if status == "too_near" and len(there) > 1:
        was, now = (float(np.degrees(np.arccos(np.clip(similarity[k], -1, 1)))) for k in there[[0, -1]])
        if now - was > _LEFT_DEG:
            row["group"] = "declining"
            row["evidence"] = f"was like the references ({was:.0f} degrees off), and left them (now {now:.0f} degrees)"
    return row


def block_sites(site: Site, *, block_m: float = 100.0) -> SiteCollection:
    """Cut a site into square blocks, for bands from resampling them: extract these, and give `recovery` the table.

    Parameters
    ----------
    site : Site
        To cut.
    block_m : float
        Side of a block in metres. Pixels are correlated over about 150 m (`AEF_CORRELATION`): blocks of that size
        or more are nearly independent; smaller ones make the bands too narrow.

    Returns
    -------
    SiteCollection of the pieces, ids ``<site>/<number>``, with the properties `block_of` and `block_id`.

    Examples
    --------
    >>> import shapely
    >>> from gee_polygons import Site
    >>> site = Site(polygon=shapely.box(-48.01, -22.01, -48.0, -22.0), site_id="a", start_year=2019)
    >>> len(block_sites(site, block_m=300))
    16
    """
    import shapely

    from gee_polygons.site import Site, SiteCollection

    if not block_m > 0:
        raise UsageError(f"block_m is a length in metres, found {block_m!r}")
    west, south, east, north = site.polygon.bounds
    tall = block_m / 110_574.0
    wide = block_m / (111_320.0 * float(np.cos(np.radians((south + north) / 2))))
    pieces: list[Site] = []
    for x in np.arange(west, east, wide):
        for y in np.arange(south, north, tall):
            part = shapely.intersection(site.polygon, shapely.box(x, y, x + wide, y + tall))
            solid = [p for p in shapely.get_parts(part) if p.geom_type == "Polygon" and p.area > 0]
            if solid:
                shape = solid[0] if len(solid) == 1 else shapely.MultiPolygon(solid)
                about = {"block_of": site.site_id, "block_id": len(pieces)}
                pieces.append(Site(polygon=shape, site_id=f"{site.site_id}/{len(pieces)}", properties=about))
    return SiteCollection(pieces)

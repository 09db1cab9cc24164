"""Did a site change, when, and towards what? From a table of yearly embeddings alone, of any source.

A good part of each year's step is shared by the whole scene (on real pixels 44-87 %). What is left after a
*background's* step is taken off belongs to the site: `change` reports both, so that a reader sees what it buys.

    >>> from gee_polygons import extract_embeddings
    >>> from gee_polygons.sources.sample import sample_sites
    >>> table = extract_embeddings(sample_sites(), years=range(2018, 2025), source="sample")
    >>> found = change(table, background=["pasture-control", "forest-reference-1", "forest-reference-2"])
    >>> print(*found.sites.set_index("site_id").loc["cleared", ["flag", "start", "kind"]])
    True 2021 persistent

How it is done stands in `gee_polygons.change`: `drift`, `templates`, `testing`. What it can't tell stands in
docs/what_cant_be_concluded.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gee_polygons.change.direction import direction_shares
from gee_polygons.change.drift import Drift, base_years, estimate_drift
from gee_polygons.change.null_distribution import null_p_values
from gee_polygons.change.rings import blend_rings
from gee_polygons.change.series import Flags, Floats, Series, positions_of, series_of, years_of_sites
from gee_polygons.change.significance import adjusted_p_values, learned_null, robust_z, to_p, to_z
from gee_polygons.change.stable_sites import densest
from gee_polygons.change.templates import Fit, Templates, fit_templates
from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.similarity import angular_distance_deg
from gee_polygons.errors import UsageError, warn_data

if TYPE_CHECKING:
    from gee_polygons.site import SiteCollection

MODELS: Final = ("auto", "translation", "rotation")
_CLEANINGS: Final = 3  # times that changed sites are told and left out of a background of all sites
_SUSPECT_P: Final = 0.2  # a site below this is no background while another one is to be had
_LEAST_BACKGROUND: Final = 0.2  # share of the sites that always stays in it, the calmest ones
_LEAST_SITES: Final = 4  # that a background of all sites needs
_NAMED: Final = 3  # sites that a message names
_RETURNED_BELOW: Final = 0.5  # of the largest excursion: a site that came more than half the way back has returned


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What `change` found.

    Parameters
    ----------
    yearly : DataFrame
        One row per site and year: `site_id`, `year`; `angle_deg`, angle to the site's own mean direction of the
        baseline years, as it is; `relative_deg`, the same with the background's step taken off; `z`, robust z, over
        all years and sites of the background, of ``(relative_deg * sqrt(n_effective))^(2/3)``: an angle weighed by its
        site's effective pixels (large sites are calmer), to the power that makes lengths nearly normal; `is_baseline`.
    sites : DataFrame
        One row per site: `site_id`; `n_years` with data; `p` and `q` (p-value of "only noise", the same after
        Benjamini-Hochberg); `flag` (q at most the level); for flagged sites `start` (first year that shows the change),
        `largest_year` (first year after the largest lasting difference), `size_deg` (angle between the mean
        directions before and after it) and `kind`: ``"persistent"``, ``"returned"`` (came more than half the way
        back), ``"last year only"`` (can't be told yet from a single-year jump), ``"none"`` (not flagged) or
        ``"no data"`` (fewer than three years). With prototypes also `towards_<label>` (shares of the gain, summing
        to 1) and `towards_fit` (cosine of the change and what the labels explain of it, 0..1).
    level : float
        False-discovery rate of the flags.
    background : str
        What was taken off, in words.
    drift : DataFrame
        `year`, `drift_deg`: how far the background's mean direction went from the base year; `share`: the part of the
        sites' squared movement that this explains.
    """

    yearly: pd.DataFrame
    sites: pd.DataFrame
    level: float
    background: str
    drift: pd.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrected:
    """A table's series with the background's step taken off."""

    raw: Series
    units: Floats  # (sites, years, 64), as if every year were the base year
    drift: Drift
    is_background: Flags  # (sites,), which of the table's own sites served
    words: str
    is_named: bool = False  # whether the user said which sites don't change
    witnesses: Series | None = None  # the background's sites


def change(
    table: pd.DataFrame,
    *,
    baseline: int | list[int] | Mapping[Any, Any] | None = None,
    background: str | pd.DataFrame | list[Any] | None = "all",
    level: float = 0.1,
    prototypes: pd.DataFrame | Mapping[str, Any] | None = None,
    drift: str = "auto",
) -> Change:
    """Measure each site's change against its own baseline, raw and relative to a background.

    Parameters
    ----------
    table : DataFrame
        Columns `site_id`, `year`, ``A00``..``A63``; `n_pixels` if it is known. Of any source.
    baseline : int, list of int, or mapping from site id to these, optional
        Year or years that the angles of `yearly` are measured from. Default: each site's first year with data. It
        doesn't touch `p`, `q`, `flag`, `start` and `size_deg`: the test looks for a change at any time, and compares
        the years before with those after it.
    background : "all", list of site ids, DataFrame, or None
        What the shared step is estimated from. ``"all"``: the sites of the table that moved most alike, the others
        taken in as they prove unchanged; it needs a fifth that didn't change, and four sites. A list: control sites of
        the table. A DataFrame: another table, of controls or of rings around the sites (`ring_sites`; with the same
        ids, each site's own ring counts by how much it tells). None: nothing is taken off.
    level : float
        False-discovery rate of `flag`: the expected share of flagged sites that didn't change.
    prototypes : DataFrame or mapping, optional
        Labelled vectors for the direction of change: a table with a column `label` and bands (and, if it has
        one, `year`), or label to vector(s).
    drift : {"auto", "translation", "rotation"}
        How the shared step acts; ``"auto"`` takes what leaves less of the background's own movement.

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
    bank = Templates.over(len(series.years)) if len(series.years) > 1 else None
    if bank is None:
        raise UsageError(f"the table has one year only, {series.years[0]}; a change needs two, its test three")
    fit = fit_templates(units, bank)
    p = _calibrated(null_p_values(fit, units, bank), fixed)
    q = adjusted_p_values(p)
    flag = q <= level
    sites = _site_rows(series, units, bank, fit, flag).assign(p=p, q=q, flag=flag)
    order = ["site_id", "n_years", "flag", "p", "q", "start", "largest_year", "size_deg", "kind"]
    sites = sites[order]
    if prototypes is not None:
        sites = pd.concat([sites, _directions(fixed, bank, fit, flag, prototypes)], axis=1)
    calm = fixed.is_background & ~(p < _SUSPECT_P) if fixed.is_background.any() else ~(p < _SUSPECT_P)
    is_baseline = years_of_sites(series, baseline)
    without = [series.site_ids[i] for i in np.flatnonzero(series.present.any(axis=1) & ~is_baseline.any(axis=1))]
    if without:
        names = ", ".join(map(str, without[:_NAMED])) + (", ..." if len(without) > _NAMED else "")
        warn_data(
            f"{len(without)} site{'s have' if len(without) > 1 else ' has'} no data in the baseline's years and so no "
            f"angles: {names}"
        )
    yearly = _year_rows(series, units, is_baseline, calm)
    return Change(yearly=yearly, sites=sites, level=level, background=fixed.words, drift=_drift_rows(fixed))


def corrected(
    table: pd.DataFrame, *, background: str | pd.DataFrame | list[Any] | None = "all", drift: str = "auto"
) -> Corrected:
    """Return a table's series with the background's step taken off; the parameters are those of `change`."""
    if drift not in MODELS:
        raise UsageError(f"drift is one of {', '.join(MODELS)}, found {drift!r}")
    series = series_of(table)
    n = len(series.site_ids)
    if background is None:
        return _uncorrected(series, "nothing")
    if isinstance(background, pd.DataFrame):
        return _by_table(series, background, drift)
    if isinstance(background, str):
        if background != "all":
            raise UsageError(f"background is 'all', a list of site ids, a table or None, found {background!r}")
        return _by_all(series, drift)
    named = np.sort(positions_of(series, background, "background"))
    rows = named[series.present[named].any(axis=1)]
    if not len(rows):
        raise UsageError(
            f"background: none of the {len(named)} named site{'s' if len(named) > 1 else ''} has data in any year; "
            "name others, or background=None to take nothing off"
        )
    found = estimate_drift(series.take(rows), base_years(series.take(rows).present), drift)
    _warn_of_gaps(series, found)
    mask = np.zeros(n, np.bool_)
    mask[rows] = True
    words = f"the step of {len(rows)} control site{'s' if len(rows) > 1 else ''}"
    return _corrected(series, found, mask, words, is_named=True)


def _uncorrected(series: Series, words: str) -> Corrected:
    none = Drift.none(len(series.years))
    calm = np.zeros(len(series.site_ids), np.bool_)
    return Corrected(raw=series, units=series.units, drift=none, is_background=calm, words=words)


def _corrected(series: Series, drift: Drift, mask: Flags, words: str, is_named: bool = False) -> Corrected:
    return Corrected(
        raw=series,
        units=drift.remove(series.units),
        drift=drift,
        is_background=mask,
        words=words,
        is_named=is_named,
        witnesses=series.take(mask),
    )


def _by_all(series: Series, model: str) -> Corrected:
    """Take off the step of all sites, and find out on the way which of them are no background."""
    n = int(series.present.any(axis=1).sum())
    if n < _LEAST_SITES:
        warn_data(
            f"{n} site{'s' if n > 1 else ''} can't tell the scene's step from its own: nothing is taken off; name "
            "control sites, or give a table of rings (ring_sites)"
        )
        return _uncorrected(series, f"nothing (the table's {n} site{'s' if n > 1 else ''} can't tell a shared step)")
    base = base_years(series.present)
    found = estimate_drift(series, base, model, densest(series, base))
    trusted = series.present.any(axis=1)
    if len(series.years) > 2:
        bank = Templates.over(len(series.years))
        for _ in range(_CLEANINGS):
            units = found.remove(series.units)
            fit = fit_templates(units, bank)
            p = np.nan_to_num(null_p_values(fit, units, bank, rough=True), nan=1.0)
            least = np.sort(p)[::-1][max(2, int(_LEAST_BACKGROUND * n)) - 1]
            trusted = (p >= _SUSPECT_P) | (p >= least)
            found = estimate_drift(series, base, model, trusted)
    _warn_of_gaps(series, found)
    calm = int((trusted & series.present.any(axis=1)).sum())
    if 2 * calm < n:
        warn_data(
            f"only {calm} of {n} sites look unchanged; they are the background, as the sites that moved most alike. "
            "Where most sites changed alike that may be wrong: name control sites, or give a table of rings "
            "(ring_sites)"
        )
    return _corrected(
        series, found, np.asarray(trusted, np.bool_), f"the step of the table's own sites ({calm} of {n}, the calmest)"
    )


def _by_table(series: Series, background: pd.DataFrame, model: str) -> Corrected:
    other = series_of(background, series.years)
    if not other.present.any():
        raise UsageError("the background table has no year in common with the table")
    found = estimate_drift(other, base_years(other.present), model)
    _warn_of_gaps(series, found)
    units = found.remove(series.units)
    words = f"the step of {len(other.site_ids)} background polygons"
    own = {str(s) for s in series.site_ids} & {str(s) for s in other.site_ids}
    if 2 * len(own) > len(series.site_ids):
        units, share = blend_rings(series, units, other, found)
        words += f", each site's own ring counting {share:.0%}"
    none = np.zeros(len(series.site_ids), np.bool_)
    return Corrected(raw=series, units=units, drift=found, is_background=none, words=words, witnesses=other)


def _warn_of_gaps(series: Series, drift: Drift) -> None:
    gaps = [int(year) for year, known in zip(series.years, drift.known, strict=True) if not known]
    if gaps:
        warn_data(f"the background has no data in {', '.join(map(str, gaps))}: nothing is taken off there")


def _calibrated(p: Floats, fixed: Corrected) -> Floats:
    """Make p-values cautious where the unchanged sites show more than white noise."""
    z = to_z(p)
    # sites that were chosen for being calm can't tell how restless unchanged sites are: named controls can
    known = fixed.is_background if fixed.is_named else None
    centre, scale = learned_null(z, known)
    return to_p((z - centre) / scale)


def _site_rows(series: Series, units: Floats, bank: Templates, fit: Fit, flag: Flags) -> pd.DataFrame:
    """Describe the change of each site, where it is flagged."""
    rows = []
    for i, site_id in enumerate(series.site_ids):
        present = np.flatnonzero(np.isfinite(units[i, :, 0]))
        row: dict[str, Any] = {"site_id": site_id, "n_years": len(present), "kind": "none"}
        if fit.template[i] < 0:
            row["kind"] = "no data"
        elif flag[i]:
            start, step = int(bank.start[fit.template[i]]), int(bank.start[fit.step_template[i]])
            before, after = (
                units[i, chosen].mean(axis=0) for chosen in (present[present < step], present[present >= step])
            )
            row |= {"start": int(series.years[start]), "largest_year": int(series.years[step])}
            row["size_deg"] = float(angular_distance_deg(after, before))
            row["kind"] = _kind(units[i], present, start, bool(bank.returns[fit.template[i]]))
        rows.append(row)
    found = pd.DataFrame(rows, columns=["site_id", "n_years", "start", "largest_year", "size_deg", "kind"])
    found["size_deg"] = found["size_deg"].astype(np.float64)
    return found.astype({"start": "Int64", "largest_year": "Int64"})


def _kind(units: Floats, present: Any, start: int, returns: bool) -> str:
    """Tell a lasting change from one that went back, and from one that only the last year shows."""
    after = present[present >= start]
    if len(after) == 1:
        return "last year only"
    moved = units[after] - units[present[present < start]].mean(axis=0)
    away = moved[np.argmax(np.linalg.norm(moved, axis=1))]
    share = moved @ away / (away @ away)
    last = float(share[-2:].mean()) if len(share) > 3 else float(share[-1])
    return "returned" if returns and last < _RETURNED_BELOW else "persistent"


def _year_rows(series: Series, units: Floats, is_baseline: Flags, calm: Flags) -> pd.DataFrame:
    """Angles to the baseline, raw and relative, with robust z."""
    n, t = is_baseline.shape
    angles = []
    for vectors in (series.units, units):
        total = np.where(is_baseline[..., None], vectors, 0.0).sum(axis=1)
        angles.append(angular_distance_deg(vectors, normalize(total)[:, None]))
    raw, relative = angles
    scaled = relative * np.sqrt(series.n_effective)[:, None]
    usable = calm[:, None] & ~is_baseline & np.isfinite(relative)
    z = robust_z(scaled, usable)
    z[is_baseline] = np.nan
    return pd.DataFrame(
        {
            "site_id": np.repeat(np.array(series.site_ids, dtype=object), t),
            "year": np.tile(series.years, n),
            "angle_deg": raw.ravel(),
            "relative_deg": relative.ravel(),
            "z": z.ravel(),
            "is_baseline": is_baseline.ravel(),
        }
    ).infer_objects()


def _directions(fixed: Corrected, bank: Templates, fit: Fit, flag: Flags, prototypes: Any) -> pd.DataFrame:
    series, units = fixed.raw, fixed.units
    before, after = np.full((2, len(units), units.shape[2]), np.nan)
    for i in np.flatnonzero(flag):
        present = np.flatnonzero(np.isfinite(units[i, :, 0]))
        start = int(bank.start[fit.template[i]])
        before[i] = units[i, present[present < start]].mean(axis=0)
        # the end of the way, not its middle: a rise's last years
        after[i] = units[i, present[present >= start][-2:]].mean(axis=0)
    return direction_shares(before, after, prototypes, series.years, fixed.drift)


def _drift_rows(fixed: Corrected) -> pd.DataFrame:
    series, drift = fixed.raw, fixed.drift
    base = base_years(series.present)
    home = series.units[:, base].mean(axis=1)
    moved = angular_distance_deg(normalize(drift.centre + drift.steps), drift.centre) if drift.centre.any() else 0.0
    with np.errstate(invalid="ignore"):
        before = np.nansum((series.units - home[:, None]) ** 2, axis=(0, 2))
        after = np.nansum((fixed.units - home[:, None]) ** 2, axis=(0, 2))
        share = np.where(before > 0, 1 - after / np.where(before > 0, before, 1.0), np.nan)
    return pd.DataFrame({"year": series.years, "drift_deg": moved, "share": share})


def ring_sites(sites: SiteCollection, *, inner_m: float = 60.0, outer_m: float = 500.0) -> SiteCollection:
    """Return a ring around each site, for a background of its own: extract it, and give `change` that table.

    Parameters
    ----------
    sites : SiteCollection
        The sites. Their polygons are cut out of every ring, so that no site is another one's background.
    inner_m, outer_m : float
        Where the ring begins and ends, in metres from the site's edge. 60 m keeps mixed pixels and shade out.

    Returns
    -------
    SiteCollection with the same ids; a site whose ring is wholly covered by other sites is left out.

    Examples
    --------
    >>> from gee_polygons import sites_from_geodataframe
    >>> from gee_polygons.sources.sample import sample_sites
    >>> rings = ring_sites(sites_from_geodataframe(sample_sites()[:2]))
    >>> rings.site_ids, bool(rings[0].polygon.intersects(rings[0].polygon.centroid))
    (('pasture-fast', 'pasture-medium'), False)
    """
    import shapely

    from gee_polygons.site import Site, SiteCollection

    if not 0 <= inner_m < outer_m:
        raise UsageError(f"a ring begins nearer than it ends, found inner_m={inner_m}, outer_m={outer_m}")
    tree = shapely.STRtree(sites.polygons)
    found = []
    for site in sites:
        ring = site.buffer(outer_m).difference(site.buffer(inner_m) if inner_m else site.polygon)
        near = tree.query(ring, predicate="intersects")
        ring = ring.difference(shapely.union_all(sites.polygons[near])) if len(near) else ring
        parts = [p for p in shapely.get_parts(ring) if p.geom_type == "Polygon" and p.area > 0]
        if parts:
            shape = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
            found.append(Site(polygon=shape, site_id=site.site_id, start_year=site.start_year))
    return SiteCollection(found)

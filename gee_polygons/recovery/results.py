"""Arranges measured recovery as tables: one row per site and year, and one row per site."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.change.numerics import Floats
from gee_polygons.change.series import Series
from gee_polygons.recovery.classes import EIGHTY, LEAST_MOVE_DEG, RECENT, Site, classify, far_off_limit_deg
from gee_polygons.recovery.trajectories import Trajectories

_FORESEEN: Final = 10.0  # years: an expected year further ahead isn't reported
_LAST: Final = ("share", "share_low", "share_high", "similarity", "off_way_deg", "off_way_low", "off_way_high")


def year_rows(
    sites: Series, start_years: NDArray[np.int64], way: Trajectories, status: Any, similarity: Floats, confidence: float
) -> pd.DataFrame:
    """Return one row per site and year."""
    n, t = way.share.shape
    state = np.where(sites.present, status[:, None], "no_data")
    state = np.where((status == "ok")[:, None] & sites.present & np.isnan(way.range_low), "no_reference", state)
    measured = (status == "ok")[:, None]
    raw = np.where(measured, way.share, np.nan)
    half = np.full((n, t), np.nan)
    for y, contrast in enumerate(np.eye(t)):
        half[:, y] = way.half_width(np.broadcast_to(contrast, (n, t)), way.share[:, y], confidence)
    off, off_low, off_high = np.where(measured, way.off_deg, np.nan)
    columns = {
        "years_since_start": sites.years[None] - start_years[:, None],
        "similarity": similarity,
        "share": np.clip(raw, 0, 1),
        "share_low": np.clip(raw - half, 0, 1),
        "share_high": np.clip(raw + half, 0, 1),
        "share_raw": raw,
        "in_range": (raw >= way.range_low) & (off <= far_off_limit_deg(way.length_deg)[:, None]),
        "off_way_deg": off,
        "off_way_low": off_low,
        "off_way_high": off_high,
        "status": state.astype(str),
    }
    found = {"site_id": np.repeat(np.array(sites.site_ids, dtype=object), t), "year": np.tile(sites.years, n)}
    return pd.DataFrame(found | {name: values.ravel() for name, values in columns.items()}).infer_objects()


def site_rows(
    yearly: pd.DataFrame,
    start_years: NDArray[np.int64],
    way: Trajectories,
    status: Any,
    similarity_start: Floats,
    radius_deg: float,
    confidence: float,
) -> pd.DataFrame:
    """Return one row per restoration site, from the rows of its years."""
    n, t = way.share.shape
    column = {name: yearly[name].to_numpy().reshape(n, t) for name in yearly.columns}
    raw, since, years = column["share_raw"], column["years_since_start"], column["year"][0]
    seen = np.isfinite(np.where((status == "ok")[:, None], raw, way.distance_deg[0]))
    last, rows = t - 1 - seen[:, ::-1].argmax(axis=1), np.arange(n)
    estimates, best = _estimates(raw, since, way, confidence)
    now, now_low, _ = way.distance_deg[:, rows, last]
    least = np.maximum(way.length_deg + LEAST_MOVE_DEG, np.where(status == "at_reference", radius_deg, 0))
    is_away = (since[rows, last] >= 0) & (now_low > least)
    found = pd.DataFrame({"site_id": column["site_id"][:, 0], "start_year": start_years, "status": status})
    found["year"] = pd.array(np.where(seen.any(axis=1), years[last], -1), "Int64")
    found.loc[~seen.any(axis=1), "year"] = pd.NA
    for name in _LAST:
        found[name] = np.where(seen.any(axis=1), column[name][rows, last].astype(np.float64), np.nan)
    found["similarity_start"] = similarity_start
    found["rate"], found["rate_low"], found["rate_high"] = estimates[:3]
    is_far_off = found["off_way_deg"].to_numpy() > far_off_limit_deg(way.length_deg)
    classified, levels = [], []
    for i, row in enumerate(found.to_dict("records")):
        site = Site(
            row=row,
            rate=tuple(estimates[:3, i].tolist()),
            recent=tuple(estimates[3:6, i].tolist()),
            lost_high=float(estimates[8, i]),
            best_year=int(years[best[i]]),
            best_share=float(raw[i, best[i]]),
            start_deg=float(way.length_deg[i]),
            now_deg=float(now[i]),
            is_away=bool(is_away[i]),
            is_far_off=bool(is_far_off[i]),
        )
        classified.append(classify(site))
        levels.append(_levels(site, classified[-1][0], raw[i], since[i], way.range_low[i]))
    found[["years_to_80", "years_to_range", "expected_years_to_80"]] = levels
    found[["group", "evidence"]] = classified
    found["rank"] = found["share"].where(~(is_away | is_far_off))
    return found


def _estimates(
    raw: Floats, since: NDArray[np.int64], way: Trajectories, confidence: float
) -> tuple[Floats, NDArray[np.intp]]:
    """Return rate, recent rate and loss since the best year, each with its interval: (9, sites); and the best years."""
    n, t = raw.shape
    contrasts, best = np.zeros((3, n, t)), np.zeros(n, np.intp)
    for i in range(n):
        use = np.flatnonzero(np.isfinite(raw[i]) & (since[i] >= -1))
        if len(use) < 2:
            continue
        best[i] = use[np.argmax(raw[i, use[:-1]])]
        contrasts[2, i, use[-1]], contrasts[2, i, best[i]] = 1, -1
        if len(use) > RECENT:
            contrasts[1, i, use[-RECENT:]] = _slope(since[i, use[-RECENT:]])
        arrived = np.flatnonzero(raw[i, use] >= 1)
        if len(arrived) and raw[i, use[-1]] >= EIGHTY:  # a site that has arrived stays: its rate ends there
            use = use[: max(int(arrived[0]) + 1, 2)]
        contrasts[0, i, use] = _slope(since[i, use])
    found = []
    for contrast in contrasts:
        value = np.where(contrast.any(axis=1), np.sum(contrast * np.nan_to_num(raw), axis=1), np.nan)
        half = way.half_width(contrast, value, confidence)
        found += [value, value - half, value + half]
    return np.array(found), best


def _slope(x: NDArray[np.int64]) -> Floats:
    """Return the weights whose product with values at x is their least-squares slope."""
    centred = x - x.mean()
    return np.asarray(centred / (centred @ centred), np.float64)


def _levels(site: Site, group: str, raw: Floats, since: NDArray[np.int64], range_low: Floats) -> list[float]:
    """Return when the site reached 80 % and the reference range, and when it is expected to reach 80 %."""
    to_80 = to_range = expected = float("nan")
    use = np.flatnonzero(np.isfinite(raw) & (since >= -1))
    ages = since[use].astype(np.float64)
    if group in ("recovering", "stalled"):  # levels that were reached and lost again don't count
        to_80 = interpolated_year(ages, raw[use], EIGHTY)
        to_range = interpolated_year(ages, raw[use] - range_low[use], 0.0)
    if np.isnan(to_80) and group == "recovering":
        rate = site.rate[0] if np.isnan(site.recent[0]) else site.recent[0]
        left = max(EIGHTY - raw[use[-1]], 0) / rate if rate > 0 else np.inf
        expected = float(ages[-1] + left) if left <= _FORESEEN else expected
    return [to_80, to_range, expected]


def interpolated_year(years: Floats, share: Floats, level: float) -> float:
    """Return when a share first reaches a level without falling below it in the next year with data, between years."""
    for i in np.flatnonzero(share >= level):
        if i + 1 < len(share) and share[i + 1] < level:
            continue
        if i == 0:
            return float(years[0])
        part = (level - share[i - 1]) / (share[i] - share[i - 1])
        return float(years[i - 1] + np.clip(part, 0, 1) * (years[i] - years[i - 1]))
    return float("nan")

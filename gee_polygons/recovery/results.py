"""Arranges measured recovery as tables: one row per site and year, and one row per site."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.change.numerics import Floats
from gee_polygons.change.series import Series
from gee_polygons.recovery.classes import EIGHTY, LEAST_MOVE_DEG, RECENT, classify, far_off_limit_deg
from gee_polygons.recovery.trajectories import Trajectories

_FORESEEN: Final = 10.0  # years: an expected year further ahead isn't reported
_LAST: Final = ("share", "share_low", "share_high", "similarity", "off_way_deg", "off_way_low", "off_way_high")
_LEVELS: Final = ("years_to_80", "years_to_range", "expected_years_to_80")


def year_rows(sites: Series, since: NDArray[np.int64], way: Trajectories, similarity: Floats) -> pd.DataFrame:
    """Return one row per site and year; `since` are the years since the start, shape (sites, years)."""
    n, t = way.share.shape
    measured = (way.status == "ok")[:, None]
    state = np.where(sites.present, way.status[:, None], "no_data")
    state = np.where(measured & sites.present & np.isnan(way.share), "no_reference", state)
    raw, (off, off_low, off_high) = (np.where(measured, values, np.nan) for values in (way.share, way.off_deg))
    half = np.sqrt(np.einsum("nyy->ny", way.noise) + raw**2 * way.choice[:, None])
    columns = {
        "site_id": np.repeat(np.array(sites.site_ids, dtype=object), t),
        "year": np.tile(sites.years, n),
        "years_since_start": since,
        "similarity": similarity,
        "share": np.clip(raw, 0, 1),
        "share_low": np.clip(raw - half, 0, 1),
        "share_high": np.clip(raw + half, 0, 1),
        "share_raw": raw,
        "in_range": (raw >= way.range_low[:, None]) & (off <= far_off_limit_deg(way.length_deg)[:, None]),
        "off_way_deg": off,
        "off_way_low": off_low,
        "off_way_high": off_high,
        "status": state.astype(str),
    }
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()}).infer_objects()


def site_rows(
    yearly: pd.DataFrame, start_years: NDArray[np.int64], way: Trajectories, similarity_start: Floats
) -> pd.DataFrame:
    """Return one row per restoration site, from the rows of its years."""
    n, t = way.share.shape
    column = {name: yearly[name].to_numpy().reshape(n, t) for name in yearly.columns}
    raw, since, years = column["share_raw"], column["years_since_start"], column["year"][0]
    seen = np.isfinite(np.where((way.status == "ok")[:, None], raw, way.distance_deg[0]))
    any_year, rows, last = seen.any(axis=1), np.arange(n), t - 1 - seen[:, ::-1].argmax(axis=1)
    found = pd.DataFrame({"site_id": column["site_id"][:, 0], "start_year": start_years, "status": way.status})
    found["year"] = pd.Series(np.where(any_year, years[last], np.nan)).astype("Int64")
    for name in _LAST:
        found[name] = np.where(any_year, column[name][rows, last].astype(np.float64), np.nan)
    found["similarity_start"] = similarity_start
    (rate, recent, loss), best = _estimates(raw, since, way)
    found["rate"], found["rate_low"], found["rate_high"] = rate
    now, now_low, _ = way.distance_deg[:, rows, last]
    away = np.maximum(way.length_deg + LEAST_MOVE_DEG, way.radius_deg)
    figures = found.assign(
        **dict(zip(("recent", "recent_low", "recent_high"), recent, strict=True)),
        loss_high=loss[2],
        best_year=years[best],
        best_share=raw[rows, best],
        start_deg=way.length_deg,
        now_deg=now,
        is_away=(since[rows, last] >= 0) & (now_low > away),
        is_far_off=found["off_way_deg"] > far_off_limit_deg(way.length_deg),
    )
    classified, levels = [], []
    for i, row in enumerate(figures.to_dict("records")):
        classified.append(classify(row))
        speed = row["rate"] if np.isnan(row["recent"]) else row["recent"]
        levels.append(_levels(classified[-1][0], speed, raw[i], since[i], way.range_low[i]))
    found[list(_LEVELS)] = levels
    found[["group", "evidence"]] = classified
    found["rank"] = found["share"].where(~(figures["is_away"] | figures["is_far_off"]))
    return found


def _estimates(raw: Floats, since: NDArray[np.int64], way: Trajectories) -> tuple[Floats, NDArray[np.intp]]:
    """Return rate, recent rate and loss since the best year, each with its interval: (3, 3, sites); the best years."""
    n, t = raw.shape
    weights, best = np.zeros((3, n, t)), np.zeros(n, np.intp)
    for i in range(n):
        use = np.flatnonzero(np.isfinite(raw[i]) & (since[i] >= -1))
        if len(use) < 2:
            continue
        best[i] = use[np.argmax(raw[i, use[:-1]])]
        weights[2, i, use[-1]], weights[2, i, best[i]] = 1, -1
        if len(use) > RECENT:
            weights[1, i, use[-RECENT:]] = _slope(since[i, use[-RECENT:]])
        arrived = np.flatnonzero(raw[i, use] >= 1)
        if len(arrived) and raw[i, use[-1]] >= EIGHTY:  # a site that has arrived stays: its rate ends there
            use = use[: max(int(arrived[0]) + 1, 2)]
        weights[0, i, use] = _slope(since[i, use])
    value = np.where(weights.any(axis=2), np.einsum("kny,ny->kn", weights, np.nan_to_num(raw)), np.nan)
    half = np.sqrt(np.einsum("kny,nyz,knz->kn", weights, way.noise, weights) + value**2 * way.choice)
    return np.stack([value, value - half, value + half], axis=1), best


def _slope(x: NDArray[np.int64]) -> Floats:
    """Return the weights whose product with values at x is their least-squares slope."""
    centred = x - x.mean()
    return np.asarray(centred / (centred @ centred), np.float64)


def _levels(group: str, rate: float, raw: Floats, since: NDArray[np.int64], range_low: float) -> list[float]:
    """Return when the site reached 80 % and the reference range, and when it is expected to reach 80 %."""
    if group not in ("recovering", "stalled"):  # levels that were reached and lost again don't count
        return [np.nan] * 3
    use = np.flatnonzero(np.isfinite(raw) & (since >= -1))
    ages, share = since[use].astype(np.float64), raw[use]
    to_80, to_range = (interpolated_year(ages, share, level) for level in (EIGHTY, range_low))
    left = max(EIGHTY - share[-1], 0) / rate if rate > 0 else np.inf
    is_ahead = group == "recovering" and np.isnan(to_80) and left <= _FORESEEN
    return [to_80, to_range, ages[-1] + left if is_ahead else np.nan]


def interpolated_year(years: Floats, share: Floats, level: float) -> float:
    """Return when a share first reaches a level without falling below it in the next year with data, between years."""
    reached = share >= level
    lasting = np.flatnonzero(reached & np.append(reached[1:], True))
    if not len(lasting):
        return float("nan")
    k = lasting[0]
    return float(years[0] if k == 0 else np.interp(level, share[k - 1 : k + 1], years[k - 1 : k + 1]))

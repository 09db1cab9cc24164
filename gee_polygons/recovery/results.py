"""Arranges measured recovery as tables: one row per site and year, and one row per site."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gee_polygons.change.numerics import Floats
from gee_polygons.change.series import Series
from gee_polygons.recovery.classes import EIGHTY, RECENT, classify
from gee_polygons.recovery.trajectories import Trajectories

_FORESEEN: Final = 10.0  # years: an expected year further ahead isn't reported
_LAST: Final = ("year", "share", "share_low", "share_high", "similarity", "off_way_deg", "off_way_low", "off_way_high")
_LEVELS: Final = ("years_to_80", "years_to_range", "expected_years_to_80")


def year_rows(sites: Series, since: NDArray[np.int64], way: Trajectories, similarity: Floats) -> pd.DataFrame:
    """Return one row per site and year; `since` are the years since the start, shape (sites, years)."""
    n, t = way.share.shape
    measured = (way.status == "ok")[:, None]
    state = np.where(sites.present, way.status[:, None], "no_data")
    state = np.where(measured & sites.present & np.isnan(way.share), "no_reference", state)
    raw, off, off_low, off_high = (np.where(measured, values, np.nan) for values in (way.share, *way.off_deg))
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
        "in_range": (raw >= way.range_low[:, None]) & ~way.is_far_off,
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
    columns = {name: yearly[name].to_numpy().reshape(way.share.shape) for name in yearly.columns}
    found = []
    for i, start_year in enumerate(start_years):
        own = {name: values[i] for name, values in columns.items()}
        since, share, is_ok = own["years_since_start"], own["share_raw"], way.status[i] == "ok"
        row: dict[str, Any] = {"site_id": own["site_id"][0], "start_year": start_year, "status": way.status[i]}
        seen = np.flatnonzero(np.isfinite(share if is_ok else way.distance_deg[i]))
        last = seen[-1] if len(seen) else -1
        row |= {name: own[name][last] if len(seen) else np.nan for name in _LAST}
        row["similarity_start"] = similarity_start[i]
        use = np.flatnonzero(np.isfinite(share) & (since >= -1))
        rate, recent, loss, best = _estimates(share, since, use, way.noise[i], way.choice[i])
        start_deg, now_deg = way.length_deg[i], way.distance_deg[i, last]
        more = {
            "moved": f"{start_deg:.0f} degrees from the references at its start, {now_deg:.0f} now",
            "best": f"{min(share[best], 1):.0%} in {own['year'][best]}",
            "is_away": len(seen) > 0 and since[last] >= 0 and way.is_away[i, last],
            "is_far_off": is_ok and way.is_far_off[i, last],
        }
        group, evidence = classify(row | more, rate, recent, loss)
        row |= dict(zip(("rate", "rate_low", "rate_high"), rate, strict=True)) | dict.fromkeys(_LEVELS, np.nan)
        if group in ("recovering", "stalled"):  # levels that were reached and lost again don't count
            ages = since[use].astype(np.float64)
            row["years_to_80"] = interpolated_year(ages, share[use], EIGHTY)
            row["years_to_range"] = interpolated_year(ages, share[use], way.range_low[i])
            speed = rate[0] if np.isnan(recent[0]) else recent[0]
            left = max(EIGHTY - share[last], 0) / speed if speed > 0 else np.inf
            if group == "recovering" and np.isnan(row["years_to_80"]) and left <= _FORESEEN:
                row["expected_years_to_80"] = ages[-1] + left
        row |= {"group": group, "evidence": evidence}
        row["rank"] = np.nan if more["is_away"] or more["is_far_off"] else row["share"]
        found.append(row)
    return pd.DataFrame(found).astype({"year": "Int64"})


def _estimates(
    share: Floats, since: NDArray[np.int64], use: NDArray[np.intp], noise: Floats, choice: float
) -> tuple[Floats, Floats, Floats, int]:
    """Return a site's rate, recent rate and loss since its best year, with intervals, and the column of that year."""
    weights, best = np.zeros((3, len(share))), 0
    if len(use) > 1:
        best = int(use[np.argmax(share[use[:-1]])])
        weights[2, use[-1]], weights[2, best] = 1, -1
        if len(use) > RECENT:
            weights[1, use[-RECENT:]] = _slope(since[use[-RECENT:]])
        arrived = np.flatnonzero(share[use] >= 1)
        if len(arrived) and share[use[-1]] >= EIGHTY:  # a site that has arrived stays: its rate ends there
            use = use[: max(int(arrived[0]) + 1, 2)]
        weights[0, use] = _slope(since[use])
    value = np.where(weights.any(axis=1), weights @ np.nan_to_num(share), np.nan)
    half = np.sqrt(np.diag(weights @ noise @ weights.T) + value**2 * choice)
    return *np.stack([value, value - half, value + half], axis=1), best


def _slope(x: NDArray[np.int64]) -> Floats:
    """Return the weights whose product with values at x is their least-squares slope."""
    centred = x - x.mean()
    return np.asarray(centred / (centred @ centred), np.float64)


def interpolated_year(years: Floats, share: Floats, level: float) -> float:
    """Return when a share first reaches a level without falling below it in the next year with data, between years."""
    reached = share >= level
    lasting = np.flatnonzero(reached & np.append(reached[1:], True))
    if not len(lasting):
        return float("nan")
    k = lasting[0]
    return float(years[0] if k == 0 else np.interp(level, share[k - 1 : k + 1], years[k - 1 : k + 1]))

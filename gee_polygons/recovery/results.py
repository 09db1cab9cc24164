"""Arranges measured recovery as tables: one row per site and year, and one row per site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from gee_polygons.change.numerics import Floats
from gee_polygons.recovery.classes import EIGHTY, Progress, classify
from gee_polygons.recovery.geometry import interpolated_year
from gee_polygons.recovery.roles import Roles
from gee_polygons.recovery.trajectories import Trajectories

_FORESEEN: Final = 10.0  # years: an expected year further ahead isn't reported
_LEFT_DEG: Final = 20.0  # a site that was like the references and has moved so much further away is declining


def year_rows(roles: Roles, trajectories: Trajectories, status: Any, shares: Floats) -> pd.DataFrame:
    """Return one row per site and year; `shares` are values and interval ends, shape (3, sites, years)."""
    sites, position = roles.sites, trajectories.position
    n, t = position.share.shape
    state = np.where(sites.present, np.repeat(status[:, None], t, axis=1), "no_data")
    state = np.where((state == "ok") & (trajectories.count == 0), "no_reference", state)
    raw = shares[0]
    columns = {
        "years_since_start": roles.years_since_start,
        "similarity": trajectories.similarity,
        "share": np.clip(raw, 0, 1),
        "share_low": np.clip(shares[1], 0, 1),
        "share_high": np.clip(shares[2], 0, 1),
        "share_raw": raw,
        "in_range": raw >= trajectories.range_low,
        "off_way_deg": np.where(np.isfinite(raw), position.off_deg, np.nan),
        "status": state.astype(str),
    }
    found = {"site_id": np.repeat(np.array(sites.site_ids, dtype=object), t), "year": np.tile(sites.years, n)}
    return pd.DataFrame(found | {name: values.ravel() for name, values in columns.items()}).infer_objects()


def site_rows(
    roles: Roles, trajectories: Trajectories, status: Any, shares: Floats, progress: Sequence[Progress]
) -> pd.DataFrame:
    """Return one row per site."""
    site_ids, years = roles.sites.site_ids, roles.sites.years
    rows = []
    for i, site_id in enumerate(site_ids):
        row = {"site_id": site_id, "start_year": int(roles.start_years[i]), "status": status[i]}
        since, range_low = roles.years_since_start[i], trajectories.range_low[i]
        row |= _site_figures(row, years, since, shares[:, i], range_low, progress[i])
        if status[i] == "too_near":
            row |= _departure(trajectories.similarity[i])
        rows.append(row)
    found = pd.DataFrame(rows).astype({"year": "Int64"})
    found["rank"] = found["share"].rank(ascending=False, method="min").astype("Int64")
    return found


def _site_figures(
    row: dict[str, Any], years: Any, since: Any, shares: Floats, range_low: Floats, progress: Progress
) -> dict[str, Any]:
    """Return shares, rates, class and years to levels of one site, from its shares, shape (3, years)."""
    raw, nan = shares[0], float("nan")
    seen = np.flatnonzero(np.isfinite(raw))
    found: dict[str, Any] = {"year": None, "share": nan, "share_low": nan, "share_high": nan}
    found |= dict(zip(("rate", "rate_low", "rate_high"), progress.rate, strict=True))
    found |= {"years_to_80": nan, "years_to_range": nan, "expected_years_to_80": nan}
    best_year, best_share = None, nan
    if progress.best >= 0:
        best_year, best_share = int(years[progress.best]), float(raw[progress.best])
    if len(seen):
        last = seen[-1]
        found["year"] = int(years[last])
        found |= zip(("share", "share_low", "share_high"), np.clip(shares[:, last], 0, 1).tolist(), strict=True)
    found["group"], found["evidence"] = classify(row | found, progress, best_year, best_share)
    if not len(seen):
        return found
    after = seen[since[seen] >= -1]
    ages = since[after].astype(np.float64)
    if found["group"] != "declining":  # levels that were reached and lost again don't count
        found["years_to_80"] = interpolated_year(ages, raw[after], EIGHTY)
        found["years_to_range"] = interpolated_year(ages, raw[after] - range_low[after], 0.0)
    if np.isnan(found["years_to_80"]) and found["group"] == "recovering":
        rate = progress.rate[0] if np.isnan(progress.recent[0]) else progress.recent[0]
        left = max(EIGHTY - raw[last], 0) / rate if rate > 0 else nan
        found["expected_years_to_80"] = float(ages[-1] + left) if left <= _FORESEEN else nan
    return found


def _departure(similarity: Floats) -> dict[str, str]:
    """Return the class of a site that was like the references and isn't any more, by its similarity to them."""
    seen = similarity[np.isfinite(similarity)]
    if len(seen) < 2:
        return {}
    was, now = np.degrees(np.arccos(np.clip(seen[[0, -1]], -1, 1)))
    if now - was <= _LEFT_DEG:
        return {}
    words = f"was like the references ({was:.0f} degrees away), and isn't any more (now {now:.0f} degrees away)"
    return {"group": "declining", "evidence": words}

"""What the bands allow to be said of a site: recovering, stalled, declining, or no evidence, and on which figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gee_polygons.change.series import Floats
from gee_polygons.recovery.intervals import Bands

EIGHTY: Final = 0.8  # R80P: a site beyond is there
STALLED_RATE: Final = 0.04  # share per year: slower than this takes more than 25 years
_RECENT: Final = 4  # years with data that tell how a site does lately
_LOSS: Final = 0.2  # of the way: a site that certainly lost so much declines, whatever it did before


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """How fast a site goes, with bands: value, lower and upper end; NaN where there are too few years.

    Parameters
    ----------
    rate : tuple of 3 float
        Share per year since the start, until the site arrived for good.
    recent : tuple of 3 float
        The same over its last four years with data; NaN where these are all.
    lost : tuple of 3 float
        Share of the last year less that of the best year before.
    best : int
        Column of that year.
    """

    rate: tuple[float, float, float]
    recent: tuple[float, float, float]
    lost: tuple[float, float, float]
    best: int


_NOTHING: Final = (float("nan"),) * 3


def progress_of(bands: Bands, share: Floats, since: Any, confidence: float) -> list[Progress]:
    """Measure how fast sites go, from shares (sites, years) and the deviations drawn of them."""
    found = []
    for i, own in enumerate(share):
        drawn = bands.deviations[:, i]
        use = np.flatnonzero(np.isfinite(own) & (since[i] >= -1))
        if len(use) < 2:
            found.append(Progress(rate=_NOTHING, recent=_NOTHING, lost=_NOTHING, best=-1))
            continue
        way = use
        arrived = np.flatnonzero(own[use] >= 1.0)
        if len(arrived) and own[use[-1]] >= EIGHTY:  # a site that is there doesn't go on: its rate is that of its way
            way = use[: max(int(arrived[0]) + 1, 2)]
        best = int(use[np.argmax(own[use[:-1]])])
        found.append(
            Progress(
                rate=_slope(own, drawn, since[i], way, confidence),
                recent=_slope(own, drawn, since[i], use[-_RECENT:], confidence) if len(use) > _RECENT else _NOTHING,
                lost=_with_band(own[use[-1]] - own[best], drawn[:, use[-1]] - drawn[:, best], confidence),
                best=best,
            )
        )
    return found


def _slope(share: Floats, drawn: Floats, since: Any, use: Any, confidence: float) -> tuple[float, float, float]:
    x = since[use] - since[use].mean()
    return _with_band(float(x @ share[use] / (x @ x)), drawn[:, use] @ x / (x @ x), confidence)


def _with_band(value: float, drawn: Floats, confidence: float) -> tuple[float, float, float]:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(value), float(value + low), float(value + high)


def group_of(row: dict[str, Any], progress: Progress, best_year: int | None, best_share: float) -> tuple[str, str]:
    """Name what the bands allow to be said of a site, and the figures that it rests on."""
    if row["status"] != "ok" or np.isnan(row["rate"]):
        why = {
            "no_baseline": "no data before its start: give degraded sites",
            "no_data": "no data",
            "not_started": "its start lies after its last year with data",
            "too_near": "was as near the references at its start as they are to each other",
        }
        return "no evidence", why.get(row["status"], "fewer than two years with data since its start")
    said = (
        f"{row['share']:.0%} of the way ({row['share_low']:.0%} to {row['share_high']:.0%}) in {row['year']}, "
        f"{row['rate']:+.1%} a year ({row['rate_low']:+.1%} to {row['rate_high']:+.1%})"
    )
    lately = ""
    if np.isfinite(progress.recent[0]):
        rate, low, high = progress.recent
        lately = f"; in its last {_RECENT} years with data {rate:+.1%} a year ({low:+.1%} to {high:+.1%})"
    if progress.lost[2] <= -_LOSS:
        return "declining", f"{said}; it had {min(best_share, 1):.0%} in {best_year}"
    for rate, _, high in (progress.rate, progress.recent):
        if high < 0 and rate <= -STALLED_RATE:
            return "declining", said + lately
    if row["share_low"] >= EIGHTY:
        return "recovering", said
    if np.isfinite(progress.recent[0]) and _is_slow(progress.recent):
        return "stalled", said + lately
    if progress.rate[1] > 0 and progress.rate[0] >= STALLED_RATE:
        return "recovering", said
    return ("stalled" if _is_slow(progress.rate) else "no evidence"), said


def _is_slow(rate: tuple[float, float, float]) -> bool:
    return rate[0] < STALLED_RATE and rate[2] < 2 * STALLED_RATE

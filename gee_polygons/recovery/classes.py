"""Classifies the recovery of sites by their confidence intervals: recovering, stalled, declining, or no evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.change.numerics import Floats
from gee_polygons.recovery.intervals import interval

EIGHTY: Final = 0.8  # share of recovery of the metric R80P: sites beyond it have arrived
STALLED_RATE: Final = 0.04  # share per year: slower recovery takes more than 25 years
_RECENT: Final = 4  # years with data of the recent rate
_LOSS: Final = 0.2  # share of recovery; a site that certainly lost so much is declining, whatever it did before

Estimate = tuple[float, float, float]  # value, lower and upper end of its confidence interval
_UNKNOWN: Final[Estimate] = (float("nan"),) * 3
_WITHOUT_SHARE: Final = {
    "no_baseline": "no data before its start: give degraded sites",
    "no_data": "no data",
    "not_started": "its start lies after its last year with data",
    "too_near": "was as near the references at its start as they are to each other",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """Rates of recovery of a site with confidence intervals; NaN with too few years.

    Parameters
    ----------
    rate : tuple of 3 float
        Share per year since the start, until the site arrived for good.
    recent : tuple of 3 float
        The same over its last four years with data; NaN if these are all.
    lost : tuple of 3 float
        Share of the last year less that of the best year before.
    best : int
        Column of that year, -1 if there is none.
    """

    rate: Estimate = _UNKNOWN
    recent: Estimate = _UNKNOWN
    lost: Estimate = _UNKNOWN
    best: int = -1


def measure_progress(share: Floats, deviations: Floats, since: NDArray[np.int64], confidence: float) -> Progress:
    """Measure a site's rates, from its shares (years,), their deviations (draws, years) and years since the start."""
    use = np.flatnonzero(np.isfinite(share) & (since >= -1))
    if len(use) < 2:
        return Progress()
    until = use
    arrived = np.flatnonzero(share[use] >= 1.0)
    if len(arrived) and share[use[-1]] >= EIGHTY:  # a site that has arrived stays: its rate ends there
        until = use[: max(int(arrived[0]) + 1, 2)]
    last, best = use[-1], use[np.argmax(share[use[:-1]])]

    def with_interval(value: float, drawn: Floats) -> Estimate:
        low, high = interval(value, drawn, confidence)
        return float(value), float(low), float(high)

    def slope(years: NDArray[np.intp]) -> Estimate:
        x = since[years] - since[years].mean()
        return with_interval(float(x @ share[years] / (x @ x)), deviations[:, years] @ x / (x @ x))

    return Progress(
        rate=slope(until),
        recent=slope(use[-_RECENT:]) if len(use) > _RECENT else _UNKNOWN,
        lost=with_interval(share[last] - share[best], deviations[:, last] - deviations[:, best]),
        best=int(best),
    )


def classify(row: dict[str, Any], progress: Progress, best_year: int | None, best_share: float) -> tuple[str, str]:
    """Return a site's class, and the figures that it rests on in words; `row` is its row of the result."""
    if row["status"] != "ok" or np.isnan(row["rate"]):
        return "no evidence", _WITHOUT_SHARE.get(row["status"], "fewer than two years with data since its start")
    said = (
        f"{row['share']:.0%} recovered ({row['share_low']:.0%} to {row['share_high']:.0%}) in {row['year']}, "
        f"{_rate_in_words(progress.rate)}"
    )
    lately = ""
    if np.isfinite(progress.recent[0]):
        lately = f"; in its last {_RECENT} years with data {_rate_in_words(progress.recent)}"
    if progress.lost[2] <= -_LOSS:
        return "declining", f"{said}; it had {min(best_share, 1):.0%} in {best_year}"
    for rate, _, high in (progress.rate, progress.recent):
        if high < 0 and rate <= -STALLED_RATE:
            return "declining", said + lately
    if row["share_low"] >= EIGHTY:
        return "recovering", said
    if _is_slow(progress.recent):
        return "stalled", said + lately
    if progress.rate[1] > 0 and progress.rate[0] >= STALLED_RATE:
        return "recovering", said
    return ("stalled" if _is_slow(progress.rate) else "no evidence"), said


def _rate_in_words(rate: Estimate) -> str:
    value, low, high = rate
    return f"{value:+.1%} a year ({low:+.1%} to {high:+.1%})"


def _is_slow(rate: Estimate) -> bool:
    return rate[0] < STALLED_RATE and rate[2] < 2 * STALLED_RATE

"""Classifies sites: recovering, stalled, declining, at reference, or no evidence."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from gee_polygons.change.numerics import Floats

EIGHTY: Final = 0.8  # share of recovery of the metric R80P: sites beyond it have arrived
STALLED_RATE: Final = 0.04  # share per year: slower recovery takes more than 25 years
RECENT: Final = 4  # years with data of the recent rate
_LOSS: Final = 0.2  # share of recovery; a site that certainly lost so much is declining, whatever it did before
_WITHOUT_SHARE: Final = {
    "no_baseline": "no data before its start: give degraded sites",
    "no_data": "no data",
    "not_started": "its start lies after its last year with data",
}


def classify(row: dict[str, Any], rate: Floats, recent: Floats, loss: Floats) -> tuple[str, str]:
    """Return a site's group, and the figures that it rests on in words.

    Parameters
    ----------
    row : dict
        The site's row of the result, and `is_away` (whether the angle to the references certainly grew by ten degrees),
        `is_far_off` (whether it became something else), `moved` and `best` (these angles, and its best year, in words).
    rate, recent, loss : float array, shape (3,)
        Share per year since the start, and over the last four years; share of the last year less that of the best year
        before; each with its interval.
    """
    status = row["status"]
    if status in _WITHOUT_SHARE:
        return "no evidence", _WITHOUT_SHARE[status]
    if status == "at_reference":
        if row["is_away"]:
            return "declining", f"was like the references, and isn't any more: {row['moved']}"
        return "at reference", f"started as near the references as they are to each other: {row['moved']}"
    said = f"{row['share']:.0%} recovered ({row['share_low']:.0%} to {row['share_high']:.0%}) in {row['year']}"
    if row["is_away"]:
        return "declining", f"less like the references than at its start; {row['moved']}"
    if np.isnan(rate[0]):
        return "no evidence", "fewer than two years with data since its start"
    said += f", {_rate_in_words(rate)}"
    lately = "" if np.isnan(recent[0]) else f"; in its last {RECENT} years with data {_rate_in_words(recent)}"
    if loss[2] <= -_LOSS:
        return "declining", f"{said}; it had {row['best']}"
    if any(value <= -STALLED_RATE and high < 0 for value, _, high in (rate, recent)):
        return "declining", said + lately
    if row["is_far_off"]:
        return "no evidence", f"{said}; {row['off_way_deg']:.0f} degrees off the trajectory: it became something else"
    is_like = row["similarity"] >= row["similarity_start"]
    if is_like and row["share_low"] >= EIGHTY:
        return "recovering", said
    if _is_slow(recent):
        return "stalled", said + lately
    if is_like and rate[1] > 0 and rate[0] >= STALLED_RATE:
        return "recovering", said
    return ("stalled" if _is_slow(rate) else "no evidence"), said if is_like else f"{said}; {row['moved']}"


def _rate_in_words(rate: Floats) -> str:
    return f"{rate[0]:+.1%} a year ({rate[1]:+.1%} to {rate[2]:+.1%})"


def _is_slow(rate: Floats) -> bool:
    return bool(rate[0] < STALLED_RATE and rate[2] < 2 * STALLED_RATE)

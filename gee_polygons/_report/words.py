"""What the report says in words: what it means, how sure that is, and what isn't known."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from gee_polygons.change import Change
    from gee_polygons.recovery import Recovery

__all__ = ["headline", "how_to_read", "provenance_list", "tiles", "unknowns"]

GROUPS: Final = ("recovering", "stalled", "declining", "no evidence")
FEW_REFERENCES: Final = 5


def headline(records: list[dict[str, Any]], changed: Change, recovered: Recovery | None) -> str:
    """Say in a few sentences what the page shows."""
    said = []
    if recovered is not None:
        groups = Counter(r["group"] for r in records if r["group"])
        total = sum(groups.values())
        rest = [f"{groups[g]:,} {_be(groups[g])} {g}" for g in ("stalled", "declining") if groups[g]]
        if groups["no evidence"]:
            rest.append(f"for {groups['no evidence']:,} the data don't tell")
        first = (
            f"{groups['recovering']:,} of {_count(total, 'restoration site')} {_be(groups['recovering'])} recovering"
        )
        said.append(f"<b>{first}</b>{''.join(', ' + r for r in rest)}.")
        shares = recovered.sites["share"].dropna()
        if len(shares):
            half = float(((recovered.sites["share_high"] - recovered.sites["share_low"]) / 2).median())
            said.append(
                f"The site in the middle has gone {shares.median():.0%} of the way to the reference sites. "
                f"A site's share is known to about \u00b1{max(half, 0.01):.0%} ({recovered.confidence:.0%} band, "
                "median)."
            )
    tested = int(changed.sites["p"].notna().sum())
    flagged = int(changed.sites["flag"].sum())
    line = f"{flagged:,} of {_count(tested, 'site')} with enough data changed more than background and chance explain"
    said.append(f"{line}; of these, about {changed.level:.0%} at most are false alarms." if flagged else f"{line}.")
    return "".join(f"<p>{text}</p>" for text in said)


def unknowns(table: pd.DataFrame, changed: Change, recovered: Recovery | None, targets: Sequence[Any]) -> str:
    """List what limits this very page."""
    said = []
    if changed.background.startswith("nothing"):
        said.append(
            "No background was taken off: a good part of every site's change may be the whole scene's. Give "
            "control sites."
        )
    elif "own sites" in changed.background:
        said.append(
            f"No control sites were named, so the background is {html.escape(changed.background)}. Where most sites "
            "changed alike, that can be wrong."
        )
    if recovered is not None and len(targets) < FEW_REFERENCES:
        said.append(
            f"{_count(len(targets), 'reference site')} can hardly tell how much such sites differ: the bands are wide "
            "for that reason. More references make them narrower; ten are a good number."
        )
    if recovered is not None:
        status = Counter(recovered.sites["status"])
        for name, words in (
            ("no_baseline", "no data from before the start, so no share (degraded sites can stand in)"),
            ("too_near", "a start as near the references as these are to each other, so no way to measure"),
            ("no_data", "no data"),
        ):
            if status[name]:
                said.append(f"{_count(status[name], 'restoration site')} with {words}.")
    if "status" in table.columns:
        failed = int((table["status"] == "error").sum())
        if failed:
            said.append(f"{_count(failed, 'site-year')} couldn't be read: extract these again.")
    few = int(changed.sites["p"].isna().sum())
    if few:
        said.append(f"{_count(few, 'site')} with too few years of data for a test of change.")
    late = int((changed.sites["kind"] == "last year only").sum())
    if late:
        said.append(
            f"{_count(late, 'site')} changed in the last year alone: that may be a bad year. Look again next year."
        )
    return "".join(f"<li>{text}</li>" for text in said)


def tiles(records: list[dict[str, Any]], recovered: Recovery | None) -> str:
    """Write the figures at the top."""
    groups = Counter(r["group"] for r in records if r["group"])
    flagged = sum(r["change"] not in ("none", "no data") for r in records)
    shown = [(f"{len(records):,}", "sites")]
    if recovered is not None:
        shown += [(f"{groups[g]:,}", g) for g in GROUPS]
        shares = [r["share"] for r in records if r["share"] is not None]
        if shares:
            shown.append((f"{np.median(shares):.0%}", "of the way, median site"))
    shown.append((f"{flagged:,}", "changed"))
    return "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in shown)


def how_to_read(changed: Change, recovered: Recovery | None, targets: Sequence[Any]) -> str:
    """Explain the words of the page."""
    said = [
        "<b>Change</b> is an angle between yearly mean directions (0\u00b0 = the same, 90\u00b0 = nothing in "
        "common), with "
        f"{html.escape(changed.background)} taken off: a good part of each year's step is shared by all land. "
        "A site is "
        "flagged where noise alone would hardly do this. <b>q</b> is the share of false alarms among all "
        "sites flagged "
        f"at least as clearly; flags have q up to {changed.level:g}.",
    ]
    if recovered is not None:
        said.append(
            "<b>Share of the way</b> runs from the site's own state before its start (0%) to the mean of "
            f"{_count(len(targets), 'reference site')} in the same year (100%). The band holds the true share in about "
            f"{recovered.confidence:.0%} of cases: it counts the years' noise, the size of the site, the "
            "background, and "
            "that other reference sites might have been chosen. It doesn't count a wrong choice of references."
        )
        said.append(
            "<b>Groups</b>: recovering and declining sites have a rate whose band excludes zero; stalled ones can't be "
            "faster than 8% a year and are likely slower than 4%; for the rest the data don't tell. The "
            "<b>reference range</b> begins where the lowest tenth of the reference sites are."
        )
    said.append(
        "<b>Rbar</b> says how alike a site's pixels are: 1 = all the same; below about 0.8 the site is mixed "
        "and its mean "
        "stands for none of its parts. <b>Valid</b> is the share of its area with data."
    )
    said.append(
        "<b>What this can't tell.</b> An embedding says that a place became more like others, not why, and "
        "not how many "
        "trees or species there are. A change in the last year alone may be a bad year; a site of a few "
        "pixels is mostly "
        "its surroundings."
    )
    return "".join(f"<p>{text}</p>" for text in said)


def provenance_list(source: dict[str, Any]) -> str:
    """List where the numbers come from."""
    if not source:
        return "<dt>provenance</dt><dd>The table carries none.</dd>"
    return "".join(f"<dt>{html.escape(str(k))}</dt><dd>{html.escape(str(v))}</dd>" for k, v in source.items())


def _be(n: int) -> str:
    return "is" if n == 1 else "are"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"

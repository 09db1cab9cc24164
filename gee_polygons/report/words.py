"""What the report says in words: what it means, how sure that is, and how to read it."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from gee_polygons.recovery.classes import STALLED_RATE
from gee_polygons.report.findings import Findings

if TYPE_CHECKING:
    from gee_polygons.change.detection import Change
    from gee_polygons.recovery.estimation import Recovery

GROUPS: Final = ("declining", "stalled", "no evidence", "recovering")
CANT_TELL: Final = (
    "An embedding says that a place became more like others, not why, and not how many trees or species there are. A "
    "change in the last year alone may be a bad year; a site of a few pixels is mostly its surroundings."
)
_NAMED: Final = 20
_NUMBERS: Final = {2: "two", 3: "three", 4: "four", 5: "five", 10: "ten", 20: "twenty", 100: "a hundred"}


def headline(records: list[dict[str, Any]], changed: Change, recovered: Recovery | None) -> str:
    """Say in a few sentences what the page shows."""
    said = []
    if recovered is not None:
        groups = Counter(r["group"] for r in records if r["group"])
        total = sum(groups.values())
        rest = [f"{groups[g]:,} {be(groups[g])} {g}" for g in ("stalled", "declining") if groups[g]]
        if groups["no evidence"]:
            rest.append(f"for {groups['no evidence']:,} the data don't tell")
        first = (
            f"{groups['recovering']:,} of {counted(total, 'restoration site')} {be(groups['recovering'])} recovering"
        )
        said.append(f"<b>{first}</b>{''.join(', ' + r for r in rest)}.")
        middle = _median_share(recovered)
        if middle is not None:
            said.append(f"The site in the middle has gone {middle:.0%} of the way to the reference sites.")
            said[-1] += f" {_sureness(recovered)}"
    tested = int(changed.sites["p"].notna().sum())
    flagged = int(changed.sites["flag"].sum())
    if tested:
        line = (
            f"{flagged:,} of {counted(tested, 'site')} with enough data changed more than background and chance explain"
        )
        said.append(
            f"{line}. Of such flags at most about {_one_in(changed.level)} is false." if flagged else f"{line}."
        )
    return "".join(f"<p>{text}</p>" for text in said)


def tiles(records: list[dict[str, Any]], changed: Change, recovered: Recovery | None) -> str:
    """Write the figures at the top."""
    groups = Counter(r["group"] for r in records if r["group"])
    flagged = sum(r["change"] not in ("none", "no data") for r in records)
    shown = [(f"{len(records):,}", "site" if len(records) == 1 else "sites")]
    if recovered is not None:
        shown += [(f"{groups[g]:,}", g) for g in GROUPS]
        middle = _median_share(recovered)
        if middle is not None:
            shown.append((f"{middle:.0%}", "of the way, median site"))
    if changed.sites["p"].notna().any():
        shown.append((f"{flagged:,}", "changed"))
    return "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in shown)


def how_to_read(findings: Findings) -> str:
    """Explain the words of the page."""
    said = []
    changed, recovered = findings.changed, findings.recovered
    if recovered is not None:
        said += _of_recovery(recovered, findings.references)
    said.append(
        "<b>Change</b> is the angle between a site's years (0\u00b0 = the same, 90\u00b0 = nothing in common), with "
        f"{html.escape(changed.background)} taken off: a good part of each year's step is shared by all land. A site "
        f"is flagged where noise alone would hardly do this. Of all flags at most about {_one_in(changed.level)} is "
        "false; <b>false alarms</b> says it for the sites flagged at least as clearly as this one (the q-value)."
    )
    if recovered is not None:
        said.append(
            "<b>Changed</b> and <b>recovering</b> answer different questions, so a site may be one without the other. "
            "Changed: does it differ from its own past, more than its surroundings do? Recovering: does it come nearer "
            "to the reference sites? A cleared site changed and doesn't recover; a site that grows slowly but steadily "
            "may recover although no change stands out of the noise."
        )
    controls = findings.controls
    if controls:
        also = ", and the references" if len(controls) < len(findings.background) else ""
        said.append(f"<b>Control sites</b> (said not to have changed): {named(controls)}{also}.")
    said.append(
        "<b>Alike pixels</b> (mean resultant length, Rbar) says how alike a site's pixels are: 1 = all the same; below "
        "about 0.8 the site is mixed and its mean stands for none of its parts. <b>With data</b> is the share of its "
        "area that could be read."
    )
    if "n_pixels" in findings.table.columns:
        said.append(
            "<b>Worth, pixels</b>: neighbouring pixels say nearly the same, so the mean of a thousand of them is as "
            "sure as that of a few independent ones; this many."
        )
    said.append(f'<b id="limits">What this can\'t tell.</b> <span id="cant">{CANT_TELL}</span>')
    return "".join(f"<p>{text}</p>" for text in said)


def named(ids: Sequence[Any]) -> str:
    """List ids, at most twenty of them, escaped."""
    rest = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    return html.escape(", ".join(map(str, ids[:_NAMED]))) + rest


def be(n: int) -> str:
    """Return is or are."""
    return "is" if n == 1 else "are"


def counted(n: int, what: str) -> str:
    """Return a number and what it counts: 1 site, 2 sites."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _of_recovery(recovered: Recovery, targets: Sequence[Any]) -> list[str]:
    slow, sure = f"{STALLED_RATE:.0%}", f"{recovered.confidence:.0%}"
    return [
        "<b>Share of the way</b> runs from the site's own state before its start (0%) to the mean of "
        f"{counted(len(targets), 'reference site')} in the same year (100%): {named(targets)}. The {sure} band "
        f"holds the true share in about {sure} of cases: it counts the years' noise, the size of the site, the "
        "background, and that other reference sites might have been chosen. It doesn't count a wrong choice of "
        "references. Shares and bands are cut at 0% and 100%: a band wholly beyond an end is given as \u201c99% or "
        "more\u201d or \u201c1% or less\u201d.",
        "<b>Groups</b> rest on the share gained a year and its band, over all years since the start and over the last "
        "four with data. <b>Declining</b>: the site goes away from the references, the band of a rate lies below zero "
        f"and the site loses {slow} a year or more; or it certainly lost a fifth of the way again; or it was among the "
        "references and left them. <b>Recovering</b>: it comes nearer to them, the band of its rate lies above 0 and "
        f"the rate is {slow} a year or more (the whole way in 25 years or less); or it is there already, all its band "
        f"lying at 80% or above. <b>Stalled</b>: it gains less than {slow} a year, over all or of late, and even the "
        f"upper end of that band is below {2 * STALLED_RATE:.0%}. <b>No evidence</b>: the data allow more than one of "
        "these, or can't measure the site. The <b>reference range</b> begins where the lowest tenth of the reference "
        "sites are.",
    ]


def _median_share(recovered: Recovery) -> float | None:
    shares = recovered.sites["share"].dropna()
    return float(shares.median()) if len(shares) else None


def _sureness(recovered: Recovery) -> str:
    """Say how well shares are known, from the bands that aren't cut to 0..1: a cut one is narrower than it is."""
    sites = recovered.sites.dropna(subset=["share", "share_low", "share_high"])
    whole = sites[(sites["share_low"] > 0) & (sites["share_high"] < 1)]
    if not len(whole):
        return "How well the shares are known can't be said in one figure: every band reaches an end of the scale."
    half = pd.Series((whole["share_high"] - whole["share_low"]) / 2).median()
    of = "" if len(whole) == len(sites) else f", from the {len(whole):,} of {len(sites):,} whose band reaches no end"
    return (
        f"A site's share is known to about \u00b1{max(float(half), 0.01):.0%} ({recovered.confidence:.0%} band, "
        f"median{of})."
    )


def _one_in(level: float) -> str:
    """Say a false-discovery rate as a count."""
    n = round(1 / level)
    if n > 1 and abs(1 / level - n) < 0.01:
        return f"one in {_NUMBERS.get(n, f'{n:,}')}"
    return f"{level * 100:.3g} in a hundred"

"""The summary of the report in sentences, and the figures at its top."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from gee_polygons.report.findings import Findings
from gee_polygons.report.wording import count, is_or_are, one_in

if TYPE_CHECKING:
    from gee_polygons.recovery.estimation import Recovery

GROUPS: Final = ("declining", "stalled", "no evidence", "recovering", "at reference")


def summary(findings: Findings, records: list[dict[str, Any]]) -> str:
    """Say in a few sentences what the page shows."""
    sentences = []
    changed, recovered = findings.changed, findings.recovered
    if recovered is not None:
        sentences.append(_groups(records))
        share = recovered.sites["share"].median()
        if share == share:
            sentences.append(f"Median share of recovery: {share:.0%}. {_uncertainty(recovered)}")
    tested = int(changed.sites["p"].notna().sum())
    flagged = int(changed.sites["flag"].sum())
    if tested:
        text = f"{flagged:,} of {count(tested, 'site')} with enough data changed more than the background and noise do."
        if flagged:
            text += f" At most about {one_in(changed.level)} of these flags is expected to be false."
        sentences.append(text)
    return "".join(f"<p>{text}</p>" for text in sentences)


def tiles(findings: Findings, records: list[dict[str, Any]]) -> str:
    """Return the figures at the top."""
    figures = [(f"{len(records):,}", "site" if len(records) == 1 else "sites")]
    if findings.recovered is not None:
        groups = Counter(r["group"] for r in records)
        figures += [(f"{groups[group]:,}", group) for group in GROUPS]
        share = findings.recovered.sites["share"].median()
        if share == share:
            figures.append((f"{share:.0%}", "median share of recovery"))
    if findings.changed.sites["p"].notna().any():
        figures.append((f"{sum(r['change'] not in ('none', 'no data') for r in records):,}", "changed"))
    return "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in figures)


def _groups(records: list[dict[str, Any]]) -> str:
    groups = Counter(r["group"] for r in records if r["group"])
    recovering = groups["recovering"]
    text = f"<b>{recovering:,} of {count(groups.total(), 'restoration site')} {is_or_are(recovering)} recovering</b>"
    for group in ("stalled", "declining"):
        if groups[group]:
            text += f", {groups[group]:,} {is_or_are(groups[group])} {group}"
    if groups["at reference"]:
        text += f", {groups['at reference']:,} {is_or_are(groups['at reference'])} at reference from the start"
    if groups["no evidence"]:
        text += f", for {groups['no evidence']:,} the data are inconclusive"
    return f"{text}."


def _uncertainty(recovered: Recovery) -> str:
    """Say how uncertain shares are, from the intervals that aren't cut at 0 or 1: a cut one is narrower than it is."""
    sites = recovered.sites.dropna(subset=["share", "share_low", "share_high"])
    whole = sites[(sites["share_low"] > 0) & (sites["share_high"] < 1)]
    if whole.empty:
        return "There is no single figure for its uncertainty: every confidence interval reaches 0% or 100%."
    half = max(float((whole["share_high"] - whole["share_low"]).median() / 2), 0.01)
    text = f"Typical uncertainty: \u00b1{half:.0%} (median half-width of the {recovered.confidence:.0%} interval"
    if len(whole) < len(sites):
        text += f", from the {len(whole):,} of {len(sites):,} sites whose interval reaches neither 0% nor 100%"
    return f"{text})."

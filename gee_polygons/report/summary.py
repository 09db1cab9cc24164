"""The summary of the report in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from gee_polygons.report.findings import Findings
from gee_polygons.report.language import Language

if TYPE_CHECKING:
    from gee_polygons.recovery.estimation import Recovery


def summary(findings: Findings, rows: pd.DataFrame, say: Language) -> str:
    """Say in a few sentences what the page shows; `rows` are those of `overview`."""
    sentences = []
    changed, recovered = findings.changed, findings.recovered
    if recovered is not None:
        counted = rows[rows["role"].eq("restoration")]
        good = counted[counted["verdict"].eq("recovering")]
        sentences.append(
            say(
                "Recovering: <b>{n} of {sites}</b>, {area} of {hectares} hectares.",
                n=say.number(len(good)),
                sites=say.count(len(counted), "restoration site"),
                area=say.number(good["area_ha"].sum()),
                hectares=say.number(counted["area_ha"].sum()),
            )
        )
        share = recovered.sites["share"].where(recovered.sites["rank"].notna()).median()  # none went elsewhere
        if share == share:
            middle = say(
                "The middle site has recovered {share}: half of the sites have more, half less.", share=f"{share:.0%}"
            )
            sentences.append(f"{middle} {_uncertainty(recovered, say)}")
    tested = int(changed.sites["p"].notna().sum())
    flagged = int(changed.sites["flag"].sum())
    if tested:
        text = say(
            "Changed more than the background and noise do: {n} of {sites} with enough data.",
            n=say.number(flagged),
            sites=say.count(tested, "site"),
        )
        if flagged:
            text += " " + say(
                "At most about {rate} of them should be false alarms.", rate=f"{100 * changed.level:.3g}%"
            )
        sentences.append(text)
    return "".join(f"<p>{text}</p>" for text in sentences)


def _uncertainty(recovered: Recovery, say: Language) -> str:
    """Say how uncertain shares are, from the intervals that aren't cut at 0 or 1: a cut one is narrower than it is."""
    sites = recovered.sites.dropna(subset=["share", "share_low", "share_high"])
    whole = sites[(sites["share_low"] > 0) & (sites["share_high"] < 1)]
    if whole.empty:
        return say("There is no single figure for its uncertainty: every interval reaches 0% or 100%.")
    half = max(float((whole["share_high"] - whole["share_low"]).median() / 2), 0.01)
    text = say("A site's share is typically uncertain by ±{points} points", points=f"{100 * half:.0f}")
    if len(whole) < len(sites):
        text += say(
            " (from the {n} of {all} sites whose interval reaches neither 0% nor 100%)",
            n=say.number(len(whole)),
            all=say.number(len(sites)),
        )
    return f"{text}."

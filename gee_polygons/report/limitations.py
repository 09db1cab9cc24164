"""What limits the results on this very page: parts that are missing, sites without data, too few references."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from gee_polygons.report.findings import Findings
from gee_polygons.report.wording import count, names

FEW_REFERENCES: Final = 5
_UNMEASURED: Final = {
    "no_baseline": "no data from before the start, so no share (degraded sites can stand in)",
    "at_reference": "a start as near the references as these are to each other: nothing to recover, so no share",
    "no_data": "no data",
    "not_started": "a start after the last year with data",
}  # by the status of a site in the table of recovery


def missing_parts(findings: Findings) -> list[str]:
    """Say which parts of the page are missing and what would add them, as HTML."""
    texts = []
    table, sites = findings.table, findings.sites
    if findings.recovered is None:
        if not findings.references:
            why = "no reference sites were named (option references, or kind \u201creference\u201d in the sites' file)"
        else:
            why = "no site has a start year (the column start_year of the sites' file)"
        texts.append(f"<b>No recovery here</b>: {why}.")
    if not findings.changed.sites["p"].notna().any():
        texts.append(
            "<b>No change here</b>: no site has enough years with data to test; three are needed, the table has "
            f"{count(table['year'].nunique(), 'year')}."
        )
    if sites is None:
        return [*texts, "<b>No map here</b>: no file of the sites was given."]
    in_table, in_file = set(table["site_id"].astype(str)), {str(i) for i in sites.site_ids}
    for n, where, lack in (
        (len(in_table - in_file), "the table", "no polygon in the sites' file: not on the map"),
        (len(in_file - in_table), "the sites' file", "no row in the table: not on this page"),
    ):
        if n:
            texts.append(f"{count(n, 'site')} of {where} {'has' if n == 1 else 'have'} {lack}.")
    return texts


def limitations(findings: Findings, far: Sequence[str]) -> str:
    """List what limits the results, as HTML; `far` are the ids of sites that the map leaves out."""
    texts = [_background(findings.changed.background)]
    table, changed, recovered = findings.table, findings.changed, findings.recovered
    if recovered is not None:
        if len(findings.references) < FEW_REFERENCES:
            texts.append(
                f"Only {count(len(findings.references), 'reference site')}: their spread is hardly known, which makes "
                "the confidence intervals wide. More references make them narrower; ten are a good number."
            )
        status = recovered.sites["status"]
        short = (status == "ok") & recovered.sites["rate"].isna()
        unmeasured = {reason: (status == name).sum() for name, reason in _UNMEASURED.items()}
        unmeasured["too few years of data since the start for a rate"] = short.sum()
        texts += [f"{count(int(n), 'restoration site')} with {reason}." for reason, n in unmeasured.items() if n]
    failed = table["status"].eq("error").sum() if "status" in table.columns else 0
    untested = changed.sites["p"].isna()
    late = changed.sites["kind"].eq("last year only").sum()
    counts = (
        (failed, "site-year", "couldn't be read: extract these again"),
        # where no site is tested, `missing_parts` says so
        (0 if untested.all() else untested.sum(), "site", "with too few years of data for a test of change"),
        (late, "site", "changed in the last year alone: that may be one bad year. Look again next year"),
        (len(far), "site", f"so far away that the map leaves them out: {names(far)}"),
    )
    texts += [f"{count(int(n), noun)} {text}." for n, noun, text in counts if n]
    return "".join(f"<li>{text}</li>" for text in texts if text)


def _background(background: str) -> str:
    if background.startswith("nothing"):
        return (
            "No background was subtracted: a good part of every site's change may be shared by all land. Give control "
            "sites."
        )
    if "own sites" in background:
        return (
            f"No control sites were named, so the background is {html.escape(background)}. Where most sites changed "
            "in the same way, that can be wrong."
        )
    return ""

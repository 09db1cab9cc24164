"""What limits the results on this very page: parts that are missing, sites without data, too few references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gee_polygons.report.findings import Findings
from gee_polygons.report.language import Language

FEW_REFERENCES: Final = 5
_ELSEWHERE: Final = (
    "{sites} changed as alike sites elsewhere did: that may be the weather, a shift of the data, or what was done to "
    "all of them."
)
_UNMEASURED: Final = {
    "no_baseline": "{sites} with no data from before the start, so no share (degraded sites can stand in).",
    "at_reference": "{sites} that started as near the references as these are to each other: nothing to recover, so no "
    "share.",
    "no_data": "{sites} with no data.",
    "not_started": "{sites} with a start after the last year with data.",
    "no_rate": "{sites} with too few years of data since the start for a rate.",
}  # by the status of a site in the table of recovery


def missing_parts(findings: Findings, n_listed: int, say: Language) -> list[str]:
    """Say which parts of the page are missing and what would add them, as HTML."""
    texts = []
    table, sites = findings.table, findings.sites
    if findings.recovered is None:
        if not findings.references:
            why = "no reference sites were named (option references, or kind “reference” in the sites' file)"
        else:
            why = "no site has a start year (the column start_year of the sites' file)"
        texts.append(f"<b>{say('No recovery here')}</b>: {say(why)}.")
    if not findings.changed.sites["p"].notna().any():
        why = "no site has enough years with data to test; three are needed, the table has {years}."
        years = say.count(table["year"].nunique(), "year")
        texts.append(f"<b>{say('No change here')}</b>: {say(why, years=years)}")
    in_table = set(table["site_id"].astype(str))
    if n_listed < len(in_table):
        text = "One page can't list {sites}. All are counted here; list and map show the {n} that need a visit most."
        texts.append(say(text, sites=say.count(len(in_table), "site"), n=say.number(n_listed)))
    if sites is None:
        return [*texts, f"<b>{say('No map here')}</b>: {say('no file of the sites was given.')}"]
    in_file = {str(i) for i in sites.site_ids}
    for ids, text in (
        (in_table - in_file, "{sites} of the table without a polygon in the sites' file: not on the map."),
        (in_file - in_table, "{sites} of the sites' file without a row in the table: not on this page."),
    ):
        if ids:
            texts.append(say(text, sites=say.count(len(ids), "site")))
    return texts


def limitations(findings: Findings, far: Sequence[str], say: Language) -> str:
    """List what limits the results, as HTML; `far` are the ids of sites that the map leaves out."""
    texts = [_background(findings, say)]
    table, changed, recovered = findings.table, findings.changed, findings.recovered
    if recovered is not None:
        n = len(findings.references)
        if n < FEW_REFERENCES:
            text = "Only {sites}: how they differ is hardly known, which makes intervals wide. Ten are a good number."
            texts.append(say(text, sites=say.count(n, "reference site")))
        status = recovered.sites["status"]
        status = status.mask((status == "ok") & recovered.sites["rate"].isna(), "no_rate")
        for name, text in _UNMEASURED.items():
            if n := int((status == name).sum()):
                texts.append(say(text, sites=say.count(n, "restoration site")))
    failed = table["status"].eq("error").sum() if "status" in table.columns else 0
    untested = changed.sites["p"].isna()
    late = changed.sites["kind"].eq("last year only").sum()
    counts = (
        (failed, "site-year", "{sites} couldn't be read: extract these again."),
        # where no site is tested, `missing_parts` says so
        (0 if untested.all() else untested.sum(), "site", "{sites} with too few years of data for a test of change."),
        (changed.sites["also_elsewhere"].sum(), "site", _ELSEWHERE),
        (late, "site", "{sites} changed in the last year alone: that may be one bad year. Look again next year."),
    )
    texts += [say(text, sites=say.count(int(n), noun)) for n, noun, text in counts if n]
    if far:
        sites = say.count(len(far), "site")
        texts.append(
            say("{sites} so far away that the map leaves them out: {names}.", sites=sites, names=say.names(far))
        )
    return "".join(f"<li>{text}</li>" for text in texts if text)


def _background(findings: Findings, say: Language) -> str:
    if findings.changed.background.startswith("nothing"):
        return say(
            "No background was subtracted: a good part of every site's change may be shared by all land. Give control "
            "sites."
        )
    if not findings.changed.is_guaranteed:
        return say(
            "Fewer than ten sites that didn't change were named, so the rate of false alarms isn't guaranteed: where "
            "most sites changed in the same way, it can be higher. Name control sites."
        )
    return ""

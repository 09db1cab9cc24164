"""What the report can't say, and why: sections that are missing, sites without a place, what limits this very page."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import Final

from gee_polygons.report.findings import Findings
from gee_polygons.report.words import counted, named

FEW_REFERENCES: Final = 5


def missing(findings: Findings) -> list[str]:
    """Say which parts of the page are missing, and what would bring them; as markup."""
    said = []
    table, sites = findings.table, findings.sites
    if findings.recovered is None:
        if not findings.references:
            why = "no reference sites were named (option references, or kind \u201creference\u201d in the sites' file)"
        else:
            why = "no site has a start year (the column start_year of the sites' file)"
        said.append(f"<b>No recovery here</b>: {why}.")
    if not findings.changed.sites["p"].notna().any():
        n = table["year"].nunique()
        said.append(
            f"<b>No change here</b>: no site has enough years with data to test (the table has {counted(n, 'year')}, "
            "three are the least)."
        )
    if sites is None:
        said.append("<b>No map here</b>: no file of the sites was given.")
        return said
    rows, polygons = set(table["site_id"].astype(str)), {str(i) for i in sites.site_ids}
    if rows - polygons:
        n = len(rows - polygons)
        said.append(f"{counted(n, 'site')} of the table {_have(n)} no polygon in the sites' file: not on the map.")
    if polygons - rows:
        n = len(polygons - rows)
        said.append(f"{counted(n, 'site')} of the sites' file {_have(n)} no row in the table: not on this page.")
    return said


def unknowns(findings: Findings, far: Sequence[str]) -> str:
    """List what limits this very page."""
    said = []
    table, changed, recovered, targets = findings.table, findings.changed, findings.recovered, findings.references
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
            f"{counted(len(targets), 'reference site')} can hardly tell how much such sites differ: the bands are wide "
            "for that reason. More references make them narrower; ten are a good number."
        )
    if recovered is not None:
        status = Counter(recovered.sites["status"])
        for name, words in (
            ("no_baseline", "no data from before the start, so no share (degraded sites can stand in)"),
            ("too_near", "a start as near the references as these are to each other, so no way to measure"),
            ("no_data", "no data"),
            ("not_started", "a start after the last year with data"),
        ):
            if status[name]:
                said.append(f"{counted(status[name], 'restoration site')} with {words}.")
        short = int(((recovered.sites["status"] == "ok") & recovered.sites["rate"].isna()).sum())
        if short:
            said.append(f"{counted(short, 'restoration site')} with too few years of data since the start for a rate.")
    if "status" in table.columns:
        failed = int((table["status"] == "error").sum())
        if failed:
            said.append(f"{counted(failed, 'site-year')} couldn't be read: extract these again.")
    few = int(changed.sites["p"].isna().sum())
    if few and few < len(changed.sites):
        said.append(f"{counted(few, 'site')} with too few years of data for a test of change.")
    late = int((changed.sites["kind"] == "last year only").sum())
    if late:
        said.append(
            f"{counted(late, 'site')} changed in the last year alone: that may be a bad year. Look again next year."
        )
    if far:
        said.append(f"{counted(len(far), 'site')} so far off that the map leaves them out: {named(far)}.")
    return "".join(f"<li>{text}</li>" for text in said)


def _have(n: int) -> str:
    return "has" if n == 1 else "have"

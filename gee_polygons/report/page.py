"""Fills the page's template. Everything that came from outside is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from gee_polygons.alphaearth import ATTRIBUTION
from gee_polygons.report.bundle import script, style, template
from gee_polygons.report.explanation import background_of, explanation
from gee_polygons.report.findings import Findings
from gee_polygons.report.language import Language
from gee_polygons.report.limitations import limitations, missing_parts
from gee_polygons.report.overview import hectares_table
from gee_polygons.report.summary import summary

_RECOVERY_COLORS: Final = {"group": "recovery: group", "share": "recovery: share"}
_COLORS: Final = {"change": "change", "pca": "similar land"}


def page_of(
    title: str, findings: Findings, rows: pd.DataFrame, data: dict[str, Any], files: Mapping[str, str], say: Language
) -> str:
    """Return the page; `rows` are those of `overview`, `data` what its script reads, `files` what it was made from."""
    # the tables of other people may hold values that aren't text
    provenance = {str(k): str(v) for k, v in findings.table.attrs.get("provenance", {}).items()}
    far = data["map"]["far"] if data["map"] else ()
    limits = limitations(findings, far, say)
    choices = (_RECOVERY_COLORS if data["hasRecovery"] else {}) | _COLORS
    missing = missing_parts(findings, len(data["sites"]), say)
    return template("page", say).substitute(
        language=say.code,
        title=html.escape(title),
        style=style(),
        about=_about(data, len(rows), provenance, say),
        note=f'<p class="note">{html.escape(provenance["note"])}</p>' if "note" in provenance else "",
        missing="".join(f'<p class="note">{text}</p>' for text in missing),
        hectares=hectares_table(findings, rows, say),
        summary=summary(findings, rows, say),
        limitations=f'<h3>{say("Limitations of these results")}</h3><ul class="limits">{limits}</ul>' if limits else "",
        map_hidden="" if data["map"] else " hidden",
        color_options="".join(f'<option value="{value}">{say(name)}</option>' for value, name in choices.items()),
        explanation=explanation(findings, say),
        attribution=_attribution(provenance),
        provenance=_provenance(provenance, findings, files, say),
        # "</script>" in a name must not end the script
        data=json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        script=script(),
    )


def _about(data: dict[str, Any], n_sites: int, provenance: Mapping[str, str], say: Language) -> str:
    """Say what the page is about; only a table that says so is called AlphaEarth's."""
    years = data["years"]
    span = f"{years[0]}\u2013{years[-1]}" if len(years) > 1 else f"{years[0]}"
    is_named = "AlphaEarth" in provenance.get("attribution", "")
    name = say("from yearly AlphaEarth embeddings" if is_named else "from yearly embeddings")
    day = f'<time datetime="{data["date"]}">{data["date"]}</time>'
    return f"{say.count(n_sites, 'site')}, {span}, {name}. {say('Written on {day}.', day=day)}"


def _attribution(provenance: Mapping[str, str]) -> str:
    if provenance.get("attribution"):
        return html.escape(provenance["attribution"])
    return f"The table doesn't say where its embeddings come from. If from AlphaEarth: {html.escape(ATTRIBUTION)}"


def _provenance(provenance: Mapping[str, str], findings: Findings, files: Mapping[str, str], say: Language) -> str:
    """List how the page was made and where the numbers come from."""
    changed, recovered = findings.changed, findings.recovered
    entries = {html.escape(say(k)): html.escape(v) for k, v in files.items()}
    entries[say("false-discovery rate")] = f"{changed.level:g}"
    if recovered is not None:
        entries[say("confidence level")] = f"{recovered.confidence:g}"
    entries[say("references")] = say.names(findings.references) or say("none")
    entries[say("controls")] = say.names(findings.controls) or say("none named")
    entries[say("background")] = background_of(findings, say)
    entries |= {html.escape(k): html.escape(v) for k, v in provenance.items() if k != "attribution"}
    if not provenance:
        entries[say("provenance")] = say("The table carries none.")
    return "".join(f"<dt>{k}</dt><dd>{v}</dd>" for k, v in entries.items())

"""Fills the page's template. Everything that came from outside is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any, Final

from gee_polygons.alphaearth import ATTRIBUTION
from gee_polygons.report.bundle import script, style, template
from gee_polygons.report.explanation import explanation
from gee_polygons.report.findings import Findings
from gee_polygons.report.limitations import limitations, missing_parts
from gee_polygons.report.summary import summary, tiles
from gee_polygons.report.wording import count, names

_RECOVERY_COLORS: Final = {"group": "recovery: group", "share": "recovery: share"}
_COLORS: Final = {"change": "change", "pca": "similar land"}


def page_of(title: str, findings: Findings, data: dict[str, Any], files: Mapping[str, str]) -> str:
    """Return the page; `data` is what its script reads, `files` the names of the files that it was made from."""
    # the tables of other people may hold values that aren't text
    provenance = {str(k): str(v) for k, v in findings.table.attrs.get("provenance", {}).items()}
    far = data["map"]["far"] if data["map"] else ()
    limits = limitations(findings, far)
    choices = (_RECOVERY_COLORS if data["hasRecovery"] else {}) | _COLORS
    return template("page").substitute(
        title=html.escape(title),
        style=style(),
        about=_about(data, provenance),
        note=f'<p class="note">{html.escape(provenance["note"])}</p>' if "note" in provenance else "",
        tiles=tiles(findings, data["sites"]),
        missing="".join(f'<p class="note">{text}</p>' for text in missing_parts(findings)),
        summary=summary(findings, data["sites"]),
        limitations=f'<h3>Limitations of these results</h3><ul class="limits">{limits}</ul>' if limits else "",
        map_hidden="" if data["map"] else " hidden",
        color_options="".join(f'<option value="{value}">{name}</option>' for value, name in choices.items()),
        explanation=explanation(findings),
        attribution=_attribution(provenance),
        provenance=_provenance(provenance, findings, files),
        # "</script>" in a name must not end the script
        data=json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        script=script(),
    )


def _about(data: dict[str, Any], provenance: Mapping[str, str]) -> str:
    """Say what the page is about; only a table that says so is called AlphaEarth's."""
    years = data["years"]
    span = f"{years[0]} to {years[-1]}" if len(years) > 1 else f"{years[0]}"
    name = "AlphaEarth embeddings" if "AlphaEarth" in provenance.get("attribution", "") else "embeddings"
    return f"{count(len(data['sites']), 'site')}, {span}, from yearly {name}."


def _attribution(provenance: Mapping[str, str]) -> str:
    if provenance.get("attribution"):
        return html.escape(provenance["attribution"])
    return f"The table doesn't say where its embeddings come from. If from AlphaEarth: {html.escape(ATTRIBUTION)}"


def _provenance(provenance: Mapping[str, str], findings: Findings, files: Mapping[str, str]) -> str:
    """List how the page was made and where the numbers come from; without a date: same input, same bytes."""
    changed, recovered = findings.changed, findings.recovered
    entries = {html.escape(k): html.escape(v) for k, v in files.items()}
    entries["false-discovery rate"] = f"{changed.level:g}"
    if recovered is not None:
        entries["confidence level"] = f"{recovered.confidence:g}"
    entries["references"] = names(findings.references) or "none"
    entries["controls"] = names(findings.controls) or "none named"
    entries["background"] = html.escape(changed.background)
    entries |= {html.escape(k): html.escape(v) for k, v in provenance.items() if k != "attribution"}
    if not provenance:
        entries["provenance"] = "The table carries none."
    return "".join(f"<dt>{k}</dt><dd>{v}</dd>" for k, v in entries.items())

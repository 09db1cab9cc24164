"""The report's page, put together; everything that came from outside is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any, Final

from gee_polygons.alphaearth import ATTRIBUTION
from gee_polygons.report.findings import Findings
from gee_polygons.report.limits import missing, unknowns
from gee_polygons.report.script import JS
from gee_polygons.report.style import CSS
from gee_polygons.report.words import headline, how_to_read, named, tiles

_COLOURS: Final = {"group": "recovery: group", "share": "recovery: share of the way"}


def page_of(title: str, findings: Findings, data: dict[str, Any], files: Mapping[str, str]) -> str:
    """Write the page."""
    changed, recovered = findings.changed, findings.recovered
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    safe_title = html.escape(title)
    source = {str(k): str(v) for k, v in findings.table.attrs.get("provenance", {}).items()}
    lacks = "".join(f'<p class="note">{said}</p>' for said in missing(findings))
    far = data["map"]["far"] if data["map"] else ()
    found = unknowns(findings, far)
    limits = f'<h3>What isn\'t known here</h3><ul class="limits">{found}</ul>' if found else ""
    note = f'<p class="note">{html.escape(source["note"])}</p>' if "note" in source else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{safe_title}</title><link rel="icon" href="data:,"><style>{CSS}</style></head><body>
<header><h1>{safe_title}</h1><p class="soft">{_about(data, source)}</p>{note}
<div class="tiles">{tiles(data["sites"], changed, recovered)}</div></header>
<main><section class="panel" id="summary"><h2>In short</h2>{lacks}{headline(data["sites"], changed, recovered)}
<p>It says how alike places look from space, not why. <button class="to" type="button" data-to="limits">What
this can't tell</button></p>{limits}</section>
{_map_panel(data)}
<section class="panel" id="list"><h2>Sites</h2><div class="bar">
<input id="find" type="search" placeholder="Find a site" aria-label="Find a site">
<select id="role" aria-label="Role"><option value="">any role</option></select>
<select id="group" aria-label="Recovery"><option value="">any recovery</option></select>
<select id="change" aria-label="Change"><option value="">any change</option></select>
<label><input id="expert" type="checkbox"> more columns</label>
<span id="count" class="soft" role="status" aria-live="polite"></span></div><p id="printed"></p>
<div class="scroll" tabindex="0" role="region" aria-label="Sites, a table"><table id="rows"><thead></thead>
<tbody></tbody></table></div><p><button id="more" type="button" hidden></button></p>
<p class="soft hint">Choose a heading to sort, a site to open it.</p></section>
<section class="panel" id="reading"><h2>How to read this</h2>{how_to_read(findings)}</section></main>
<div id="sheet"></div>
<footer id="from"><p>{_attribution(source)}</p><dl>{_made(source, findings, files)}</dl>
</footer>
<dialog id="site" aria-labelledby="title"><div class="head"><h2 id="title"></h2>
<button id="close" type="button">Close</button></div><div class="body" id="body"></div></dialog>
<script type="application/json" id="data">{text}</script><script>{JS}</script></body></html>
"""


def _about(data: dict[str, Any], source: Mapping[str, str]) -> str:
    """Say what the page is of; a table from anywhere isn't said to be AlphaEarth's."""
    years, n = data["years"], len(data["sites"])
    when = f"{years[0]} to {years[-1]}" if len(years) > 1 else f"{years[0]}"
    kind = "yearly AlphaEarth embeddings" if "AlphaEarth" in source.get("attribution", "") else "yearly embeddings"
    return f"{n:,} site{'' if n == 1 else 's'}, {when}, from {kind}."


def _attribution(source: Mapping[str, str]) -> str:
    if source.get("attribution"):
        return html.escape(source["attribution"])
    return f"The table doesn't say where its embeddings come from. If from AlphaEarth: {html.escape(ATTRIBUTION)}"


def _map_panel(data: dict[str, Any]) -> str:
    hidden = "" if data["map"] else " hidden"
    choices = dict(_COLOURS) if data["hasRecovery"] else {}
    choices |= {"change": "change", "pca": "likeness of the land"}
    options = "".join(f'<option value="{value}">{name}</option>' for value, name in choices.items())
    return (
        f'<section class="panel" id="place"{hidden}><h2>Map</h2><div class="bar"><label for="colour">Colour by</label>'
        f'<select id="colour">{options}</select>'
        '<span class="zoom" role="group" aria-label="Zoom"><button id="in" type="button" aria-label="Nearer">'
        '+</button><button id="out" type="button" aria-label="Further">\u2212</button>'
        '<button id="whole" type="button">All</button></span></div><div id="map"></div>'
        '<div id="legend" class="legend"></div>'
        '<p class="soft hint">Choose a site to open it. All that the map shows stands in the list below too, which '
        "works by keyboard and screen reader.</p></section>"
    )


def _made(source: Mapping[str, str], findings: Findings, files: Mapping[str, str]) -> str:
    """List how the page was made and where the numbers come from: no date, the same input gives the same bytes."""
    changed, recovered = findings.changed, findings.recovered
    made = {html.escape(k): html.escape(v) for k, v in files.items()}
    made["false alarms allowed"] = f"{changed.level:g} of the flags"
    if recovered is not None:
        made["confidence of bands"] = f"{recovered.confidence:g}"
    made |= {"references": named(findings.references) or "none", "controls": named(findings.controls) or "none named"}
    made["background"] = html.escape(changed.background)
    made |= {html.escape(k): html.escape(v) for k, v in source.items() if k != "attribution"}
    if not source:
        made["provenance"] = "The table carries none."
    return "".join(f"<dt>{k}</dt><dd>{v}</dd>" for k, v in made.items())

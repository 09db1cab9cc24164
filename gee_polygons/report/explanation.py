"""The section of the report that explains its terms."""

from __future__ import annotations

import html

from gee_polygons.recovery.classes import STALLED_RATE
from gee_polygons.report.bundle import template
from gee_polygons.report.findings import Findings
from gee_polygons.report.wording import count, names, one_in


def explanation(findings: Findings) -> str:
    """Explain the terms of the page."""
    changed, recovered, controls = findings.changed, findings.recovered, findings.controls
    words = {"background": html.escape(changed.background), "one_in": one_in(changed.level)}
    parts = ["terms_change"]
    if recovered is not None:
        parts = ["terms_recovery", "terms_change", "terms_change_and_recovery"]
        words |= {
            "n_references": count(len(findings.references), "reference site"),
            "references": names(findings.references),
            "confidence": f"{recovered.confidence:.0%}",
            "slow": f"{STALLED_RATE:.0%}",
            "twice_slow": f"{2 * STALLED_RATE:.0%}",
            "slow_years": f"{1 / STALLED_RATE:.0f}",
        }
    if controls:
        parts.append("terms_controls")
        also = ", and the references" if len(controls) < len(findings.background) else ""
        words["controls"] = names(controls) + also
    return "".join(template(part).substitute(words) for part in [*parts, "terms_data"])

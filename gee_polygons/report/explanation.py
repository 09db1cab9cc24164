"""The section of the report that explains its terms."""

from __future__ import annotations

from gee_polygons.change.detection import LEAST_SIZE_DEG
from gee_polygons.recovery.classes import STALLED_RATE
from gee_polygons.report.bundle import template
from gee_polygons.report.findings import Findings
from gee_polygons.report.language import Language


def explanation(findings: Findings, say: Language) -> str:
    """Explain the terms of the page."""
    changed, recovered = findings.changed, findings.recovered
    words = {
        "background": background_of(findings, say),
        "rate": f"{100 * changed.level:.3g}%",
        "least": f"{LEAST_SIZE_DEG:.0f}",
    }
    parts = ["terms_change"]
    if recovered is not None:
        parts = ["terms_recovery", "terms_change", "terms_change_and_recovery"]
        words |= {
            "n_references": say.count(len(findings.references), "reference site"),
            "references": say.names(findings.references),
            "confidence": f"{recovered.confidence:.0%}",
            "slow": f"{STALLED_RATE:.0%}",
            "twice_slow": f"{2 * STALLED_RATE:.0%}",
            "slow_years": f"{1 / STALLED_RATE:.0f}",
        }
    return "".join(template(part, say).substitute(words) for part in [*parts, "terms_data"])


def background_of(findings: Findings, say: Language) -> str:
    """Say what the movement that all land shares was estimated from."""
    if findings.changed.background.startswith("nothing"):
        return say("nothing")
    n_controls = len(findings.controls)
    n_references = len(findings.background) - n_controls
    parts = [say.count(n, noun) for n, noun in ((n_controls, "control site"), (n_references, "reference site")) if n]
    return f" {say('and')} ".join(parts) or say("the table's own sites")

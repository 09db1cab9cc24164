"""The section of the report that explains its terms."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

from gee_polygons.recovery.classes import STALLED_RATE
from gee_polygons.report.findings import Findings
from gee_polygons.report.wording import count, names, one_in

if TYPE_CHECKING:
    from gee_polygons.recovery.estimation import Recovery

CAN_NOT_TELL: Final = (
    "An embedding says that a place became more similar to others; it doesn't say why, nor how many trees or species "
    "there are. A change in the last year alone may be one bad year. A site of a few pixels mostly shows its "
    "surroundings."
)


def explanation(findings: Findings) -> str:
    """Explain the terms of the page."""
    changed, recovered = findings.changed, findings.recovered
    texts = [] if recovered is None else _recovery_terms(findings, recovered)
    texts.append(
        "<b>Change</b> is the angle between the embeddings of a site's years (0\u00b0 = the same, 90\u00b0 = nothing "
        f"in common). The background ({html.escape(changed.background)}) is subtracted, because all land shares a good "
        "part of each year's change. A site is flagged where noise alone would hardly explain the rest. At most about "
        f"{one_in(changed.level)} of all flags is expected to be false; <b>false discoveries</b> gives that share for "
        "the sites flagged at least as clearly as this one (the q-value)."
    )
    if recovered is not None:
        texts.append(
            "<b>Changed</b> and <b>recovering</b> answer different questions, so a site may be one without the other. "
            "Changed: does it differ from its own past, more than its surroundings do? Recovering: does it approach "
            "the reference sites? A cleared site changed and doesn't recover; a site that grows slowly but steadily "
            "may recover although no change stands out of the noise."
        )
    controls = findings.controls
    if controls:
        also = ", and the references" if len(controls) < len(findings.background) else ""
        texts.append(f"<b>Control sites</b> (assumed not to have changed): {names(controls)}{also}.")
    texts += [
        "<b>Homogeneity</b> (mean resultant length, Rbar) says how similar a site's pixels are: 1 = all the same; "
        "below about 0.8 the site is mixed and its mean describes no part of it well. <b>Valid area</b> is the share "
        "of its area with data.",
        "<b>Effective pixels</b> (effective sample size): neighbouring pixels are correlated, so the mean of a "
        "thousand of them is as certain as the mean of a few independent ones.",
        f'<b id="limits">What this page can\'t tell.</b> <span id="cant">{CAN_NOT_TELL}</span>',
    ]
    return "".join(f"<p>{text}</p>" for text in texts)


def _recovery_terms(findings: Findings, recovered: Recovery) -> list[str]:
    slow, confidence = f"{STALLED_RATE:.0%}", f"{recovered.confidence:.0%}"
    references = findings.references
    return [
        "<b>Share of recovery</b> runs from the site's own state before its start (0%) to the mean of "
        f"{count(len(references), 'reference site')} in the same year (100%): {names(references)}. Its {confidence} "
        f"confidence interval holds the true share in about {confidence} of cases: it accounts for the noise of years, "
        "the size of the site, the background, and the choice of these reference sites among others of their kind. It "
        "doesn't account for references of the wrong kind. Shares and intervals are cut at 0% and 100%; an interval "
        "wholly beyond an end is given as \u201c99% or more\u201d or \u201c1% or less\u201d.",
        "<b>Groups</b> follow from the share gained per year and its interval, over all years since the start and over "
        "the last four with data. <b>Declining</b>: the site moves away from the references, the interval of its rate "
        f"lies below 0 and the site loses {slow} a year or more; or it certainly lost a fifth of the share again; or "
        "it was among the references and left them. <b>Recovering</b>: it approaches them, the interval of its rate "
        f"lies above 0 and the rate is {slow} a year or more (100% in {1 / STALLED_RATE:.0f} years or less); or it is "
        f"there already, its whole interval lying at 80% or above. <b>Stalled</b>: it gains less than {slow} a year, "
        f"overall or lately, and even the upper end of that interval is below {2 * STALLED_RATE:.0%}. <b>No "
        "evidence</b>: the data allow more than one of these, or the site can't be measured. The <b>reference "
        "range</b> begins at the lowest tenth of the reference sites.",
    ]

"""Checks of the columns beside the vectors: other statistics, Rbar, and valid_fraction."""

from __future__ import annotations

import numpy as np

from gee_polygons.audit.findings import Finding, span
from gee_polygons.audit.table import AuditedTable, is_per_band
from gee_polygons.audit.values import LONGEST, UNIT

_RBAR_AGREES = 5e-3
_SUMS = ("count", "sum")  # may be beyond 1


def column_findings(table: AuditedTable) -> list[Finding]:
    """Check the columns beside the vectors."""
    found = []
    for other in table.others:
        if is_per_band(other.statistic) and other.statistic not in _SUMS:
            largest = np.nan_to_num(np.abs(other.matrix)).max(axis=1).astype(np.float64)
            how = f"{other.statistic} in {other.columns} is beyond 1"
            found += table.findings("raw_codes", largest > LONGEST, {"largest": float(largest.max(initial=0))}, how=how)
    if (rbar := table.numbers.get("Rbar")) is not None and table.vectors.whole and table.vectors.statistic == "mean":
        length = np.sqrt(table.vectors.squares)
        difference = np.abs(length - rbar)
        # a row scaled to length 1 has a finding of its own
        wrong = table.complete & (difference > _RBAR_AGREES) & (np.abs(length - 1) > UNIT)
        evidence = {"largest difference": float(difference[wrong].max(initial=0))}
        found += table.findings("rbar_differs", wrong, evidence)
    if (share := table.numbers.get("valid_fraction")) is not None:
        outside = (share < -1e-6) | (share > 1 + 1e-3)
        found += table.findings("valid_fraction", outside, {"values": span(share[outside])})
    return found

"""What the columns beside the vectors give away: other statistics, Rbar, and shares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gee_polygons.audit.report import Finding
from gee_polygons.audit.table import Audited, is_spread
from gee_polygons.audit.values import LONGEST, UNIT


def column_findings(table: Audited) -> list[Finding]:
    """Check the columns beside the vectors: the other statistics, Rbar, and shares."""
    found: list[Finding] = []
    for other in table.others:
        if is_spread(other.statistic) and other.statistic not in ("count", "sum"):
            over = (np.nan_to_num(np.abs(other.matrix)) > LONGEST).any(axis=1)
            if over.any():
                found.append(
                    table.finding(
                        "raw_codes",
                        "error",
                        f"{other.statistic} in {other.columns} is beyond 1: in code units",
                        over,
                        {"largest": float(np.nanmax(np.abs(other.matrix)))},
                        "de-quantise each pixel before any statistic; extract again",
                    )
                )
    rbar = table.numbers.get("Rbar")
    if rbar is not None:
        found += _rbar(table, rbar)
    share = table.numbers.get("valid_fraction")
    if share is not None and (rows := (share < -1e-6) | (share > 1 + 1e-3)).any():
        found.append(
            table.finding(
                "valid_fraction",
                "error",
                "valid_fraction outside 0..1: pixels counted twice, or areas of two grids mixed",
                rows,
                {"values": f"{share[rows].min():.4g}..{share[rows].max():.4g}"},
                "count each piece of ground once: one grid per polygon, tiles mosaicked before reducing",
            )
        )
    return found


def _rbar(table: Audited, rbar: NDArray[np.float64]) -> list[Finding]:
    found = []
    above = rbar > LONGEST
    if above.any():
        found.append(
            table.finding(
                "rbar_above_one",
                "error",
                "Rbar above 1: it is the length of a mean of unit vectors",
                above,
                {"largest": float(rbar[above].max())},
                "compute it from vectors de-quantised with (k / 127.5)^2, nodata masked",
            )
        )
    if table.vectors.whole and table.vectors.statistic == "mean":
        length = np.linalg.norm(table.matrix, axis=1)
        # a renormalised row has lost its length: that is its own finding
        differs = table.complete & ~above & (np.abs(length - rbar) > 5e-3) & (np.abs(length - 1) > UNIT)
        if differs.any():
            found.append(
                table.finding(
                    "rbar_differs",
                    "error",
                    "Rbar is not the length of the row's vector",
                    differs,
                    {"largest difference": float(np.abs(length - rbar)[differs].max())},
                    "the vector or Rbar was changed alone (another reducer, another year, a join gone wrong)",
                )
            )
    return found

"""What the digits of values give away: how coarsely they were stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gee_polygons.audit.report import Finding
from gee_polygons.audit.table import Audited, Vectors

Mask = NDArray[np.bool_]

ROWS_AT_A_TIME: Final = 4_096


def row_by_row(check: Callable[[NDArray[np.float64]], NDArray[Any]], m: NDArray[np.float64]) -> NDArray[Any]:
    """Apply a check that looks at each row by itself, to a block at a time: copies of a million rows are gigabytes."""
    starts = range(0, max(len(m), 1), ROWS_AT_A_TIME)
    return np.concatenate([check(m[start : start + ROWS_AT_A_TIME]) for start in starts])


def rounded(table: Audited, vectors: Vectors, wrong: Mask) -> list[Finding]:
    """Values that are exactly float16's, or have at most three decimals."""
    m = vectors.matrix

    def few_decimals(part: NDArray[np.float64]) -> Mask:
        return np.asarray((np.abs(part * 1000 - np.rint(part * 1000)) < 1e-6).all(axis=1))

    usual = ~wrong & row_by_row(_has_fractions, m)
    found = []
    half = usual & row_by_row(_is_float16, m)
    few = usual & ~half & row_by_row(few_decimals, m)
    for code, rows, what, loss in (
        ("float16", half, "values are rounded to float16", 5e-4),
        ("rounded", few, "values are rounded to three decimals or fewer", 5e-3),
    ):
        # a few numbers may be round by chance
        if rows.any() and rows.sum() * m.shape[1] >= 8:
            found.append(
                table.finding(
                    code,
                    "warning",
                    what,
                    rows,
                    {"relative error of a component of 0.1, at most": loss},
                    "store float32 or float64; to save space store int8 codes of pixels, not halves of means",
                )
            )
    return found


def _has_fractions(m: NDArray[np.float64]) -> Mask:
    return np.asarray(np.isfinite(m).all(axis=1) & (m != np.rint(m)).any(axis=1))


def _is_float16(m: NDArray[np.float64]) -> Mask:
    with np.errstate(over="ignore"):
        found: Mask = (m.astype(np.float16).astype(np.float64) == m).all(axis=1)
    return found

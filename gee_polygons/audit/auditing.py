"""Checks whether a table of AlphaEarth polygon vectors is what it should be.

Takes any table, ours or someone else's, and reports what is wrong with it, in which rows, on what evidence, and how to
repair it. It knows the mistakes that are made in public: ``k / 127`` instead of the square, means of raw codes, nodata
averaged in or kept as a value, lengths lost, bands in another order, years missing, rows doubled, and more.

What a table can't show by itself stands in `AuditReport.not_checked`. Bands in another order or sign, shifted years and
swapped sites show where they concern some rows or sites, not where they concern all of them alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from gee_polygons.alphaearth import N_BANDS
from gee_polygons.audit.columns import column_findings
from gee_polygons.audit.findings import AuditReport, Finding
from gee_polygons.audit.own_years import FEWEST_SITES, FEWEST_STEPS
from gee_polygons.audit.reference import reference_findings
from gee_polygons.audit.rows import row_findings
from gee_polygons.audit.table import AuditedTable, is_per_band, table_to_audit
from gee_polygons.audit.values import PLAUSIBLE, kinds_of_rows, row_figures, value_findings
from gee_polygons.tables import read_table

_WITHOUT_DIRECTION = ("nodata_as_value", "nodata_averaged", "sign_lost", "unknown_scale")


def audit(table: pd.DataFrame | str | Path, reference: pd.DataFrame | str | Path | None = None) -> AuditReport:
    """Report what is wrong with a table of embedding vectors.

    Parameters
    ----------
    table : DataFrame, or path of .parquet or .csv
        Vectors in columns ``A00..A63``, ``A00_mean..A63_mean``, any subset of these, 64 numbered columns of another
        name (``emb_0..emb_63``), or a column of lists of 64 numbers. Columns for site (``site_id``, ``rid``, ``fid``,
        ``id``, ...), year (``year``, ``time``, ``date``), ``Rbar``, ``n_pixels`` and ``valid_fraction`` are used
        where there are any.
    reference : DataFrame or path, optional
        A table that is right (such as one from `extract_embeddings`) with some of the same sites and years.

    Returns
    -------
    AuditReport: its `findings`, and in `not_checked` what this table can't show. `is_clean` where all 64 bands are
    there and nothing was found.

    Raises
    ------
    UsageError
        If the table holds no vectors, or can't be joined to the reference.
    InputFileError
        If a file can't be read.

    Examples
    --------
    >>> from gee_polygons.alphaearth import BANDS
    >>> k = np.random.default_rng(0).normal(0, 40, (3, 64)).round()
    >>> divided_by_127 = pd.DataFrame(k / 127, columns=list(BANDS))
    >>> audit(divided_by_127).codes
    ('linear_dequantisation',)
    """
    audited = table_to_audit(_read(table))
    vectors = audited.vectors
    findings: list[Finding] = []
    checked: tuple[str, ...] = ()
    usable = explained = np.zeros(audited.n_rows, np.bool_)  # rows whose direction means something; with own findings
    for one in (vectors, *audited.others):
        if is_per_band(one.statistic):  # the bands of a row make no vector
            continue
        figures = row_figures(one)
        kinds = kinds_of_rows(one, figures)
        findings += value_findings(audited, one, figures, kinds)
        if one is vectors:
            unsigned = (kinds == "raw_codes") & (figures["low"].to_numpy() >= 0)
            usable = audited.complete & ~np.isin(kinds, _WITHOUT_DIRECTION) & ~unsigned
            explained = ~np.isin(kinds, ["", PLAUSIBLE])
        del figures, kinds  # 150 MB of a million rows
    if reference is not None and not is_per_band(vectors.statistic):
        found, compared = reference_findings(audited, table_to_audit(_read(reference)), usable, explained)
        findings += found
        checked = (compared,)
    findings += [*column_findings(audited), *row_findings(audited, usable)]
    return AuditReport(
        findings=_in_order(findings),
        n_rows=audited.n_rows,
        n_without_data=int((np.isnan(vectors.matrix).all(axis=1) & ~vectors.infinite).sum()),
        vectors=vectors.columns,
        checked=checked,
        not_checked=tuple(_not_checked(audited, reference is not None)),
        whole=vectors.whole,
    )


def _not_checked(table: AuditedTable, with_reference: bool) -> Iterator[str]:
    """Yield the mistakes that a table can't show, and why."""
    vectors = table.vectors
    n_bands = vectors.matrix.shape[1]
    if not vectors.whole:
        what = (
            "lengths, codes divided by 127, codes averaged first, nodata averaged in, bands, years and sites mixed up"
        )
        yield f"{what}: {n_bands} of {N_BANDS} bands are there"
    n_years = 0 if table.year is None else len(np.unique(table.year[table.year >= 0]))
    n_sites = 0 if table.site is None else pd.Series(table.site).nunique()
    if table.site is None or table.year is None:
        missing = " or ".join(name for name in ("site", "year") if getattr(table, name) is None)
        yield f"doubled rows, missing years, copies, jumps, years and sites mixed up: no column of {missing} was found"
    elif vectors.whole and (n_years <= FEWEST_STEPS or n_sites < FEWEST_SITES):
        yield (
            f"shifted years and bands mixed up in some sites: {n_sites} sites and {n_years} years, and "
            f"{FEWEST_SITES} and {FEWEST_STEPS + 1} are needed"
        )
    if vectors.whole and not with_reference:
        yield "mistakes that all rows share (order and signs of bands, shifted years, swapped sites): no reference"
        if not any(v.statistic == "std" for v in table.others):
            yield "codes averaged first in polygons of like pixels (lengths above 0.94): neither std nor a reference"
        yield f"nodata of less than 6 % of a polygon{' in all its years' if n_years > 1 else ''}: no reference"


def _in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """Return errors first, then what concerns most rows, without findings that repeat another one's code and rows."""
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda f: -len(f.rows)):
        if not any(f.code == finding.code and set(finding.rows) <= set(f.rows) for f in kept):
            kept.append(finding)
    return tuple(sorted(kept, key=lambda f: (f.severity != "error", -len(f.rows), f.code)))


def _read(table: pd.DataFrame | str | Path) -> pd.DataFrame:
    return read_table(table) if isinstance(table, str | Path) else table

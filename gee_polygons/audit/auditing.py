"""Whether a table of AlphaEarth polygon vectors is what it should be.

Looks at any table, ours or someone else's, and says what is wrong with it, which rows, how it was seen and how to
mend it. It knows the mistakes that are made in public: ``k / 127`` instead of the square, means of raw codes, nodata
averaged in or kept as a value, lengths lost, bands in another order, years missing, rows doubled, and more.

What a table can't show by itself: nodata of less than about 6 % of a polygon, where the table holds no other row that
is like it; codes averaged before they were de-quantised, and bands in another order, unless a reference is given.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from gee_polygons.audit.against import reference_findings
from gee_polygons.audit.columns import column_findings
from gee_polygons.audit.report import AuditReport, Finding, in_order
from gee_polygons.audit.rows import row_findings
from gee_polygons.audit.table import Audited, is_spread, look_at
from gee_polygons.audit.values import kinds_of_rows, value_findings
from gee_polygons.tables import read_table


def audit(table: pd.DataFrame | str | Path, reference: pd.DataFrame | str | Path | None = None) -> AuditReport:
    """Say what is wrong with a table of embedding vectors.

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
    AuditReport. `is_clean` where nothing was found; else its `findings`.

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
    looked = look_at(_table(table))
    vectors = looked.vectors
    findings: list[Finding] = []
    usable = looked.complete
    checked: tuple[str, ...] = ()
    if is_spread(vectors.statistic):
        usable = np.zeros(looked.n_rows, np.bool_)  # the bands of a row make no vector
    else:
        kinds = kinds_of_rows(vectors)
        findings += value_findings(looked, vectors, kinds)
        # the direction of the others means something
        senseless = [kinds[name] for name in ("filled", "pulled", "sign_lost", "scaled") if name in kinds]
        unsigned = kinds["codes"] & (np.nan_to_num(looked.matrix) >= 0).all(axis=1)
        usable = usable & ~np.any([*senseless, unsigned], axis=0)
        if reference is not None:
            more, compared = reference_findings(
                looked, look_at(_table(reference)), usable, np.any(list(kinds.values()), axis=0)
            )
            findings += more
            checked = (compared,)
    findings += [*column_findings(looked), *_of_others(looked), *row_findings(looked, usable)]
    return AuditReport(
        findings=in_order(_one_each(findings)),
        n_rows=looked.n_rows,
        n_without_data=int((~np.isfinite(looked.matrix)).all(axis=1).sum() - vectors.infinite.sum()),
        vectors=vectors.columns,
        checked=checked,
    )


def _of_others(looked: Audited) -> list[Finding]:
    """Check other columns of vectors, such as the medoid beside the mean."""
    found: list[Finding] = []
    for other in looked.others:
        if not is_spread(other.statistic):
            found += value_findings(looked, other, kinds_of_rows(other))
    return found


def _one_each(findings: list[Finding]) -> list[Finding]:
    """Leave out what another finding says too: the same code, for no other rows."""
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda f: -len(f.rows)):
        if not any(f.code == finding.code and set(finding.rows) <= set(f.rows) for f in kept):
            kept.append(finding)
    return kept


def _table(table: pd.DataFrame | str | Path) -> pd.DataFrame:
    return read_table(table) if isinstance(table, str | Path) else table

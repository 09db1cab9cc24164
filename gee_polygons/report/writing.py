"""Writes the report: one self-contained HTML page that says what changed and what recovered.

The page holds a summary, a map, a table that sorts and filters, and for each site its pictures, similarity matrix,
share of recovery with confidence interval, angles, data quality, and provenance. It needs no server and no network,
and it can be printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from gee_polygons.change.detection import change
from gee_polygons.errors import UsageError, warn_data
from gee_polygons.recovery.estimation import Recovery, recovery
from gee_polygons.report.findings import Findings
from gee_polygons.report.outlines import map_of
from gee_polygons.report.page import page_of
from gee_polygons.report.pictures import picture_strip, pictured
from gee_polygons.report.records import color_explanation, rounded, site_records
from gee_polygons.report.roles import (
    CONTROL_KINDS,
    DEGRADED_KINDS,
    REFERENCE_KINDS,
    check_references,
    check_shared,
    of_kind,
    prototypes_of,
)
from gee_polygons.store.atomic import check_new_file, replacing
from gee_polygons.visualize.plots.figure import GROUP_COLOURS

if TYPE_CHECKING:
    from gee_polygons.reduction.plan import Source
    from gee_polygons.site import SiteCollection

MAX_BYTES: Final = 25_000_000


def check_report(path: str | Path, overwrite: bool = False) -> Path:
    """Check that a report can be written to `path`, before the long work.

    Raises
    ------
    UsageError
        If the name doesn't end in .html.
    OutputError
        If the file exists or is a folder, or its folder doesn't exist or can't be written.

    Examples
    --------
    >>> check_report("report.pdf")
    Traceback (most recent call last):
    gee_polygons.errors.UsageError: can't write 'report.pdf': the name must end in .html
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"can't write {str(path)!r}: the name must end in .html")
    check_new_file(path, overwrite)
    return path


def write_report(
    table: pd.DataFrame,
    path: str | Path,
    *,
    sites: SiteCollection | None = None,
    source: Source | str | None = None,
    references: Sequence[Any] | None = None,
    controls: Sequence[Any] | None = None,
    pictures: str | Sequence[Any] = "auto",
    level: float = 0.1,
    title: str = "Did it work?",
    files: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the report of a table.

    Parameters
    ----------
    table : DataFrame
        What `extract_embeddings` returned, or `read_table` read.
    path : str or Path
        ``.html``.
    sites : SiteCollection, optional
        For the map, the pictures, start years, and the property `kind` (``"reference"``, ``"control"``).
    source : Source or str, optional
        Where pictures are read from. Without it there are none.
    references : sequence of site ids, optional
        What sites should become. Default: the sites of kind ``"reference"``. Without any there is no recovery. Sites of
        kind ``"degraded"`` stand in for those without data before their start.
    controls : sequence of site ids, optional
        Sites that didn't change, the background. Default: kinds ``"control"`` and ``"reference"``, else all sites.
    pictures : "auto", "none", "all" or sequence of site ids
        Whose pictures are made. ``"auto"``: everyone's, if there are at most 12 sites.
    level : float
        False-discovery rate of the flags of change.
    title : str
        Heading.
    files : mapping of str to str, optional
        Names of the files that it was made from, for the foot of the page: ``{"table": "sites.parquet"}``.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        For unknown sites, or more pictures than a page can hold.
    OutputError
        If the file exists or can't be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from gee_polygons.alphaearth import BANDS
    >>> v = np.eye(64)[0] + np.random.default_rng(0).normal(size=(12, 64)) * 0.01
    >>> table = pd.DataFrame(v, columns=list(BANDS))
    >>> table = table.assign(site_id=np.repeat(["a", "b", "c"], 4), year=[1, 2, 3, 4] * 3)
    >>> write_report(table, Path(tempfile.mkdtemp(), "report.html")).stat().st_size < 100_000
    True
    """
    path = check_report(path, overwrite)
    check_references(references, sites)
    if sites is not None:
        check_shared(table, sites)
    background = of_kind(table, sites, CONTROL_KINDS, controls)
    targets = of_kind(table, sites, REFERENCE_KINDS, references)
    changed = change(table, background=background or "all", level=level, prototypes=prototypes_of(table, sites))
    recovered = _recovery(table, sites, targets, background)
    findings = Findings(
        table=table, sites=sites, changed=changed, recovered=recovered, references=targets, background=background
    )
    page = page_of(title, findings, _page_data(findings, source, pictures), files or {})
    if len(page.encode()) > MAX_BYTES:
        raise UsageError(f"the page would have {len(page) / 1e6:.0f} MB; ask for fewer pictures")
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def _recovery(
    table: pd.DataFrame, sites: SiteCollection | None, references: list[Any], background: list[Any]
) -> Recovery | None:
    if not references or sites is None:
        return None
    if not any(year is not None for year in sites.start_years):
        warn_data("no site has a start year: the report has no recovery")
        return None
    return recovery(
        table,
        references=references,
        start_years=sites,
        background=background or "references",
        degraded=of_kind(table, sites, DEGRADED_KINDS, None) or None,
    )


def _page_data(findings: Findings, source: Any, pictures: str | Sequence[Any]) -> dict[str, Any]:
    """Return what the page's script reads."""
    sites, recovered = findings.sites, findings.recovered
    records, basis = site_records(findings)
    years = sorted(int(year) for year in findings.table["year"].unique())
    for record, site in pictured(pictures, records, sites, source):
        record["strip"] = picture_strip(site, source, years, basis)
    return {
        "sites": records,
        "groupColors": GROUP_COLOURS,
        "years": years,
        "map": None if sites is None else map_of(records, sites),
        "pca": color_explanation(basis),
        "hasRecovery": recovered is not None,
        "hasRoles": len({record["role"] for record in records}) > 1,
        "ranked": sum(record["rank"] is not None for record in records),
        "confidence": None if recovered is None else round(100 * recovered.confidence),
        "range": None if recovered is None else rounded(recovered.reference["range_low"].median(), 3),
    }

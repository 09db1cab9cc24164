"""Writes the report: one self-contained HTML page that says what changed and what recovered.

The page holds a summary in hectares, the sites to visit, a map, a table that sorts and filters, and for each site its
pictures, share of recovery with confidence interval, angles, similarity matrix, data quality, and provenance. It needs
no server and no network, and it can be printed.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from gee_polygons.change.detection import change
from gee_polygons.errors import GeePolygonsError, UsageError, warn_data
from gee_polygons.progress import Progress, report_progress
from gee_polygons.recovery.estimation import Recovery, recovery
from gee_polygons.report.findings import Findings
from gee_polygons.report.language import language_of
from gee_polygons.report.outlines import map_of
from gee_polygons.report.overview import overview, visits
from gee_polygons.report.page import page_of
from gee_polygons.report.pictures import FEW_SITES, check_pictures, pictures_of
from gee_polygons.report.records import plain_values, site_records
from gee_polygons.report.roles import (
    CONTROL_KINDS,
    DEGRADED_KINDS,
    REFERENCE_KINDS,
    check_references,
    check_shared,
    not_restoration,
    of_kind,
    prototypes_of,
)
from gee_polygons.sources.opening import open_source
from gee_polygons.store.atomic import check_new_file, replacing
from gee_polygons.visualize.plots.figure import GROUP_COLOURS

if TYPE_CHECKING:
    from gee_polygons.embeddings.colors import PcaColors
    from gee_polygons.reduction.plan import Source
    from gee_polygons.site import SiteCollection

MAX_BYTES: Final = 60_000_000
_LISTED_BYTES: Final = 36_000_000  # of these, what the sites of the list take: more is slow on a phone


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
    title: str | None = None,
    language: str = "en",
    date: datetime.date | None = None,
    progress: Progress = False,
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
        Whose pictures are made. ``"auto"``: of 12 sites, first of the largest that need a visit.
    level : float
        False-discovery rate of the flags of change.
    title : str, optional
        Heading. Default: "Did it work?", in the page's language.
    language : "en" or "pt"
        Of the page: English or Portuguese.
    date : date, optional
        When the page was written. Default: today.
    progress : bool or callable
        See `gee_polygons.progress.Progress`.
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
        For unknown sites, an unknown language, or more pictures than a page can hold.
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
    say = language_of(language)
    check_references(references, sites)
    if sites is not None:
        check_shared(table, sites)
    background = of_kind(table, sites, CONTROL_KINDS, controls)
    targets = of_kind(table, sites, REFERENCE_KINDS, references)
    source = open_source(source) if isinstance(source, str) else source
    chosen = check_pictures(pictures, table["site_id"].astype(str).unique().tolist(), sites, source)
    most = _most_listed(table)
    n_pictures = FEW_SITES if chosen is None else len(chosen)
    with report_progress(progress, 4 + n_pictures, unit="step", title="report") as advance:
        changed = change(table, background=background or "all", level=level, prototypes=prototypes_of(table, sites))
        advance(1)
        kinds = not_restoration(sites)
        recovered = _recovery(table, sites, targets, background, kinds)
        advance(1)
        findings = Findings(
            table=table, sites=sites, changed=changed, recovered=recovered, references=targets, background=background,
            kinds=kinds,
        )  # fmt: skip
        rows = overview(findings)
        to_visit = visits(findings, rows)
        listed = rows if len(rows) <= most else to_visit.head(most).sort_index()
        records, basis = site_records(findings, listed)
        advance(1)
        if chosen is None:
            by_size = listed[listed["lat"].notna()].sort_values("area_ha", ascending=False, kind="stable")
            chosen = [*dict.fromkeys([*to_visit["id"], *by_size["id"]])][:FEW_SITES]
        years = sorted(int(year) for year in table["year"].unique())
        _add_pictures(records, chosen, sites, source, years, basis, advance)
        data = {
            "sites": records,
            "years": years,
            "visit": to_visit["id"].head(most).tolist(),
            "toVisit": len(to_visit),
            "map": None if sites is None else map_of(records, sites),
            "pca": plain_values([basis.explained_variance.sum()], 2)[0],
            "hasRecovery": recovered is not None,
            "hasRoles": not rows["role"].eq("restoration").all(),
            "hasSource": source is not None,
            "ranked": 0 if recovered is None else int(recovered.sites["rank"].notna().sum()),
            "confidence": None if recovered is None else round(100 * recovered.confidence),
            "range": None if recovered is None else plain_values([recovered.reference["range_low"].median()], 3)[0],
            "groupColors": GROUP_COLOURS,
            "language": say.code,
            "words": say.texts,
            "date": (date or datetime.date.today()).isoformat(),
        }
        page = page_of(title or say("Did it work?"), findings, rows, data, files or {}, say)
        if len(page.encode()) > MAX_BYTES:
            raise UsageError(f"the page would have {len(page) / 1e6:.0f} MB; ask for fewer pictures")
        with replacing(path) as part:
            part.write_text(page, encoding="utf-8")
        advance(1)
    return path


def _most_listed(table: pd.DataFrame) -> int:
    """Return how many sites a page can list; warn if the table has more, before the long work."""
    n_sites, n_years = table["site_id"].nunique(), table["year"].nunique()
    most = int(_LISTED_BYTES / (560 + 70 * n_years + 3.3 * n_years**2))  # characters of a record, measured
    if n_sites > most:
        warn_data(
            f"a page can list {most:,} sites of {n_years} years, the table has {n_sites:,}: the page will count all, "
            "and list those that need a visit"
        )
    return most


def _recovery(
    table: pd.DataFrame,
    sites: SiteCollection | None,
    references: list[Any],
    background: list[Any],
    kinds: Mapping[str, str],
) -> Recovery | None:
    if not references or sites is None:
        return None
    others = {*kinds, *map(str, background), *map(str, references)}
    starts = dict(zip(map(str, sites.site_ids), sites.start_years, strict=True))
    starts = {site_id: year for site_id, year in starts.items() if year is not None and site_id not in others}
    if not any(site_id in starts for site_id in table["site_id"].astype(str).unique()):
        warn_data("no restoration site has a start year: the report has no recovery")
        return None
    return recovery(
        table,
        references=references,
        start_years=starts,
        background=background or "references",
        degraded=of_kind(table, sites, DEGRADED_KINDS, None) or None,
    )


def _add_pictures(
    records: list[dict[str, Any]],
    chosen: Sequence[str],
    sites: SiteCollection | None,
    source: Any,
    years: Sequence[int],
    basis: PcaColors,
    advance: Callable[[int], None],
) -> None:
    """Add pictures to the records of the chosen sites, or in one line why there are none."""
    record_of = {record["id"]: record for record in records}
    for site_id in chosen:
        if sites is not None and site_id in record_of:
            try:
                record_of[site_id]["pictures"] = pictures_of(sites[site_id], source, years, basis)
            except GeePolygonsError as error:
                record_of[site_id]["noPictures"] = " ".join(str(error).split())
                warn_data(f"no pictures of site {site_id!r}: {error}")
        advance(1)

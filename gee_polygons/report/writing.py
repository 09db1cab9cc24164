"""One page that says whether it worked: a self-contained HTML file, without a server or a network.

Summary, map, a table that sorts and filters, and for each site its pictures, similarity matrix, trajectory with band,
distances, quality, and where the numbers come from. Everything is inside the file; it prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from gee_polygons.change.detection import change
from gee_polygons.errors import UsageError, warn_data
from gee_polygons.recovery.estimation import Recovery, recovery
from gee_polygons.report.data import clean, in_words, site_records, strip_of
from gee_polygons.report.findings import Findings
from gee_polygons.report.map import map_of
from gee_polygons.report.page import page_of
from gee_polygons.store.atomic import check_new_file, replacing

if TYPE_CHECKING:
    from gee_polygons.reduction.plan import Source
    from gee_polygons.site import SiteCollection

FEW_SITES: Final = 12  # so many get pictures without being asked for
MAX_PICTURES: Final = 200  # about 60 kB each: 12 MB of the 25 that a page may have
MAX_BYTES: Final = 25_000_000
REFERENCE_KINDS: Final = ("reference",)
CONTROL_KINDS: Final = ("control", "reference")
DEGRADED_KINDS: Final = ("degraded",)


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


def check_references(references: Sequence[Any] | None, sites: Any) -> None:
    """Refuse references without sites."""
    if references and sites is None:
        raise UsageError("references need the sites too, for the years that restoration began: give --sites")


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
    page = page_of(title, findings, _data(findings, source, pictures), files or {})
    if len(page.encode()) > MAX_BYTES:
        raise UsageError(f"the page would have {len(page) / 1e6:.0f} MB; ask for fewer pictures")
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def _data(findings: Findings, source: Any, pictures: str | Sequence[Any]) -> dict[str, Any]:
    """Return what the page's script works with."""
    sites, recovered = findings.sites, findings.recovered
    records, basis = site_records(findings)
    frame = map_of(records, sites) if sites is not None else None
    years = sorted(int(y) for y in findings.table["year"].unique())
    by_id = {r["id"]: r for r in records}
    for site_id in _pictured(pictures, records, sites, source):
        assert sites is not None, "_pictured names none without sites"
        by_id[site_id]["strip"] = strip_of(sites[site_id], source, years, basis)
    return {
        "sites": records,
        "years": years,
        "map": frame,
        "pca": in_words(basis),
        "hasRecovery": recovered is not None,
        "hasRoles": len({r["role"] for r in records}) > 1,
        "ranked": sum(r["rank"] is not None for r in records),
        "confidence": round(100 * recovered.confidence) if recovered is not None else None,
        "range": _range(recovered),
    }


def of_kind(
    table: pd.DataFrame, sites: SiteCollection | None, kinds: Sequence[str], given: Sequence[Any] | None
) -> list[Any]:
    """Return the sites of the table that were named, else those whose property says so and that have data."""
    if given is not None:
        return list(given)
    if sites is None or "kind" not in sites.property_names:
        return []
    _check_ids(table)
    seen = set(table.loc[table["A00"].notna() if "A00" in table.columns else slice(None), "site_id"].astype(str))
    # people write "Reference", and spreadsheets leave spaces
    found = [s for s in sites if str(s.properties.get("kind")).strip().lower() in kinds]
    return [s.site_id for s in found if str(s.site_id) in seen]


def check_shared(table: pd.DataFrame, sites: SiteCollection) -> None:
    """Say how many ids table and sites share, if not all; refuse if none."""
    _check_ids(table)
    rows, file = set(table["site_id"].astype(str)), {str(site_id) for site_id in sites.site_ids}
    both = len(rows & file)
    if not both:
        raise UsageError(
            f"the table's {len(rows)} sites and the {len(file)} sites given have no id in common, for example "
            f"{min(rows)!r} and {min(file)!r}; choose the column of the ids (--id-column)"
        )
    if both < max(len(rows), len(file)):
        warn_data(f"table and sites share {both} ids: the table has {len(rows)} sites, the sites given are {len(file)}")


def _check_ids(table: pd.DataFrame) -> None:
    if "site_id" not in table.columns:
        raise UsageError("the table has no column 'site_id': one row per site and year is needed")


def prototypes_of(table: pd.DataFrame, sites: SiteCollection | None) -> pd.DataFrame | None:
    """Labelled rows for the direction of change, where sites have a property `label`."""
    if sites is None or "label" not in sites.property_names:
        return None
    _check_ids(table)
    labels = {str(s.site_id): s.properties.get("label") for s in sites}
    rows = table.assign(label=table["site_id"].astype(str).map(labels)).dropna(subset=["label"])
    known = rows["label"][rows["A00"].notna()].nunique() if "A00" in rows.columns else 0
    if known == 1:
        warn_data("sites have one label only: two at least are needed to tell towards what a site changed")
    return rows if known > 1 else None


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


def _pictured(
    pictures: str | Sequence[Any], records: list[dict[str, Any]], sites: SiteCollection | None, source: Any
) -> list[str]:
    names = set() if sites is None else {str(site_id) for site_id in sites.site_ids}
    known = [r["id"] for r in records if r["id"] in names]
    if isinstance(pictures, str) and pictures in ("auto", "none", "all"):
        chosen = known if pictures == "all" or (pictures == "auto" and len(records) <= FEW_SITES) else []
        chosen = chosen if source is not None or pictures == "all" else []
    elif isinstance(pictures, str):
        raise UsageError(f"pictures is 'auto', 'none', 'all' or a list of site ids, found {pictures!r}")
    else:
        chosen = [str(site_id) for site_id in pictures]
        unknown = [site_id for site_id in chosen if site_id not in known]
        if unknown:
            raise UsageError(f"no picture can be made of {unknown[0]!r}: it isn't in both the table and the sites")
    if chosen and source is None:
        raise UsageError("pictures need a source to read them from: give --source")
    if len(chosen) > MAX_PICTURES:
        raise UsageError(f"{len(chosen)} pictures don't fit one page (at most {MAX_PICTURES}); name some sites")
    return chosen


def _range(recovered: Recovery | None) -> float | None:
    low = None if recovered is None else recovered.reference["range_low"].median()
    found: float | None = clean(low, 3)
    return found

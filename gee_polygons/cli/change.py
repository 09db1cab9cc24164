"""The commands `change`, `recovery` and `report`, which draw conclusions from a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gee_polygons.cli import shared
from gee_polygons.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_TABLE_HELP = (
    "TABLE is a .parquet or .csv file with site_id, year, A00..A63 and, if they are known, n_pixels and status: "
    "what `gee-polygons extract` writes, or a table of the same columns from anywhere else."
)
_table = click.argument("table_path", metavar="TABLE", type=shared.PATH)
_sites = shared.sites_parameter(
    click.option("--sites", "sites_path", type=shared.PATH, help="File of the sites: start years, kinds, map.")
)
_references = click.option(
    "--references",
    callback=shared.parse_names,
    metavar="IDS",
    help="What restored sites should become.  [default: kind=reference]",
)
_controls = click.option(
    "--controls",
    callback=shared.parse_names,
    metavar="IDS",
    help="Sites that didn't change: the background.  [default: kind=control and reference]",
)
_yearly = click.option("--yearly", "yearly_path", type=shared.PATH, help="Also write one row per site and year here.")


def _read(table_path: Path, sites_file: shared.SitesFile | None) -> tuple[pd.DataFrame, Any]:
    """Return the table, and the sites or None."""
    from gee_polygons.tables import read_table

    return read_table(table_path), None if sites_file is None else sites_file.load()


def _check(overwrite: bool, *paths: Path | None) -> None:
    from gee_polygons.tables import check_output

    named = [path for path in paths if path is not None]
    for path in named:
        check_output(path, overwrite)
    if len({path.resolve() for path in named}) < len(named):
        raise UsageError(f"--output and --yearly are the same file, {named[0]}; name two")


def _write(rows: pd.DataFrame, path: Path | None, table: pd.DataFrame, **how: Any) -> None:
    from gee_polygons.tables import write_table

    if path is not None:
        rows.attrs["provenance"] = table.attrs.get("provenance", {})
        write_table(rows, path, **how)


def _check_names(table: pd.DataFrame, **options: tuple[str, ...] | None) -> None:
    """Raise if an option names a site that the table doesn't have."""
    if "site_id" not in table.columns:
        return  # reported by the function that reads the table
    known = set(table["site_id"].astype(str))
    for option, names in options.items():
        unknown = [name for name in names or () if name not in known]
        if unknown:
            raise UsageError(f"--{option}: site {unknown[0]!r} is not among the table's {len(known)} sites")


def _counted(values: pd.Series[Any]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in values.value_counts().items())


@click.command(epilog=_TABLE_HELP, short_help="Test which sites changed, when, and towards what.")
@_table
@_sites
@_controls
@click.option(
    "--background",
    type=click.Choice(["controls", "all", "none"]),
    help="Sites from which the change shared by all is estimated.  [default: the controls if any, else all sites]",
)
@click.option(
    "--baseline",
    callback=lambda c, p, v: v and shared.parse_years(c, p, v),
    metavar="YEARS",
    help="Years that sites are compared with.  [default: each site's first]",
)
@shared.share_option("--level", 0.1, "False-discovery rate.")
@click.option(
    "--adjustment",
    type=click.Choice(["BH", "BY"]),
    default="BH",
    show_default=True,
    help="For the number of sites: Benjamini-Hochberg, or Benjamini-Yekutieli (any dependence, finds less).",
)
@click.option(
    "--least-size",
    "least_size_deg",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    metavar="DEG",
    help="Changes below this angle aren't flagged.",
)
@shared.output_option("Table to write, one row per site: .csv, .parquet, .gpkg or .geojson.")
@_yearly
@shared.overwrite_option
@shared.spreadsheet_option
def change(
    *,
    table_path: Path,
    sites_file: shared.SitesFile | None,
    controls: tuple[str, ...] | None,
    background: str | None,
    baseline: tuple[int, ...] | None,
    level: float,
    adjustment: str,
    least_size_deg: float,
    output: Path,
    yearly_path: Path | None,
    overwrite: bool,
    spreadsheet: bool,
) -> None:
    """Test which sites changed more than their background, in which year, and whether the change lasted.

    \b
    Example:
      gee-polygons change outputs/embeddings.parquet --controls c1,c2 -o outputs/change.csv
    """
    _check(overwrite, output, yearly_path)
    from gee_polygons.change.detection import change as find
    from gee_polygons.report.roles import CONTROL_KINDS, check_shared, of_kind, prototypes_of

    table, sites = _read(table_path, sites_file)
    _check_names(table, controls=controls)
    if sites is not None:
        check_shared(table, sites)
    named = of_kind(table, sites, CONTROL_KINDS, controls)
    if background == "controls" and not named:
        raise UsageError("there are no controls: name them with --controls, or give --sites with a property kind")
    chosen: Any = {"none": None, "all": "all"}.get(background or "", named or "all")
    found = find(
        table,
        baseline=None if baseline is None else list(baseline),
        background=chosen,
        level=level,
        adjustment=adjustment,
        least_size_deg=least_size_deg,
        prototypes=prototypes_of(table, sites),
    )
    _write(found.sites, output, table, overwrite=overwrite, spreadsheet=spreadsheet)
    _write(found.yearly, yearly_path, table, overwrite=overwrite, spreadsheet=spreadsheet)
    kinds = _counted(found.sites["kind"].replace("none", "without a detectable change"))
    click.echo(f"{output}: {shared.count(len(found.sites), 'site')}: {kinds}")
    events = int(found.sites["event"].sum()) if "event" in found.sites else 0
    if events:
        click.echo(f"{shared.count(events, 'site')} with a single year unlike those around it (column event)")
    held = "" if found.is_guaranteed else ", not guaranteed: name ten or more control sites that didn't change"
    click.echo(
        f"background: {found.background}; at most {level:.0%} of the flagged sites are expected to be false{held}"
    )


@click.command(epilog=_TABLE_HELP, short_help="Measure recovery towards reference sites.")
@_table
@shared.sites_parameter(
    click.option(
        "--sites",
        "sites_path",
        type=shared.PATH,
        required=True,
        help="File of the sites, with start years, and kind (reference, control, degraded) if ids aren't given.",
    )
)
@_references
@_controls
@click.option(
    "--degraded",
    callback=shared.parse_names,
    metavar="IDS",
    help="Degraded sites that stand in for the past of sites without data before their start year.",
)
@shared.share_option("--confidence", 0.9, "Confidence level of the uncertainty bands.")
@shared.output_option("Table to write, one row per restoration site: .csv, .parquet, .gpkg or .geojson.")
@_yearly
@shared.overwrite_option
@shared.spreadsheet_option
def recovery(
    *,
    table_path: Path,
    sites_file: shared.SitesFile,
    references: tuple[str, ...] | None,
    controls: tuple[str, ...] | None,
    degraded: tuple[str, ...] | None,
    confidence: float,
    output: Path,
    yearly_path: Path | None,
    overwrite: bool,
    spreadsheet: bool,
) -> None:
    """Measure how far restoration sites have recovered towards reference sites, with an uncertainty band.

    \b
    Example:
      gee-polygons recovery outputs/embeddings.parquet --sites sites.geojson --references r1,r2 -o outputs/recovery.csv
    """
    _check(overwrite, output, yearly_path)
    from gee_polygons.recovery.estimation import recovery as find
    from gee_polygons.report.roles import CONTROL_KINDS, REFERENCE_KINDS, check_shared, of_kind

    table, sites = _read(table_path, sites_file)
    _check_names(table, references=references, controls=controls, degraded=degraded)
    check_shared(table, sites)
    targets = of_kind(table, sites, REFERENCE_KINDS, references)
    if not targets:
        raise UsageError("there are no reference sites: name them with --references, or give sites of kind 'reference'")
    stand_ins = of_kind(table, sites, ("degraded",), degraded)
    found = find(
        table,
        references=targets,
        start_years=sites,
        background=of_kind(table, sites, CONTROL_KINDS, controls) or "references",
        degraded=stand_ins or None,
        confidence=confidence,
    )
    _write(found.sites, output, table, overwrite=overwrite, spreadsheet=spreadsheet)
    _write(found.yearly, yearly_path, table, overwrite=overwrite, spreadsheet=spreadsheet)
    click.echo(f"{output}: {shared.count(len(found.sites), 'site')}: {_counted(found.sites['group'])}")
    click.echo(
        f"towards {shared.count(len(targets), 'reference site')}; shared yearly changes removed: {found.background}"
    )


@click.command(epilog=f"{_TABLE_HELP} {shared.SITES_HELP}", short_help="Write an HTML report of change and recovery.")
@_table
@_sites
@click.option("--source", metavar="SOURCE", help="Where pictures are read from.  [default: no pictures]")
@_references
@_controls
@click.option(
    "--pictures",
    callback=shared.parse_names,
    metavar="IDS",
    help="Sites to picture, or all, or none.  [default: 12 to visit]",
)
@shared.share_option("--level", 0.1, "False-discovery rate.")
@click.option("--title", help="Heading of the page.  [default: Did it work?]")
@shared.choice_option("--language", ["en", "pt"], "Of the page: en or pt.")
@shared.output_option("Page to write: .html.")
@shared.overwrite_option
def report(
    *, table_path: Path, sites_file: shared.SitesFile | None, references: tuple[str, ...] | None,
    controls: tuple[str, ...] | None, pictures: tuple[str, ...] | None, output: Path, overwrite: bool, **options: Any,
) -> None:  # fmt: skip
    """Write one self-contained page: change and recovery of every site, with a stated uncertainty.

    \b
    Example:
      gee-polygons report outputs/embeddings.parquet --sites data/sample_sites.geojson -o outputs/report.html
    """
    from gee_polygons.report import check_references, check_report, write_report

    check_report(output, overwrite)  # before the long work
    check_references(references, sites_file and sites_file.path)
    table, sites = _read(table_path, sites_file)
    _check_names(table, references=references, controls=controls)
    chosen: str | tuple[str, ...] = "auto" if pictures is None else pictures
    if chosen in (("all",), ("none",)):
        chosen = chosen[0]
    write_report(
        table, output, sites=sites, references=references, controls=controls, pictures=chosen,
        progress=shared.on_terminal(), overwrite=overwrite, **options,
        files={"table": table_path.name} | ({} if sites_file is None else {"sites": sites_file.path.name}),
    )  # fmt: skip
    click.echo(f"{output}: {shared.count(table['site_id'].nunique(), 'site')}, {output.stat().st_size / 1e6:.2g} MB")

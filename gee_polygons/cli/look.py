"""The commands `render`, `similarity` and `audit`."""

from __future__ import annotations

import itertools
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gee_polygons.cli import shared
from gee_polygons.errors import DataWarning, OutputError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from gee_polygons.reduction.plan import Source
    from gee_polygons.site import Site, SiteCollection
    from gee_polygons.visualize.pictures.styles import Style

OUTPUTS: Final = Path("outputs")
MAX_PICTURED: Final = 40  # sites of one sheet
_MOST_PRINTED: Final = 100  # rows of a matrix
_ANIMATION: Final = (".gif", ".webp", ".mp4")
_STILL: Final = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
_BASIS: Final = ".pca.json"  # beside a picture in colours of principal components


@click.command(epilog=shared.SITES_HELP, short_help="Draw sites, year by year.")
@shared.with_sites
@shared.years_option
@shared.source_option
@click.option(
    "--site", "site_ids", multiple=True, metavar="ID", help="Draw this site; may be repeated.  [default: all]"
)
@click.option("--pca", is_flag=True, help="Colour by three principal components.  [default]")
@click.option(
    "--colors", type=shared.PATH, metavar="FILE", help="Colour as another picture: its .pca.json, written beside it."
)
@click.option("--bands", callback=shared.parse_names, metavar="NAMES", help="Red, green, blue, such as A01,A16,A09.")
@click.option(
    "--similarity-to",
    metavar="ID",
    help="Colour by the cosine of each pixel to the mean of this site, which may be the site drawn.",
)
@click.option("--reference-year", type=int, metavar="YEAR", help="Year of that mean.  [default: its first with data]")
@click.option("--min", "low", type=float, help="Value drawn as darkest.  [default: bands -0.3; cosine 0]")
@click.option("--max", "high", type=float, help="Value drawn as brightest.  [default: bands 0.3; cosine 1]")
@click.option(
    "--buffer-m",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Surroundings to draw, in m.",
)
@click.option("--columns", type=click.IntRange(1), metavar="N", help="Frames in a row.  [default: up to 8]")
@click.option("--width-mm", type=float, metavar="MM", help="Width on paper.  [default: 180; fewer frames, less]")
@click.option("--dpi", type=float, help="Pixels per inch of paper.  [default: 300; animation 150]")
@click.option(
    "--dimensions", type=click.IntRange(16, 4096), help="Longer side of a frame in pixels, in place of --dpi."
)
@click.option("--title", help="Text above the frames.  [default: the site's id]")
@click.option("--boundary-color", default="white", show_default=True, help="Name or hex.")
@shared.output_option(
    "One site: .png, .jpg, .pdf, .svg (a strip), .gif, .webp, .mp4 (an animation). Several: a sheet of sites and "
    "years.  [default: a new file in outputs/: ID.png, ID-2.png, ..., or sites.png]",
    required=False,
)
@shared.overwrite_option
def render(
    *,
    sites_file: shared.SitesFile,
    years: tuple[int, ...],
    source: str | None,
    site_ids: tuple[str, ...],
    pca: bool,
    colors: Path | None,
    bands: tuple[str, ...] | None,
    similarity_to: str | None,
    reference_year: int | None,
    low: float | None,
    high: float | None,
    columns: int | None,
    output: Path | None,
    overwrite: bool,
    **drawn: Any,
) -> None:
    """Draw sites year by year, in the same colours: a strip, an animation, or a sheet of several sites.

    The principal components are fitted once to everything drawn, and written beside the picture as NAME.pca.json.
    A file named with -o is replaced only with --overwrite; without -o each picture gets a name of its own.

    \b
    Example:
      gee-polygons render sites.geojson --years 2018-2024 --site 3107
      gee-polygons render sites.geojson --years 2018-2024 --site 3107 \\
          --colors outputs/3107.pca.json -o outputs/3107.gif
      gee-polygons render sites.geojson --years 2024 --columns 4 -o sheet.pdf
    """
    if sum((bands is not None, pca, colors is not None, similarity_to is not None)) > 1:
        raise UsageError("--pca, --colors, --bands and --similarity-to exclude each other; give one")
    if reference_year is not None and similarity_to is None:
        raise UsageError("--reference-year goes with --similarity-to ID")
    if not (low is None and high is None) and bands is None and similarity_to is None:
        raise UsageError("--min and --max are for --bands and --similarity-to; other colours have no range")
    from gee_polygons.embeddings.colors import PcaColors
    from gee_polygons.sources.opening import open_source

    style: Any = "pca" if colors is None else PcaColors.load(colors)
    sites = sites_file.load()
    chosen = [sites[site_id] for site_id in dict.fromkeys(site_ids)] if site_ids else list(sites)
    if len(chosen) > MAX_PICTURED:
        raise UsageError(f"{len(chosen)} sites don't fit a sheet (at most {MAX_PICTURED}); choose with --site ID")
    several = len(chosen) != 1
    is_fitted = style == "pca" and bands is None and similarity_to is None
    name = "sites" if several else str(chosen[0].site_id)
    path = _output(output, name, _STILL if several else (*_STILL, *_ANIMATION), overwrite)
    basis = path.with_suffix(_BASIS)
    if is_fitted and basis.exists() and not overwrite:
        raise OutputError(
            f"{basis} exists already; use its colours with --colors {basis}, name another picture with -o, or allow "
            "overwriting (--overwrite)"
        )
    opened = open_source(source)
    if bands is not None:
        style = _bands_style(bands, low, high)
    if similarity_to is not None:
        style = _similarity_style(sites, similarity_to, reference_year, years, opened, low, high)
    common = {"years": years, "source": opened, "vis_params": style, **drawn}
    click.echo(shared.near(_draw(chosen, path, columns, common).absolute()))


def _draw(chosen: list[Site], path: Path, columns: int | None, common: dict[str, Any]) -> Path:
    from gee_polygons.visualize import contact_sheet, export_timelapse, export_timestrip

    if len(chosen) != 1:
        return contact_sheet(chosen, path, columns=columns, **common)
    if path.suffix.lower() in _ANIMATION:
        return export_timelapse(chosen[0], path, **common)
    return export_timestrip(chosen[0], path, columns=columns, **common)


def _bands_style(bands: tuple[str, ...] | None, low: float | None, high: float | None) -> Style:
    from gee_polygons.visualize import VisParams

    given = {"bands": bands, "min": low, "max": high}
    return VisParams(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _similarity_style(
    sites: SiteCollection,
    site_id: str,
    year: int | None,
    years: tuple[int, ...],
    source: Source,
    low: float | None,
    high: float | None,
) -> Style:
    """Colours by the cosine to a site's mean in one year."""
    from gee_polygons.extract import extract_embeddings
    from gee_polygons.visualize import SimilarityColors

    chosen = years if year is None else [year]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # an error says so
        table = extract_embeddings(_only(sites, site_id), years=chosen, source=source, progress=False)
    present = table[table["status"] == "ok"]
    if present.empty:
        raise UsageError(f"the site {site_id!r} has no data in {year or 'these years'}; choose another --similarity-to")
    row = present.iloc[0]
    return SimilarityColors(
        reference=row,
        min=0.0 if low is None else low,
        max=1.0 if high is None else high,
        label=f"cosine to {row['site_id']}, {row['year']}",
    )


@click.command(epilog=shared.SITES_HELP, short_help="Compare the years of a site, or the sites of a year.")
@shared.sites_parameter(click.argument("sites_path", metavar="TABLE|SITES", type=shared.PATH))
@shared.optional_years
@shared.source_option
@click.option("--site", "site_id", metavar="ID", help="Compare this site's years.")
@shared.choice_option("--by", ["year", "site"], "What to compare.")
@click.option("--year", type=int, help="The year in which sites are compared (with --by site).")
@shared.choice_option(
    "--kind",
    ["cosine", "dot"],
    "cosine: of unit means (diagonal 1). dot: product of the means as they are (diagonal Rbar^2).",
)
@shared.output_option(
    "Heat map (.png, .jpg, .pdf, .svg) or numbers (.csv).  [default: a new file in outputs/: similarity-ID.png, "
    "similarity-ID-2.png, ...]",
    required=False,
)
@click.option("--dpi", type=click.FloatRange(20, 2400), default=150.0, show_default=True, help="Of a heat map.")
@shared.overwrite_option
@shared.spreadsheet_option
def similarity(
    *,
    sites_file: shared.SitesFile,
    site_id: str | None,
    by: str,
    year: int | None,
    kind: Any,
    output: Path | None,
    overwrite: bool,
    spreadsheet: bool,
    dpi: float,
    **extraction: Any,
) -> None:
    """Compare the years of a site, or the sites of a year: print the similarity matrix (to 100 rows) and draw it.

    \b
    Example:
      gee-polygons similarity embeddings.parquet --site 3107
      gee-polygons similarity sites.geojson --years 2024 --by site
    """
    if by == "site" and site_id is not None:
        raise UsageError("--site goes with --by year; --by site compares all sites of a year")
    name = f"similarity-{site_id or by}"
    output = _output(output, name, (*_STILL, ".csv"), overwrite)
    table = _table_or_sites(sites_file, site_id, **extraction)
    n_sites, n_years = table["site_id"].nunique(), table["year"].nunique()
    if by == "year" and site_id is None and n_sites > 1:
        raise UsageError(
            f"the table holds {n_sites} sites; choose one with --site ID, or compare sites with --by site --year YEAR"
        )
    if by == "site" and year is None and n_years > 1:
        raise UsageError(f"the table holds {n_years} years; choose one with --year YEAR")
    from gee_polygons.embeddings.similarity import similarity_matrix

    matrix = similarity_matrix(table, kind=kind, by=by, site_id=site_id, year=year)  # type: ignore[arg-type]
    if len(matrix) <= _MOST_PRINTED:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        click.echo(matrix.round(3).rename_axis(index=None, columns=None).to_string(line_width=width))
    if output.suffix.lower() == ".csv":
        from gee_polygons.tables import write_table

        named = matrix.rename_axis(index="site_id" if by == "site" else by, columns=None).reset_index()
        write_table(named, output, overwrite=overwrite, spreadsheet=spreadsheet)
    else:
        from gee_polygons.visualize import plot_similarity_matrix, save_plot

        what = str(site_id or year or "")
        ax = plot_similarity_matrix(matrix, title=f"{what}: {kind} between {by}s".lstrip(": "))
        save_plot(ax, output, dpi=dpi)
    click.echo(shared.near(output.absolute()))


def _table_or_sites(
    sites_file: shared.SitesFile, site_id: str | None, *, years: Any, source: str | None
) -> pd.DataFrame:
    from gee_polygons.tables import SUFFIXES, read_table

    path = sites_file.path
    if path.suffix.lower() in SUFFIXES:
        table = read_table(path)
        if any(str(name).startswith("A0") for name in table.columns) or (
            path.suffix.lower() == ".csv" and years is None
        ):
            missing = [name for name in ("site_id", "year") if name not in table.columns]
            if missing:
                raise UsageError(f"{path} has no column {missing[0]!r}; a table of `gee-polygons extract` has")
            return table
    if years is None:
        raise UsageError(f"{path} is a file of sites: --years is needed, such as --years 2018-2024")
    from gee_polygons.extract import extract_embeddings

    sites = sites_file.load()
    if site_id is not None:
        sites = _only(sites, site_id)
    return extract_embeddings(sites, years=years, source=source, progress=shared.on_terminal())


@click.command(short_help="Check a table of embeddings for errors.")
@click.argument("table", metavar="TABLE", type=shared.PATH)
@click.option("--reference", type=shared.PATH, help="A trusted table with some of the same rows.")
@shared.json_option
def audit(*, table: Path, reference: Path | None, as_json: bool) -> int:
    """Check a table of embeddings for errors; any .parquet or .csv table, not only this package's.

    Vectors are found in A00..A63, in 64 columns of another name, or in a column of lists. The report also says what
    this table can't show. Exit status: 0 nothing was found, 1 errors or warnings were found, 2 the call is wrong.

    \b
    Example:
      gee-polygons audit embeddings.parquet
      gee-polygons audit theirs.csv --reference ours.parquet
    """
    from gee_polygons.audit import audit as look

    report = look(table, reference)
    if as_json:
        names = ("n_rows", "n_without_data", "vectors", "verdict", "is_clean", "checked", "not_checked")
        findings = report.to_frame().to_dict("records")
        shared.print_json({"table": str(table), **{n: getattr(report, n) for n in names}, "findings": findings})
    else:
        click.echo(f"{table}\n{report}")
    return shared.EXIT_DATA if report.findings else 0


def _only(sites: SiteCollection, site_id: str) -> SiteCollection:
    """Return a collection of one site."""
    at = list(sites.site_ids).index(sites[site_id].site_id)
    return sites[at : at + 1]


def _output(output: Path | None, name: str, suffixes: tuple[str, ...], overwrite: bool) -> Path:
    """Return the path to write to, checked before the long work: `output`, else a file in `outputs`.

    A name that was chosen here is numbered where it is taken.
    """
    if output is None:
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        names = (OUTPUTS / f"{safe}{'' if number == 1 else f'-{number}'}.png" for number in itertools.count(1))
        return next(p for p in names if overwrite or not (p.exists() or p.with_suffix(_BASIS).exists()))
    if output.suffix.lower() not in suffixes:
        raise UsageError(f"can't write {str(output)!r}: the name must end in {', '.join(dict.fromkeys(suffixes))}")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists already; name another file with -o, or allow overwriting (--overwrite)")
    return output

"""Options, parsers and output functions shared by the commands."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gee_polygons.cli.messages import say
from gee_polygons.progress import report_stage

if TYPE_CHECKING:
    from gee_polygons.site import SiteCollection

EXIT_DATA: Final = 1
MAX_YEARS: Final = 200  # in one range; more is taken for a typing error


def parse_years(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Read 2018-2024, 2018,2020 or 2019, or a mixture; ascending and unique in the result."""
    years: set[int] = set()
    for part in value.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        last = last if dash else first
        if not all(len(year) == 4 and year.isascii() and year.isdigit() for year in (first, last)):
            raise click.BadParameter(f"{part.strip()!r} is not a year; write 2018-2024, or 2018,2020, or 2019.")
        if int(first) > int(last):
            raise click.BadParameter(f"{part.strip()} runs backwards; write {last}-{first}.")
        if int(last) - int(first) >= MAX_YEARS:
            raise click.BadParameter(f"{part.strip()} is more than {MAX_YEARS} years.")
        years.update(range(int(first), int(last) + 1))
    return tuple(sorted(years))


def parse_source(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Start an Earth Engine session if ``--source earthengine`` was typed.

    The setting GEE_POLYGONS_SOURCE doesn't start one: it may have been made long ago.
    """
    if value == "earthengine":
        from gee_polygons.sources.earthengine.session import connect

        connect()
    return value


def parse_names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Read names with commas between them."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} has an empty name in it; write NAME or NAME,NAME.")
    return names


SITES_HELP = (
    "SITES is any file of polygons that geopandas reads: GeoJSON, GeoPackage, Shapefile, KML, KMZ, FlatGeobuf, "
    "GeoParquet, CSV with WKT in a column `geometry`, or a ZIP file of these."
)
SOURCE_HELP = (
    "A name or a path that `gee-polygons sources` lists; `auto` (extract only) uses the cheapest. `earthengine` "
    "starts a session with the credentials that `earthengine authenticate` stored and the project $EE_PROJECT.  "
    "[default: $GEE_POLYGONS_SOURCE, else source-coop]"
)

years_option = click.option(
    "--years", callback=parse_years, required=True, metavar="YEARS", help="2018-2024, or 2018,2020, or 2019."
)
optional_years = click.option(
    "--years", callback=lambda c, p, v: v and parse_years(c, p, v), metavar="YEARS", help="Required for SITES."
)
source_option = click.option("--source", callback=parse_source, metavar="SOURCE", help=SOURCE_HELP)
SITES_OPTIONS: Final = (
    click.option("--layer", help="Layer of a file of sites with several, or the file in a ZIP file."),
    click.option("--id-column", help="Column of the site ids.  [default: site_id, rid, id, fid, else the row number]"),
    click.option("--start-year", "start_year_column", metavar="COLUMN", help="Years or dates.  [default: start_year]"),
    click.option("--crs", help="CRS of the sites if their file states none, such as EPSG:4326."),
    click.option(
        "--skip-invalid", is_flag=True, help="Leave out rows that can't be sites, list them in a file, exit with 1."
    ),
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
spreadsheet_option = click.option(
    "--spreadsheet", is_flag=True, help="In a .csv, put ' before texts that a spreadsheet would compute: =, +, -, @."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
PATH: Final = click.Path(path_type=Path)


def output_option(what: str, *, required: bool = True) -> Callable[[Any], Any]:
    """Return the option -o for a file to write."""
    return click.option("-o", "--output", type=PATH, required=required, help=what)


def share_option(name: str, default: float, what: str) -> Callable[[Any], Any]:
    """Return an option that is a number between 0 and 1, both excluded."""
    return click.option(name, type=click.FloatRange(0, 1, True, True), default=default, show_default=True, help=what)


def choice_option(name: str, choices: Sequence[str], what: str) -> Callable[[Any], Any]:
    """Return an option that is one of some words, the first by default."""
    return click.option(name, type=click.Choice(choices), default=choices[0], show_default=True, help=what)


@dataclass
class SitesFile:
    """A file of sites, and the options that say how it is read."""

    path: Path
    options: dict[str, Any]
    refused_path: Path  # written with --skip-invalid
    spreadsheet: bool = False
    has_refused: bool = False

    def load(self) -> SiteCollection:
        """Read the file; with ``--skip-invalid``, write the rows that were refused to `refused_path`."""
        with report_stage(on_terminal(), f"reading {self.path.name}"):
            from gee_polygons.site.collection import collected
            from gee_polygons.site.files import read_sites

            found = read_sites(self.path, **self.options)
            sites = collected(found, where=str(self.path))
        if found.refused:
            import pandas as pd

            from gee_polygons.store.atomic import replacing
            from gee_polygons.tables import spreadsheet_cell

            self.has_refused = True
            rows = [(row, "" if site_id is None else site_id, why) for row, (site_id, why) in found.refused.items()]
            listed = pd.DataFrame(rows, columns=["row", "site_id", "reason"])
            with replacing(self.refused_path) as part:
                (listed.map(spreadsheet_cell) if self.spreadsheet else listed).to_csv(part, index=False)
            say(f"{count(len(rows), 'row')} left out, {count(len(sites), 'site')} kept: see {self.refused_path}")
        return sites


def sites_parameter(parameter: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give a command a parameter ``sites_path`` and the options of a file of sites, as one `sites_file`.

    `sites_file` is None where no path is given. The rows that ``--skip-invalid`` refuses are written beside the output,
    and make the exit status 1.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapped(*, sites_path: Path | None, **options: Any) -> Any:
            names = ("layer", "id_column", "start_year_column", "crs", "skip_invalid")
            reading = {name: options.pop(name) for name in names}
            if sites_path is None:
                return command(sites_file=None, **options)
            folder = (options.get("output") or options.get("out") or Path()).parent
            refused_path = folder / f"{sites_path.stem}.refused.csv"
            sites_file = SitesFile(sites_path, reading, refused_path, options.get("spreadsheet", False))
            status = command(sites_file=sites_file, **options)
            return max(status or 0, EXIT_DATA) if sites_file.has_refused else status

        for option in reversed((parameter, *SITES_OPTIONS)):
            wrapped = option(wrapped)
        return wrapped

    return decorate


with_sites = sites_parameter(click.argument("sites_path", metavar="SITES", type=PATH))


def print_facts(*facts: tuple[str, object]) -> None:
    """Print names and values, one pair a line, values aligned."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        click.echo(f"{name:<{width}}  {value}")


def print_json(content: Any) -> None:
    """Print what ``--json`` asks for; numbers that aren't finite become null."""
    import json

    from gee_polygons.site.values import plain

    click.echo(json.dumps(plain(content), indent=2, ensure_ascii=False))


def near(path: Path) -> Path:
    """Return a path relative to the current folder if it lies below it, else as it is."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def count(n: int, what: str) -> str:
    """Write a number of things: 1 row, 2 rows."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def on_terminal() -> bool:
    """Whether standard error is a terminal: only then is a progress bar shown."""
    return sys.stderr.isatty()

"""Options, parsers and output functions shared by the commands."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

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
    "SITES is any file of polygons that geopandas reads: GeoJSON, GeoPackage, Shapefile, FlatGeobuf, GeoParquet."
)
SOURCE_HELP = (
    "A name or a path that `gee-polygons sources` lists; `auto` (extract only) uses the cheapest. `earthengine` "
    "starts a session with the credentials that ee.Authenticate() stored and the project $EE_PROJECT.  "
    "[default: $GEE_POLYGONS_SOURCE, else source-coop]"
)

years_option = click.option(
    "--years", callback=parse_years, required=True, metavar="YEARS", help="2018-2024, or 2018,2020, or 2019."
)
optional_years = click.option(
    "--years", callback=lambda c, p, v: v and parse_years(c, p, v), metavar="YEARS", help="Required for SITES."
)
source_option = click.option("--source", callback=parse_source, metavar="SOURCE", help=SOURCE_HELP)
id_column_option = click.option(
    "--id-column", help="Column of the site ids.  [default: site_id, rid, id, fid, else the row number]"
)
crs_option = click.option("--crs", help="CRS of SITES if the file states none, such as EPSG:4326.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
spreadsheet_option = click.option(
    "--spreadsheet", is_flag=True, help="In a .csv, put ' before texts that a spreadsheet would compute: =, +, -, @."
)
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


@dataclass(frozen=True)
class SitesFile:
    """The argument SITES and the options that say how it is read."""

    path: Path
    id_column: str | None = None
    crs: str | None = None

    def load(self) -> SiteCollection:
        """Read the file; errors name options of the command line instead of Python arguments."""
        from gee_polygons.errors import SiteError, UsageError
        from gee_polygons.site import load_sites

        try:
            return load_sites(self.path, id_column=self.id_column, crs=self.crs)
        except (SiteError, UsageError) as error:
            text = str(error).replace("id_column=", "--id-column")
            text = re.sub(r'crs=, for example crs="([^"]*)"', r"--crs, for example --crs \1", text)
            raise type(error)(text) from error


def with_sites(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument SITES and its options, as one `SitesFile` named ``sites_file``."""

    @click.argument("sites_path", metavar="SITES", type=PATH)
    @id_column_option
    @crs_option
    @functools.wraps(command)
    def wrapped(*, sites_path: Path, id_column: str | None, crs: str | None, **options: Any) -> Any:
        return command(sites_file=SitesFile(sites_path, id_column, crs), **options)

    return wrapped


def print_facts(*facts: tuple[str, object]) -> None:
    """Print names and values, one pair a line, values aligned."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        click.echo(f"{name:<{width}}  {value}")


def near(path: Path) -> Path:
    """Return a path relative to the current folder if it lies below it, else as it is."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def count(n: int, what: str) -> str:
    """Write a number of things: 1 row, 2 rows."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def on_terminal() -> bool:
    """Whether standard error is a terminal: only then is a progress bar shown."""
    return sys.stderr.isatty()


def say(line: str) -> None:
    """Write a message as one line to standard error, above the progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(" ".join(part.strip() for part in line.splitlines()), file=sys.stderr)

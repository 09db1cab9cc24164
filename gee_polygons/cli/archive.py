"""The commands `download`, `index` and `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gee_polygons.cli import shared
from gee_polygons.errors import UsageError

if TYPE_CHECKING:
    from gee_polygons.collection.catalogue import Dataset
    from gee_polygons.collection.tiles import Collection


def _parse_bbox(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Read WEST,SOUTH,EAST,NORTH."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise click.BadParameter(f"{value!r} is not WEST,SOUTH,EAST,NORTH in degrees, such as 11.3,-0.1,11.5,0.1.")
    return numbers


def _parse_pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """Read OLD=NEW, repeated, in the form that the option's metavar shows."""
    pairs = [text.partition("=") for text in value]
    if any(not old or not new for old, _, new in pairs):
        example = {"THEIRS=OURS": "acquired=datetime", "FROM=TO": "s3://bucket/=https://mirror.example/"}
        form = param.make_metavar(ctx)
        raise click.BadParameter(f"write {form}, such as {example[form]}.")
    return {old: new for old, _, new in pairs}


@click.command(epilog=shared.SITES_HELP, short_help="Copy the pixels of sites, to work offline.")
@shared.with_sites
@shared.years_option
@shared.source_option
@click.option("-o", "--out", type=shared.PATH, required=True, help="Folder: new, or of an interrupted run.")
@shared.choice_option(
    "--format", ["archive", "tif", "npy"], "An archive, or one file per site. Either can be given as --source."
)
def download(
    *, sites_file: shared.SitesFile, years: tuple[int, ...], source: str | None, out: Path, format: str
) -> None:
    """Copy the pixels of sites to work offline. Run it again to continue an interrupted download.

    \b
    Example:
      gee-polygons download sites.geojson --years 2018-2024 --source source-coop -o copy
      gee-polygons extract sites.geojson --years 2018-2024 --source copy -o t.parquet
    """
    from gee_polygons.collection.download import download as copy
    from gee_polygons.sources.cog.source import CogSource
    from gee_polygons.sources.opening import open_source

    sites = sites_file.load()
    opened = open_source(source)
    if not isinstance(opened, CogSource):
        raise UsageError(f"{opened.name}: only an archive of COG tiles can be downloaded; give its index as --source")
    found = copy(sites, years, out, source=opened, format=format)
    files = [path for path in out.rglob("*") if path.suffix in (".tiff", ".tif", ".npy")]
    size = sum(path.stat().st_size for path in files) / 1e6
    click.echo(f"{found}: {len(files):,} files, {size:,.1f} MB")


@click.group(name="index", short_help="Build or describe an index of tiles.")
def index() -> None:
    """Build or describe a collection: an index of tiles with their headers."""


@index.command(short_help="Write an index of tiles with their headers.")
@click.argument("dataset", default="aef/v1-annual")
@click.option("--bbox", callback=_parse_bbox, metavar="W,S,E,N", help="Degrees.  [default: everywhere]")
@click.option("--from", "first", metavar="DATE", help="2018, 2018-06 or 2018-06-01.")
@click.option("--to", "last", metavar="DATE", help="2024, 2024-12 or 2024-12-31; included.")
@click.option("--index", "source", metavar="INDEX", help="Path or URL of the list of tiles.  [default: the dataset's]")
@click.option("--url-rewrite", multiple=True, callback=_parse_pairs, metavar="FROM=TO", help="Read from a mirror.")
@shared.output_option("File to write.  [default: in the cache folder]", required=False)
@shared.overwrite_option
def build(
    *, dataset: str, first: str | None, last: str | None, output: Path | None, overwrite: bool, **options: Any
) -> None:
    """Write an index of the tiles of DATASET, headers included. The file can be given as --source.

    \b
    Example:
      gee-polygons index build aef/v1-annual --bbox=-48.05,-22.36,-48,-22.34 --from 2023 --to 2023 -o aef.parquet
    """
    from gee_polygons.collection import build as build_collection

    dates = None if first is None and last is None else _dates(first, last)
    _describe(build_collection(dataset, date_range=dates, path=output, force=overwrite, **options))


def _dates(first: str | None, last: str | None) -> tuple[Any, Any]:
    """Return the period of --from and --to, each a year, month, day or None for no limit."""
    from gee_polygons.periods import MAX_YEAR, MIN_YEAR, parse_dates

    try:
        return parse_dates(first or MIN_YEAR, last or MAX_YEAR)
    except UsageError as error:
        raise UsageError(str(error).replace("start_date", "--from").replace("end_date", "--to")) from error


@index.command(short_help="Describe an index.")
@click.argument("place", metavar="INDEX")
def info(*, place: str) -> None:
    """Describe INDEX: the file or name of a collection, a published index, or the name of a dataset.

    \b
    Example:
      gee-polygons index info aef.parquet
    """
    from gee_polygons.collection import load as load_collection

    _describe(load_collection(place))


def _describe(found: Collection) -> None:
    years = found.years
    table = found.to_table()
    sides = [table[f"wgs84_{side}"].to_numpy() for side in ("west", "south", "east", "north")]
    west, south, east, north = sides[0].min(), sides[1].min(), sides[2].max(), sides[3].max()
    headers = "header" in table.column_names
    shared.print_facts(
        ("index", found.place),
        ("dataset", found.dataset.id or "-"),
        ("tiles", f"{table.num_rows:,}"),
        ("years", f"{years[0]}-{years[-1]} ({len(years)})"),
        ("zones", ", ".join(sorted(set(table["crs"].to_pylist()))[:10])),
        ("bbox", f"{west:.4f},{south:.4f},{east:.4f},{north:.4f}"),
        ("headers", "included" if headers else "not included"),
    )


@click.group(name="datasets", short_help="List, describe or register datasets.")
def datasets() -> None:
    """List, describe or register datasets that an index can be built of."""


@datasets.command(name="list", short_help="List the catalogue.")
@shared.json_option
def list_(*, as_json: bool) -> None:
    """List the catalogue.

    \b
    Example:
      gee-polygons datasets list
    """
    from gee_polygons.collection import datasets as catalogue

    if as_json:
        shared.print_json({name: entry.as_dict() for name, entry in catalogue().items()})
        return
    for name, entry in catalogue().items():
        click.echo(f"{name:<22} {entry.title}")


@datasets.command(name="info", short_help="Describe a dataset.")
@click.argument("name")
@shared.json_option
def dataset_info(*, name: str, as_json: bool) -> None:
    """Describe the dataset NAME.

    \b
    Example:
      gee-polygons datasets info aef/v1-annual
    """
    from gee_polygons.collection import dataset

    if as_json:
        shared.print_json(dataset(name).as_dict())
    else:
        _describe_dataset(dataset(name))


@datasets.command(name="register", short_help="Add a dataset of your own.")
@click.argument("name")
@click.option("--index", required=True, metavar="INDEX", help="Path or URL of its list of tiles.")
@click.option("--title", default="", help="One-line description.")
@click.option("--embeddings", is_flag=True, help="Its tiles hold AlphaEarth codes: 64 bands of int8.")
@click.option(
    "--bands",
    callback=shared.parse_names,
    metavar="NAMES",
    help="Band names, in the order of a file's bands.  [default: the items' assets]",
)
@click.option("--dtype", default="", metavar="TYPE", help="uint16, float32...  [default: as each file says]")
@click.option("--nodata", type=float, help="Value of pixels without data, for files that don't state it.")
@click.option("--by-day", is_flag=True, help="Images are identified by day instead of by year.")
@click.option("--href-column", default="", metavar="NAME", help="Column with paths or URLs.  [default: the usual ones]")
@click.option(
    "--column", "columns", multiple=True, callback=_parse_pairs, metavar="THEIRS=OURS", help="Rename. Repeatable."
)
@click.option("--url-rewrite", multiple=True, callback=_parse_pairs, metavar="FROM=TO", help="Read from a mirror.")
@click.option("--licence", default="", help="Licence of the data.")
@click.option("--attribution", default="", help="Who must be credited.")
def register_dataset(
    *,
    name: str,
    index: str,
    embeddings: bool,
    bands: tuple[str, ...] | None,
    dtype: str,
    nodata: float | None,
    by_day: bool,
    columns: dict[str, str],
    **more: Any,
) -> None:
    """Add or replace a dataset of your own, for `index build NAME` and the Python functions build and load.

    \b
    Example:
      gee-polygons datasets register mine --index copy/v1/annual/aef_index.parquet --embeddings
      gee-polygons datasets register s2 --index items.parquet --by-day --dtype uint16 --nodata 0
    """
    import numpy as np

    from gee_polygons.collection import Dataset, dataset, register
    from gee_polygons.network.places import local_path

    if embeddings and (bands or dtype or nodata is not None):
        raise click.UsageError("--embeddings sets bands, type and nodata; leave --bands, --dtype and --nodata out.")
    content: dict[str, Any] = {"bands": bands or (), "dtype": dtype, "nodata": nodata}
    if embeddings:
        like = dataset("aef/v1-annual")
        content = {"bands": like.bands, "dtype": like.dtype, "nodata": like.nodata}
    elif dtype:
        try:
            content["dtype"] = np.dtype(dtype).name
        except TypeError:
            raise click.BadParameter(f"{dtype!r} is not a pixel type; write uint8, int16, float32...") from None
    if len(set(content["bands"])) != len(content["bands"]):
        raise click.UsageError(f"--bands names each band once, found {','.join(content['bands'])}.")
    entry = Dataset(id=name, index=index, annual=not by_day, column_map=columns, **content, **more)
    if local_path(index) is not None:  # a remote one is checked when the collection is built
        _check_list(index, entry)
    _describe_dataset(register(entry))


def _check_list(index: str, entry: Dataset) -> None:
    """Read the index once, so that a wrong file is reported now and not when the collection is built."""
    from gee_polygons.sources.cog.columns import canonical
    from gee_polygons.sources.cog.records import read_records

    canonical(
        read_records(index), place=index, column_map=entry.column_map or None, href_column=entry.href_column or None
    )


def _describe_dataset(entry: Dataset) -> None:
    from gee_polygons.network.places import hide_query

    bands = f"{entry.bands[0]}..{entry.bands[-1]} ({len(entry.bands)})" if entry.bands else "the items' assets"
    shared.print_facts(
        ("dataset", entry.id),
        ("what", entry.title),
        ("index", hide_query(entry.index)),
        ("bands", bands),
        ("type", entry.dtype or "as each file says"),
        ("nodata", "as each file says" if entry.nodata is None else f"{entry.nodata:g}"),
        ("licence", entry.licence or "-"),
        ("credit", entry.attribution or "-"),
    )

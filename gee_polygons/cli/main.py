"""The `gee-polygons` command.

Results go to standard output; messages and the progress bar (on a terminal only) go to standard error.
Exit status: 0 done; 1 the data is wrong, or a read failed; 2 the call is wrong; 130 interrupted. Slow imports happen
inside the command that needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from click.core import ParameterSource

from gee_polygons.cli import bulk, shared
from gee_polygons.cli.archive import datasets, download, index
from gee_polygons.cli.change import change, recovery, report
from gee_polygons.cli.costs import plan
from gee_polygons.cli.look import audit, render, similarity
from gee_polygons.cli.messages import say, shown_messages
from gee_polygons.cli.probe import probe
from gee_polygons.errors import GeePolygonsError
from gee_polygons.progress import heeding_interrupts, report_stage
from gee_polygons.version import package_version

if TYPE_CHECKING:
    import pandas as pd

EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
MAX_SHOWN: Final = 20  # failures that are shown one by one


class _Commands(click.Group):
    """A command group that prints each error as one line, without a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            status = super().main(args, prog_name, complete_var, False, **extra)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx is not None else "gee-polygons"
            _fail(f"{error.format_message()} See '{command} --help'.", EXIT_USAGE)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except click.Abort:
            _fail("interrupted; no incomplete file was written", EXIT_INTERRUPTED)
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        with shown_messages():
            try:
                with heeding_interrupts(signal.SIGTERM):  # so that temporary files are removed
                    return super().invoke(ctx)
            except GeePolygonsError as error:
                say(f"error: {error}")
                ctx.exit(error.exit_status)
            except KeyboardInterrupt:
                name = ctx.invoked_subcommand or ""
                default = _INTERRUPTED.get(name, "interrupted; no incomplete file was written")
                say(ctx.meta.get("interrupted", default))
                ctx.exit(EXIT_INTERRUPTED)


_INTERRUPTED: Final = {  # messages of the commands that write several files
    "download": "interrupted; run the command again to go on",
    "demo": "interrupted; the outputs are incomplete: run the command again",
}


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_version(), "-V", "--version", prog_name="gee-polygons")
@click.option("-v", "--verbose", is_flag=True, help="Log more of what is done.")
@click.pass_context
def main(ctx: click.Context, verbose: bool) -> None:
    """Polygons in, exact yearly AlphaEarth embeddings out.

    \b
    Example, from nothing and without an account:
      gee-polygons demo

    \b
    Completion of commands and options in bash (zsh, fish: the same with their names):
      eval "$(_GEE_POLYGONS_COMPLETE=bash_source gee-polygons)"
    """
    logging.getLogger("gee_polygons").setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # without a home it explains where it keeps its fonts
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@main.command(epilog=shared.SITES_HELP, short_help="Write a table of yearly embeddings.")
@shared.with_sites
@shared.years_option
@shared.source_option
@click.option(
    "--statistics",
    callback=shared.parse_names,
    default="mean",
    show_default=True,
    metavar="NAMES",
    help="mean, std, min, max, median, count, medoid, p10 or any other pNN, with commas between them.",
)
@click.option("--bands", callback=shared.parse_names, metavar="NAMES", help="A01,A16,A09.  [default: all 64]")
@shared.choice_option(
    "--on-error",
    ["raise", "collect"],
    "If a read fails: stop and write nothing; or continue, write the table, list the failures, exit with 1.",
)
@shared.choice_option(
    "--on-damage",
    ["warn", "raise"],
    "If pixels can't be unit vectors, even when read again: count them and warn; or treat it as a failed read.",
)
@click.option(
    "--keep",
    callback=shared.parse_names,
    metavar="NAMES",
    help="Columns of SITES to put into the table, or all; with start_year, lon and lat.",
)
@click.option("--max-workers", type=click.IntRange(min=1), help="Number of threads.  [default: one per core]")
@click.option("--strict", is_flag=True, help="Exit with 1 if no site has data in some year.")
@shared.output_option("Table to write: .parquet, .csv, .gpkg or .geojson; a FOLDER (no suffix): any number of sites.")
@shared.overwrite_option
@shared.spreadsheet_option
@bulk.dataset_options
def extract(
    *,
    sites_file: shared.SitesFile,
    years: tuple[int, ...],
    output: Path,
    overwrite: bool,
    spreadsheet: bool,
    keep: tuple[str, ...] | None,
    strict: bool,
    **options: Any,
) -> int:
    """Write a table of yearly embeddings: one row for each site and year.

    \b
    Example:
      gee-polygons extract sites.geojson --years 2018-2024 --source source-coop -o embeddings.parquet
      gee-polygons extract fields.parquet --years 2023-2025 --source source-coop -o fields_embeddings

    The second writes a dataset, for a thousand or for millions of sites: a folder of GeoParquet files, in chunks.
    Interrupted, it goes on where it was with the same command.
    """
    dataset = {key: options.pop(key) for key in ("engine", "shard", "partition_by", "embedding", "pca", "restart")}
    if bulk.is_dataset(output):
        dataset["keep"] = keep == ("all",) or keep
        options.pop("on_damage")
        if click.get_current_context().get_parameter_source("on_error") is ParameterSource.DEFAULT:
            options["on_error"] = "collect"  # the same command tries again
        return bulk.write_dataset(sites_file, output, {**options, **dataset, "strict": strict, "years": years})
    bulk.check_unused(dataset)
    with report_stage(shared.on_terminal(), "starting"):
        from gee_polygons.tables import check_output, write_table

        check_output(output, overwrite)  # before the long work
        from gee_polygons.extract import extract_embeddings

    sites = sites_file.load()
    options["keep"] = keep == ("all",) or keep or False
    table = extract_embeddings(sites, years=years, progress=shared.on_terminal(), **options)
    with report_stage(shared.on_terminal(), f"writing {output.name}"):
        write_table(table, output, sites=sites, overwrite=overwrite, spreadsheet=spreadsheet)
    click.echo(f"{output}: {_summary(table, len(sites), len(years))}")
    failures = table.attrs.get("errors", [])
    for failure in failures[:MAX_SHOWN]:
        say(f"error: {failure['message']} ({failure['year']}, {shared.count(len(failure['site_ids']), 'site')})")
    if failures:
        say(f"{shared.count(len(failures), 'read')} failed; the rows concerned have the status 'error' and no values")
    is_lacking = strict and "years_without_data" in table.attrs
    return shared.EXIT_DATA if failures or is_lacking else 0


@main.command(short_help="Build the synthetic sample archive.")
@click.option("--out", type=shared.PATH, required=True, help="Folder to build in; created if need be.")
@click.option(
    "--years",
    callback=shared.parse_years,
    default="2018-2024",
    show_default=True,
    metavar="YEARS",
    help="Years to build.",
)
def sample(*, out: Path, years: tuple[int, ...]) -> None:
    """Build the sample archive, small and synthetic, in the published layout, and the file of its sites.

    \b
    Example:
      gee-polygons sample --out sample
      gee-polygons extract sample/sample_sites.geojson --years 2018-2024 --source sample -o t.csv
    """
    from gee_polygons.sources.sample.archive import SITES_NAME, build_sample_archive
    from gee_polygons.sources.sample.scene import write_sample_sites

    index = build_sample_archive(out, years=years, progress=shared.on_terminal())
    sites = write_sample_sites(out / SITES_NAME)
    click.echo(f"{index}: the index; give it as --source")
    click.echo(f"{sites}: the sites")


@main.command(short_help="List where embeddings can come from.")
@shared.json_option
def sources(*, as_json: bool) -> None:
    """List where embeddings can come from, what each needs, and what is available here.

    \b
    Example:
      gee-polygons sources
    """
    from gee_polygons.sources.earthengine.session import sign_in_status
    from gee_polygons.sources.opening import SOURCE_SETTING

    account = sign_in_status()
    rows = [*_SOURCES[:-1], (*_SOURCES[-1][:2], account.partition(":")[0].partition(",")[0])]
    setting = os.environ.get(SOURCE_SETTING)
    if as_json:
        listed = [dict(zip(("source", "what", "here"), row, strict=True)) for row in rows[1:]]
        shared.print_json({"sources": listed, "earthengine": account, "default": setting or "source-coop"})
        return
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for row in rows:
        click.echo(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}")
    click.echo(f"\nearthengine: {account}")
    click.echo(f"without --source: {setting}, from {SOURCE_SETTING}" if setting else "without --source: source-coop")


@main.command(short_help="Extract and draw the sample archive.")
@click.option("--out", type=shared.PATH, default="outputs", show_default=True, help="Folder to write into.")
def demo(*, out: Path) -> None:
    """Build the synthetic sample archive, extract a table of its sites, draw three pictures, and write the report.

    \b
    Example:
      gee-polygons demo --out outputs
    """
    from gee_polygons.cli.demo import CHECKOUT_SITES, next_steps, run_demo

    total, sites = 0.0, CHECKOUT_SITES if CHECKOUT_SITES.is_file() else out / CHECKOUT_SITES.name
    for step in run_demo(out, progress=shared.on_terminal()):
        total += step.seconds
        click.echo(f"{step.seconds:6.1f} s  {step.title}")
        for path in step.paths:
            click.echo(f"{'':8}  -> {shared.near(path)}")
    click.echo(f"{total:6.1f} s  in all")
    click.echo(
        f"\nOpen {shared.near(out / 'report.html')} in a browser. Next, the same by hand; for polygons of your own,"
    )
    click.echo("name your file in place of the sample's, and leave --source out:\n")
    for command in next_steps(out, sites):
        click.echo(f"  {command}")


for _command in (plan, render, similarity, change, recovery, report, probe, audit, download, index, datasets):
    main.add_command(_command)


_SOURCES: Final = (
    ("SOURCE", "what it is, and what it needs", "here"),
    ("auto", "the cheapest for given sites and years; see plan --source all", "ready"),
    ("sample", "a synthetic archive, built on first use (90 MB); needs nothing", "ready"),
    ("FOLDER, INDEX", "an archive behind its aef_index.parquet, as path or URL; needs the files", "ready"),
    ("FILE.tif, .npy, .npz", "one GeoTIFF or NumPy file, int8 codes or float vectors; needs the file", "ready"),
    ("source-coop", "the open archive of all tiles; needs a network, no account", "ready, if online"),
    ("mosaic", "the open mosaic of all tiles, in Zarr; needs a network, no account", "ready, if online"),
    ("FOLDER.zarr, mosaic:URL", "any mosaic in a Zarr v3 store, as path or URL; needs the files", "ready"),
    ("earthengine", "Earth Engine; needs a network and an account", ""),
)


def _summary(table: pd.DataFrame, n_sites: int, n_years: int) -> str:
    found = ", ".join(f"{n:,} {status}" for status, n in table["status"].value_counts(sort=False).sort_index().items())
    rows = f"{shared.count(len(table), 'row')} ({shared.count(n_sites, 'site')} x {shared.count(n_years, 'year')})"
    return f"{rows}: {found}" if found else rows


def _fail(message: str, status: int) -> NoReturn:
    say(f"error: {message}")
    sys.exit(status)

"""Options of `gee-polygons extract` for a dataset of many files, and how its result is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from gee_polygons.cli import shared
from gee_polygons.cli.messages import say

MAX_SHOWN: Final = 20  # failures that are shown one by one


def _parse_shard(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    number, slash, of = value.partition("/")
    if not (slash and number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise click.BadParameter(f"{value!r} isn't a part of the run; write 3/100.")
    return int(number), int(of)


OPTIONS: Final = (
    click.option("--engine", metavar="ENGINE", help="FOLDER: local, ray, or ray://HOST:PORT.  [default: local]"),
    click.option(
        "--shard", callback=_parse_shard, metavar="I/N", help="FOLDER: do one part of N, as a job array does."
    ),
    click.option("--partition-by", callback=shared.parse_names, metavar="NAMES", help="FOLDER: year, time or columns."),
    click.option("--embedding", metavar="FORM", help="FOLDER: columns, array, list or codes.  [default: columns]"),
    click.option("--pca", is_flag=True, help="FOLDER: add the first three principal components of all rows."),
    click.option("--restart", is_flag=True, help="FOLDER: delete what an earlier run left there, and start over."),
)


def dataset_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of datasets."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def is_dataset(output: Path) -> bool:
    """Whether a name is that of a dataset's folder: it has no suffix, or is a folder."""
    return not output.suffix or output.is_dir()


def check_unused(options: Mapping[str, Any]) -> None:
    """Raise an error if an option of datasets was given for a single file."""
    for name in ("engine", "shard", "partition_by", "embedding", "pca", "restart"):
        if options[name]:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is for datasets: give -o the name of a folder, without a suffix.")


def write_dataset(sites_file: shared.SitesFile, output: Path, options: dict[str, Any]) -> int:
    """Run `extract_to_parquet`, print what it did, return the exit status."""
    from gee_polygons.bulk import extract_to_parquet

    asked = {key: value for key, value in options.items() if value is not None and key not in ("restart", "strict")}
    reading = dict(sites_file.options)
    if reading.pop("skip_invalid", False):
        raise click.UsageError("--skip-invalid isn't for datasets; extract to a file, or correct the sites.")
    click.get_current_context().meta["interrupted"] = "interrupted; run the command again to go on"
    run = extract_to_parquet(
        sites_file.path, output, resume=not options["restart"], progress=shared.on_terminal(), **asked, **reading
    )
    for failure in run.failures[:MAX_SHOWN]:
        say(f"error: {failure}")
    size = f"{run.bytes / 1e6:,.1f} MB in {shared.count(run.parts, 'file')}"
    click.echo(f"{output}: {run.rows:,} rows of {run.sites:,} sites, {size}, {run.seconds:.1f} s")
    if options["strict"] and run.years_without_data:
        return shared.EXIT_DATA  # a warning has said why
    if run.failures:
        say("the rows concerned have the status 'error'; the same command tries them again")
        return shared.EXIT_DATA
    if options["shard"] is not None:
        done = f"{run.chunks_done} of {shared.count(run.chunks, 'chunk')} done"
        say(f"{done}; when all are, run the same command again without --shard")
    return 0

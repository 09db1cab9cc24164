"""The command `probe`: from a table and labels to a model, scored in places that it hasn't seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gee_polygons.cli import shared
from gee_polygons.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


@click.command(short_help="Train a model on labelled sites, and score it.")
@click.argument("table_path", metavar="TABLE", type=shared.PATH)
@click.option("--target", metavar="COLUMN", help="Column of labels, of TABLE or LABELS.")
@click.option(
    "--labels", "labels_path", type=shared.PATH, metavar="LABELS", help="Table of labels by site_id [, year]."
)
@click.option("--years", callback=lambda c, p, v: v and shared.parse_years(c, p, v), metavar="YEARS", help="Of TABLE.")
@click.option("--model", type=click.Choice(["logistic", "ridge", "knn"]), help="[default: logistic; values: ridge]")
@shared.choice_option("--task", ["auto", "classes", "values"], "What the labels are.")
@click.option("--groups", metavar="COLUMN", help="Hold out rows of the same value.  [default: square blocks]")
@click.option(
    "--block-m", type=click.FloatRange(0, min_open=True), default=5000.0, show_default=True, help="Of blocks."
)
@click.option("--buffer-m", type=click.FloatRange(0), help="Around what is held out.  [default: as wide as a block]")
@shared.output_option("Model to write: .json, which `gee_polygons.probe.load_probe` reads.")
@shared.overwrite_option
def probe(
    *, table_path: Path, target: str | None, labels_path: Path | None, years: tuple[int, ...] | None, output: Path,
    overwrite: bool, **options: Any,
) -> None:  # fmt: skip
    """Train a model on labelled sites, and score it in places that it hasn't seen.

    TABLE is what `gee-polygons extract --keep NAMES` writes: embeddings, the sites' columns, lon and lat.

    \b
    Example:
      gee-polygons extract sites.geojson --years 2024 --source sample --keep all -o labelled.parquet
      gee-polygons probe labelled.parquet --target kind --block-m 500 -o probe.json
    """
    from gee_polygons.probe import train_probe
    from gee_polygons.store.atomic import check_new_file
    from gee_polygons.tables import read_table

    if output.suffix.lower() != ".json":
        raise UsageError(f"can't write {str(output)!r}: the name must end in .json")
    check_new_file(output, overwrite)
    table = read_table(table_path)
    if labels_path is not None:
        table, target = _joined(table, read_table(labels_path), labels_path, target)
    elif target is None:
        raise UsageError("labels are needed: --target COLUMN of the table, or --labels LABELS")
    if years:
        table = table[table["year"].isin(years)]
    trained = train_probe(table, target, **options)
    trained.save(output, overwrite=overwrite)
    click.echo(f"{output}: {target}, {len(trained.labels):,} labelled rows; {trained.scores['summary']}")


def _joined(table: pd.DataFrame, labels: pd.DataFrame, path: Path, target: str | None) -> tuple[pd.DataFrame, str]:
    """Return the table with labels, by site or by site and year, and their column."""
    keys = [name for name in ("site_id", "year") if name in labels.columns]
    if "site_id" not in keys:
        raise UsageError(f"{path} has no column 'site_id' to join labels by")
    names = [name for name in labels.columns if name not in keys]
    if target is None and len(names) != 1:
        raise UsageError(f"{path} has {len(names)} columns beside {', '.join(keys)}; name one with --target")
    target = target or str(names[0])
    if target not in names:
        raise UsageError(f"{path} has no column {target!r}; it has {', '.join(map(str, names))}")
    if labels.duplicated(keys).any():
        raise UsageError(f"{path} has several rows for {labels[labels.duplicated(keys)].iloc[0][keys].to_dict()}")
    ids = labels.assign(site_id=labels["site_id"].astype(str))[[*keys, target]]
    left = table.drop(columns=target, errors="ignore")
    found = left.assign(_id=left["site_id"].astype(str)).merge(
        ids.rename(columns={"site_id": "_id"}), how="left", on=["_id", *keys[1:]]
    )
    if found[target].notna().sum() == 0:
        raise UsageError(f"no site of {path} is among the table's sites")
    found.attrs = table.attrs
    return found.drop(columns="_id"), target

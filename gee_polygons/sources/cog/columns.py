"""Gives tables of tiles, as AlphaEarth's index or STAC items have them, the columns that this package works with.

They are `path` (path or URL), `crs` ("EPSG:32632"), `year`, `wgs84_west/south/east/north`; where they are known
`utm_west/south/east/north`, `id`, `datetime`, `geometry` (WKB), `header` (see `gee_polygons.collection`); and whatever
else a table has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from gee_polygons.errors import ArchiveError

SIDES: Final = ("west", "south", "east", "north")
BBOX: Final = ("xmin", "ymin", "xmax", "ymax")


def canonical(
    table: pa.Table,
    *,
    place: str = "the table",
    column_map: Mapping[str, str] | None = None,
    href_column: str | None = None,
) -> pa.Table:
    """Rename and derive columns, so that `path`, `crs`, `year` and `wgs84_*` are there.

    Parameters
    ----------
    table : pyarrow.Table
        As read.
    place : str
        Named in messages.
    column_map : mapping of str to str, optional
        Names of the table -> names of this package.
    href_column : str, optional
        The column with paths or URLs.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    ArchiveError
        If one of them can't be had.
    """
    names = dict(column_map or {})
    unknown = [name for name in names if name not in table.column_names]
    if unknown:
        raise ArchiveError(f"{place}: column_map names {unknown[0]!r}; found {table.column_names}")
    if href_column is not None:
        if href_column not in table.column_names:
            raise ArchiveError(f"{place}: href_column names {href_column!r}; found {table.column_names}")
        names[href_column] = "path"
    if "path" not in table.column_names and "path" not in names.values() and "href" in table.column_names:
        names["href"] = "path"
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    if "path" not in table.column_names and "assets" in table.column_names:
        table = _one_row_per_asset(table, place)
    if not len(table):
        raise ArchiveError(f"{place}: the index lists no tile")
    for name, derive in (("year", _years), ("crs", _crs_names)):
        if name not in table.column_names:
            values = derive(table)
            if values is None:
                raise _missing(place, name, table)
            table = table.append_column(name, values)
    if "path" not in table.column_names:
        raise _missing(place, "path", table)
    for frame in ("wgs84", "utm"):  # some sides without the others: a column was lost
        missing = [f"{frame}_{side}" for side in SIDES if f"{frame}_{side}" not in table.column_names]
        if 0 < len(missing) < len(SIDES):
            raise _missing(place, missing[0], table)
    if "wgs84_west" not in table.column_names:
        try:
            boxes = boxes_of(table)
        except shapely.errors.GEOSException as error:
            raise ArchiveError(f"{place}: a geometry isn't WKB: {error}") from error
        if boxes is None:
            raise _missing(place, "wgs84_west", table)
        for side, values in zip(SIDES, boxes.T, strict=True):
            table = table.append_column(f"wgs84_{side}", pa.array(values))
    return table


def boxes_of(table: pa.Table) -> NDArray[np.float64] | None:
    """Return (west, south, east, north) in degrees of each row, if the table has columns for it."""
    names = table.column_names
    if all(f"wgs84_{side}" in names for side in SIDES):
        return np.column_stack([floats(table, f"wgs84_{side}") for side in SIDES])
    if "bbox" in names:
        column = table["bbox"]
        if not pa.types.is_struct(column.type):  # lists of 4, or of 6 with heights
            rows = [row or [np.nan] * 4 for row in column.to_pylist()]
            return np.array([[*row[:2], *row[len(row) // 2 : len(row) // 2 + 2]] for row in rows])
        if all(column.type.get_field_index(side) >= 0 for side in BBOX):
            sides = [pc.struct_field(column, side).to_numpy() for side in BBOX]
            return np.column_stack([np.asarray(side, np.float64) for side in sides])
    geometry = next((name for name in ("geometry", "geom") if name in names), None)
    if geometry is None:
        return None
    return np.asarray(shapely.bounds(shapely.from_wkb(table[geometry].to_pylist())), np.float64)


def floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column as numbers; NaN throughout where it doesn't hold any."""
    try:
        return np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64)
    except (ValueError, TypeError):
        return np.full(len(table), np.nan)


def _missing(place: str, name: str, table: pa.Table) -> ArchiveError:
    return ArchiveError(f"{place}: not an archive index, column {name!r} is missing; found {table.column_names}")


def _one_row_per_asset(table: pa.Table, place: str) -> pa.Table:
    """Make a row of each STAC asset that has a `href`; where one is called `data`, of that one alone."""
    items = table["assets"].to_pylist()
    found = [
        (i, key, asset["href"])
        for i, assets in enumerate(items)
        for key, asset in sorted((assets or {}).items())
        if asset and asset.get("href")
    ]
    only_data = any(key == "data" for _, key, _ in found)
    if only_data:
        found = [row for row in found if row[1] == "data"]
    if not found:
        raise ArchiveError(f"{place}: no asset has a 'href'")
    rows, keys, paths = zip(*found, strict=True)
    table = table.drop_columns([name for name in ("assets", "asset") if name in table.column_names])
    table = table.take(np.array(rows, np.int64)).append_column("path", pa.array(paths, pa.string()))
    return table if only_data else table.append_column("asset", pa.array(keys, pa.string()))


def _years(table: pa.Table) -> Any:
    """Return years from STAC's dates; None where there are none."""
    for name in ("datetime", "start_datetime"):
        if name not in table.column_names or table[name].null_count == len(table):
            continue
        column = table[name]
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            return column  # a year, renamed
        if pa.types.is_temporal(column.type):
            return pc.cast(pc.year(column), pa.int32())
        texts = [str(value or "") for value in column.to_pylist()]
        if all(re.match(r"\d{4}\b", text) for text in texts):
            return pa.array([int(text[:4]) for text in texts], pa.int32())
    return None


def _crs_names(table: pa.Table) -> Any:
    """Return CRSs from STAC's projection extension; None where it isn't used."""
    for name in ("proj:code", "proj:epsg"):
        if name in table.column_names and not table[name].null_count:
            values = [str(value).removesuffix(".0") for value in table[name].to_pylist()]
            return pa.array([value if ":" in value else f"EPSG:{value}" for value in values], pa.string())
    return None

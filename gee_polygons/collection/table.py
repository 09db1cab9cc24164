"""Filters tables of tiles, adds the tiles' headers to them, and writes them as GeoParquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import shapely.affinity
from numpy.typing import NDArray

from gee_polygons.collection.catalogue import Dataset
from gee_polygons.errors import ArchiveError, UsageError
from gee_polygons.network.places import hide_query, is_url
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.periods import parse_dates
from gee_polygons.sources.cog.area import Area
from gee_polygons.sources.cog.columns import SIDES, canonical
from gee_polygons.sources.cog.header import Content, header_of, open_tiles
from gee_polygons.sources.cog.index import first_rows, resolved_paths
from gee_polygons.sources.cog.records import read_records
from gee_polygons.sources.cog.tile import Tile
from gee_polygons.store.atomic import replacing
from gee_polygons.store.geoparquet import bbox_array, geo_metadata

HEADER: Final = pa.struct(
    [
        pa.field("crs", pa.string()),
        pa.field("transform", pa.list_(pa.float64())),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("block_height", pa.int32()),
        pa.field("block_width", pa.int32()),
        pa.field("parts", pa.int32()),
        pa.field("compression", pa.string()),
        pa.field("predictor", pa.int32()),
        pa.field("dtype", pa.string()),
        pa.field("nodata", pa.float64()),
        pa.field("bands", pa.list_(pa.string())),
        pa.field("offsets", pa.list_(pa.int64())),
        pa.field("lengths", pa.list_(pa.int64())),
    ]
)


def as_arrow(table: Any) -> Any:
    """Convert a table of any library to pyarrow, geometries to WKB.

    Raises
    ------
    UsageError
        If it is no table.
    """
    found = _as_arrow(table)
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}  # Polars' own; Arrow can't take rows of them
    fields = [field.with_type(plain.get(field.type, field.type)) for field in found.schema]
    return found.cast(pa.schema(fields, metadata=found.schema.metadata))


def _as_arrow(table: Any) -> Any:
    if isinstance(table, pa.Table):
        return table
    if hasattr(table, "geometry") and hasattr(table, "to_arrow") and hasattr(table, "crs"):  # GeoDataFrame
        return pa.table(table.to_arrow(geometry_encoding="WKB", index=False))
    if hasattr(table, "__arrow_c_stream__"):  # DuckDB relation, Polars, record batches, another collection
        return pa.table(table)
    if hasattr(table, "to_arrow_table"):  # what DuckDB's execute() returns, and its older relations
        return table.to_arrow_table()
    if hasattr(table, "collect_schema"):  # Polars, lazy
        return pa.table(table.collect())
    if hasattr(table, "to_table") and hasattr(table, "schema"):  # a pyarrow dataset
        return table.to_table()
    raise UsageError(f"a table is one of pyarrow, DuckDB, Polars, pandas or GeoPandas, found {type(table).__name__}")


def resolved(table: Any, folder: str, network: Network, *, anywhere: bool = False) -> Any:
    """Make paths absolute, rewrite URLs, and list each tile once, ordered by path; see `join` for `anywhere`."""
    paths = resolved_paths(table, folder, network, trusted=anywhere)
    paths = [path if is_url(path) else str(Path(path).absolute()) for path in paths]
    times = table["period" if "period" in table.column_names else "year"].to_pylist()
    rows = first_rows(zip(paths, times, strict=True))
    keep = np.array([rows[key] for key in sorted(rows)], np.int64)
    place = table.column_names.index("path")
    return table.set_column(place, "path", pa.array(paths, pa.string())).take(keep)


def read_tiles(
    entry: Dataset,
    place: str,
    network: Network,
    *,
    bbox: Sequence[float] | None = None,
    date_range: tuple[Any, Any] | None = None,
    geometries: Any = None,
) -> Any:
    """Read a list of tiles, with canonical columns; of a remote one only the parts that `within` may keep.

    Raises
    ------
    ArchiveError
        If it lists no tile there.
    """
    boxes = [checked_bbox(bbox)] if bbox is not None else []
    boxes += [shape.bounds for shape in geometries] if geometries is not None else []
    area = Area(np.array([(w, s, e + 360 * (e < w), n) for w, s, e, n in boxes]), 0.0) if boxes else None
    years = years_of(date_range) if date_range is not None and entry.annual else None
    table = read_records(place, area=area, years=years, network=network)
    if len(table):
        table = canonical(
            table, place=place, column_map=entry.column_map or None, href_column=entry.href_column or None
        )
        table = within(with_periods(table, entry), bbox=bbox, date_range=date_range, geometries=geometries)
    if not len(table):
        wanted = " and ".join(
            f"{name} {value}" for name, value in (("bbox", bbox), ("date_range", date_range)) if value is not None
        )
        raise ArchiveError(f"{place}: lists no tile" + (f" in {wanted}; widen the search" if wanted else " there"))
    return table


def with_periods(table: Any, entry: Dataset) -> Any:
    """Add a column `period`, the day as YYYYMMDD, to a table of images that aren't annual."""
    if entry.annual or "period" in table.column_names:
        return table
    import pandas as pd

    if "datetime" not in table.column_names:
        raise ArchiveError("images that aren't annual need a column 'datetime'; name it with column_map")
    days = pd.to_datetime(pd.Series(table["datetime"].to_pylist()), utc=True, format="ISO8601")
    return table.append_column("period", pa.array(days.dt.strftime("%Y%m%d").astype(int).to_numpy(), pa.int32()))


def within(
    table: Any,
    *,
    bbox: Sequence[float] | None = None,
    date_range: tuple[Any, Any] | None = None,
    geometries: Any = None,
) -> Any:
    """Return the tiles whose valid pixels' box touches a box or geometries (EPSG:4326), from a range of dates."""
    keep = np.ones(len(table), np.bool_)
    boxes = shapely.box(*(table[f"wgs84_{side}"].to_numpy().astype(np.float64) for side in SIDES))
    if bbox is not None:
        west, south, east, north = checked_bbox(bbox)
        # a box across the antimeridian has its east in the west, or past 180
        keep &= _touching(boxes, [shapely.box(west, south, east + 360.0 * (east < west), north)])
    if geometries is not None:
        keep &= _touching(boxes, geometries)
    if date_range is not None:
        first, last = checked_dates(date_range)
        if "period" in table.column_names:
            days = table["period"].to_numpy()
            low, high = (int(f"{day:%Y%m%d}") for day in (first, last))
        else:
            days, low, high = table["year"].to_numpy().astype(np.int64), first.year, last.year
        keep &= (days >= low) & (days <= high)
    return table.take(np.flatnonzero(keep))


def _touching(boxes: NDArray[Any], shapes: Iterable[Any]) -> NDArray[np.bool_]:
    """Return which boxes touch one of some shapes, also where their longitudes differ by 360."""
    around = [shapely.affinity.translate(shape, turn) for shape in shapes for turn in (-360.0, 0.0, 360.0)]
    return np.isin(np.arange(len(boxes)), shapely.STRtree(around).query(boxes, predicate="intersects")[0])


def checked_bbox(bbox: Iterable[float]) -> tuple[float, float, float, float]:
    """Check (west, south, east, north) in degrees."""
    try:
        west, south, east, north = (float(value) for value in bbox)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a bbox is (west, south, east, north) in degrees, found {bbox!r}") from error
    if not (-180 <= west <= 360 and -180 <= east <= 360 and -90 <= south <= north <= 90):
        raise UsageError(
            f"a bbox is (west, south, east, north) in degrees (EPSG:4326), with south below north, found {bbox!r}"
        )
    return west, south, east, north


def checked_dates(date_range: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return the first and the last day of a pair of dates or years; both ends are included."""
    try:
        first, last = () if isinstance(date_range, str) else date_range
    except (TypeError, ValueError) as error:
        raise UsageError(f"date_range is a pair such as ('2018-01-01', '2024-12-31'), found {date_range!r}") from error
    return parse_dates(first, last)


def years_of(date_range: tuple[Any, Any]) -> range:
    """Return the years that a range of dates touches."""
    first, last = checked_dates(date_range)
    return range(first.year, last.year + 1)


def enrich(table: Any, contents: Sequence[Content] | Content, network: Network = NETWORK) -> Any:
    """Parse the headers of all tiles, many at once, and add them as a column; `crs` and `utm_*` are taken from them.

    Raises
    ------
    ReadError, TileError
        Naming the first tile that can't be used.
    """
    paths = table["path"].to_pylist()
    years = table["period" if "period" in table.column_names else "year"].to_pylist()
    opened = open_tiles(list(zip(paths, map(int, years), strict=True)), network, contents)
    broken = [tile for tile in opened if not isinstance(tile, Tile)]
    if broken:
        more = f" (and {len(broken) - 1} more of {len(opened)} tiles)" if len(broken) > 1 else ""
        error = broken[0]
        error.args = (f"{error}{more}",)
        raise error
    tiles = [tile for tile in opened if isinstance(tile, Tile)]
    headers = pa.array([header_of(tile) for tile in tiles], HEADER)
    bounds = np.array([tile.grid.bounds for tile in tiles], np.float64).reshape(-1, 4)
    columns = {f"utm_{side}": pa.array(bounds[:, i]) for i, side in enumerate(SIDES)}
    columns["crs"] = pa.array([tile.grid.crs for tile in tiles], pa.string())
    columns["header"] = headers
    for name, values in columns.items():
        known = name in table.column_names
        table = table.set_column(table.column_names.index(name), name, values) if known else table.append_column(
            name, values
        )  # fmt: skip
    return table


def write(
    table: Any, path: Path, dataset: Dataset, parameters: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a collection as GeoParquet 1.1, whole or not at all; the same collection gives the same bytes."""
    table = table.select([name for name in table.column_names if name not in ("geom", "geometry", "bbox")])
    boxes = shapely.box(*(table[f"wgs84_{side}"].to_numpy().astype(np.float64) for side in SIDES))
    table = table.append_column("geometry", pa.array(shapely.to_wkb(boxes, byte_order=1), pa.binary()))
    table = table.append_column("bbox", bbox_array(boxes))
    # paths are rewritten already, so a prefix with a password isn't needed
    prefixes = {
        old: new for old, new in dataset.url_rewrite.items() if [hide_query(old), hide_query(new)] == [old, new]
    }
    entry = replace(dataset, index=hide_query(dataset.index), url_rewrite=prefixes).as_dict()
    ours = json.dumps({"what": "collection", "dataset": entry, **parameters}, sort_keys=True)
    geo = geo_metadata("geometry", ["Polygon"], covering=True)
    positions = ("header.offsets.list.element", "header.lengths.list.element")
    columns = _parquet_columns(table.schema)
    with replacing(path) as part:
        pq.write_table(
            table.replace_schema_metadata({"geo": geo, "gee_polygons": ours, **(metadata or {})}),
            part,
            compression="zstd",
            use_dictionary=[name for name, kind in columns.items() if kind != "DOUBLE" and name not in positions],
            # positions grow by a block's length, so their differences are small
            column_encoding={name: "DELTA_BINARY_PACKED" for name in positions if name in columns} or None,
            row_group_size=4096,
        )


def _parquet_columns(schema: Any) -> dict[str, str]:
    """Return the columns that a schema has in a Parquet file, fields of structs and lists too, and their types."""
    buffer = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), buffer)
    columns = pq.ParquetFile(pa.BufferReader(buffer.getvalue())).schema
    return {columns.column(i).path: columns.column(i).physical_type for i in range(len(columns.names))}

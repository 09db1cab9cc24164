"""Lists of tiles, in whatever form they come, as one Arrow table with the columns that this package works with.

Parquet, STAC GeoParquet, CSV and GeoPackage; local, HTTP(S), S3, GS. From Parquet far away only the row groups and
columns that are needed are read.

The columns: `path` (path or URL), `crs` ("EPSG:32632"), `year`, `wgs84_west/south/east/north`; where they are known
`utm_west/south/east/north`, `id`, `datetime`, `geometry` (WKB), `header` (what `gee_polygons.collection` keeps of
tiles' headers); and whatever else there is.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.errors import ArchiveError, GeePolygonsError, InputFileError, ReadError
from gee_polygons.network.places import has_suffix, hide_query, is_url
from gee_polygons.network.remote_file import RemoteFile
from gee_polygons.network.request import NETWORK, Network

SIDES: Final = ("west", "south", "east", "north")
_PATHS: Final = ("path", "href", "url", "location")
_GEOMETRIES: Final = ("geometry", "geom", "wkb_geometry")
# a tile's footprint reaches this far past the box of its valid pixels, which is clipped at the zone's edge
MARGIN_DEG: Final = 2.0


class Area:
    """Where something is asked for: whole degrees of longitude and latitude that hold it.

    Parameters
    ----------
    boxes : float array, shape (n, 4)
        (west, south, east, north) in degrees; longitudes may run past 180.
    margin_deg : float
        Added on each side, in degrees of latitude.

    Examples
    --------
    >>> area = Area(np.array([[11.3, 0.2, 11.5, 0.4]]), margin_deg=0)
    >>> area.hits(np.array([[11.9, 0.9, 12.5, 3.0], [12.1, 0.0, 13.0, 1.0]])).tolist()
    [True, False]
    """

    def __init__(self, boxes: NDArray[np.float64], margin_deg: float = MARGIN_DEG) -> None:
        cells = np.zeros((180, 360), np.bool_)
        corners = np.unique(self._cells(boxes, margin_deg), axis=0)
        for west, south, east, north in corners.tolist():
            cells[south : north + 1, np.arange(west, min(east, west + 359) + 1) % 360] = True
        # sums over everything below and to the left: how many cells a box holds is four look-ups
        self._sums = np.zeros((181, 721), np.int64)
        self._sums[1:, 1:] = np.hstack([cells, cells]).cumsum(axis=0).cumsum(axis=1)

    @staticmethod
    def _cells(boxes: NDArray[np.float64], margin: float) -> NDArray[np.int64]:
        west, south, east, north = np.asarray(boxes, np.float64).reshape(-1, 4).T
        widest = np.abs(np.stack([south - margin, north + margin])).max(axis=0).clip(max=89.9)
        side = margin / np.cos(np.radians(widest))
        return np.column_stack(
            [
                np.floor(west - side + 180),
                np.floor(south - margin + 90).clip(0, 179),
                np.floor(east + side + 180),
                np.floor(north + margin + 90).clip(0, 179),
            ]
        ).astype(np.int64)

    def hits(self, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which boxes may touch it."""
        west, south, east, north = self._cells(boxes, 0.0).T
        first = west % 360
        last = np.minimum(first + (east - west), first + 359).clip(max=719)
        top, bottom = north + 1, south
        s = self._sums
        found = s[top, last + 1] - s[bottom, last + 1] - s[top, first] + s[bottom, first]
        hit: NDArray[np.bool_] = found > 0
        return hit


@dataclass(frozen=True)
class Filter:
    """What of a list is wanted."""

    area: Area | None = None
    years: frozenset[int] | None = None


def read_records(
    place: str,
    *,
    area: Area | None = None,
    years: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
    network: Network = NETWORK,
) -> Any:
    """Read a list of tiles as it is stored.

    Parameters
    ----------
    place : str
        Path or URL of a ``.parquet``, ``.csv`` or ``.gpkg`` file.
    area, years : optional
        Rows that surely lie elsewhere may be left out, and surely are where the columns for it exist.
    columns : sequence of str, optional
        Columns that are needed, where there are those; for Parquet.
    network : Network
        How hard to try.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    InputFileError
        If the file is missing or isn't what its name says.
    """
    place = hide_query(place)
    wanted = Filter(area, None if years is None else frozenset(int(year) for year in years))
    if not is_url(place) and not Path(place).is_file():
        raise InputFileError(f"{place}: no such index; name an aef_index.parquet or the folder that holds one")
    try:
        if has_suffix(place, ".csv"):
            table = _read_csv(place, network)
        elif has_suffix(place, ".gpkg"):
            table = _read_gpkg(place, network)
        else:
            return _read_parquet(place, wanted, columns, network)
    except ReadError as error:
        raise _unreadable(place, error) from error
    return _filtered(table, wanted)


def _unreadable(place: str, error: ReadError) -> InputFileError:
    if "no such file" in str(error):
        return InputFileError(f"{place}: no such index")
    why = str(error).removeprefix(f"{place}: ").removeprefix("can't be read")
    return InputFileError(f"{place}: the index can't be read{why if why.startswith((' ', ':')) else f': {why}'}")


def file_metadata(place: str, network: Network = NETWORK) -> tuple[dict[bytes, bytes], list[str]]:
    """Return a Parquet file's key-value metadata and column names; from its footer alone."""
    import pyarrow.parquet as pq

    place = hide_query(place)
    try:
        with _reading_parquet(place), pq.ParquetFile(_opened(place, network)) as file:
            schema = file.schema_arrow
            return dict(schema.metadata or {}), list(schema.names)
    except ReadError as error:
        raise _unreadable(place, error) from error


@contextmanager
def _reading_parquet(place: str) -> Iterator[None]:
    """Turn what Arrow raises for a file that isn't Parquet, or is damaged, into an InputFileError."""
    import pyarrow as pa

    try:
        yield
    except GeePolygonsError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: texts that aren't UTF-8
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputFileError(f"{place}: not a Parquet file, or a damaged one: {reason}") from error


def package_metadata(metadata: Mapping[bytes, bytes], place: str) -> dict[str, Any]:
    """Return what this package wrote into a Parquet file's metadata: a JSON object, empty where there is none.

    Raises
    ------
    ArchiveError
        If it isn't a JSON object.
    """
    try:
        found = json.loads(metadata.get(b"gee_polygons", b"{}"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise ArchiveError(f"{place}: its metadata 'gee_polygons' isn't JSON ({error}); build the file anew") from error
    if not isinstance(found, dict):
        raise ArchiveError(f"{place}: its metadata 'gee_polygons' isn't a JSON object; build the file anew")
    return found


def _opened(place: str, network: Network) -> Any:
    if is_url(place):
        return RemoteFile(place, network)
    if not Path(place).is_file():
        raise InputFileError(f"{place}: no such index; name an aef_index.parquet or the folder that holds one")
    return place


def _read_parquet(place: str, wanted: Filter, columns: Sequence[str] | None, network: Network) -> Any:
    import pyarrow.parquet as pq

    source = _opened(place, network)
    with _reading_parquet(place), pq.ParquetFile(source, pre_buffer=False) as file:
        names = file.schema_arrow.names
        chosen = names if columns is None else [name for name in names if name in columns]
        groups = [i for i in range(file.num_row_groups) if _may_match(file.metadata.row_group(i), wanted)]
        if isinstance(source, RemoteFile):
            source.preload(_chunks(file.metadata, groups, frozenset(chosen)))
        return _filtered(file.read_row_groups(groups, columns=chosen), wanted)


def _chunks(metadata: Any, groups: Sequence[int], names: frozenset[str]) -> list[tuple[int, int]]:
    """Return where in the file the column chunks lie, (start, length)."""
    found = []
    for group in groups:
        row_group = metadata.row_group(group)
        for i in range(row_group.num_columns):
            chunk = row_group.column(i)
            if chunk.path_in_schema.split(".")[0] in names:
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                found.append((min(start, chunk.data_page_offset), chunk.total_compressed_size))
    return found


def _may_match(group: Any, wanted: Filter) -> bool:
    """Whether a row group's statistics leave it possible that a row is wanted."""
    ranges: dict[str, tuple[Any, Any]] = {}
    for i in range(group.num_columns):
        chunk = group.column(i)
        if chunk.is_stats_set and chunk.statistics is not None and chunk.statistics.has_min_max:
            ranges[chunk.path_in_schema] = (chunk.statistics.min, chunk.statistics.max)
    if wanted.years is not None and "year" in ranges:
        low, high = ranges["year"]
        if isinstance(low, int | float) and not any(float(low) <= year <= float(high) for year in wanted.years):
            return False
    if wanted.area is not None:
        for names in ([f"wgs84_{side}" for side in SIDES], [f"bbox.{s}" for s in ("xmin", "ymin", "xmax", "ymax")]):
            if all(name in ranges for name in names):
                west, south = (float(ranges[name][0]) for name in names[:2])
                east, north = (float(ranges[name][1]) for name in names[2:])
                return bool(wanted.area.hits(np.array([[west, south, east, north]]))[0])
    return True


def _filtered(table: Any, wanted: Filter) -> Any:
    keep = np.ones(len(table), np.bool_)
    names = table.column_names
    if wanted.years is not None and "year" in names:
        years = _floats(table, "year")
        keep &= np.isin(years, list(wanted.years)) | np.isnan(years)
    if wanted.area is not None and (boxes := _boxes(table)) is not None:
        keep &= ~np.isfinite(boxes).all(axis=1) | wanted.area.hits(np.nan_to_num(boxes))
    return table if keep.all() else table.take(np.flatnonzero(keep))


def _floats(table: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64)
    except (ValueError, TypeError):
        return np.full(len(table), np.nan)


def _boxes(table: Any) -> NDArray[np.float64] | None:
    """Return (west, south, east, north) in degrees of each row, if columns say so."""
    import pyarrow as pa

    names = table.column_names
    if all(f"wgs84_{side}" in names for side in SIDES):
        return np.column_stack([_floats(table, f"wgs84_{side}") for side in SIDES])
    if "bbox" in names:
        column = table["bbox"].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column
        if pa.types.is_struct(column.type):
            fields = {field.name for field in column.type}
            if {"xmin", "ymin", "xmax", "ymax"} <= fields:
                parts = [column.field(side) for side in ("xmin", "ymin", "xmax", "ymax")]
                return np.column_stack([np.asarray(p.to_numpy(zero_copy_only=False), np.float64) for p in parts])
        else:
            rows = column.to_pylist()  # lists of 4, or of 6 with heights
            return np.array([[b[0], b[1], b[len(b) // 2], b[len(b) // 2 + 1]] if b else [np.nan] * 4 for b in rows])
    geometry = next((name for name in _GEOMETRIES if name in names), None)
    return None if geometry is None else np.asarray(shapely.bounds(_shapes(table[geometry])), np.float64)


def _shapes(column: Any) -> NDArray[Any]:
    """Return shapely geometries of a column of WKB or WKT."""
    values = column.to_pylist()
    is_text = any(isinstance(value, str) for value in values)
    try:
        found: NDArray[Any] = (shapely.from_wkt if is_text else shapely.from_wkb)(np.array(values, object))
    except shapely.errors.GEOSException as error:
        raise ArchiveError(f"a geometry is neither WKB nor WKT: {error}") from error
    return found


def _read_csv(place: str, network: Network) -> Any:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    try:
        data = pa.BufferReader(RemoteFile(place, network).read()) if is_url(place) else place
        # a WKT polygon is one cell, however long
        return pacsv.read_csv(data, parse_options=pacsv.ParseOptions(newlines_in_values=True))
    except pa.ArrowInvalid as error:
        raise InputFileError(f"{place}: not a CSV file: {str(error).splitlines()[0]}") from error


def _read_gpkg(place: str, network: Network) -> Any:
    import geopandas
    import pyarrow as pa

    with tempfile.TemporaryDirectory() as folder:
        path = place
        if is_url(place):  # SQLite jumps about in its file: fetch it whole
            path = str(Path(folder) / "index.gpkg")
            Path(path).write_bytes(RemoteFile(place, network).read())
        try:
            frame = geopandas.read_file(path, fid_as_index=True)
        except (ValueError, RuntimeError) as error:
            raise InputFileError(f"{place}: not a GeoPackage: {str(error).splitlines()[0]}") from error
    geometry = pa.array(shapely.to_wkb(frame.geometry.to_numpy()), pa.binary())
    table = pa.Table.from_pandas(frame.drop(columns=frame.geometry.name), preserve_index=False)
    if "fid" not in table.column_names:
        table = table.append_column("fid", pa.array(frame.index.to_numpy()))
    return table.append_column("geometry", geometry)


# --- to the columns that this package works with ----------------------------------------------------------------------


def canonical(
    table: Any,
    *,
    place: str = "the table",
    column_map: Mapping[str, str] | None = None,
    href_column: str | None = None,
) -> Any:
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
    import pyarrow as pa

    if column_map:
        unknown = [name for name in column_map if name not in table.column_names]
        if unknown:
            raise ArchiveError(f"{place}: column_map names {unknown[0]!r}; found {table.column_names}")
    if href_column is not None and href_column not in table.column_names:
        raise ArchiveError(f"{place}: href_column names {href_column!r}; found {table.column_names}")
    names = {**(column_map or {}), **({href_column: "path"} if href_column else {})}
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    if "path" not in table.column_names:
        other = next((name for name in _PATHS if name in table.column_names), None)
        if other is not None:
            table = table.rename_columns(["path" if name == other else name for name in table.column_names])
        elif "assets" in table.column_names:
            table = _one_row_per_asset(table, place)
    if not len(table):
        raise ArchiveError(f"{place}: the index lists no tile")
    for name, derive in (("year", _years), ("crs", _crs_names)):
        if name not in table.column_names:
            values = derive(table)
            if values is None:
                raise ArchiveError(_missing(place, name, table))
            table = table.append_column(name, values)
    if "path" not in table.column_names:
        raise ArchiveError(_missing(place, "path", table))
    _check_whole(table, "wgs84", place)
    if f"wgs84_{SIDES[0]}" not in table.column_names:
        try:
            boxes = _boxes(table)
        except ArchiveError as error:
            raise ArchiveError(f"{place}: {error}") from error
        if boxes is None:
            raise ArchiveError(_missing(place, "wgs84_west", table))
        for side, values in zip(SIDES, boxes.T, strict=True):
            table = _with(table, f"wgs84_{side}", pa.array(values))
    _check_whole(table, "utm", place)
    if f"utm_{SIDES[0]}" not in table.column_names and (found := _projected(table)) is not None:
        for side, values in zip(SIDES, found.T, strict=True):
            table = _with(table, f"utm_{side}", pa.array(values))
    return table


def _check_whole(table: Any, frame: str, place: str) -> None:
    """Refuse a table with some sides of the tiles' bounds and not the others: a column was lost."""
    names = [f"{frame}_{side}" for side in SIDES]
    missing = [name for name in names if name not in table.column_names]
    if 0 < len(missing) < len(names):
        raise ArchiveError(_missing(place, missing[0], table))


def _missing(place: str, name: str, table: Any) -> str:
    return f"{place}: not an archive index, column {name!r} is missing; found {table.column_names}"


def _with(table: Any, name: str, values: Any) -> Any:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def _one_row_per_asset(table: Any, place: str) -> Any:
    """STAC: each item has assets, each with a `href`. One that is called `data` is the item's only one."""
    import pyarrow as pa

    assets = table["assets"].to_pylist()
    names = sorted({name for row in assets for name, asset in (row or {}).items() if asset and asset.get("href")})
    if "data" in names:
        names = ["data"]
    rows, paths, keys = [], [], []
    for i, row in enumerate(assets):
        for name in names:
            asset = (row or {}).get(name)
            if asset and asset.get("href"):
                rows.append(i)
                paths.append(asset["href"])
                keys.append(name)
    if not rows:
        raise ArchiveError(f"{place}: no asset has a 'href'")
    table = table.drop_columns(["assets"]).take(np.array(rows, np.int64))
    table = table.append_column("path", pa.array(paths, pa.string()))
    return table if names == ["data"] else _with(table, "asset", pa.array(keys, pa.string()))


def _years(table: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in ("datetime", "start_datetime", "date"):
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


def _crs_names(table: Any) -> Any:
    import pyarrow as pa

    for name in ("proj:code", "proj:epsg", "epsg"):
        if name in table.column_names and not table[name].null_count:
            values = [str(value).removesuffix(".0") for value in table[name].to_pylist()]
            return pa.array([value if ":" in value else f"EPSG:{value}" for value in values], pa.string())
    return None


def _projected(table: Any) -> NDArray[np.float64] | None:
    """Return (west, south, east, north) of whole files in their CRS, where STAC's projection extension says so."""
    names = table.column_names
    if "proj:bbox" in names and not table["proj:bbox"].null_count:
        boxes = table["proj:bbox"].to_pylist()
        return np.array([[b[0], b[1], b[len(b) // 2], b[len(b) // 2 + 1]] for b in boxes], np.float64)
    if {"proj:transform", "proj:shape"} <= set(names) and not table["proj:transform"].null_count:
        found = []
        for t, (height, width) in zip(
            table["proj:transform"].to_pylist(), table["proj:shape"].to_pylist(), strict=True
        ):
            x, y = (t[2], t[2] + t[0] * width), (t[5], t[5] + t[4] * height)
            found.append([min(x), min(y), max(x), max(y)])
        return np.array(found, np.float64)
    return None

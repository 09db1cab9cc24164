"""Reads lists of tiles as Arrow tables: Parquet, STAC GeoParquet, CSV and GeoPackage; local, HTTP(S), S3, GS.

Of a remote Parquet file only the row groups and columns that are needed are read.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gee_polygons.errors import ArchiveError, GeePolygonsError, InputFileError, ReadError
from gee_polygons.network.places import first_line, has_suffix, hide_query, is_url
from gee_polygons.network.remote_file import RemoteFile
from gee_polygons.network.request import NETWORK, Network
from gee_polygons.sources.cog.area import Area
from gee_polygons.sources.cog.columns import BBOX, SIDES, boxes_of, floats


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
        Rows of other places and years are left out, as far as columns say where and when.
    columns : sequence of str, optional
        Columns to read of a Parquet file, where it has them. Default: all.
    network : Network
        Retry and concurrency settings.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    InputFileError
        If the file is missing or isn't what its name says.
    """
    place = hide_query(place)
    with errors_named(place):
        if has_suffix(place, ".csv"):
            return _filtered(_read_csv(place, network), area, years)
        if has_suffix(place, ".gpkg"):
            return _filtered(_read_gpkg(place, network), area, years)
        return _read_parquet(place, area, years, columns, network)


def file_metadata(place: str, network: Network = NETWORK) -> tuple[dict[bytes, bytes], list[str]]:
    """Return a Parquet file's key-value metadata and column names; from its footer alone."""
    import pyarrow.parquet as pq

    place = hide_query(place)
    with errors_named(place), pq.ParquetFile(_opened(place, network)) as file:
        schema = file.schema_arrow
        return dict(schema.metadata or {}), list(schema.names)


@contextmanager
def errors_named(place: str) -> Iterator[None]:
    """Turn errors of Arrow, GDAL and NumPy into an InputFileError that names the list, as a ReadError then does."""
    try:
        yield
    except ReadError as error:
        if "no such file" in str(error):
            raise InputFileError(f"{place}: no such index") from error
        why = str(error).removeprefix(f"{place}: ").removeprefix("can't be read").lstrip(": ")
        raise ReadError(f"{place}: the index can't be read: {why}", url=place) from error
    except GeePolygonsError:
        raise
    except Exception as error:  # of many classes, also for texts that aren't UTF-8
        kind = "CSV" if has_suffix(place, ".csv") else "GeoPackage" if has_suffix(place, ".gpkg") else "Parquet"
        raise InputFileError(f"{place}: not a {kind} file, or a damaged one: {first_line(error)}") from error


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


def _opened(place: str, network: Network, whole: bool = False) -> Any:
    """Return a local path as it is, a remote file as a file object: read on demand, or read whole at once."""
    if is_url(place):
        file = RemoteFile(place, network)
        return io.BytesIO(file.read()) if whole else file
    if not Path(place).is_file():
        raise InputFileError(f"{place}: no such index; name an aef_index.parquet or the folder that holds one")
    return place


def _read_parquet(
    place: str, area: Area | None, years: Sequence[int] | None, columns: Sequence[str] | None, network: Network
) -> Any:
    import pyarrow.parquet as pq

    source = _opened(place, network)
    with pq.ParquetFile(source, pre_buffer=False) as file:
        names = file.schema_arrow.names
        chosen = names if columns is None else [name for name in names if name in columns]
        groups = list(range(file.num_row_groups))
        if area is not None or years is not None:
            types = [file.schema.column(i).physical_type for i in range(len(file.schema))]
            groups = [i for i in groups if _may_match(file.metadata.row_group(i), types, area, years)]
        if isinstance(source, RemoteFile):
            source.preload(_chunks(file.metadata, groups, frozenset(chosen)))
        table = _filtered(file.read_row_groups(groups, columns=chosen), area, years)
        table.validate(full=True)  # texts of a damaged page may not be UTF-8, which would show at any later use
        return table


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


def _may_match(group: Any, types: Sequence[str], area: Area | None, years: Sequence[int] | None) -> bool:
    """Whether a row group's statistics leave it possible that a row is of these places and years."""
    chunks = [group.column(i) for i in range(group.num_columns)]
    known = {
        chunk.path_in_schema: chunk.statistics
        for chunk, kind in zip(chunks, types, strict=False)
        # pyarrow aborts the process where a damaged footer gives a chunk another type than its column
        if chunk.physical_type == kind
        and chunk.is_stats_set
        and chunk.statistics is not None
        and chunk.statistics.has_min_max
    }
    span = known.get("year")
    if years is not None and span is not None and isinstance(span.min, int | float):
        years = [year for year in years if span.min <= year <= span.max]
        if not years:
            return False
    for names in ([f"wgs84_{side}" for side in SIDES], [f"bbox.{side}" for side in BBOX]):
        if area is not None and all(name in known for name in names):
            west, south, east, north = (known[name] for name in names)
            return bool(area.hits(np.array([[west.min, south.min, east.max, north.max]], np.float64))[0])
    return True


def _filtered(table: Any, area: Area | None, years: Sequence[int] | None) -> Any:
    """Leave out the rows of other places and years; those without a place or year are kept."""
    keep = np.ones(len(table), np.bool_)
    if years is not None and "year" in table.column_names:
        found = floats(table, "year")
        keep &= np.isin(found, list(years)) | np.isnan(found)
    if area is not None and (boxes := boxes_of(table)) is not None:
        keep &= ~np.isfinite(boxes).all(axis=1) | area.hits(np.nan_to_num(boxes))
    return table if keep.all() else table.take(np.flatnonzero(keep))


def _read_csv(place: str, network: Network) -> Any:
    import pyarrow.csv as pacsv

    # a WKT polygon is one cell, however long
    options = pacsv.ParseOptions(newlines_in_values=True)
    return pacsv.read_csv(_opened(place, network, whole=True), parse_options=options)


def _read_gpkg(place: str, network: Network) -> Any:
    import geopandas
    import pyarrow as pa

    with warnings.catch_warnings():
        # GDAL misses the extension .gpkg: bytes that were fetched have no file name
        warnings.filterwarnings("ignore", ".*non conformant file extension", RuntimeWarning)
        frame = geopandas.read_file(_opened(place, network, whole=True), fid_as_index=True)
    if "fid" not in frame:
        frame = frame.rename_axis("fid").reset_index()
    return pa.table(frame.to_arrow(index=False))

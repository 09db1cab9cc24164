"""Reads sites in batches, so that no step holds the geometries of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pyproj
import shapely

from gee_polygons.errors import GeePolygonsError, InputFileError, SiteError
from gee_polygons.site.collection import SiteCollection
from gee_polygons.site.files import read_sites, site_columns, spatial_layer, years_of
from gee_polygons.site.inputs import as_sites
from gee_polygons.site.table import SiteTable, id_column_of, site_table

BATCH: Final = 20_000  # sites that are checked at a time
_OGR: Final = (".gpkg", ".fgb")  # formats that are read in batches


@dataclass(frozen=True)
class SiteInput:
    """Sites as a user gives them: a path or a table, and how it is to be read.

    Parameters
    ----------
    sites : path, SiteCollection, Site or GeoDataFrame
        GeoParquet (a file, or a folder of files), GeoPackage and FlatGeobuf are read in batches; other files whole.
    options : mapping
        ``id_column``, ``start_year_column``, ``crs``, ``layer``: see `load_sites`.
    """

    sites: Any
    options: Mapping[str, Any]

    @property
    def path(self) -> Path | None:
        """The path, if the sites are a file or a folder."""
        return Path(self.sites).expanduser() if isinstance(self.sites, str | Path) else None

    def batches(self) -> Iterator[SiteTable]:
        """Yield the sites, checked and normalised, about 20,000 at a time, in their order."""
        path = self.path
        if path is None:
            yield from _of_collection(as_sites(self.sites))
            return
        if not path.exists():
            raise InputFileError(f"no such file: {path}")
        if path.is_dir() or path.suffix.lower() in (".parquet", ".geoparquet"):
            frames = _of_parquet(path)
        elif path.suffix.lower() in _OGR:
            frames = _of_ogr(path, self.options.get("layer"), self.options.get("id_column"))
        else:
            how: dict[str, Any] = {k: self.options.get(k) for k in _READING}
            yield from _parts(read_sites(path, **how))
            return
        yield from self._normalised(frames, str(path))

    def _normalised(self, frames: Iterator[geopandas.GeoDataFrame], where: str) -> Iterator[SiteTable]:
        options: dict[str, Any] = {k: self.options.get(k) for k in _READING if k != "layer"}
        first = 0
        for frame in frames:
            if not len(frame):
                continue
            if first == 0 and options["id_column"] is None:
                options["id_column"] = id_column_of(frame.drop(columns=frame.geometry.name))
            fids = range(first, first + len(frame)) if options["id_column"] is None else None
            begin = f"{where}, rows from {first}" if first else where
            yield site_table(frame, **options, where=begin, fids=fids)
            first += len(frame)
        if not first:
            raise SiteError(f"{where} holds no features; at least one polygon is needed")


_READING: Final = ("id_column", "start_year_column", "crs", "layer")


def _of_collection(sites: SiteCollection) -> Iterator[SiteTable]:
    frame = sites.to_geodataframe()
    table = SiteTable(
        polygons=sites.polygons, ids=sites.site_ids, start_years=sites.start_years, repairs={},
        properties=pd.DataFrame(frame.drop(columns=["site_id", "start_year", "geometry"])),
    )  # fmt: skip
    return _parts(table)


def _parts(table: SiteTable) -> Iterator[SiteTable]:
    # one type for all batches; `write_table` writes mixed ids as texts, too
    ids = table.ids if len(set(map(type, table.ids))) == 1 else tuple(map(str, table.ids))
    properties = table.properties.apply(lambda cells: _as_arrow(cells) if cells.dtype == object else cells)
    for first in range(0, len(ids), BATCH):
        rows = slice(first, first + BATCH)
        yield SiteTable(
            polygons=table.polygons[rows], ids=ids[rows], start_years=table.start_years[rows],
            properties=properties.iloc[rows].reset_index(drop=True), repairs={},
        )  # fmt: skip


def _as_arrow(cells: pd.Series[Any]) -> pd.Series[Any]:
    with suppress(pa.ArrowException):  # told where the column is written
        found = pa.array(cells, from_pandas=True)
        cells = pd.Series(pd.arrays.ArrowExtensionArray(found))
    return cells


def _of_parquet(path: Path) -> Iterator[geopandas.GeoDataFrame]:
    """Yield batches of a GeoParquet file, or of a folder of such files, with the columns that folder names hold."""
    try:
        data = pyarrow.dataset.dataset(path, format="parquet", partitioning="hive")
        described: list[tuple[Any, ...]] = []
        for fragment in data.get_fragments():
            described.append(_described(path, fragment.physical_schema))
            if described[-1] != described[0]:
                raise InputFileError(f"{path}: its files differ in CRS or geometry column; write them alike")
        if not described:
            raise SiteError(f"{path} holds no features; at least one polygon is needed")
        name, crs = described[0][0], pyproj.CRS(described[0][1])
        columns, rows = _without_results(data.schema)
        for fragment in data.get_fragments(filter=rows):
            keys = pyarrow.dataset.get_partition_keys(fragment.partition_expression)
            here = {key: value for key, value in keys.items() if key in columns}
            # page by page: a row group may hold a million rows
            with pq.ParquetFile(fragment.path, buffer_size=2**20, pre_buffer=False) as file:
                in_rows = rows is not None and not {"year", "time"} & set(keys)
                wanted = [n for n in file.schema_arrow.names if n in columns or (in_rows and n in ("year", "time"))]
                for batch in file.iter_batches(BATCH, columns=wanted):
                    part = pa.Table.from_batches([batch])
                    part = part.filter(rows).select([n for n in wanted if n in columns]) if in_rows else part
                    if len(part):
                        yield _frame(part.combine_chunks().to_batches()[0], name, crs).assign(**here)
    except GeePolygonsError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, shapely.errors.ShapelyError) as error:
        raise InputFileError(f"{path} can't be read as GeoParquet: {str(error).splitlines()[0]}") from error


def _described(path: Path, schema: pa.Schema) -> tuple[str, Any]:
    """Return the name and the CRS of the geometry column of a GeoParquet file."""
    geo = json.loads((schema.metadata or {}).get(b"geo", b"null"))
    if geo is None:
        raise InputFileError(f"{path} is a table without geometry, not a GeoParquet file")
    name = geo["primary_column"]
    if (encoding := geo["columns"][name]["encoding"]) != "WKB":
        raise InputFileError(f"{path}: its geometries are encoded as {encoding}; write them as WKB")
    return name, geo["columns"][name].get("crs", "OGC:CRS84")


def _without_results(schema: pa.Schema) -> tuple[list[str], Any]:
    """Return the columns to read, and which rows: of a dataset of embeddings, each site once."""
    if (years := years_of(schema)) is None:
        return [name for name in schema.names if name != "bbox"], None
    time = pc.field("year") == years[0] if "year" in schema.names else pc.field("time") == f"{years[0]}-01-01"
    return [name for name in site_columns(schema.names) if name not in ("year", "time", "lon", "lat")], time


def _frame(batch: pa.RecordBatch, name: str, crs: Any) -> geopandas.GeoDataFrame:
    frame = batch.drop_columns([name]).to_pandas(types_mapper=_pandas_type)
    return geopandas.GeoDataFrame(frame, geometry=shapely.from_wkb(np.asarray(batch[name])), crs=crs)


def _pandas_type(kind: pa.DataType) -> Any:
    """Return the type that keeps a column's own, also where a batch holds no value."""
    is_plain = (pa.types.is_floating, pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return None if any(of(kind) for of in is_plain) else pd.ArrowDtype(kind)


def _of_ogr(path: Path, layer: str | None, id_column: str | None) -> Iterator[geopandas.GeoDataFrame]:
    import pyogrio

    place, layer = spatial_layer(str(path), layer)
    fids = id_column is not None and id_column.lower() == "fid"
    try:
        with pyogrio.raw.open_arrow(place, layer=layer, batch_size=BATCH, use_pyarrow=True, return_fids=fids) as (
            meta,
            reader,
        ):
            name = meta["geometry_name"] or "wkb_geometry"
            for batch in reader:
                if fids and id_column not in batch.schema.names:
                    hidden = meta["fid_column"] or "OGC_FID"
                    batch = batch.rename_columns([id_column if n == hidden else n for n in batch.schema.names])
                yield _frame(batch, name, meta["crs"])
    except (RuntimeError, ValueError, OSError, shapely.errors.ShapelyError) as error:
        raise InputFileError(f"{path} can't be read as a vector file: {str(error).splitlines()[0]}") from error

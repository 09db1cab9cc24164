"""Reads sites in batches, so that no step holds the geometries of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import shapely

from gee_polygons.errors import GeePolygonsError, InputFileError, SiteError
from gee_polygons.site.collection import SiteCollection
from gee_polygons.site.files import read_sites
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
            frames = _of_ogr(path, self.options.get("layer"))
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
    for first in range(0, len(table.ids), BATCH):
        rows = slice(first, first + BATCH)
        yield SiteTable(
            polygons=table.polygons[rows], ids=table.ids[rows], start_years=table.start_years[rows],
            properties=table.properties.iloc[rows].reset_index(drop=True), repairs={},
        )  # fmt: skip


def _of_parquet(path: Path) -> Iterator[geopandas.GeoDataFrame]:
    """Yield batches of a GeoParquet file, or of a folder of such files, with the columns that folder names hold."""
    import json

    try:
        data = pyarrow.dataset.dataset(path, format="parquet", partitioning="hive")
        geo = json.loads((data.schema.metadata or {}).get(b"geo", b"null"))
        if geo is None:
            raise InputFileError(f"{path} is a table without geometry, not a GeoParquet file")
        name = geo["primary_column"]
        described = geo["columns"][name]
        if described["encoding"] != "WKB":
            raise InputFileError(f"{path}: its geometries are encoded as {described['encoding']}; write them as WKB")
        crs = described.get("crs", "OGC:CRS84")
        columns = [n for n in data.schema.names if n != "bbox"]
        for batch in data.to_batches(columns=columns, batch_size=BATCH, batch_readahead=1, fragment_readahead=1):
            frame = batch.drop_columns([name]).to_pandas(types_mapper=_nullable.get)
            yield geopandas.GeoDataFrame(frame, geometry=shapely.from_wkb(np.asarray(batch[name])), crs=crs)
    except GeePolygonsError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, shapely.errors.ShapelyError) as error:
        raise InputFileError(f"{path} can't be read as GeoParquet: {str(error).splitlines()[0]}") from error


_nullable: Final = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}


def _of_ogr(path: Path, layer: str | None) -> Iterator[geopandas.GeoDataFrame]:
    import pyogrio

    from gee_polygons.site.files import spatial_layer

    place, layer = spatial_layer(str(path), layer)
    try:
        with pyogrio.raw.open_arrow(place, layer=layer, batch_size=BATCH, use_pyarrow=True) as (meta, reader):
            name = meta["geometry_name"] or "wkb_geometry"
            for batch in reader:
                frame = batch.drop_columns([name]).to_pandas(types_mapper=_nullable.get)
                yield geopandas.GeoDataFrame(frame, geometry=shapely.from_wkb(np.asarray(batch[name])), crs=meta["crs"])
    except (RuntimeError, ValueError, OSError, shapely.errors.ShapelyError) as error:
        raise InputFileError(f"{path} can't be read as a vector file: {str(error).splitlines()[0]}") from error

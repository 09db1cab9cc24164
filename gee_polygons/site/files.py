"""Reads vector files; the CRS is the one that the file states, or None."""

from __future__ import annotations

import json
import mmap
import re
import warnings
import zipfile
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path, PurePosixPath
from typing import Any, Final

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import pyproj
import shapely

from gee_polygons.errors import CrsError, GeePolygonsError, InputFileError, UsageError
from gee_polygons.network.places import first_line
from gee_polygons.site.polygons import WGS84, same_crs
from gee_polygons.site.table import SiteTable, site_table
from gee_polygons.site.values import listed, near

VECTOR_SUFFIXES: Final = (".shp", ".gpkg", ".geojson", ".json", ".kml", ".kmz", ".fgb", ".gml", ".csv")  # in a ZIP file
WKT_COLUMNS: Final = "geometry,wkt,geom,the_geom"  # of a CSV file, in any case


def read_sites(
    path: str | PathLike[str],
    *,
    id_column: str | None,
    start_year_column: str | None,
    crs: Any,
    layer: str | None,
    skip_invalid: bool = False,
) -> SiteTable:
    """Read a vector file; see `gee_polygons.site.load_sites`."""
    name = fspath(path)
    remote = "://" in name or name.startswith("/vsi")
    if not remote:
        name = str(Path(name).expanduser())
        if not Path(name).exists():
            raise InputFileError(f"no such file: {name}")
    head = b"" if remote or Path(name).is_dir() else _head(name)
    is_json = head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    without, fids = "has no geometry", None
    try:
        # NaN coordinates and open rings raise an error with the row later; the warnings of numpy and GDAL name no row
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            if Path(name).is_dir() and next(Path(name).rglob("*.parquet"), None):
                gdf = _read_folder(name)
            elif head.startswith(b"PAR1") or name.lower().endswith((".parquet", ".geoparquet")):
                gdf = geopandas.read_parquet(name)
                for _, column in gdf.items():
                    if isinstance(column.dtype, pd.StringDtype):  # which nobody has decoded yet
                        pa.array(column).validate(full=True)
            else:
                gdf, without = _read_ogr(name, layer)
                fids = _fids(gdf, is_json=is_json, id_column=id_column)
                gdf = gdf.reset_index(drop=True)
    except GeePolygonsError:
        raise
    # pyogrio's errors are RuntimeErrors, pyarrow's are ValueErrors or OSErrors, KeyErrors come from odd metadata
    except (RuntimeError, ValueError, OSError, TypeError, KeyError, shapely.errors.ShapelyError) as error:
        reason = first_line(error).split("; It might")[0]
        raise InputFileError(f"{name} can't be read as a vector file: {reason}") from error
    if not isinstance(gdf, geopandas.GeoDataFrame):
        csv = f"; WKT is looked for in columns called {WKT_COLUMNS}" if name.lower().endswith(".csv") else ""
        raise InputFileError(f"{name} is a table without geometry, not a vector file{csv}")
    return site_table(
        _with_geojson_crs(gdf, name, crs) if is_json else gdf,
        id_column=id_column,
        start_year_column=start_year_column,
        crs=crs,
        where=name,
        fids=fids,
        without=without,
        skip_invalid=skip_invalid,
    )


def _read_folder(name: str) -> Any:
    """Read a dataset of GeoParquet files; of one with a row for each site and year, each site once."""
    import pyarrow.parquet as pq

    first = next(iter(sorted(Path(name).rglob("*.parquet"))))
    schema = pq.read_schema(first)
    if years_of(schema) is None:
        return geopandas.read_parquet(name)
    return geopandas.read_parquet(name, columns=site_columns(schema.names)).drop_duplicates(
        "site_id", ignore_index=True
    )


def years_of(schema: pa.Schema) -> list[int] | None:
    """Return the years of a file of a dataset of embeddings; None for a file of something else."""
    metadata = schema.metadata or {}
    if b"gee_polygons_run" not in metadata:
        return None
    return [int(year) for year in json.loads(metadata[b"gee_polygons"])["years"].split(",")]


def site_columns(names: Sequence[str]) -> list[str]:
    """Return those columns of a dataset of embeddings that describe its sites."""
    computed = r"A\d\d(_\w+)?|bbox|mean|codes|Rbar|n_pixels|valid_fraction|status|hilbert_key|pca_components"
    return [name for name in names if not re.fullmatch(computed, name)]


def _head(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise InputFileError(f"{name} can't be opened: {error.strerror}") from error


def spatial_layer(name: str, layer: str | None) -> tuple[str, str]:
    """Return the data set and its layer that a file name and a layer's name, if one is given, stand for."""
    layers: dict[str, tuple[str, str]] = {}  # name as given to the user -> data set and its layer
    spatial = []
    for place in _datasets(name):
        for inner, kind in pyogrio.list_layers(place):
            label = inner if inner not in layers else f"{PurePosixPath(place).parent.name}/{inner}"
            layers[label] = place, inner
            if isinstance(kind, str) or place.lower().endswith(".csv"):
                spatial.append(label)
    if layer is not None and layer not in layers:
        raise UsageError(f"{name} has no layer {layer!r}; it has {near(layer, layers)}")
    if layer is None and len(spatial) > 1:
        raise UsageError(f"{name} has {len(spatial)} layers, {listed(map(repr, spatial))}; choose one with layer=")
    if not layers:
        raise InputFileError(f"{name} has no layers")
    return layers[layer or [*spatial, *layers][0]]


def _read_ogr(name: str, layer: str | None) -> tuple[Any, str]:
    """Return the GeoDataFrame, and what a geometry of None means in it."""
    place, inner = spatial_layer(name, layer)
    options: dict[str, Any] = {"layer": inner, "engine": "pyogrio", "fid_as_index": True}
    if place.lower().endswith(".csv"):
        options |= {"GEOM_POSSIBLE_NAMES": WKT_COLUMNS, "KEEP_GEOM_COLUMNS": "NO", "AUTODETECT_TYPE": "YES"}
    try:
        return geopandas.read_file(place, **options), "has no geometry, or one with a coordinate that isn't a number"
    except shapely.errors.GEOSException:
        gdf = geopandas.read_file(place, on_invalid="ignore", **options)
        return gdf, "has no geometry, or one with a ring that isn't closed"


def _datasets(name: str) -> list[str]:
    """Return the vector files in a ZIP file, in whatever folder, as GDAL names them; of any other file its own name."""
    if not (name.lower().endswith(".zip") and zipfile.is_zipfile(name)):
        return [name]
    with zipfile.ZipFile(name) as file:
        inside = [PurePosixPath(member) for member in sorted(file.namelist())]
    shown = [p for p in inside if p.suffix.lower() in VECTOR_SUFFIXES and not p.name.startswith(".")]
    return [f"/vsizip/{Path(name).absolute().as_posix()}/{p}" for p in shown] or [name]


def _fids(gdf: Any, *, is_json: bool, id_column: str | None) -> list[int] | None:
    """Return feature ids stored outside the columns: GeoJSON's integer `id` member, a GeoPackage's `fid` on request."""
    fids: list[int] = gdf.index.tolist()
    stated = is_json and fids != list(range(len(fids)))  # GDAL counts from 0 where features have no id
    asked = id_column is not None and id_column.lower() == "fid"
    return fids if stated or asked else None


def _with_geojson_crs(gdf: Any, name: str, crs: Any) -> Any:
    """Correct GDAL's reading of the `crs` member: for null and unknown systems it assumes WGS 84."""
    unsaid = gdf.set_crs(None, allow_override=True)
    # RFC 7946: without the member, coordinates are WGS 84, unless the caller knows better
    default = gdf if crs is None or not same_crs(gdf.crs, WGS84) else unsaid
    with Path(name).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        found = re.search(rb'"crs"\s*:\s*', text)
        if found is None:
            return default
        if text.find(b'"features"') > found.end() and same_crs(_named(_decode(text[found.end() :][:4096])), gdf.crs):
            return gdf
        # it isn't where GDAL writes it, or differs from GDAL's reading; "crs" may be a feature's property: parse it all
        try:
            content = json.loads(text[:])
        except ValueError:
            return default
    if "crs" not in content:
        return default
    member = content["crs"]
    if same_crs(_named(member), gdf.crs):
        return gdf
    if member is not None and crs is None:
        raise CrsError(
            f"{name}: its crs member names no known coordinate reference system: {json.dumps(member)[:120]}; "
            'state the right one with crs=, for example crs="EPSG:4326"'
        )
    return unsaid


def _decode(text: bytes) -> Any:
    try:
        return json.JSONDecoder().raw_decode(text.decode("utf-8", "ignore"))[0]
    except ValueError:
        return None


def _named(member: Any) -> pyproj.CRS | None:
    try:
        return pyproj.CRS.from_user_input(member["properties"]["name"])
    except (TypeError, KeyError, pyproj.exceptions.CRSError):
        return None

"""The output table: its columns, its provenance, and its files: GeoParquet, CSV, GeoPackage and GeoJSON.

One row per (site, year). `.parquet` is GeoParquet 1.1 (geometry in EPSG:4326, a covering `bbox` column, provenance
as JSON under the key ``gee_polygons``); `.csv` is CSV with full float precision, next to a CSVW description
(``<name>.csv-metadata.json``) that holds types and provenance. No timestamps are written, so the same table gives the
same bytes; only a `.gpkg` holds its date. `.gpkg` and `.geojson` are for programs that read no Parquet; they carry the
provenance in the metadata of the layer, and in the member ``description``. Files are written under a temporary name in
the same folder, then renamed.

Sources: GeoParquet 1.1.0 specification; W3C, *Metadata Vocabulary for Tabular Data* (2015).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pyproj
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import ATTRIBUTION, BANDS, FORMULA, LICENCE, LICENCE_URL, N_BANDS, SYNTHETIC_NOTE
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import InputFileError, OutputError, UsageError
from gee_polygons.network.places import first_line
from gee_polygons.site.values import near, plain
from gee_polygons.store.atomic import check_new_file, replacing
from gee_polygons.store.geoparquet import BBOX_TYPE, bbox_array, geo_metadata
from gee_polygons.version import package_version

if TYPE_CHECKING:
    from gee_polygons.site import SiteCollection

__all__ = [
    "ATTRIBUTION",
    "FORMULA",
    "LICENCE",
    "check_new_file",
    "check_output",
    "columns",
    "keep_columns",
    "provenance",
    "read_table",
    "write_table",
]

log = logging.getLogger(__name__)

WEIGHTS: Final = "exact fraction of each pixel's area inside the polygon, over valid pixels"

DRIVERS: Final = {".gpkg": "GPKG", ".geojson": "GeoJSON"}  # of GDAL
SUFFIXES: Final = (".parquet", ".csv", *DRIVERS)
_ENDINGS: Final = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
ROW_GROUP_ROWS: Final = 65_536  # rows written at a time: bounds the memory that the geometries take
METADATA_KEY: Final = b"gee_polygons"
GEOMETRY_COLUMNS: Final = ("geometry", "bbox")


def columns(bands: Sequence[str], statistics: Sequence[str]) -> list[str]:
    """Return the names of the value columns, ordered by statistic, then band.

    Parameters
    ----------
    bands : sequence of str
        Band names.
    statistics : sequence of str
        Names of statistics. With a single one, columns are named by band alone.

    Returns
    -------
    list of str

    Raises
    ------
    UsageError
        If either is empty or has a name twice.

    Examples
    --------
    >>> columns(["A00", "A01"], ["mean"])
    ['A00', 'A01']
    >>> columns(["A00", "A01"], ["mean", "std"])
    ['A00_mean', 'A01_mean', 'A00_std', 'A01_std']
    """
    for what, names in (("bands", bands), ("statistics", statistics)):
        if isinstance(names, str) or not names or len(set(names)) != len(names):
            raise UsageError(f"{what} are a sequence of unique names, found {names!r}")
    if len(statistics) == 1:
        return list(bands)
    return [f"{band}_{statistic}" for statistic in statistics for band in bands]


def keep_columns(table: pd.DataFrame, sites: SiteCollection, keep: bool | Sequence[str]) -> pd.DataFrame:
    """Return a table with columns of its sites after the first two columns.

    Parameters
    ----------
    table : DataFrame
        With `site_id`.
    sites : SiteCollection
        The sites of the table.
    keep : bool or sequence of str
        Names of the sites' properties; True: all of them; False: the table is returned as it is. With any, there are
        also ``start_year``, if a site has one, and ``lon`` and ``lat``, the centroid in degrees. A property that has
        the name of another column gets ``_in_file`` appended.

    Returns
    -------
    DataFrame

    Raises
    ------
    UsageError
        If the sites have no such column.

    Examples
    --------
    >>> from gee_polygons.site import Site, SiteCollection
    >>> site = Site(polygon=shapely.box(10, 0, 11, 1), site_id=7, start_year=2016, properties={"kind": "control"})
    >>> keep_columns(pd.DataFrame({"site_id": [7], "year": [2024]}), SiteCollection([site]), ["kind"]).iloc[0].to_dict()
    {'site_id': 7, 'year': 2024, 'start_year': 2016, 'kind': 'control', 'lon': 10.5, 'lat': 0.5}
    """
    if keep is False:
        return table
    frame = sites.to_geodataframe()
    there = [n for n in frame.columns if n not in ("site_id", "geometry")]
    known = [*there, "lon", "lat"]
    named = there if keep is True else [keep] if isinstance(keep, str) else list(keep)
    if unknown := [name for name in named if name not in known]:
        raise UsageError(
            f"the sites have no column {unknown[0]!r}, named in keep=; they have {near(unknown[0], known)}"
        )
    first = ["start_year"] if frame["start_year"].notna().any() else []
    chosen = dict.fromkeys([*first, *(n for n in named if n in there and n != "start_year")])
    taken = {"lon", "lat", *GEOMETRY_COLUMNS, *table.columns}
    kept = pd.DataFrame(frame[list(chosen)]).rename(columns=lambda n: f"{n}_in_file" if n in taken else n)
    center = shapely.centroid(sites.polygons)
    kept = kept.assign(lon=(shapely.get_x(center) + 180) % 360 - 180, lat=shapely.get_y(center))
    place = {site_id: i for i, site_id in enumerate(sites.site_ids)}
    kept = kept.iloc[np.array([place[i] for i in table["site_id"]], dtype=np.intp)].set_axis(table.index)
    found = pd.concat([table.iloc[:, :2], kept, table.iloc[:, 2:]], axis=1)
    found.attrs = table.attrs
    return found


def provenance(
    *,
    source: str,
    archive: str,
    years: Sequence[int],
    statistics: Sequence[str],
    bands: Sequence[str],
    weights: str = WEIGHTS,
) -> dict[str, str]:
    """Return where a table comes from, which `write_table` stores from ``table.attrs["provenance"]``.

    Parameters
    ----------
    source : str
        Kind of source: ``"sample"``, ``"cog"``, ``"earthengine"``, ...
    archive : str
        Which archive: a path, URL or asset id. Values are marked as synthetic for the source ``"sample"``, and for a
        local index whose file metadata states it, as every sample archive's does.
    years : sequence of int
        Years asked for.
    statistics, bands : sequence of str
        What was computed.
    weights : str
        How pixels are weighted.

    Returns
    -------
    dict of str to str, free of dates: the same extraction gives the same provenance.

    Examples
    --------
    >>> p = provenance(source="sample", archive="sample-v1", years=[2023, 2024], statistics=["mean"], bands=BANDS)
    >>> p["years"], p["bands"], p["synthetic"]
    ('2023,2024', 'A00..A63', 'true')
    """
    synthetic = source == "sample" or _says_synthetic(archive)
    found = {
        "package": "gee_polygons",
        "package_version": package_version(),
        "source": source,
        # the sample archive is the same in every folder; a path would name a person and change the bytes
        "archive": f"gee_polygons sample {package_version()}" if source == "sample" else archive,
        "years": ",".join(str(int(year)) for year in years),
        "statistics": ",".join(statistics),
        "bands": f"{BANDS[0]}..{BANDS[-1]}" if tuple(bands) == BANDS else ",".join(bands),
        "formula": FORMULA,
        "weights": weights,
        "attribution": ATTRIBUTION,
        "licence": LICENCE,
        "synthetic": "true" if synthetic else "false",
    }
    if synthetic:
        found["note"] = SYNTHETIC_NOTE
    return found


def _says_synthetic(archive: str) -> bool:
    path = Path(archive)
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    return b"synthetic" in (pq.read_schema(path).metadata or {})


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """Check that a table can be written to `path`; called before the long work, and again by `write_table`.

    Parameters
    ----------
    path : str or Path
        ``.parquet``, ``.csv``, ``.gpkg`` or ``.geojson``, in a folder that exists.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        For another suffix.
    OutputError
        If the file exists, or its folder doesn't or can't be written.

    Examples
    --------
    >>> check_output("table.xlsx")
    Traceback (most recent call last):
    gee_polygons.errors.UsageError: can't write 'table.xlsx': the name must end in .parquet, .csv, .gpkg or .geojson
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"can't write {str(path)!r}: the name must end in {_ENDINGS}")
    for output in _outputs(path):
        check_new_file(output, overwrite)
    return path


def write_table(
    table: pd.DataFrame,
    path: str | Path,
    *,
    sites: SiteCollection | None = None,
    overwrite: bool = False,
    spreadsheet: bool = False,
) -> Path:
    """Write a table to GeoParquet, CSV, GeoPackage or GeoJSON, whole or not at all.

    Parameters
    ----------
    table : DataFrame
        What `extract_embeddings` returned; ``table.attrs["provenance"]`` goes into the file.
    path : str or Path
        ``.parquet`` (GeoParquet 1.1), ``.csv`` (with ``<name>.csv-metadata.json`` beside it), ``.gpkg`` or
        ``.geojson``.
    sites : SiteCollection, optional
        Where the geometries come from, by `site_id`. Without it there are none, unless `table` is a GeoDataFrame.
        CSV has no geometries.
    overwrite : bool
        Whether existing files may be replaced.
    spreadsheet : bool
        Put an apostrophe before texts of a CSV that a spreadsheet would compute as a formula: those that begin with
        ``=``, ``+``, ``-``, ``@``, a tab or a carriage return. `read_table` gives them back with it.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        For an unknown suffix, or a `site_id` that `sites` doesn't have.
    OutputError
        If the file exists or can't be written.

    Examples
    --------
    >>> import tempfile
    >>> table = pd.DataFrame({"site_id": ["a", "a"], "year": [2023, 2024], "A00": [0.1, float("nan")]})
    >>> table.attrs["provenance"] = {"source": "sample"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     back = read_table(write_table(table, Path(folder) / "table.csv"))
    >>> back.equals(table), back.attrs["provenance"]
    (True, {'source': 'sample'})
    """
    path = check_output(path, overwrite)
    if path.suffix.lower() == ".csv":
        values = pd.DataFrame(table.drop(columns=list(GEOMETRY_COLUMNS), errors="ignore"))
        if spreadsheet:
            values = values.apply(lambda cells: cells.map(spreadsheet_cell) if _datatype(cells) == "string" else cells)
            values = values.rename(columns=spreadsheet_cell)
        target, description = _outputs(path)
        # the description is renamed first: where the table is, everything is
        with replacing(target) as data, replacing(description) as sidecar:
            values.to_csv(data, index=False, lineterminator="\n", encoding="utf-8")
            text = json.dumps(_csvw(values, path.name, _provenance_of(table)), indent=2, ensure_ascii=False)
            sidecar.write_text(text + "\n", encoding="utf-8")
    else:
        geometry = _Geometry.of(table, sites)
        write = _write_ogr if path.suffix.lower() in DRIVERS else _write_parquet
        with replacing(path) as data:
            write(table, data, geometry)
    log.info("wrote %s: %d rows", path, len(table))
    return path


def spreadsheet_cell(value: Any) -> Any:
    """Return a cell of a CSV file that spreadsheets show as it is: before a formula's first character an apostrophe.

    Examples
    --------
    >>> spreadsheet_cell("=1+1"), spreadsheet_cell("site 7"), spreadsheet_cell(-1)
    ("'=1+1", 'site 7', -1)
    """
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else value


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote, without its geometries (`geopandas` has those).

    Parameters
    ----------
    path : str or Path
        ``.parquet``, ``.csv``, ``.gpkg`` or ``.geojson``; or the folder of a dataset that `extract_to_parquet` wrote,
        whose rows come in the order of their Hilbert keys, with their vectors as A00..A63.

    Returns
    -------
    DataFrame, equal to the one written (whole numbers as floats in columns with gaps), provenance in
    ``attrs["provenance"]`` (empty where the file has none).

    Raises
    ------
    InputFileError
        If the file is missing or isn't what its name says.
    UsageError
        For another suffix.
    """
    path = Path(path)
    if path.is_dir():
        read = _read_folder
    elif path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"can't read {str(path)!r} as a table: the name must end in {_ENDINGS}")
    elif not path.is_file():
        raise InputFileError(f"there is no file {path}")
    else:
        read = {".csv": _read_csv, ".parquet": _read_parquet}.get(path.suffix.lower(), _read_ogr)
    try:
        table, found = read(path)
    # Arrow's, pandas', GDAL's and JSON's are among these
    except (ValueError, LookupError, TypeError, OSError, RuntimeError) as error:
        raise InputFileError(f"{path} is not a readable table: {first_line(error)}") from error
    table.attrs["provenance"] = found
    return table


# --- Parquet ----------------------------------------------------------------------------------------------------------


class _Geometry:
    """The distinct polygons of a table, and the index of the polygon of each row."""

    @property
    def column(self) -> NDArray[Any]:
        """The polygon of each row."""
        return self._polygons[self._rows]

    def __init__(self, polygons: NDArray[Any], rows: NDArray[np.int64]) -> None:
        self._polygons, self._rows = polygons, rows
        used = polygons[np.unique(rows)]
        self.types = sorted({str(p.geom_type) for p in used})
        self.total = [float(v) for v in shapely.total_bounds(used)] if len(used) else []

    def part(self, start: int, length: int) -> list[pa.Array]:
        """Return the columns `geometry` and `bbox` of a range of rows, so that few are in memory as WKB at a time."""
        sites, rows = np.unique(self._rows[start : start + length], return_inverse=True)
        polygons = self._polygons[sites]
        wkb = pa.array(shapely.to_wkb(polygons), pa.binary())
        return [column.take(pa.array(rows)) for column in (wkb, bbox_array(polygons))]

    @classmethod
    def of(cls, table: pd.DataFrame, sites: SiteCollection | None) -> _Geometry | None:
        """Take the geometries from `sites`, else from a GeoDataFrame's own column, else None."""
        if sites is not None:
            place = {site_id: i for i, site_id in enumerate(sites.site_ids)}
            unknown = [site_id for site_id in table["site_id"].unique() if site_id not in place]
            if unknown:
                raise UsageError(f"site {unknown[0]!r} of the table is not among the {len(place)} sites given")
            rows = np.asarray(table["site_id"].map(place), dtype=np.int64)
            return cls(np.asarray(sites.polygons, dtype=object), rows)
        if "geometry" not in table:
            return None
        crs = getattr(table["geometry"], "crs", None)
        if crs is None or pyproj.CRS(crs) != pyproj.CRS("EPSG:4326"):
            raise UsageError(f"geometries are written in EPSG:4326, the table's are in {crs}; use .to_crs(4326) first")
        return cls(table["geometry"].to_numpy(dtype=object), np.arange(len(table), dtype=np.int64))

    @property
    def metadata(self) -> bytes:
        """The value of the `geo` key of GeoParquet 1.1."""
        return geo_metadata(
            "geometry", self.types, crs="EPSG:4326", bounds=self.total or None, covering=True, edges="planar"
        )


def _write_parquet(table: pd.DataFrame, path: Path, geometry: _Geometry | None) -> None:
    values = [str(name) for name in table.columns if name not in GEOMETRY_COLUMNS]
    arrays = {name: _typed_array(table[name]) for name in values}
    fields = [pa.field(name, array.type) for name, array in arrays.items()]
    metadata = {METADATA_KEY: _json(_provenance_of(table))}
    if geometry is not None:
        fields += [pa.field("geometry", pa.binary(), nullable=False)]
        fields += [pa.field("bbox", BBOX_TYPE, nullable=False)]
        metadata[b"geo"] = geometry.metadata
    schema = pa.schema(fields, metadata=metadata)
    # worth a dictionary: what repeats from row to row
    repeating = [f.name for f in schema if not pa.types.is_floating(f.type) and f.name != "bbox"]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeating) as writer:
        for start in range(0, max(len(table), 1), ROW_GROUP_ROWS):
            part = [array.slice(start, ROW_GROUP_ROWS) for array in arrays.values()]
            if geometry is not None:
                part += geometry.part(start, ROW_GROUP_ROWS)
            writer.write_table(pa.Table.from_arrays(part, schema=schema))


def _arrow_array(column: pd.Series[Any]) -> pa.Array:
    if _datatype(column) == "string":
        try:
            return pa.array(column, pa.string(), from_pandas=True)
        except pa.ArrowTypeError:  # names and numbers among the ids, dates and lists among the sites' columns
            return pa.array([None if (cell := plain(v)) is None else str(cell) for v in column], pa.string())
    # NaN becomes null, so that SQL's avg() skips it; pandas reads it back as NaN
    return pa.array(column.to_numpy() if isinstance(column.dtype, np.dtype) else column, from_pandas=True)


def _typed_array(column: pd.Series[Any]) -> pa.Array:
    """Return a column as Arrow types it: lists, dates and others too; text if names and numbers are mixed."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if _datatype(column) != "string" or pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty"):
        return _arrow_array(column)
    try:
        return pa.array(column, from_pandas=True)
    except pa.ArrowException as error:
        if all(np.isscalar(plain(cell)) or plain(cell) is None for cell in column):
            return _arrow_array(column)
        raise UsageError(
            f"the column {column.name!r} can't be written: {first_line(error)}; give its cells one type, or drop it"
        ) from error


def _read_parquet(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        names = [name for name in schema.names if name not in GEOMETRY_COLUMNS]
        table: pd.DataFrame = file.read(columns=names).to_pandas()
    return table, json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))


def _read_folder(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read a dataset in folders named after the values that it is divided by."""
    import pyarrow.dataset

    files = [str(p) for p in sorted(path.rglob("*.parquet")) if not p.name.startswith((".", "_"))]
    if not files:
        raise ValueError("the folder holds no Parquet files")
    data = pyarrow.dataset.dataset(files, format="parquet", partitioning="hive", partition_base_dir=str(path))
    found = data.to_table(columns=[name for name in data.schema.names if name not in GEOMETRY_COLUMNS])
    if "time" in found.column_names and "year" not in found.column_names:
        years = pa.array([int(str(time)[:4]) for time in found["time"].to_pylist()], pa.int64())
        found = found.set_column(found.schema.get_field_index("time"), "year", years)
    if "hilbert_key" in found.column_names:
        found = found.sort_by([(name, "ascending") for name in ("hilbert_key", "site_id", "year")])
    for name in ("mean", "codes"):  # vectors in one column
        if name in found.column_names and not pa.types.is_floating(found.schema.field(name).type):
            at, vectors = found.schema.get_field_index(name), unpacked(found[name].combine_chunks())
            found = found.remove_column(at)
            for i, band in reversed(list(enumerate(BANDS))):
                found = found.add_column(at, band, pa.array(vectors[:, i], from_pandas=True))
    names = [name for name in ("site_id", "year") if name in found.column_names]
    table: pd.DataFrame = found.select([*names, *(n for n in found.column_names if n not in names)]).to_pandas()
    if "year" in table:
        table["year"] = table["year"].astype("int64")
    for name in table.columns[table.dtypes == "category"]:
        table[name] = table[name].astype(object)
    return table, json.loads((data.schema.metadata or {}).get(METADATA_KEY, b"{}"))


def unpacked(column: Any) -> NDArray[np.float64]:
    """Return vectors in one Arrow column, lists of 64 numbers or 64 codes as bytes, as an array; NaN without data."""
    found = np.full((len(column), N_BANDS), np.nan)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    present = column.drop_null()
    if pa.types.is_fixed_size_binary(column.type):
        codes = np.frombuffer(b"".join(present.to_pylist()), np.int8)
        found[valid] = codes_to_vectors(codes.reshape(-1, N_BANDS))
    else:
        found[valid] = present.flatten().to_numpy().reshape(-1, N_BANDS)
    return found


# --- CSV --------------------------------------------------------------------------------------------------------------


def _csvw(table: pd.DataFrame, name: str, found: dict[str, str]) -> dict[str, Any]:
    described = []
    for title in table.columns:
        column = {"name": str(title), "titles": str(title), "datatype": _datatype(table[title])}
        described.append({**column, "required": True} if title in ("site_id", "year") else column)
    schema: dict[str, Any] = {"columns": described}
    if {"site_id", "year"} <= set(table.columns):
        schema["primaryKey"] = ["site_id", "year"]
    return {
        "@context": "http://www.w3.org/ns/csvw",
        "url": name,
        "dc:license": {"@id": LICENCE_URL},
        "dc:rights": found.get("attribution", ATTRIBUTION),
        "notes": [{"type": "provenance", **found}],
        "tableSchema": schema,
    }


def _datatype(column: pd.Series[Any]) -> str:
    """Return the CSVW name of a column's type."""
    kind = getattr(column.dtype, "kind", "O")
    return {"b": "boolean", "i": "integer", "u": "integer", "f": "double"}.get(kind, "string")


_ARROW_TYPES: Final = {"boolean": pa.bool_(), "integer": pa.int64(), "double": pa.float64(), "string": pa.string()}


def _read_csv(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    _, sidecar = _outputs(path)
    found: dict[str, str] = {}
    types = {"site_id": pa.string(), "status": pa.string()}  # of a CSV whose description was lost
    if sidecar.is_file():
        described = json.loads(sidecar.read_text(encoding="utf-8"))
        found = {k: v for k, v in described["notes"][0].items() if k != "type"}
        types = {c["name"]: _ARROW_TYPES[c["datatype"]] for c in described["tableSchema"]["columns"]}
    # Arrow's reader rounds decimal numbers correctly, whatever the version of pandas
    table: pd.DataFrame = pacsv.read_csv(
        path,
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        # an empty cell is missing, and nothing else: a site may be called "NA"
        convert_options=pacsv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True),
    ).to_pandas()
    return table, found


# --- GeoPackage and GeoJSON -------------------------------------------------------------------------------------------


def _write_ogr(table: pd.DataFrame, path: Path, geometry: _Geometry | None) -> None:
    import geopandas
    import pyogrio

    found = _json(_provenance_of(table)).decode()
    driver = DRIVERS[path.suffix.lower()]
    how: dict[str, Any] = {"layer_options": {"DESCRIPTION": found, "SIGNIFICANT_FIGURES": "17"}}
    if driver == "GPKG":  # a column of the sites may be called fid; theirs isn't unique here
        how = {"layer_metadata": {METADATA_KEY.decode(): found}, "layer_options": {"FID": "row_number"}}
    values = pd.DataFrame(table.drop(columns=list(GEOMETRY_COLUMNS), errors="ignore"))
    for name in values.columns:
        if _datatype(values[name]) == "string":
            values[name] = _arrow_array(values[name]).to_pandas()
    if geometry is not None:
        values = geopandas.GeoDataFrame(values, geometry=geometry.column, crs="EPSG:4326")
    try:
        pyogrio.write_dataframe(values, path, driver=driver, layer="embeddings", **how)
    except (RuntimeError, ValueError) as error:
        reason = str(error).rpartition(") failed: ")[2][:200]  # what failed may be SQL of many lines
        raise OutputError(
            f"can't write {path.suffix}: {reason}; if there is room on the disk, choose .parquet"
        ) from error


def _read_ogr(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    import pyogrio

    layer = pyogrio.list_layers(path)[0, 0]
    found = pyogrio.read_info(path, layer=layer)["layer_metadata"] or {}
    table: pd.DataFrame = pyogrio.read_dataframe(path, layer=layer, read_geometry=False)
    table = table.astype(dict.fromkeys(table.select_dtypes("int32"), "int64"))
    return table, json.loads(found.get(METADATA_KEY.decode(), found.get("DESCRIPTION", "{}")))


# --- files ------------------------------------------------------------------------------------------------------------


def _outputs(path: Path) -> tuple[Path, ...]:
    """Every file that is written for `path`, the table first."""
    return (path, path.with_name(f"{path.name}-metadata.json")) if path.suffix.lower() == ".csv" else (path,)


def _provenance_of(table: pd.DataFrame) -> dict[str, str]:
    return {str(k): str(v) for k, v in dict(table.attrs.get("provenance", {})).items()}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

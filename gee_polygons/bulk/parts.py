"""Writes the files of a dataset: GeoParquet 1.1 in folders named after the values that it is divided by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from gee_polygons.embeddings.directional import normalize
from gee_polygons.embeddings.quantization import vectors_to_codes
from gee_polygons.errors import UsageError
from gee_polygons.store.atomic import replacing
from gee_polygons.store.geoparquet import BBOX_TYPE, bbox_array, geo_metadata
from gee_polygons.tables import unpacked

EMBEDDINGS: Final = ("columns", "array", "list", "codes")
ROW_GROUP_ROWS: Final = 100_000
_LONGEST: Final = 200  # characters of a value in a folder's name; systems allow 255 bytes in all
RUN_KEY: Final = b"gee_polygons_run"
_NAMES: Final = {"array": "mean", "list": "mean", "codes": "codes"}


@dataclass(frozen=True, kw_only=True)
class Format:
    """What the files of a dataset look like.

    Parameters
    ----------
    partition_by : tuple of str
        Columns that become folders: ``year``, ``time`` (its first of January) or columns of the sites.
    embedding : str
        One of `EMBEDDINGS`.
    values : tuple of str
        Names of the value columns.
    provenance : mapping
        Written into each file.
    plan_hash : str
        Of the run, written into each file.
    """

    partition_by: tuple[str, ...]
    embedding: str
    values: tuple[str, ...]
    provenance: Mapping[str, str]
    plan_hash: str

    @property
    def vector_columns(self) -> list[str]:
        """Names of the columns that hold the vectors."""
        return list(self.values) if self.embedding == "columns" else [_NAMES[self.embedding]]

    def folders(self, table: pa.Table) -> list[tuple[str, pa.Table]]:
        """Divide a table; return the folder of each part, such as ``year=2023``, and its rows without these columns."""
        if "time" in self.partition_by:
            time = pa.array([f"{year}-01-01" for year in table["year"].to_pylist()])
            table = table.drop_columns(["year"]).append_column("time", time)
        names = list(self.partition_by)
        if not names:
            return [("", table)]
        values = list(zip(*(table[name].to_pylist() for name in names), strict=True))
        places = {
            row: "/".join(f"{_quoted(name)}={_folder_value(value)}" for name, value in zip(names, row, strict=True))
            for row in set(values)
        }
        which = np.array([places[row] for row in values])
        rest = table.drop_columns(names)
        return [(place, rest.filter(pa.array(which == place))) for place in sorted(set(places.values()))]

    def columns(self, table: pa.Table) -> pa.Table:
        """Return a table with its embedding as this format has it."""
        if self.embedding == "columns":
            return table
        values = np.stack([table[name].to_numpy() for name in self.values], axis=1)
        kept = table.drop_columns(list(self.values))
        missing = pa.array(~np.isfinite(values).all(axis=1))
        if self.embedding == "codes":
            codes = vectors_to_codes(normalize(values))
            size = codes.shape[1]
            flat = pa.py_buffer(np.ascontiguousarray(codes).tobytes())
            column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(codes), [None, flat])
            column = pc.if_else(missing, pa.scalar(None, column.type), column)
        elif self.embedding == "array":
            flat = pa.array(values.astype(np.float32).ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=missing)
        else:
            offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
            column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()), mask=missing)
        at = kept.schema.get_field_index("Rbar")
        return kept.add_column(at, _NAMES[self.embedding], column)

    def schema(self, table: pa.Table, bounds: Sequence[float], types: Sequence[str], part: str) -> pa.Schema:
        """Return a table's schema with the metadata of a file."""
        metadata = {
            b"geo": geo_metadata("geometry", types, crs="EPSG:4326", bounds=bounds, covering=True, edges="planar"),
            b"gee_polygons": _json(dict(self.provenance)),
            RUN_KEY: _json({"part": part, "plan": self.plan_hash}),
        }
        return table.schema.with_metadata(metadata)


def vectors_of(rows: Any, how: Format) -> NDArray[Any]:
    """Return the vectors of a table or record batch of a dataset, float64, shape (rows, bands); NaN without data."""
    if how.embedding == "columns":
        return np.stack([rows[name].to_numpy(zero_copy_only=False) for name in how.values], axis=1)
    column = rows[how.vector_columns[0]]
    return unpacked(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)


def write_parts(table: pa.Table, geometry: pa.ChunkedArray, folder: Path, name: str, how: Format) -> dict[str, int]:
    """Write a table into the folders of a dataset, each file whole or not at all.

    Parameters
    ----------
    table : Table
        Rows of sites and years, with a column ``site_row``: the row of `geometry` that is the site's polygon (WKB).
    geometry : binary array
        Polygons of the sites.
    folder : Path
        The dataset's folder.
    name : str
        Name of the files, without suffix.
    how : Format
        What they look like.

    Returns
    -------
    dict of str to int: the names of the files, below the folder, and their sizes in bytes.
    """
    polygons = shapely.from_wkb(geometry.to_numpy(zero_copy_only=False))
    boxes = bbox_array(polygons)
    wkb = pa.chunked_array([geometry.combine_chunks()]) if isinstance(geometry, pa.ChunkedArray) else geometry
    files = {}
    for place, part in how.folders(table):
        rows = part["site_row"]
        part = how.columns(part.drop_columns(["site_row"]))
        used = polygons[np.unique(rows.to_numpy())]
        part = part.append_column(pa.field("geometry", pa.binary(), nullable=False), wkb.take(rows))
        part = part.append_column(pa.field("bbox", BBOX_TYPE, nullable=False), boxes.take(rows.combine_chunks()))
        types = sorted({str(p.geom_type) for p in used})
        part = part.cast(how.schema(part, [float(v) for v in shapely.total_bounds(used)], types, name))
        target = folder / place / f"{name}.parquet"
        with replacing(target) as temporary:
            write_file(part, temporary)
            files[f"{place}/{name}.parquet".lstrip("/")] = temporary.stat().st_size
    return files


def write_file(part: pa.Table, path: Path) -> None:
    """Write one file of a dataset; the same table gives the same bytes."""
    # worth a dictionary: what repeats from row to row
    repeating = [f.name for f in part.schema if not pa.types.is_floating(f.type) and not pa.types.is_nested(f.type)]
    pq.write_table(
        part, path, compression="zstd", compression_level=1, use_dictionary=repeating, row_group_size=ROW_GROUP_ROWS
    )


def _folder_value(value: Any) -> str:
    """Return a value as Hive writes it into folder names."""
    text = "__HIVE_DEFAULT_PARTITION__" if value is None or value == "" else _quoted(str(value))
    if len(text) > _LONGEST:
        raise UsageError(f"partition_by: a folder can't be called after a value as long as {text[:40]}...")
    return text


def _quoted(text: str) -> str:
    return quote(text, safe=" -_.,+:@()")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()

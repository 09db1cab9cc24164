"""Writes the index of an archive: one row for each tile, with the published columns, as GeoParquet 1.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from gee_polygons.sources.cog.columns import SIDES
from gee_polygons.store.atomic import replacing
from gee_polygons.store.geoparquet import geo_metadata


def index_row(crs: str, year: int, utm: Sequence[float], wgs84: Sequence[float], path: str) -> dict[str, Any]:
    """Return a row for `write_index`.

    Parameters
    ----------
    crs : str
        ``"EPSG:326zz"`` or ``"EPSG:327zz"``.
    year : int
        Year of the tile.
    utm : sequence of 4 floats
        West, south, east, north of the file, metres.
    wgs84 : sequence of 4 floats
        West, south, east, north of its valid pixels, degrees, inside the zone's cell.
    path : str
        Path relative to the index, or URL.

    Examples
    --------
    >>> index_row("EPSG:32722", 2024, (0, 0, 10, 10), (-50, -1, -49, 0), "a.tiff")["utm_zone"]
    '22S'
    """
    row: dict[str, Any] = {"crs": crs, "year": year, "utm_zone": zone_name(crs), "path": path}
    for frame, bounds in (("utm", utm), ("wgs84", wgs84)):
        row |= {f"{frame}_{side}": float(value) for side, value in zip(SIDES, bounds, strict=True)}
    return row


def zone_name(crs: str) -> str:
    """Return the name of a UTM zone, such as "22S"; another CRS's code.

    Examples
    --------
    >>> zone_name("EPSG:32616"), zone_name("EPSG:32722"), zone_name("EPSG:5880")
    ('16N', '22S', '5880')
    """
    code = crs.removeprefix("EPSG:")
    return f"{code[3:]}{'N' if code[2] == '6' else 'S'}" if code[:3] in ("326", "327") else code


def write_index(path: Path, rows: Sequence[Mapping[str, Any]], metadata: Mapping[str, str]) -> None:
    """Write rows of `index_row`, and further metadata of the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"{frame}_{side}" for frame in ("utm", "wgs84") for side in SIDES]
    schema = pa.schema(
        {"fid": pa.int64(), "geom": pa.binary(), "crs": pa.string(), "year": pa.int32(), "utm_zone": pa.string()}
        | dict.fromkeys(names, pa.float64())
        | {"path": pa.string()}
    )
    boxes = shapely.box(*np.array([[row[f"wgs84_{side}"] for side in SIDES] for row in rows]).T)
    geometries = shapely.to_wkb(boxes, byte_order=1)
    numbered = [{**row, "fid": i, "geom": geom} for i, (row, geom) in enumerate(zip(rows, geometries, strict=True), 1)]
    geo = geo_metadata("geom", ["Polygon"], bounds=shapely.total_bounds(boxes).tolist())
    table = pa.Table.from_pylist(numbered, schema.with_metadata({"geo": geo, **metadata}))
    with replacing(path) as part:
        pq.write_table(table, part, compression="zstd")

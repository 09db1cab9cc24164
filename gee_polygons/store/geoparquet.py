"""Writes the metadata and columns that make a Parquet file GeoParquet 1.1.

Source: GeoParquet 1.1.0 specification.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

BBOX_SIDES: Final = ("xmin", "ymin", "xmax", "ymax")
BBOX_TYPE: Final = pa.struct([pa.field(side, pa.float64(), nullable=False) for side in BBOX_SIDES])


def geo_metadata(
    column: str,
    geometry_types: Sequence[str],
    *,
    crs: str = "OGC:CRS84",
    bounds: Sequence[float] | None = None,
    covering: bool = False,
    **more: Any,
) -> bytes:
    """Return the value of a Parquet file's metadata key ``geo``.

    Parameters
    ----------
    column : str
        Name of the geometry column, which holds WKB.
    geometry_types : sequence of str
        Such as ``["Polygon"]``.
    crs : str
        CRS of the coordinates, in any form that pyproj reads.
    bounds : sequence of float, optional
        West, south, east, north of the whole file.
    covering : bool
        Whether the file has a column ``bbox`` of `BBOX_TYPE`.
    **more
        Other entries of the column's metadata, such as ``edges="planar"``.

    Examples
    --------
    >>> json.loads(geo_metadata("geometry", ["Polygon"]))["primary_column"]
    'geometry'
    """
    described: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": list(geometry_types),
        "crs": pyproj.CRS(crs).to_json_dict(),
        **more,
    }
    if covering:
        described["covering"] = {"bbox": {side: ["bbox", side] for side in BBOX_SIDES}}
    if bounds is not None:
        described["bbox"] = [float(value) for value in bounds]
    content = {"version": "1.1.0", "primary_column": column, "columns": {column: described}}
    return json.dumps(content, ensure_ascii=False).encode()


def bbox_array(geometries: NDArray[Any]) -> pa.Array:
    """Return the column ``bbox`` of an array of shapely geometries."""
    sides = [pa.array(np.ascontiguousarray(side)) for side in shapely.bounds(geometries).reshape(-1, 4).T]
    return pa.StructArray.from_arrays(sides, fields=list(BBOX_TYPE))

"""Reads geometries of any kind and CRS as shapely geometries in EPSG:4326, with the columns that came with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.collection.table import as_arrow, checked_bbox
from gee_polygons.errors import SiteError, UsageError

_NAMES: Final = ("geometry", "geom", "wkb_geometry", "wkb")
_POINT_RADIUS_DEG: Final = 1e-7  # points are widened to squares of about two centimetres


@dataclass(frozen=True)
class Geometries:
    """Geometries in EPSG:4326, and what is known of the object that they came in.

    Parameters
    ----------
    geometries : array of shapely geometries
        Polygons, multipolygons and points.
    frame : GeoDataFrame, optional
        The table that they came in.
    single : bool
        Whether one geometry was given rather than a list.
    whole_box : bool
        Whether a bounding box was given: all of its pixels count, not only those that it touches.
    """

    geometries: NDArray[Any]
    frame: Any = None
    single: bool = False
    whole_box: bool = False

    @property
    def polygons(self) -> NDArray[Any]:
        """The geometries, with points widened to tiny squares, so that they cover a part of their pixel."""
        kinds = shapely.get_type_id(self.geometries)
        widened: NDArray[Any] = self.geometries.copy()
        points = np.flatnonzero(kinds == 0)
        widened[points] = shapely.buffer(self.geometries[points], _POINT_RADIUS_DEG, cap_style="square")
        return widened


def read_geometries(geometries: Any, crs: Any = None, column: str | None = None) -> Geometries:
    """Read geometries, and check that they have pixels.

    Parameters
    ----------
    geometries : bounding box, shapely, GeoDataFrame, GeoSeries, sites, or Arrow
        ``(west, south, east, north)`` in EPSG:4326; one shapely geometry or a sequence of them; a GeoDataFrame or
        GeoSeries; sites of this package; an Arrow array of WKB, or a table (pyarrow, DuckDB, Polars) with a column
        of it.
    crs : optional
        CRS of geometries without one. Default: EPSG:4326.
    column : str, optional
        The column with geometries. Default: `geometry` or `geom`.

    Raises
    ------
    UsageError
        For an object of another kind.
    SiteError
        For a line, an empty geometry or coordinates that aren't degrees.
    """
    single = whole_box = False
    frame = None
    if isinstance(geometries, str | bytes | Mapping | int | float | None):
        raise UsageError(
            "geometries are a bounding box (west, south, east, north), shapely geometries, a GeoDataFrame, sites or "
            f"Arrow WKB, found {type(geometries).__name__}"
        )
    if isinstance(geometries, tuple | list | np.ndarray) and len(geometries) == 4 and all(map(np.isscalar, geometries)):
        west, south, east, north = checked_bbox(geometries)
        values: NDArray[Any] = np.array([shapely.box(west, south, east + (360.0 if east < west else 0.0), north)])
        return Geometries(values, None, True, True)
    if isinstance(geometries, shapely.Geometry):
        values, single = np.array([geometries], object), True
    elif hasattr(geometries, "polygon") and hasattr(geometries, "site_id"):
        values, single = np.array([geometries.polygon], object), True
    elif hasattr(geometries, "polygons") and hasattr(geometries, "to_geodataframe"):
        frame = geometries.to_geodataframe()
        values = np.asarray(frame.geometry.to_numpy(), object)
    elif hasattr(geometries, "to_crs"):
        values, frame = _of_geopandas(geometries, crs)
    elif isinstance(geometries, np.ndarray | Sequence) and not isinstance(geometries, str | bytes):
        values = np.array([*geometries, None], object)[:-1]
        if any(isinstance(value, bytes) for value in values):
            values = _of_wkb(values)
    else:
        values, frame = _of_arrow(geometries, column)
    own = hasattr(geometries, "to_crs") or hasattr(geometries, "to_geodataframe")
    if crs is not None and not own:
        values = _to_degrees(values, crs)
        frame = None if frame is None else frame.set_geometry(list(values), crs="EPSG:4326")
    return Geometries(_checked(values), frame, single, whole_box)


def _of_geopandas(frame: Any, crs: Any) -> tuple[NDArray[Any], Any]:
    import geopandas

    if frame.crs is None:
        frame = frame.set_crs(crs if crs is not None else "EPSG:4326")
    if isinstance(frame, geopandas.GeoSeries):
        frame = geopandas.GeoDataFrame(geometry=frame)
    frame = frame.to_crs("EPSG:4326")
    return np.asarray(frame.geometry.to_numpy(), object), frame


def _of_arrow(data: Any, column: str | None) -> tuple[NDArray[Any], Any]:
    import geopandas
    import pyarrow as pa

    if isinstance(data, pa.Array | pa.ChunkedArray) or (
        hasattr(data, "__arrow_c_array__") and not hasattr(data, "__arrow_c_stream__")
    ):
        return _of_wkb(np.array(pa.chunked_array([pa.array(data)] if isinstance(data, pa.Array) else data.chunks)
                                .to_pylist(), object)), None  # fmt: skip
    table = as_arrow(data)
    name = column or next((name for name in _NAMES if name in table.column_names), None)
    if name is None or name not in table.column_names:
        raise UsageError(
            f"no column {column or 'geometry'!r} of WKB; found {table.column_names}; name it with geometry_column="
        )
    values = _of_wkb(np.array(table[name].to_pylist(), object))
    frame = geopandas.GeoDataFrame(table.drop_columns([name]).to_pandas(), geometry=list(values), crs="EPSG:4326")
    return values, frame


def _of_wkb(values: NDArray[Any]) -> NDArray[Any]:
    try:
        found: NDArray[Any] = shapely.from_wkb(values)
    except (shapely.errors.GEOSException, TypeError) as error:
        raise SiteError(f"a geometry isn't WKB: {str(error).splitlines()[0]}") from error
    return found


def _to_degrees(values: NDArray[Any], crs: Any) -> NDArray[Any]:
    import geopandas

    try:
        series = geopandas.GeoSeries(list(values), crs=crs)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"unknown coordinate reference system {crs!r}; write it like 'EPSG:5880'") from error
    return np.asarray(series.to_crs("EPSG:4326").to_numpy(), object)


def _checked(values: NDArray[Any]) -> NDArray[Any]:
    for i, value in enumerate(values):
        if not isinstance(value, shapely.Geometry):
            raise UsageError(f"geometry {i} is a {type(value).__name__}, not a geometry")
        if value.is_empty:
            raise SiteError(f"geometry {i} is empty; correct or remove it")
        if value.geom_type not in ("Polygon", "MultiPolygon", "Point"):
            raise SiteError(f"geometry {i} is a {value.geom_type}; polygons and points have pixels: buffer it")
        west, south, east, north = value.bounds
        if not (-180.001 <= west <= east <= 360.001 and -90.001 <= south <= north <= 90.001):
            raise SiteError(
                f"geometry {i} reaches {value.bounds}, which aren't degrees; state its CRS with geometry_crs="
            )
    kinds = shapely.get_type_id(values)
    out: NDArray[Any] = values.copy()
    out[kinds != 0] = shapely.force_2d(values[kinds != 0])
    return out

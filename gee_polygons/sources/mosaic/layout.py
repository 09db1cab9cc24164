"""What a Zarr mosaic's metadata say: which dimension is which, where the pixels are, which years and bands there are.

Two flavours are published: attributes on the root group and a dimension ``band``, or attributes on the array and a
dimension ``embedding``. Other writers use other names still, so everything is looked for in several places: on the
array, then on its group, then in coordinate arrays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import pyproj
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.errors import TileError, UsageError
from gee_polygons.network.places import first_line
from gee_polygons.sources.mosaic.zarr import Node
from gee_polygons.zonal.grid import Grid, Transform

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "time": ("time", "t", "year", "years", "date", "epoch"),
    "band": ("band", "bands", "embedding", "embeddings", "embedding_dimension", "feature", "features", "channel",
             "channels", "dim", "c", "variable"),
    "y": ("y", "lat", "latitude", "northing", "row", "rows"),
    "x": ("x", "lon", "long", "longitude", "easting", "col", "cols", "column"),
}  # fmt: skip
_CRS_KEYS: Final = ("proj:code", "proj:wkt2", "proj:projjson", "proj:epsg", "geo:proj", "crs_wkt", "spatial_ref", "crs",
                    "_CRS", "crs_proj4")  # fmt: skip
_DEGREES_EAST: Final = ("degrees_east", "degree_east", "degrees_e", "degree_e")  # by the CF conventions
_TRANSFORM_KEYS: Final = ("spatial:transform", "proj:transform", "transform", "GeoTransform", "geo:proj")
_BOUNDS_KEYS: Final = ("spatial:bbox", "proj:bbox", "bounds", "bbox")
_BAND_KEYS: Final = ("band_names", "embedding_dimensions", "bands", "long_name", "descriptions")
_UNITS: Final = {"second": 1.0, "sec": 1.0, "minute": 60.0, "min": 60.0, "hour": 3600.0, "hr": 3600.0, "day": 86400.0,
                 "d": 86400.0, "h": 3600.0, "s": 1.0, "week": 604800.0, "millisecond": 1e-3, "microsecond": 1e-6,
                 "nanosecond": 1e-9}  # fmt: skip


@dataclass(frozen=True)
class Axes:
    """Positions of the dimensions; a mosaic of one year may have no time."""

    time: int | None
    band: int
    y: int
    x: int


@dataclass(frozen=True)
class Layout:
    """What a mosaic holds.

    Parameters
    ----------
    axes : Axes
        Which dimension is which.
    grid : Grid
        Where the pixels are.
    years : dict of int to int
        Year -> place on the time axis.
    bands : tuple of str
        Names, in the order of the band axis.
    """

    axes: Axes
    grid: Grid
    years: dict[int, int]
    bands: tuple[str, ...]


def read_layout(node: Node, year: int | None = None) -> Layout:
    """Read what a mosaic's metadata say.

    Parameters
    ----------
    node : Node
        Its array and group.
    year : int, optional
        Year of a mosaic that doesn't state any.

    Raises
    ------
    TileError
        If something is missing or can't be.
    UsageError
        If it doesn't state its years.
    """
    attributes = node.attributes
    names = _dimension_names(node, attributes)
    axes = _axes(node, names, attributes)
    if _stated_crs(node, attributes) is None:
        attributes += _grid_mapping(node, attributes)
    shape = (int(node.array.shape[axes.y]), int(node.array.shape[axes.x]))
    transform = _transform(node, attributes, shape, names, axes)
    crs = _crs(node, attributes, names, axes)
    try:
        grid = Grid(crs=crs, transform=transform, shape=shape)
    except TileError as error:
        raise TileError(f"{node.place}: {error}") from error
    return Layout(axes, grid, _years(node, attributes, names, axes, year), _bands(node, attributes, names, axes))


# --- dimensions


def _dimension_names(node: Node, attributes: Sequence[dict[str, Any]]) -> list[str]:
    stated = node.array.metadata.dimension_names or attributes[0].get("_ARRAY_DIMENSIONS")
    return [str(name) if name else "" for name in stated] if stated else [""] * node.array.ndim


def _axes(node: Node, names: Sequence[str], attributes: Sequence[dict[str, Any]]) -> Axes:
    array = node.array
    if array.ndim not in (3, 4):
        raise TileError(f"{node.place}: {array.ndim} dimensions; a mosaic has (time, band, y, x), or no time")
    found: dict[str, int] = {}
    stated = _first(attributes, ("spatial:dimensions",)) or ()
    for role, name in zip(("y", "x"), stated, strict=False):
        if name in names:
            found[role] = names.index(name)
    for role, known in _NAMES.items():
        places = [i for i, name in enumerate(names) if name.lower() in known and i not in found.values()]
        if role not in found and places:
            found[role] = places[0]
    free = [i for i in range(array.ndim) if i not in found.values()]
    if not found and not any(names):  # no names at all: the published order
        order = ("time", "band", "y", "x")[4 - array.ndim :]
        found, free = dict(zip(order, range(array.ndim), strict=True)), []
    missing = [role for role in ("band", "y", "x", "time")[: array.ndim] if role not in found]
    if len(missing) == len(free) == 1:
        found[missing[0]], free = free[0], []
    if free or not {"band", "y", "x"} <= set(found):
        raise TileError(f"{node.place}: dimensions {tuple(names)} can't be told to be time, band, y and x")
    return Axes(found.get("time"), found["band"], found["y"], found["x"])


def _coordinate(node: Node, names: Sequence[str], axis: int, role: str) -> Any:
    """Return a dimension's coordinate array: by its name, or by a usual one if it has none."""
    candidates = [names[axis]] if names[axis] else _NAMES[role][:3]
    found = (node.sibling(name) for name in candidates)
    return next(
        (array for array in found if array is not None and array.shape == node.array.shape[axis : axis + 1]), None
    )


# --- where


def _grid_mapping(node: Node, attributes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the attributes of the array that holds the CRS by the CF conventions; xarray may leave its name out."""
    stated = str(_first(attributes, ("grid_mapping",)) or "").partition(":")[0]
    found = (node.sibling(name) for name in (stated, "spatial_ref", "crs") if name)
    return next(([dict(array.attrs)] for array in found if array is not None), [])


def _crs(node: Node, attributes: Sequence[dict[str, Any]], names: Sequence[str], axes: Axes) -> str:
    if (stated := _stated_crs(node, attributes)) is not None:
        return stated
    if names[axes.y].lower().startswith("lat") and names[axes.x].lower().startswith("lon"):
        return "EPSG:4326"
    coordinate = _coordinate(node, names, axes.x, "x")
    if coordinate is not None and str(coordinate.attrs.get("units", "")).lower() in _DEGREES_EAST:
        return "EPSG:4326"
    raise TileError(f"{node.place}: has no CRS (proj:code), so its place is unknown")


def _stated_crs(node: Node, attributes: Sequence[dict[str, Any]]) -> str | None:
    for each in attributes:
        for key in _CRS_KEYS:
            value = each.get(key)
            if isinstance(value, Mapping):  # geo:proj, GDAL's _CRS, or PROJJSON itself
                inner = [value[k] for k in ("code", "wkt2", "wkt", "projjson", "epsg") if value.get(k)]
                value = inner[0] if inner else value if "type" in value else None
            if not value:
                continue
            try:
                crs = pyproj.CRS.from_user_input(value)
            except pyproj.exceptions.CRSError as error:
                raise TileError(f"{node.place}: its {key} isn't a CRS: {first_line(error)}") from error
            if crs.equals(pyproj.CRS("EPSG:4326"), ignore_axis_order=True):
                return "EPSG:4326"  # OGC:CRS84 and WKT too
            code = crs.to_epsg()
            return f"EPSG:{code}" if code else str(crs.to_wkt())
    return None


def _transform(
    node: Node, attributes: Sequence[dict[str, Any]], shape: tuple[int, int], names: Sequence[str], axes: Axes
) -> Transform:
    found = None
    kind = _first(attributes, ("spatial:transform_type",)) or "affine"
    if kind != "affine":
        raise TileError(f"{node.place}: its grid is {kind!r}; only affine ones are supported")
    for each in attributes:
        for key in _TRANSFORM_KEYS:
            value = each.get(key)
            value = value.get("transform") if isinstance(value, Mapping) else value
            if value is not None and found is None:
                found = _affine(node, key, value)
    if found is not None:
        if _first(attributes, ("spatial:registration",)) == "node":
            a, b, c, d, e, f = found
            found = (a, b, c - a / 2, d, e, f - e / 2)
        return found
    x, y = _coordinate(node, names, axes.x, "x"), _coordinate(node, names, axes.y, "y")
    if x is not None and y is not None:
        (c, a), (f, e) = _regular(node, x), _regular(node, y)
        return (a, 0.0, c, 0.0, e, f)
    bounds = _first(attributes, _BOUNDS_KEYS)
    if bounds is None or len(bounds) != 4:
        raise TileError(f"{node.place}: neither spatial:transform nor coordinates x and y: its place is unknown")
    west, south, east, north = (float(v) for v in bounds)
    east += 360.0 if east < west else 0.0  # across the antimeridian
    return ((east - west) / shape[1], 0.0, west, 0.0, (south - north) / shape[0], north)


def _affine(node: Node, key: str, value: Any) -> Transform:
    """Return affine coefficients a..f, from those, from nine, or from GDAL's order."""
    try:
        numbers = [float(v) for v in (value.split() if isinstance(value, str) else value)][:6]
        a, b, c, d, e, f = numbers
    except (TypeError, ValueError) as error:
        raise TileError(f"{node.place}: its {key} isn't six numbers: {value!r}") from error
    is_gdal = key == "GeoTransform" or ((b or d) and not c and not e)
    return (b, c, a, e, f, d) if is_gdal else (a, b, c, d, e, f)


def _regular(node: Node, coordinate: Any) -> tuple[float, float]:
    """Return the outer edge of the first pixel and the step, from the pixels' centres."""
    n = coordinate.shape[0]
    if n < 2:
        raise TileError(f"{node.place}: one coordinate doesn't give a step; spatial:transform is needed")
    # not those between: the published mosaic has four million
    ends = np.concatenate([node.values(coordinate, slice(0, 2)), node.values(coordinate, slice(n - 1, n))])
    ends = ends.astype(np.float64)
    step = float(ends[2] - ends[0]) / (n - 1)
    slack = max(0.01 * abs(step), 4 * float(np.finfo(_float_type(coordinate)).eps) * float(np.abs(ends).max()))
    if not step or not math.isfinite(step) or abs(float(ends[1] - ends[0]) - step) > slack:
        raise TileError(f"{node.place}: coordinates {coordinate.basename} aren't evenly spaced")
    return float(ends[0]) - step / 2, step


def _float_type(coordinate: Any) -> Any:
    return coordinate.dtype if coordinate.dtype.kind == "f" else np.float64


# --- when and what


def _years(
    node: Node, attributes: Sequence[dict[str, Any]], names: Sequence[str], axes: Axes, year: int | None
) -> dict[int, int]:
    n = 1 if axes.time is None else int(node.array.shape[axes.time])
    found: list[int] | None = None
    coordinate = None if axes.time is None else _coordinate(node, names, axes.time, "time")
    if coordinate is not None:
        found = _decode_years(node, node.values(coordinate), dict(coordinate.attrs))
    elif (stated := _first(attributes, ("years", "time", "year"))) is not None:
        values = np.atleast_1d(np.asarray(stated))
        found = _decode_years(node, values, {"units": _first(attributes, ("time_units",))})
    elif (start := _first(attributes, ("start_year",))) is not None:
        found = [int(start) + i for i in range(n)]
    elif year is not None and n == 1:
        found = [year]
    if found is None or len(found) != n:
        raise UsageError(
            f"{node.place}: doesn't state its {n} years (a coordinate 'time', or an attribute 'years')"
            + ("; give year=" if n == 1 else "")
        )
    if len(set(found)) != n:
        twice = next(value for value in found if found.count(value) > 1)
        raise TileError(f"{node.place}: the year {twice} is there twice; a mosaic has one layer a year")
    return {value: place for place, value in enumerate(found)}


def _decode_years(node: Node, values: NDArray[Any], attributes: Mapping[str, Any]) -> list[int]:
    """Return the years of a time axis: whole years, CF times, datetimes or text."""
    units = str(attributes.get("units") or "")
    if values.dtype.kind == "M":
        return [int(v) + 1970 for v in values.astype("datetime64[Y]").astype(np.int64)]
    if values.dtype.kind in "iuf" and (match := re.match(r"\s*(\w+?)s?\s+since\s+(\d{4})(?:-(\d\d?)-(\d\d?))?", units)):
        if (seconds := _UNITS.get(match[1].lower())) is not None:
            start = datetime(int(match[2]), int(match[3] or 1), int(match[4] or 1))
            return [(start + timedelta(seconds=float(v) * seconds)).year for v in values]
        if match[1].lower() in ("year", "yr"):
            return [int(match[2]) + int(v) for v in values]
    elif values.dtype.kind in "iuf" and ((values > 1900) & (values < 2200)).all():
        return [int(v) for v in values]
    elif values.dtype.kind not in "iuf":
        found = [re.match(r"\s*(\d{4})(?!\d)", v.decode() if isinstance(v, bytes) else str(v)) for v in values.tolist()]
        if all(found):
            return [int(match[1]) for match in found if match]
    some = ", ".join(str(v) for v in values[:3].tolist())
    raise TileError(f"{node.place}: its time axis ({some}, ..., units {units!r}) can't be told to be years")


def _bands(node: Node, attributes: Sequence[dict[str, Any]], names: Sequence[str], axes: Axes) -> tuple[str, ...]:
    n = int(node.array.shape[axes.band])
    candidates: list[list[Any]] = []
    coordinate = _coordinate(node, names, axes.band, "band")
    if coordinate is not None:
        candidates.append(node.values(coordinate).tolist())
    candidates += [
        list(each[key]) for each in attributes for key in _BAND_KEYS if isinstance(each.get(key), (list, tuple))
    ]
    for values in candidates:
        if len(values) == n and all(isinstance(v, (int, float)) for v in values):
            if sorted(values) == list(range(n)) and n <= N_BANDS:  # numbers of the bands
                return tuple(BANDS[int(v)] for v in values)
        elif len(values) == n:
            texts = [str(v.decode() if isinstance(v, bytes) else v).strip().upper() for v in values]
            if set(texts) <= set(BANDS) and len(set(texts)) == n:
                return tuple(texts)
    if n == N_BANDS:
        return BANDS
    raise TileError(f"{node.place}: {n} bands without the names A00..A63; AlphaEarth embeddings have {N_BANDS}")


def _first(attributes: Sequence[dict[str, Any]], keys: Sequence[str]) -> Any:
    """Return the first of some attributes that is there."""
    return next((each[key] for each in attributes for key in keys if each.get(key) is not None), None)

"""Reads a mosaic's order of dimensions, grid, years and bands from its Zarr metadata.

Two layouts are published: attributes on the root group and a dimension ``band``, or (an older copy) attributes on the
array and a dimension ``embedding``. xarray writes the same facts as coordinate arrays and a grid mapping, by the CF
conventions. Anything else is refused, with an error that says what is expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import pyproj
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.errors import TileError, UsageError
from gee_polygons.network.places import first_line
from gee_polygons.sources.mosaic.zarr_store import OpenedArray
from gee_polygons.zonal.grid import Grid, Transform

_DIMENSIONS: Final[Mapping[str, tuple[str, ...]]] = {  # in the published order, which holds where they have no names
    "time": ("time", "year"),
    "band": ("band", "embedding", "feature"),
    "y": ("y", "lat", "latitude"),
    "x": ("x", "lon", "longitude"),
}
_CRS_KEYS: Final = ("proj:code", "proj:wkt2", "proj:projjson", "geo:proj", "crs", "crs_wkt")
_TRANSFORM_KEYS: Final = ("spatial:transform", "transform", "GeoTransform")
_BOUNDS_KEYS: Final = ("spatial:bbox", "bounds")
_MOST_YEARS: Final = 1000


@dataclass(frozen=True)
class Axes:
    """Positions of the dimensions; a mosaic of one year may have no time."""

    time: int | None
    band: int
    y: int
    x: int


@dataclass(frozen=True)
class Layout:
    """A mosaic's dimensions, grid, years and bands.

    Parameters
    ----------
    axes : Axes
        Positions of the dimensions.
    grid : Grid
        CRS, affine transform and shape.
    years : dict of int to int
        Year -> position on the time axis.
    bands : tuple of str
        Names, in the order of the band axis.
    """

    axes: Axes
    grid: Grid
    years: dict[int, int]
    bands: tuple[str, ...]


def read_layout(opened: OpenedArray, year: int | None = None) -> Layout:
    """Read a mosaic's layout from its metadata.

    Parameters
    ----------
    opened : OpenedArray
        Its array and group.
    year : int, optional
        Year of a mosaic of one year that doesn't state it.

    Raises
    ------
    TileError
        If something is missing or not supported.
    UsageError
        If the years aren't stated.
    """
    metadata = _Metadata(opened)
    shape = opened.array.shape
    try:
        height, width = int(shape[metadata.axes.y]), int(shape[metadata.axes.x])
        grid = Grid(crs=metadata.crs(), transform=metadata.transform(height, width), shape=(height, width))
    except TileError as error:
        raise TileError(f"{opened.place}: {error}") from error
    return Layout(metadata.axes, grid, metadata.years(year), metadata.bands())


class _Metadata:
    """The attributes and coordinate arrays of a mosaic."""

    def __init__(self, opened: OpenedArray) -> None:
        self.opened = opened
        array = opened.array
        stated = array.metadata.dimension_names or ()
        published = list(_DIMENSIONS)[4 - array.ndim :]
        self.names = [str(name) for name in stated] if any(stated) else published
        found = {
            role: axis
            for role, known in _DIMENSIONS.items()
            for axis, name in enumerate(self.names)
            if name.lower() in known
        }
        if len(found) != array.ndim or not {"band", "y", "x"} <= set(found):
            raise TileError(
                f"{opened.place}: its dimensions are {tuple(self.names)}; expected time, band, y and x in any order, "
                "or without time"
            )
        self.axes = Axes(found.get("time"), found["band"], found["y"], found["x"])
        self.attributes = opened.attributes
        if not any(self.attributes.get(key) for key in _CRS_KEYS):
            mapping = opened.sibling(str(self.attributes.get("grid_mapping") or "spatial_ref").partition(":")[0])
            self.attributes = {**(dict(mapping.attrs) if mapping is not None else {}), **self.attributes}

    def coordinate(self, axis: int | None) -> Any:
        """Return a dimension's coordinate array, or None."""
        if axis is None:
            return None
        found = self.opened.sibling(self.names[axis])
        return found if found is not None and found.shape == (self.opened.array.shape[axis],) else None

    # --- grid

    def crs(self) -> str:
        """Return the CRS as an EPSG code if it has one, else as WKT."""
        key = next((key for key in _CRS_KEYS if self.attributes.get(key)), None)
        if key is None:
            if self.names[self.axes.y].lower().startswith("lat") and self.names[self.axes.x].lower().startswith("lon"):
                return "EPSG:4326"
            raise TileError("has no CRS; expected an attribute proj:code, such as EPSG:4326")
        value = self.attributes[key]
        if key == "geo:proj" and isinstance(value, Mapping):
            value = value.get("code") or value.get("wkt2") or value.get("projjson")
        try:
            crs = pyproj.CRS.from_user_input(value)
        except pyproj.exceptions.CRSError as error:
            raise TileError(f"its {key} isn't a CRS: {first_line(error)}") from error
        if crs.equals(pyproj.CRS("EPSG:4326"), ignore_axis_order=True):
            return "EPSG:4326"  # OGC:CRS84 and WKT too
        code = crs.to_epsg()
        return f"EPSG:{code}" if code else str(crs.to_wkt())

    def transform(self, height: int, width: int) -> Transform:
        """Return the affine coefficients: stated, or from coordinates, or from bounds."""
        if (kind := self.attributes.get("spatial:transform_type", "affine")) != "affine":
            raise TileError(f"its grid is {kind!r}; only affine ones are supported")
        key = next((key for key in _TRANSFORM_KEYS if self.attributes.get(key)), None)
        if key is not None:
            a, b, c, d, e, f = _affine(key, self.attributes[key])
            if self.attributes.get("spatial:registration") == "node":
                c, f = c - a / 2, f - e / 2
            return (a, b, c, d, e, f)
        x, y = self.coordinate(self.axes.x), self.coordinate(self.axes.y)
        if x is not None and y is not None:
            (c, a), (f, e) = self._edge_and_step(x), self._edge_and_step(y)
            return (a, 0.0, c, 0.0, e, f)
        bounds = next((self.attributes[key] for key in _BOUNDS_KEYS if self.attributes.get(key)), ())
        if len(bounds) != 4:
            raise TileError("its place is unknown; expected an attribute spatial:transform, or coordinates x and y")
        west, south, east, north = (float(v) for v in bounds)
        east += 360.0 if east < west else 0.0  # across the antimeridian
        return ((east - west) / width, 0.0, west, 0.0, (south - north) / height, north)

    def _edge_and_step(self, coordinate: Any) -> tuple[float, float]:
        """Return the outer edge of the first pixel and the step, from the pixels' centres."""
        n = coordinate.shape[0]
        if n < 2:
            raise TileError("one coordinate doesn't give a step; expected an attribute spatial:transform")
        # only the ends: the published mosaic has four million coordinates
        ends = np.concatenate([self.opened.values(coordinate, slice(i, j)) for i, j in ((0, 2), (n - 1, n))])
        precision = np.finfo(ends.dtype).eps if ends.dtype.kind == "f" else 0.0
        first, second, last = ends.astype(np.float64).tolist()
        step = (last - first) / (n - 1)
        slack = max(0.01 * abs(step), 4 * float(precision) * max(abs(first), abs(last)))
        if not step or not math.isfinite(step) or abs(second - first - step) > slack:
            raise TileError(f"coordinates {coordinate.basename} aren't evenly spaced")
        return first - step / 2, step

    # --- years and bands

    def years(self, year: int | None) -> dict[int, int]:
        """Return year -> position on the time axis."""
        place, time = self.opened.place, self.axes.time
        n = 1 if time is None else int(self.opened.array.shape[time])
        if n > _MOST_YEARS:
            raise TileError(f"{place}: its metadata are damaged: {n} years")
        coordinate = self.coordinate(time)
        if coordinate is not None:
            found = self._decode_years(self.opened.values(coordinate), str(coordinate.attrs.get("units") or ""))
        elif (stated := self.attributes.get("years")) is not None:
            found = self._decode_years(np.atleast_1d(np.asarray(stated)))
        elif (start := self.attributes.get("start_year")) is not None:
            found = [int(start) + i for i in range(n)]
        else:
            found = [year] if year is not None else []
        if len(found) != n:
            hint = "; give year=" if n == 1 else ""
            raise UsageError(
                f"{place}: doesn't state its {n} years; expected a coordinate 'time' or an attribute 'years'{hint}"
            )
        if len(set(found)) != n:
            twice = next(value for value in found if found.count(value) > 1)
            raise TileError(f"{place}: the year {twice} is there twice; a mosaic has one layer a year")
        return {value: position for position, value in enumerate(found)}

    def _decode_years(self, values: NDArray[Any], units: str = "") -> list[int]:
        """Return the years of whole years, of times since a date (CF conventions), of datetimes or of text."""
        since = re.match(r"\s*(\w+?)s?\s+since\s+(.+)", units)
        try:
            if values.dtype.kind not in "iuf":
                dates = values if values.dtype.kind == "M" else values.astype(str)
                return [int(year) + 1970 for year in dates.astype("datetime64[Y]").astype(np.int64)]
            if since is None and ((values > 1900) & (values < 2200)).all():
                return [int(year) for year in values]
            if since is not None:
                start = datetime.fromisoformat(since[2].strip())
                if since[1] == "year":
                    return [start.year + int(n) for n in values]
                return [(start + timedelta(**{f"{since[1]}s": float(n)})).year for n in values]
        except (ValueError, TypeError, OverflowError):
            pass  # a date or a unit that isn't one: said below
        some = ", ".join(str(v) for v in values[:3].tolist())
        raise TileError(
            f"{self.opened.place}: its time axis ({some}, ..., units {units!r}) isn't in years; expected whole years, "
            "dates, or a number of days (hours, ...) since a date"
        )

    def bands(self) -> tuple[str, ...]:
        """Return the names of the bands: of their coordinate, else the published order."""
        n = int(self.opened.array.shape[self.axes.band])
        coordinate = self.coordinate(self.axes.band)
        if coordinate is not None:
            values = self.opened.values(coordinate)
            if n <= N_BANDS and values.dtype.kind in "iuf" and sorted(values.tolist()) == list(range(n)):
                return tuple(BANDS[int(number)] for number in values)
            names = tuple(name.strip().upper() for name in values.astype(str))
            if set(names) <= set(BANDS) and len(set(names)) == n:
                return names
        if n == N_BANDS:
            return BANDS
        raise TileError(
            f"{self.opened.place}: {n} bands without the names A00..A63; AlphaEarth embeddings have {N_BANDS}"
        )


def _affine(key: str, value: Any) -> Transform:
    """Return the affine coefficients a..f, from those, from a matrix of nine, or from GDAL's order."""
    try:
        numbers = [float(v) for v in (value.split() if isinstance(value, str) else value)][:6]
        a, b, c, d, e, f = numbers
    except (TypeError, ValueError) as error:
        raise TileError(f"its {key} isn't six numbers: {repr(value)[:100]}") from error
    is_gdal = key == "GeoTransform" or ((b or d) and not c and not e)
    return (b, c, a, e, f, d) if is_gdal else (a, b, c, d, e, f)

"""Projections, as Earth Engine has them (a CRS and an affine transform), and the rectangles of pixels cut from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyproj

from .errors import ServiceError, UnimplementedError

DEGREE_M = 111_319.49079327357  # metres per degree on the equator: the nominal scale of EPSG:4326 at 1 degree
Affine = tuple[float, float, float, float, float, float]


@lru_cache(maxsize=256)
def crs_of(name: str) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(name)
    except pyproj.exceptions.CRSError:
        raise ServiceError(f"Projection: The CRS of a map projection could not be parsed: '{name}'.") from None


@lru_cache(maxsize=256)
def canonical(name: str) -> str:
    """Return "EPSG:32616" where there is a code, else the text itself."""
    code = crs_of(name).to_epsg()
    return f"EPSG:{code}" if code else name


@lru_cache(maxsize=256)
def transformer(source: str, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(crs_of(source), crs_of(target), always_xy=True)


@dataclass(frozen=True)
class Projection:
    """x = a * column + b * row + c, y = d * column + e * row + f."""

    crs: str
    transform: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    @staticmethod
    def parse(crs: str, transform: list[float] | None = None) -> Projection:
        numbers = tuple(float(v) for v in transform) if transform else (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
        if len(numbers) != 6:
            raise ServiceError(f"Projection: a transform has 6 numbers, found {len(numbers)}.")
        return Projection(canonical(crs), numbers)

    @property
    def unit_m(self) -> float:
        """Nominal metres per unit of the CRS."""
        crs = crs_of(self.crs)
        if crs.is_geographic:
            return DEGREE_M
        return float(crs.axis_info[0].unit_conversion_factor)

    @property
    def nominal_scale(self) -> float:
        a, b, _, d, e, _ = self.transform
        # the geometric mean of both steps; equal to either for square pixels
        return math.sqrt(abs(a * e - b * d)) * self.unit_m

    def at_scale(self, metres: float) -> Projection:
        """Rescale the pixels and keep the origin, as Projection.atScale does."""
        factor = metres / self.nominal_scale
        a, b, c, d, e, f = self.transform
        return replace(self, transform=(a * factor, b * factor, c, d * factor, e * factor, f))

    def encode(self) -> dict:
        return {"type": "Projection", "crs": self.crs, "transform": list(self.transform)}


WGS84 = Projection("EPSG:4326")


@dataclass(frozen=True)
class Grid:
    """A rectangle of pixels: where an image is evaluated. North-up and unsheared."""

    crs: str
    west: float
    north: float
    step_x: float
    step_y: float  # positive
    width: int
    height: int

    @staticmethod
    def around(projection: Projection, bounds: tuple[float, float, float, float]) -> Grid:
        """Return the smallest whole number of the projection's pixels that cover bounds given in its CRS."""
        a, b, c, d, e, f = projection.transform
        if b or d:
            raise UnimplementedError("a sheared projection")
        step_x, step_y = abs(a), abs(e)
        west, south, east, north = bounds
        # counted from the projection's origin, so that every grid of one projection has the same pixels
        first, last = _whole(west, c, step_x)[0], _whole(east, c, step_x)[1]
        bottom, top = _whole(south, f, step_y)[0], _whole(north, f, step_y)[1]
        width, height = max(last - first, 1), max(top - bottom, 1)
        return Grid(projection.crs, c + first * step_x, f + top * step_y, step_x, step_y, width, height)

    @property
    def transform(self) -> Affine:
        return (self.step_x, 0.0, self.west, 0.0, -self.step_y, self.north)

    @property
    def projection(self) -> Projection:
        return Projection(self.crs, self.transform)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        return (
            self.west,
            self.north - self.step_y * self.height,
            self.west + self.step_x * self.width,
            self.north,
        )

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def nominal_scale(self) -> float:
        return self.projection.nominal_scale

    def columns_x(self) -> np.ndarray:
        """Return the x of the pixel centres, one per column."""
        return self.west + (np.arange(self.width) + 0.5) * self.step_x

    def rows_y(self) -> np.ndarray:
        return self.north - (np.arange(self.height) + 0.5) * self.step_y

    def centres(self, crs: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixel centres in another CRS, two arrays of the grid's shape."""
        x, y = np.meshgrid(self.columns_x(), self.rows_y())
        return (x, y) if crs == self.crs else transformer(self.crs, crs).transform(x, y)


def _whole(value: float, origin: float, step: float) -> tuple[int, int]:
    """Return the pixel edges at or below, and at or above a coordinate; within 1e-6 of an edge counts as on it."""
    position = (value - origin) / step
    nearest = round(position)
    if abs(position - nearest) < 1e-6:
        return nearest, nearest
    return math.floor(position), math.ceil(position)

"""Synthetic mosaics in Zarr, written by zarr-python itself in every layout that the format allows, and their truth.

The layout is the published one at a small size; pixels are the same in all of them. The truth is worked out here, by
shapely's areas and double precision, from the array that was written.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
import zarr
from oracles import shapely_coverage, unit_codes
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.zonal.grid import Window

STEP = 8.983111749910169e-05  # published
ATTRIBUTES = {"geoemb:type": "pixel", "geoemb:dimensions": 64, "geoemb:data_type": "int8"}


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """What is written: pixels (time, 64, height, width), north-up, and how."""

    codes: Any
    years: tuple[int, ...] = (2023, 2024)
    west: float = -48.05
    north: float = -22.33
    step: float = STEP
    shard: tuple[int, ...] | None = (1, 64, 32, 64)
    chunk: tuple[int, ...] = (1, 64, 16, 16)
    codecs: tuple[Any, ...] = (BytesCodec(), ZstdCodec(level=3))
    index_codecs: tuple[Any, ...] = (BytesCodec(), Crc32cCodec())
    index_location: str = "end"
    on: str = "group"  # where the attributes are: group or array
    names: tuple[str | None, ...] | None = ("time", "band", "y", "x")
    key: dict[str, Any] = field(default_factory=lambda: {"name": "default", "configuration": {"separator": "/"}})
    fill: Any = -128
    order: tuple[int, ...] = (0, 1, 2, 3)  # of the dimensions, as stored
    flip_y: bool = False
    time: Any = "coordinate"  # or attributes, or an array and its attributes
    attributes: dict[str, Any] | None = None
    consolidated: bool = False
    dtype: str = "int8"
    name: str = "embeddings"

    @property
    def transform(self) -> list[float]:
        """Affine coefficients as stated."""
        height = self.codes.shape[2]
        if self.flip_y:
            return [self.step, 0.0, self.west, 0.0, self.step, self.north - height * self.step]
        return [self.step, 0.0, self.west, 0.0, -self.step, self.north]

    def write(self, folder: Path) -> Path:
        """Write the store with zarr."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._write(folder)

    def _write(self, folder: Path) -> Path:
        stored = self.codes[:, :, ::-1] if self.flip_y else self.codes
        stored = stored.transpose(self.order)
        attributes = self.attributes
        if attributes is None:
            attributes = {"proj:code": "EPSG:4326", "spatial:transform": self.transform, **ATTRIBUTES}
        if self.time == "attributes":
            attributes = {**attributes, "years": list(self.years)}
        group = zarr.create_group(folder, zarr_format=3, attributes=attributes if self.on == "group" else {})
        chunk = tuple(self.chunk[i] for i in self.order)
        outer, codecs = chunk, list(self.codecs)
        if self.shard is not None:
            outer = tuple(self.shard[i] for i in self.order)
            codecs = [ShardingCodec(chunk_shape=chunk, codecs=self.codecs, index_codecs=self.index_codecs,
                                    index_location=self.index_location)]  # fmt: skip
        names = None if self.names is None else [self.names[i] for i in self.order]
        store = zarr.storage.LocalStore(folder)
        metadata = zarr.core.metadata.v3.ArrayV3Metadata(
            shape=stored.shape, data_type=zarr.dtype.parse_dtype(self.dtype, zarr_format=3),
            chunk_grid={"name": "regular", "configuration": {"chunk_shape": outer}}, chunk_key_encoding=self.key,
            fill_value=self.fill, codecs=codecs, attributes=attributes if self.on == "array" else {},
            dimension_names=names,
        )  # fmt: skip
        where = folder / self.name
        where.mkdir()
        (where / "zarr.json").write_bytes(
            metadata.to_buffer_dict(zarr.core.buffer.default_buffer_prototype())["zarr.json"].to_bytes()
        )
        zarr.open_array(store, path=self.name, mode="r+")[...] = stored
        if self.time is not None and self.time != "attributes":
            values, about = (np.array(self.years, np.int32), {}) if self.time == "coordinate" else self.time
            group.create_array(
                "time" if self.names is None else self.names[0], data=values, attributes=about, dimension_names=["time"]
            )
        if self.consolidated:
            zarr.consolidate_metadata(folder)
        return folder

    def but(self, **changes: Any) -> Mosaic:
        """Return the same pixels in another layout."""
        return replace(self, **changes)

    # --- the truth

    def in_pixels(self, polygon: Any) -> Any:
        """Return a polygon in (column, row) of the mosaic, rows southwards."""
        return shapely.transform(polygon, lambda xy: (xy - (self.west, self.north)) / (self.step, -self.step))

    def coverage(self, polygon: Any) -> Any:
        """Return the covered fraction of each of the mosaic's pixels, shape (height, width)."""
        height, width = self.codes.shape[2:]
        found = np.zeros((height, width))
        inside = self.in_pixels(polygon)
        west, north, east, south = inside.bounds
        row, col = max(math.floor(north), 0), max(math.floor(west), 0)
        window = Window(row, col, min(math.ceil(south), height) - row, min(math.ceil(east), width) - col)
        if window.height > 0 and window.width > 0:
            part = shapely_coverage(inside, window)
            found[row : window.row_stop, col : window.col_stop] = np.where(part < 1e-6, 0, part)
        return found

    def areas(self) -> Any:
        """Return the area in m2 of a pixel in each row, by pyproj's geodesics."""
        geod = pyproj.Geod(ellps="WGS84")
        north = self.north - self.step * np.arange(self.codes.shape[2])
        # a meridian strip of many short steps along the parallels: geodesics are not parallels
        lon = np.linspace(0, self.step, 5)
        return np.array([
            abs(geod.polygon_area_perimeter(
                np.concatenate([lon, lon[::-1]]), np.concatenate([np.full(5, n), np.full(5, n - self.step)]))[0])
            for n in north
        ])  # fmt: skip

    def truth(self, polygon: Any, year: int) -> dict[str, Any]:
        """Return what a row of the table has to say of a polygon, by brute force."""
        coverage, areas = self.coverage(polygon), self.areas()[:, None]
        codes = self.codes[self.years.index(year)]
        if coverage.any():  # the polygon's box alone
            rows, cols = (np.flatnonzero(coverage.any(axis=axis)) for axis in (1, 0))
            box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
            coverage, areas, codes = coverage[box], areas[box[0]], codes[:, *box]
        valid = codes[0] != -128
        weights = coverage * areas * valid
        vectors = codes_to_vectors(codes, np.float64)
        n_pixels = float((coverage * valid).sum())
        found: dict[str, Any] = {
            "n_pixels": n_pixels,
            "valid_fraction": n_pixels / self.in_pixels(polygon).area,
            "count": float(((coverage > 0) & valid).sum()),
        }
        if n_pixels:
            mean = np.nansum(vectors * weights, axis=(1, 2)) / weights.sum()
            square = np.nansum(vectors**2 * weights, axis=(1, 2)) / weights.sum()
            touched = vectors[:, (coverage > 0) & valid]
            cosine = mean @ touched / np.linalg.norm(touched, axis=0) / np.linalg.norm(mean)
            found |= {
                "mean": mean, "std": np.sqrt(np.maximum(square - mean**2, 0)), "min": touched.min(axis=1),
                "max": touched.max(axis=1), "Rbar": float(np.linalg.norm(mean)), "medoid": touched[:, cosine.argmax()],
                "medoid_similarity": float(cosine.max()),
            }  # fmt: skip
        return found


def make(
    shape: tuple[int, int] = (64, 96), n_years: int = 2, seed: int = 5, masked: float = 0.05, **how: Any
) -> Mosaic:
    """Return a mosaic of random smooth vectors."""
    codes = np.stack([unit_codes(shape, seed=seed + i, masked=masked) for i in range(n_years)])
    return Mosaic(codes=codes, **{"years": tuple(range(2025 - n_years, 2025)), **how})


__all__ = [
    "ATTRIBUTES",
    "BANDS",
    "STEP",
    "BloscCodec",
    "BytesCodec",
    "Crc32cCodec",
    "GzipCodec",
    "Mosaic",
    "TransposeCodec",
    "ZstdCodec",
    "make",
]  # fmt: skip

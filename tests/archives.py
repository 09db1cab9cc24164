"""Small archives of made-up tiles, and their truth worked out by brute force.

The truth uses nothing of `gee_polygons.zonal` but the word for a grid: pyproj projects, shapely intersects each pixel
with the polygon in double precision, NumPy adds up in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyproj
import shapely
from oracles import write_gdal

from gee_polygons import extract_embeddings
from gee_polygons.alphaearth import BANDS
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.zonal.grid import Grid

LEAST = 1e-6  # coverage below this is 0, by design
SCALE = 127.5**2
ALL_STATISTICS = ("mean", "std", "min", "max", "median", "p10", "p97.5", "count", "medoid")


# --- tiles and archives


@dataclass(frozen=True, kw_only=True)
class FakeTile:
    """One file of an archive: 10 m pixels whose north-west corner is at column `col` and row `row`.

    Rows count southwards from the northing 0, so a tile whose northern edge is at 7,500,000 m has row -750,000.
    """

    crs: str
    col: int
    row: int
    codes: Any = field(repr=False)
    name: str = "tile"
    year: int = 2024
    south_up: bool = True
    block: int = 32
    layout: dict[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """As the file states it."""
        height, width = self.codes.shape[1:]
        north, south = -10.0 * self.row, -10.0 * (self.row + height)
        step, origin = (10.0, south) if self.south_up else (-10.0, north)
        return Grid(crs=self.crs, transform=(10.0, 0.0, 10.0 * self.col, 0.0, step, origin), shape=(height, width))

    @property
    def path(self) -> str:
        """Relative to the index."""
        return f"{self.year}/{zone_name(self.crs)}/{self.name}.tiff"


def zone_name(crs: str) -> str:
    """Return "22S" for "EPSG:32722"."""
    return f"{crs[-2:]}{'N' if crs[5:8] == '326' else 'S'}"


def write_archive(folder: Path, tiles: Sequence[FakeTile], extra_rows: Sequence[dict[str, Any]] = ()) -> Path:
    """Write tiles and their index, with the published columns; returns the index."""
    rows = []
    for tile in tiles:
        path = Path(folder) / tile.path
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            if tile.layout:  # otherwise than published: written by GDAL
                how = {"compress": "zstd", "interleave": "band", "blockxsize": tile.block, "blockysize": tile.block}
                write_gdal(path, tile.grid, tile.codes, tiled=True, **(how | tile.layout))
            else:
                write_tile(path, tile.grid, tile.codes, block=tile.block, max_workers=1)
        rows.append(index_row(tile))
    table = pd.DataFrame([*rows, *extra_rows])
    table.insert(0, "fid", range(1, len(table) + 1))
    index = Path(folder) / "aef_index.parquet"
    table.to_parquet(index)
    return index


def make_archive(folder: Path, tiles: Sequence[FakeTile]) -> CogSource:
    """Write tiles and open them as an archive."""
    return CogSource(write_archive(folder, tiles))


def index_row(tile: FakeTile) -> dict[str, Any]:
    """Return a tile's row; the wgs84 bounds are those of valid pixels, clipped at the zone's edges, as published."""
    west, south, east, north = tile.grid.bounds
    rows, cols = np.nonzero(tile.codes[0] != -128)
    if len(rows):
        x = 10.0 * (tile.col + np.array([cols.min(), cols.max() + 1]))
        y = -10.0 * (tile.row + np.array([rows.min(), rows.max() + 1]))
    else:
        x, y = np.array([west, east]), np.array([south, north])
    lon, lat = to_lon_lat(tile.crs)(*(v.ravel() for v in np.meshgrid(x, y)))
    zone_west = int(tile.crs[-2:]) * 6.0 - 186.0
    lon = zone_west + 3 + (lon - zone_west - 3 + 180) % 360 - 180  # near the zone, also at the antimeridian
    box = np.array([lon.min(), lat.min(), lon.max(), lat.max()])
    box[[0, 2]] = box[[0, 2]].clip(zone_west, zone_west + 6)
    box[[1, 3]] = box[[1, 3]].clip(*((0, 90) if zone_name(tile.crs).endswith("N") else (-90, 0)))
    sides = ("west", "south", "east", "north")
    return {
        "geom": shapely.to_wkb(shapely.box(*box)),
        "crs": tile.crs,
        "year": tile.year,
        "utm_zone": zone_name(tile.crs),
        **{f"utm_{side}": value for side, value in zip(sides, (west, south, east, north), strict=True)},
        **{f"wgs84_{side}": value for side, value in zip(sides, box.tolist(), strict=True)},
        "path": tile.path,
    }


def random_codes(shape, seed=0, masked=0.0, spread=0.35):
    """Return int8 codes (64, height, width) of unit vectors around a common one, with a share of masked pixels."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(64, 1, 1)) + spread * rng.normal(size=(64, *shape))
    vectors /= np.sqrt((vectors * vectors).sum(axis=0))
    codes = np.rint(np.sign(vectors) * np.sqrt(np.abs(vectors)) * 127.5).clip(-127, 127).astype(np.int8)
    codes[:, rng.random(shape) < masked] = -128
    return codes


# --- coordinates


@lru_cache(maxsize=128)
def _transformer(source: str, target: str) -> Any:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def to_lon_lat(crs: str):
    """Return the function (x, y) -> (lon, lat)."""
    return _transformer(crs, "EPSG:4326").transform


def to_utm(crs: str):
    """Return the function (lon, lat) -> (x, y)."""
    return _transformer("EPSG:4326", crs).transform


def project(geometry, function):
    """Apply (x, y) -> (x, y) to each vertex."""
    return shapely.transform(geometry, lambda xy: np.column_stack(function(xy[:, 0], xy[:, 1])))


def ground(polygon, tile: FakeTile):
    """Return a polygon given in (column, row) of a tile, from its north-west corner, in degrees."""
    metres = shapely.transform(polygon, lambda xy: (xy + np.array([tile.col, tile.row])) * (10.0, -10.0))
    return project(metres, to_lon_lat(tile.crs))


def sites(polygons, ids=None):
    """Return polygons in degrees as a GeoDataFrame of sites."""
    ids = list(ids) if ids is not None else [f"s{i}" for i in range(len(polygons))]
    return geopandas.GeoDataFrame({"site_id": ids}, geometry=list(polygons), crs="EPSG:4326")


def extract(polygons, source, **kwargs):
    """Extract polygons given in degrees."""
    kwargs.setdefault("years", [2024])
    return extract_embeddings(sites(polygons, kwargs.pop("ids", None)), source=source, **kwargs)


# --- the truth


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """The pixels of a polygon: coverage (n,), codes (bands, n) and places (n, 2: row, column); nodata ones too.

    `held` says whether any file holds some of them.
    """

    weights: Any
    codes: Any
    places: Any
    held: bool

    @property
    def valid(self):
        return Pixels(**{name: getattr(self, name)[..., self._mask] for name in ("weights", "codes")},
                      places=self.places[self._mask], held=self.held)  # fmt: skip

    @property
    def _mask(self):
        return self.codes[0] != -128

    @property
    def area(self) -> float:
        return float(self.weights.sum())


def brute_pixels(tiles: Sequence[FakeTile], polygon, year=2024, *, zones=None, long_edges=False) -> Pixels:
    """Find a polygon's pixels, covered at least 1e-6, in the zones it is measured in: a list of (crs, clip or None).

    Tiles of the same zone lie over each other in the order of their paths: the first that has data counts.
    """
    found = []
    for crs, clip in zones or [(tiles[0].crs, None)]:
        part = polygon if clip is None else shapely.intersection(polygon, shapely.box(*clip))
        if long_edges:
            part = shapely.segmentize(part, 0.002)
        part = shapely.transform(project(part, to_utm(crs)), lambda xy: xy / (10.0, -10.0))
        rows, cols, weights = pixel_weights(part)
        codes = np.full((64, len(rows)), -128, np.int8)
        held = False
        for tile in sorted((t for t in tiles if (t.crs, t.year) == (crs, year)), key=lambda t: t.path):
            height, width = tile.codes.shape[1:]
            r, c = rows - tile.row, cols - tile.col
            take = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            held |= bool(take.any())
            take &= codes[0] == -128
            codes[:, take] = tile.codes[:, r[take], c[take]]
        found.append(Pixels(weights=weights, codes=codes, places=np.column_stack([rows, cols]), held=held))
    return Pixels(
        weights=np.concatenate([f.weights for f in found]),
        codes=np.concatenate([f.codes for f in found], axis=1),
        places=np.concatenate([f.places for f in found]),
        held=any(f.held for f in found),
    )


def pixel_weights(polygon):
    """Return rows, columns and coverages of the pixels of a polygon in (column, row) coordinates, rows southwards."""
    west, north, east, south = polygon.bounds
    x0, y0 = int(np.floor(west)), int(np.floor(north))
    rows, cols = np.mgrid[y0 : int(np.ceil(south)) + 1, x0 : int(np.ceil(east)) + 1].reshape(2, -1)
    local = shapely.transform(polygon, lambda xy: xy - (x0, y0))  # small numbers keep their digits
    boxes = shapely.box(cols - x0, rows - y0, cols - x0 + 1, rows - y0 + 1)
    shapely.prepare(local)
    weights = shapely.contains_properly(local, boxes).astype(float)
    cut = np.flatnonzero((weights == 0) & shapely.intersects(local, boxes))
    weights[cut] = shapely.area(shapely.intersection(boxes[cut], local))
    keep = weights >= LEAST
    return rows[keep], cols[keep], weights[keep]


def values_of(codes):
    """De-quantise, in float64."""
    k = codes.astype(np.float64)
    return np.sign(k) * k * k / SCALE


def brute_statistics(pixels: Pixels, statistics=ALL_STATISTICS) -> dict[str, Any]:
    """Return each statistic (quantiles left out), shape (bands,), and Rbar, n_pixels, valid_fraction, status."""
    valid = pixels.valid
    n_pixels = valid.weights.sum()
    bands = len(pixels.codes)
    answer: dict[str, Any] = {
        "n_pixels": n_pixels,
        "valid_fraction": n_pixels / pixels.area,
        "status": "ok" if n_pixels else "masked" if pixels.held else "no_data",
    }
    if not n_pixels:
        answer |= {name: np.full(bands, np.nan) for name in statistics} | {"Rbar": np.nan, "medoid_similarity": np.nan}
        return answer
    values = values_of(valid.codes)
    mean = (values * valid.weights).sum(axis=1) / n_pixels
    answer["Rbar"] = np.linalg.norm(mean)
    for name in statistics:
        if name == "mean":
            answer[name] = mean
        elif name == "std":
            answer[name] = np.sqrt(((values - mean[:, None]) ** 2 * valid.weights).sum(axis=1) / n_pixels)
        elif name in ("min", "max"):
            answer[name] = getattr(values, name)(axis=1)
        elif name == "count":
            answer[name] = np.full(bands, float(len(valid.weights)))
        elif name == "medoid":
            first = medoid_of(valid)
            answer[name] = values[:, first]
            answer["medoid_similarity"] = cosine(values[:, first], mean)
    return answer


def cosine(one, other):
    return one @ other / np.sqrt((one @ one) * (other @ other))


def medoid_of(pixels: Pixels) -> int:
    """Number of the pixel nearest the mean direction; of equal ones the first, north to south, then west to east."""
    values = values_of(pixels.codes)
    mean = (values * pixels.weights).sum(axis=1) / pixels.weights.sum()
    similarity = mean @ values / np.sqrt((values * values).sum(axis=0) * (mean @ mean))
    nearest = np.flatnonzero(similarity >= similarity.max() - 1e-14)
    nearest = [i for i in nearest if (pixels.codes[:, i] == pixels.codes[:, nearest[0]]).all()]  # true ties
    return min(nearest, key=lambda i: tuple(pixels.places[i]))


def weighted_quantile(values, weights, level):
    """Exactextract's: over n distinct sorted values, S_j = j w_j + (n - 1) sum_{i<j} w_i, linear at level S_(n-1)."""
    distinct, which = np.unique(values, return_inverse=True)
    w = np.bincount(which, weights)
    n = len(w)
    positions = np.arange(n) * w + (n - 1) * (np.cumsum(w) - w)
    return np.interp(level * (n - 1) * w.sum(), positions, distinct)


def quantile_range(values, weights, level, slack=1e-6):
    """Where a quantile may lie if weights are right to a few 1e-7: tiny weights make it jump between its neighbours."""
    distinct, which = np.unique(values, return_inverse=True)
    w = np.bincount(which, weights)
    n = len(w)
    positions = np.arange(n) * w + (n - 1) * (np.cumsum(w) - w)
    total = (n - 1) * w.sum()
    return np.interp([max(level - slack, 0.0) * total, min(level + slack, 1.0) * total], positions, distinct)


def numbers(row, statistic, several=True, bands=BANDS):
    """Return one statistic of a table's row, shape (bands,)."""
    return row[[f"{band}_{statistic}" for band in bands] if several else list(bands)].to_numpy(float)


def assert_row(row, pixels: Pixels, statistics=ALL_STATISTICS, tolerance=1e-6, bands=BANDS) -> None:
    """Compare a table's row with the truth: sets and medoid exactly, sums to `tolerance` (relative for n_pixels)."""
    picked = [BANDS.index(band) for band in bands]
    answer = brute_statistics(pixels, statistics)
    assert row["status"] == answer["status"]
    np.testing.assert_allclose(row["n_pixels"], answer["n_pixels"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(row["valid_fraction"], answer["valid_fraction"], rtol=0, atol=tolerance)
    if len(bands) == 64:
        np.testing.assert_allclose(row["Rbar"], answer["Rbar"], rtol=0, atol=tolerance)
    for name in statistics:
        found = numbers(row, name, len(statistics) > 1, bands)
        if answer["status"] != "ok":
            assert np.isnan(found).all(), name
            continue
        expected = answer[name][picked] if name in answer else None
        if name in ("min", "max", "count", "medoid"):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14, err_msg=name)
        elif name == "std":
            # a root: an error of the variance of 1e-7 may be 3e-4 where there is next to no variance
            np.testing.assert_allclose(found**2, expected**2, rtol=0, atol=tolerance, err_msg=name)
        elif name == "mean":
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=name)
        else:
            valid, level = pixels.valid, 0.5 if name == "median" else float(name[1:]) / 100
            for value, codes in list(zip(found, valid.codes[picked], strict=True))[::7]:  # some bands: it takes time
                low, high = quantile_range(values_of(codes), valid.weights, level)
                assert low - 1e-12 <= value <= high + 1e-12, (name, low, value, high)
    if "medoid" in statistics:
        np.testing.assert_allclose(row["medoid_similarity"], answer["medoid_similarity"], rtol=0, atol=tolerance)


def assert_same_bits(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Compare tables to the last bit; much faster than pandas' own, which takes one column at a time."""
    assert list(one) == list(other)
    assert len(one) == len(other)
    floats = [name for name in one if one[name].dtype == np.float64]
    assert floats == [name for name in other if other[name].dtype == np.float64]
    for name in set(one) - set(floats):
        assert one[name].tolist() == other[name].tolist(), name
    mine, theirs = one[floats].to_numpy(), other[floats].to_numpy()
    differ = (mine != theirs) & ~(np.isnan(mine) & np.isnan(theirs))
    where = [(int(row), floats[col], mine[row, col], theirs[row, col]) for row, col in np.argwhere(differ)[:3]]
    assert not differ.any(), f"{differ.sum()} of {differ.size} numbers differ: {where}"

"""The work that every contestant does: one tile, its fields, and an archive index of one row a year.

Made once and kept in build/benchmarks. Another tile or other polygons may be given instead: see `python -m benchmarks
--help`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import rasterio
import shapely
from pyproj import Transformer

from benchmarks.tile import make_benchmark_tile
from gee_polygons.alphaearth import NODATA
from gee_polygons.embeddings.quantization import signed_squares
from gee_polygons.sources.sample import write_tile
from gee_polygons.sources.sample.scene import outline
from gee_polygons.zonal.grid import Grid

FOLDER = Path(__file__).parents[1] / "build" / "benchmarks"
YEAR = 2024
N_BANDS = 64
SCALE = np.float32(127.5**2)
# one value per code's byte; nodata is NaN
VECTORS = (signed_squares(np.arange(256).astype(np.uint8).view(np.int8)) / SCALE).astype(np.float32)
VECTORS[np.uint8(NODATA & 0xFF)] = np.nan


def dequantise(codes: np.ndarray) -> np.ndarray:
    """Return codes as float32 components, NaN where there is no data."""
    return VECTORS[codes.view(np.uint8)]


@dataclass(frozen=True)
class Work:
    """A tile and the fields on it. Fields are ordered block by block, so that readers with a cache profit from it."""

    tile: Path
    polygons: Path
    n_fields: int | None = None  # only the first so many
    only: tuple[int, ...] | None = None  # only these
    # for this package alone:
    n_years: int = 1
    statistics: tuple[str, ...] = ("mean",)
    max_workers: int | None = None

    @property
    def years(self) -> range:
        """The tile is listed under so many years; the reader knows nothing of their being the same."""
        return range(YEAR, YEAR + self.n_years)

    @cached_property
    def fields(self) -> geopandas.GeoDataFrame:
        """The fields, EPSG:4326."""
        fields = geopandas.read_parquet(self.polygons).iloc[: self.n_fields]
        return fields.copy() if self.only is None else fields.iloc[list(self.only)].copy()

    @cached_property
    def local(self) -> geopandas.GeoDataFrame:
        """The fields in the tile's CRS, as readers that don't project need them."""
        return self.fields.to_crs(self.profile["crs"])

    @cached_property
    def profile(self) -> dict:
        with rasterio.open(self.tile) as file:
            return {**file.profile, "bounds": _bounds(file), "block": file.block_shapes[0]}

    @cached_property
    def blocks(self) -> list[tuple[int, int]]:
        """Row and column of the tile's blocks that a field touches."""
        west, south, east, north = self.profile["bounds"]
        height, width = self.profile["block"]
        step = abs(self.profile["transform"].a)
        down, across = -(-self.profile["height"] // height), -(-self.profile["width"] // width)
        row, col = (numbers.ravel() for numbers in np.mgrid[:down, :across])
        left, top = west + col * width * step, north - row * height * step
        boxes = shapely.box(left, (top - height * step).clip(south), (left + width * step).clip(max=east), top)
        touched = np.unique(shapely.STRtree(boxes).query(self.local.geometry.to_numpy(), predicate="intersects")[1])
        return list(zip(row[touched].tolist(), col[touched].tolist(), strict=True))

    @property
    def raw_mb(self) -> float:
        """Size of the pixels of these blocks, decoded."""
        height, width = self.profile["block"]
        return len(self.blocks) * height * width * N_BANDS / 1e6

    def index(self) -> Path:
        """Write an index that lists the tile once for each year."""
        west, south, east, north = self.profile["bounds"]
        lon, lat = Transformer.from_crs(self.profile["crs"], 4326, always_xy=True).transform(
            [west, east, west, east], [south, south, north, north]
        )
        row = {
            "crs": self.profile["crs"].to_string(), "path": str(self.tile.absolute()),
            "utm_west": west, "utm_south": south, "utm_east": east, "utm_north": north,
            "wgs84_west": min(lon), "wgs84_south": min(lat), "wgs84_east": max(lon), "wgs84_north": max(lat),
        }  # fmt: skip
        path = FOLDER / f"index_{_key(self.tile)}_{self.n_years}.parquet"
        pd.DataFrame([{**row, "year": year} for year in self.years]).to_parquet(path)
        return path


def standard_work(*, quick: bool = False) -> Work:
    """Return the project's own tile and fields: 4096 px and 10,000 fields, or a sixteenth of both."""
    size, block, n = (1024, 256, 625) if quick else (4096, 1024, 10_000)
    FOLDER.mkdir(parents=True, exist_ok=True)
    tile = FOLDER / f"tile_{size}.tiff"
    if not tile.exists():
        # north-up, because exactextract and rasterstats can't read the published south-up order
        make_benchmark_tile(tile, size, block, south_up=False, year=YEAR)
    return other_work(tile, make_fields(tile, n))


def other_work(tile: Path, polygons: Path) -> Work:
    """Return a given tile and polygons: the tile north-up, the polygons checked, in EPSG:4326, block by block."""
    from gee_polygons.site import load_sites

    FOLDER.mkdir(parents=True, exist_ok=True)
    tile = _north_up(tile)
    ordered = FOLDER / f"ordered_{_key(polygons)}_{_key(tile)}.parquet"
    if not ordered.exists():
        sites = load_sites(polygons)
        fields = geopandas.GeoDataFrame({"site_id": sites.site_ids}, geometry=list(sites.polygons), crs=4326)
        _block_by_block(fields, Work(tile, polygons)).to_parquet(ordered)
    return Work(tile, ordered)


def make_fields(tile: Path, n: int, area_ha: float = 15.0) -> Path:
    """Write n fields over a tile: natural outlines, the same ones in every run.

    Of twenty fields fourteen are plain, three have a hole, two are multipolygons of three parts, and one is a
    two-thousandth of the size (for 15 ha, three quarters of a pixel). They lie on a jittered raster that fills the
    tile to its very edge, so some reach past it and many lie across blocks.
    """
    path = FOLDER / f"fields_{_key(tile)}_{n}_{area_ha:g}ha.parquet"
    if path.exists():
        return path
    work = Work(tile, path)
    west, south, east, north = work.profile["bounds"]
    rng = np.random.default_rng(7)
    across = int(np.ceil(np.sqrt(n)))
    place = np.arange(n)
    jitter = rng.uniform(-0.3, 0.3, (n, 2))
    x = west + (east - west) * (place % across + 0.5 + jitter[:, 0]) / across
    y = south + (north - south) * (place // across + 0.5 + jitter[:, 1]) / across
    area = area_ha * rng.lognormal(-0.06, 0.35, n)
    stretch, turn = rng.uniform(1.0, 2.2, n), rng.uniform(0, np.pi, n)
    kinds = rng.permutation(np.arange(n) % 20)
    shapes = [_field(int(kind), *numbers) for kind, *numbers in zip(kinds, x, y, area, stretch, turn, strict=True)]
    fields = geopandas.GeoDataFrame({"site_id": np.arange(n)}, geometry=shapes, crs=work.profile["crs"])
    fields.to_crs(4326).to_parquet(path)
    return path


def _field(kind: int, x: float, y: float, area: float, stretch: float, turn: float) -> shapely.Geometry:
    if kind < 14:
        return outline(x, y, area, stretch, turn)
    if kind < 17:
        return outline(x, y, 1.1 * area, stretch, turn) - outline(x + 1, y, 0.1 * area, 1.0, turn)
    if kind < 19:
        step = 80 * np.sqrt(area)  # metres between the parts' middles: they don't touch
        along = np.array([np.cos(turn), np.sin(turn)]) * step
        parts = [outline(x + i * along[0], y + i * along[1], area / 3, 1.0, turn) for i in (-1, 0, 1)]
        return shapely.union_all(parts)
    return outline(x, y, area / 2000, stretch, turn)


def _north_up(tile: Path) -> Path:
    """Return the tile, or its copy turned north-up (made once) with the same blocks and compression."""
    turned = FOLDER / f"north_up_{_key(tile)}.tiff"
    with rasterio.open(tile) as file:
        if file.transform.e < 0 or turned.exists():
            return tile if file.transform.e < 0 else turned
        west, south, east, north = _bounds(file)
        codes = file.read()[:, ::-1]
        grid = Grid(
            crs=file.crs.to_string(),
            transform=((east - west) / file.width, 0.0, west, 0.0, -(north - south) / file.height, north),
            shape=(file.height, file.width),
        )
        return write_tile(turned, grid, codes, block=file.block_shapes[0][0])


def _key(file: Path) -> str:
    """Return a name for what is made of a file: another one for another file, or for other content."""
    stat = file.stat()
    text = f"{file.absolute()} {stat.st_size} {stat.st_mtime_ns}"
    return f"{file.stem[:20]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _bounds(file: rasterio.DatasetReader) -> tuple[float, float, float, float]:
    """Return (west, south, east, north), ordered whatever the row order is."""
    left, bottom, right, top = file.bounds
    return min(left, right), min(bottom, top), max(left, right), max(bottom, top)


def _block_by_block(fields: geopandas.GeoDataFrame, work: Work) -> geopandas.GeoDataFrame:
    west, _, _, north = work.profile["bounds"]
    height, width = (side * abs(work.profile["transform"].a) for side in work.profile["block"])
    middle = shapely.centroid(fields.to_crs(work.profile["crs"]).geometry.to_numpy())
    x, y = shapely.get_x(middle), shapely.get_y(middle)
    row, col = (north - y) // height, (x - west) // width
    return fields.iloc[np.lexsort((x, -y, col, row))].reset_index(drop=True)

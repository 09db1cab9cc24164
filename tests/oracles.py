"""Independent answers to compare with, and what the tests build their cases from.

Nothing here uses the code under test for a number: coverage comes from shapely (double precision, one intersection a
pixel) or exactextract (single precision), sums from Python's own integers.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import rasterio
import shapely
from hypothesis import strategies as st

from gee_polygons.alphaearth import BANDS
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog.header import open_tiles
from gee_polygons.sources.cog.tile import Tile
from gee_polygons.zonal.coverage import FULL, compute_coverage
from gee_polygons.zonal.grid import Grid, Lattice, Window
from gee_polygons.zonal.projection import project_to_lattice

SHARED = Path(__file__).parents[2] / "shared" / "data"
UTM = "EPSG:32722"
ORIGIN = (800_000.0, 7_500_000.0)  # of small test grids in EPSG:32722: where their north-west corner is
LEAST = 1e-6  # coverage below this is 0, by design
# lattice whose coordinates are pixels: x = column, y = -row
PIXELS = Lattice(UTM, 1.0, 1.0)


def same(one, other):
    """Check that two tables are equal to the last bit."""
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def lattice_coverage(polygons):
    """Coverage of polygons given in (column, row) coordinates, rows southwards."""
    flipped = shapely.transform(np.array(polygons, object), lambda xy: xy * (1.0, -1.0))
    return compute_coverage(project_to_lattice(flipped, PIXELS, crs=UTM))


def window_of(polygon, margin: int = 1) -> Window:
    """Return the window of whole pixels around a polygon in (column, row) coordinates."""
    west, north, east, south = polygon.bounds
    row, col = int(np.floor(north)) - margin, int(np.floor(west)) - margin
    return Window(row, col, int(np.ceil(south)) + margin - row, int(np.ceil(east)) + margin - col)


def shapely_coverage(polygon, window: Window):
    """Return the area of each pixel's intersection with a polygon in (column, row) coordinates."""
    rows, cols = np.mgrid[window.row : window.row_stop, window.col : window.col_stop].astype(float)
    return shapely.area(shapely.intersection(shapely.box(cols, rows, cols + 1, rows + 1), polygon))


def exactextract_coverage(polygon, grid: Grid):
    """Return exactextract's coverage of a north-up grid by a polygon in the grid's CRS; single precision."""
    from exactextract import exact_extract
    from exactextract.feature import JSONFeatureSource
    from exactextract.raster import NumPyRasterSource

    west, south, east, north = grid.bounds
    raster = NumPyRasterSource(np.zeros(grid.shape), xmin=west, ymin=south, xmax=east, ymax=north)
    feature = {"type": "Feature", "id": 0, "geometry": shapely.geometry.mapping(polygon)}
    found = exact_extract(raster, JSONFeatureSource([feature]), ["cell_id", "coverage"])[0]["properties"]
    weights = np.zeros(grid.shape)
    weights.flat[np.asarray(found["cell_id"], np.int64)] = found["coverage"]
    return weights


def weighted_means(vectors, weights):
    """Return means over valid pixels, shape (bands,), and the valid weight. `vectors` (bands, y, x), NaN = nodata."""
    valid = ~np.isnan(vectors[0])
    weights = np.where(valid, weights, 0.0)
    total = weights.sum()
    if total == 0:
        return np.full(len(vectors), np.nan), 0.0
    return np.nansum(vectors * weights, axis=(1, 2)) / total, total


def exact_means(codes, weights) -> list[Fraction | None]:
    """Return exact means of codes' values, by Python integers; `weights` in 2^-24 pixels."""
    means: list[Fraction | None] = []
    places = np.argwhere(weights > 0).tolist()
    for plane in codes:
        total = area = 0
        for row, col in places:
            k, w = int(plane[row, col]), int(weights[row, col])
            if k != -128:
                total, area = total + w * k * abs(k), area + w
        means.append(Fraction(total, area) / Fraction(65025, 4) if area else None)
    return means


def can_be_unit(codes) -> bool:
    """Whether some unit vector rounds to a pixel's codes: the ends of each component's interval, in Python's integers.

    A magnitude k stands for 127.5 sqrt(|v|) in k - 1/2 .. k + 1/2; the sum of the fourth powers must be 127.5^4. In
    halves: 255^4. The last of six digits is left to the rounding of float32.
    """
    doubled = [2 * abs(int(k)) for k in codes]
    least, most = sum(max(d - 1, 0) ** 4 for d in doubled), sum((d + 1) ** 4 for d in doubled)
    return least <= 255**4 * (1 + 1e-5) and most >= 255**4 * (1 - 1e-5)


# --- polygons


def ring(angles, radii, centre):
    """Return a star-shaped ring: simple for ascending angles."""
    return np.column_stack([centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)])


def star(seed, centre, radius, n=12, hole=False):
    """Return a star-shaped polygon with a jagged outline, and a hole of the same shape inside on demand."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, n)) if n > 6 else np.linspace(0, 2 * np.pi, n, endpoint=False)
    radii = radius * rng.uniform(0.4, 1.0, n)
    shell = ring(angles, radii, centre)
    polygon = shapely.Polygon(shell, [ring(angles, radii * 0.5, centre)] if hole else None)
    return polygon if polygon.is_valid else polygonal(shapely.make_valid(polygon))


def polygonal(geometry):
    """Keep the polygons of a geometry, as one Polygon or MultiPolygon; None without any."""
    parts = [part for part in shapely.get_parts(geometry, return_index=False).ravel() if part.area > 0]
    parts = [p for part in parts for p in shapely.get_parts(part) if p.geom_type == "Polygon"]
    if not parts:
        return None
    merged = shapely.union_all(parts)
    return merged if merged.geom_type in ("Polygon", "MultiPolygon") and merged.is_valid else None


def _from_points(points, precision=0.0):
    polygon = polygonal(shapely.set_precision(shapely.make_valid(shapely.Polygon(points)), precision))
    return polygon if polygon is not None else shapely.box(0, 0, 1, 1)


_quarters = st.integers(0, 40).map(lambda n: n / 4)  # many vertices on pixel sides and corners, collinear edges
_thousandths = st.integers(0, 10_240).map(lambda n: n / 1024)
_floats = st.floats(0, 10, allow_nan=False).map(lambda v: round(v, 9))


def _of(number, precision=0.0):
    points = st.lists(st.tuples(number, number), min_size=3, max_size=9, unique=True)
    return points.map(lambda xy: _from_points(xy, precision))


quarter_polygons = _of(_quarters)
"""Valid polygons and multipolygons, with holes too, most of their vertices on a quarter-pixel raster."""

dyadic_polygons = st.one_of(_of(_quarters, 2.0**-10), _of(_thousandths, 2.0**-10))
"""The same, on multiples of 2^-10: a shift by whole pixels is exact."""

any_polygons = st.one_of(dyadic_polygons, _of(_floats))
"""The same, anywhere within 0..10."""


# --- rasters, tiles and archives on disk


def unit_codes(shape, seed=0, masked=0.0):
    """Return int8 codes (64, height, width) of smooth unit vectors, with a share of masked pixels."""
    from gee_polygons.embeddings.quantization import vectors_to_codes

    rng = np.random.default_rng(seed)
    height, width = shape
    coarse = rng.normal(size=(64, height // 8 + 2, width // 8 + 2))
    vectors = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)[:, :height, :width]
    vectors = vectors + 0.15 * rng.normal(size=(64, height, width))
    vectors /= np.linalg.norm(vectors, axis=0)
    codes = vectors_to_codes(vectors)
    codes[:, rng.random(shape) < masked] = -128
    return codes


def small_grid(shape, *, south_up=True, step=10.0, crs=UTM, origin=ORIGIN):
    """Return a grid whose north-west corner is at `origin`, in either row order."""
    north, south = origin[1], origin[1] - step * shape[0]
    e, f = (step, south) if south_up else (-step, north)
    return Grid(crs=crs, transform=(step, 0.0, origin[0], 0.0, e, f), shape=tuple(shape))


def write_gdal(path, grid: Grid, values, *, nodata=-128, **profile):
    """Write (bands, height, width) values, given north-up, with GDAL."""
    if grid.flip_y:
        values = values[:, ::-1]
    a, b, c, d, e, f = grid.transform
    with rasterio.open(
        path, "w", driver="GTiff", width=grid.shape[1], height=grid.shape[0], count=len(values), dtype=values.dtype,
        crs=grid.crs, transform=rasterio.Affine(a, b, c, d, e, f), nodata=nodata, **profile,
    ) as file:  # fmt: skip
        file.write(values)
        if len(values) == 64:
            file.descriptions = BANDS
    return Path(path)


def index_row(path, grid: Grid, year=2024, crs=None):
    """Return a row of an index for a tile whose pixels are all valid."""
    west, south, east, north = grid.bounds
    box = geopandas.GeoSeries([shapely.box(*grid.bounds)], crs=grid.crs).to_crs(4326).total_bounds
    middle = int((crs or grid.crs)[-2:]) * 6 - 183  # published bounds are clipped at the zone's edges
    box[[0, 2]] = box[[0, 2]].clip(middle - 3, middle + 3)
    return {
        "fid": 1, "geom": b"", "crs": crs or grid.crs, "year": year, "utm_zone": "22S",
        "utm_west": west, "utm_south": south, "utm_east": east, "utm_north": north,
        "wgs84_west": box[0], "wgs84_south": box[1], "wgs84_east": box[2], "wgs84_north": box[3],
        "path": str(path),
    }  # fmt: skip


def write_index(folder, rows):
    """Write an index with the published columns."""
    path = Path(folder) / "aef_index.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def archive(folder, tiles, **kwargs):
    """Return a CogSource over tiles given as (path, grid, year)."""
    return CogSource(write_index(folder, [index_row(path, grid, year) for path, grid, year in tiles]), **kwargs)


def sites(polygons, crs=UTM, ids=None):
    """Return polygons of a projected CRS as a GeoDataFrame of sites in EPSG:4326."""
    ids = ids if ids is not None else [f"s{i}" for i in range(len(polygons))]
    return geopandas.GeoDataFrame({"site_id": ids}, geometry=list(polygons), crs=crs).to_crs(4326)


def on_grid(polygons, grid: Grid):
    """Return polygons given in (column, row) of a grid, rows southwards from its north-west corner, in its CRS."""
    west, _, _, north = grid.bounds
    step = abs(grid.transform[0])
    return [shapely.transform(p, lambda xy: np.column_stack([west + step * xy[:, 0], north - step * xy[:, 1]]))
            for p in polygons]  # fmt: skip


def one_line(message) -> bool:
    """Whether a message is one line of readable length."""
    text = str(message)
    return 0 < len(text) < 600 and "\n" not in text


__all__ = [name for name in dir() if not name.startswith("_") and name not in ("annotations", "st")]
FULL_WEIGHT = FULL


def open_tile(place, year):
    """Return one tile's header as a source reads it; what makes it unusable is raised."""
    [tile] = open_tiles([(str(place), year)])
    if isinstance(tile, Tile):
        return tile
    raise tile

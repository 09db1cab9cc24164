"""Pixels of geometries that one zone doesn't hold: every zone's grid by itself, and no ground twice."""

from dataclasses import replace

import numpy as np
import pyproj
import pytest
import shapely
from archives import FakeTile, random_codes, to_lon_lat, to_utm, write_archive

from gee_polygons.alphaearth import NODATA
from gee_polygons.collection import load
from gee_polygons.errors import ReadError, TileError, UsageError
from gee_polygons.extract import extract_embeddings
from gee_polygons.sources.sample import truth_codes
from gee_polygons.zonal.grid import Grid

S22, S23 = "EPSG:32722", "EPSG:32723"
SEAM = -48.0
LAT = -22.35


def tile(crs, west, east, seed, **how):
    """A tile around a latitude, between two distances (m) from the meridian."""
    x, y = to_utm(crs)(SEAM, LAT)
    col, stop = int((x + west) // 10), int((x + east) // 10)
    codes = random_codes((90, stop - col), seed)
    return FakeTile(crs=crs, col=col, row=int(-y // 10) - 45, codes=codes, **how)


def pixel_centres(row):
    """Longitudes and latitudes of a row's pixel centres."""
    y, x = np.indices(row.valid.shape) + 0.5
    a, _, c, _, e, f = row.transform
    return pyproj.Transformer.from_crs(row.crs, "EPSG:4326", always_xy=True).transform(c + a * x, f + e * y)


def check_partition(rows, polygon):
    """Each point of a polygon lies in one valid pixel of one zone, but for those next to an edge."""
    found = np.zeros(2000, int)
    chance = np.random.default_rng(0)
    west, south, east, north = polygon.bounds
    lon, lat = chance.uniform(west, east, 2000), chance.uniform(south, north, 2000)
    inner = shapely.contains_xy(polygon.buffer(-1.5e-4), lon, lat) & (abs(lon - SEAM) > 1.5e-4)
    for row in rows:
        x, y = to_utm(row.crs)(lon, lat)
        a, _, c, _, e, f = row.transform
        line, col = np.floor((y - f) / e).astype(int), np.floor((x - c) / a).astype(int)
        held = (line >= 0) & (line < row.valid.shape[0]) & (col >= 0) & (col < row.valid.shape[1])
        found[held] += row.valid[line[held], col[held]]
    assert inner.sum() > 200
    assert (found[inner] == 1).all()
    assert (found[~shapely.contains_xy(polygon.buffer(1.5e-4), lon, lat)] == 0).all()


@pytest.fixture(scope="module")
def sample():
    return load("gee-polygons/sample")


@pytest.fixture(scope="module")
def torn(sample_sites):
    return sample_sites["zone-seam-long"]


def test_get_gdf_has_a_row_for_each_zone_and_no_ground_twice(sample, sample_sites, torn):
    frame = sample_sites.to_geodataframe()
    found = sample.get_gdf(frame[frame["site_id"].isin([torn.site_id, "zone-seam"])], years=[2021, 2023], decode=False)
    assert found.groupby(["site_id", "year"]).size().to_dict() == {
        ("zone-seam", 2021): 1, ("zone-seam", 2023): 1, (torn.site_id, 2021): 2, (torn.site_id, 2023): 2,
    }  # fmt: skip
    rows = [row for row in found.itertuples() if row.site_id == torn.site_id]
    assert {row.crs for row in rows} == {S22, S23}
    for row in rows:
        lon, _ = pixel_centres(row)
        assert (lon[row.valid] < SEAM).all() if row.crs == S22 else (lon[row.valid] >= SEAM).all()
        grid = Grid(crs=row.crs, transform=row.transform, shape=row.valid.shape)
        truth = truth_codes(row.crs, grid.window, row.year)
        assert np.array_equal(row.codes[:, row.valid], truth[:, row.valid])
    check_partition([row for row in rows if row.year == 2023], torn.polygon)
    table = extract_embeddings([torn], source="sample", years=[2023], statistics=["count"])
    # an extraction counts the few pixels on the meridian from both sides, by their shares
    assert sum(row.valid.sum() for row in rows if row.year == 2023) == pytest.approx(table["A00"][0], rel=0.02)


def test_get_numpy_gives_the_home_zone_and_says_so(sample, torn):
    with pytest.warns(UserWarning, match=r"geometry 0 lies in several zones \(EPSG:\d+, EPSG:\d+\).*get_gdf"):
        array = sample.get_numpy(torn.polygon, years=[2023])
    home = sample.get_gdf(torn.polygon, years=[2023]).iloc[0]
    assert np.array_equal(~array.mask[0].all(axis=0), home["valid"])
    assert np.array_equal(array.data[0], home["pixels"], equal_nan=True)


def test_get_xarray_has_one_grid_a_zone_lazy_or_not(sample, torn):
    how = {"years": [2023], "bands": ["A00"], "decode": False}
    for crs in (S22, S23):
        data = sample.get_xarray(torn.polygon, crs=crs, **how)
        assert sample.get_xarray(torn.polygon, crs=crs, chunks={"y": 30, "x": 40}, **how).compute().identical(data)
        x, y = np.meshgrid(data.x, data.y)
        lon, _ = to_lon_lat(crs)(x, y)
        assert (data["A00"].values[0][lon >= SEAM if crs == S22 else lon < SEAM] == NODATA).all()
    # a geometry beside it that isn't cut keeps its window whole
    both = [torn.polygon, shapely.box(-48.012, -22.352, -47.999, -22.350)]
    joined = sample.get_xarray(both, crs=S22, **how)
    alone = sample.get_xarray(both[1], **how)
    assert joined.sel(x=alone.x, y=alone.y)["A00"].equals(alone["A00"])
    assert (alone["A00"] != NODATA).all()


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_files_without_data_beyond_the_edge_are_replaced(names, tmp_path):
    # both zones' files cover all, but each has data on its own side only
    tiles = []
    for crs, name, seed in ((S22, names[0], 1), (S23, names[1], 2)):
        one = tile(crs, -600, 600, seed, name=name)
        rows, cols = np.indices(one.codes.shape[1:])
        lon, _ = to_lon_lat(crs)(10.0 * (one.col + cols + 0.5), -10.0 * (one.row + rows + 0.5))
        beyond = lon > SEAM + 3e-4 if crs == S22 else lon < SEAM - 3e-4
        tiles.append(replace(one, codes=np.where(beyond, np.int8(NODATA), one.codes)))
    collection = load(write_archive(tmp_path, tiles))
    polygon = shapely.Point(SEAM + 0.0004, LAT).buffer(0.0025)
    found = collection.get_gdf(polygon)
    assert found["crs"].tolist() == [S23, S22]  # the home zone first
    check_partition(found.itertuples(), polygon)
    with pytest.raises(UsageError, match=f"lie in {S22}, {S23}"):
        collection.get_xarray(polygon, bands=["A00"])
    near = shapely.box(SEAM - 0.002, LAT - 0.001, SEAM + 0.0001, LAT + 0.001)  # has all it needs at home
    assert collection.get_gdf(near)["crs"].tolist() == [S22]


def test_without_the_next_zones_tiles_the_home_zone_gives_what_it_has(tmp_path):
    collection = load(write_archive(tmp_path, [tile(S22, -600, 100, 1, name="a")]))
    polygon = shapely.Point(SEAM + 0.0004, LAT).buffer(0.0025)
    (row,) = collection.get_gdf(polygon).itertuples()
    assert row.crs == S22
    assert 0 < row.valid.sum() < row.valid.size
    assert not collection.get_numpy(polygon).mask.all()


@pytest.mark.parametrize("damage", ["missing", "strips"])
def test_a_tile_that_cannot_be_opened_is_named_with_the_geometry(tmp_path, damage):
    here, there = tile(S22, -600, -50, 1, name="a"), tile(S23, 50, 600, 2, name="b")
    index = write_archive(tmp_path, [here, there])
    path = tmp_path / there.path
    if damage == "missing":
        path.unlink()
    else:
        import rasterio

        with rasterio.open(path, "w", driver="GTiff", width=90, height=90, count=64, dtype="int8", crs=S23,
                           transform=rasterio.Affine(10, 0, 0, 0, -10, 0)) as file:  # fmt: skip
            file.write(np.zeros((64, 90, 90), np.int8))
    collection = load(index)
    polygons = [shapely.Point(SEAM - 0.003, LAT).buffer(0.001), shapely.Point(SEAM + 0.003, LAT).buffer(0.001)]
    for read in (collection.get_numpy, collection.get_gdf, collection.get_xarray):
        with pytest.raises((ReadError, TileError), match=r"^geometry 1: .*\.tif"):
            read(polygons)
    with pytest.raises((ReadError, TileError), match=r"^point 1: .*\.tif"):
        collection.sample_points([polygon.centroid for polygon in polygons])

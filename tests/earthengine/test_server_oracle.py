"""The server's coverage against exactextract's, and its reductions of a real-sized site against numpy."""

import ee
import numpy as np
import pytest
import rasterio
import shapely
from exactextract import exact_extract

from .archive import AEF_VALUES
from .synthetic import write_aef_tile

AEF = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
CRS = "EPSG:32722"
W, N = 700_000, 7_500_640


def sites(count):
    """Stars of 5 to 25 hectares, some with a hole, some thin."""
    rng = np.random.default_rng(1)
    for i in range(count):
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        radius = rng.uniform(100, 250) * (1 + 0.4 * np.sin(3 * angle + i))
        x, y = rng.uniform(W + 250, W + 390), rng.uniform(N - 390, N - 250)
        star = shapely.Polygon(np.c_[x + radius * np.cos(angle), y + radius * np.sin(angle)]).buffer(0)
        yield star.difference(shapely.Point(x, y).buffer(20)) if i % 2 else star
    yield shapely.box(W + 3, N - 600, W + 4, N - 3)  # a tenth of a pixel wide


@pytest.fixture
def tile(earth, tmp_path):
    codes = np.random.default_rng(0).integers(-128, 128, (64, 64, 64)).astype(np.int8)
    codes[:, codes[0] == -128] = -128  # nodata is in all bands at once
    codes[1:][(codes[1:] == -128) & (codes[0] != -128)] = 0
    path = write_aef_tile(tmp_path, 2020, 32722, W, N, codes, south_up=False)
    server = earth(tmp_path)
    server.exact_weights = True
    return path


def test_means_agree_with_exactextract(tile, tmp_path):
    with rasterio.open(tile) as source:
        values = AEF_VALUES[source.read([1, 33]).astype(np.int16) + 128]
        values[source.read([1, 33]) == -128] = np.nan
        profile = {**source.profile, "dtype": "float32", "count": 2, "nodata": np.nan}
    with rasterio.open(tmp_path / "float.tif", "w", **profile) as target:
        target.write(values)
    shapes = list(sites(12))
    table = [{"type": "Feature", "geometry": shapely.geometry.mapping(s), "properties": {}} for s in shapes]
    oracle = exact_extract(str(tmp_path / "float.tif"), table, ["mean", "count", "stdev"])
    image = ee.ImageCollection(AEF).filterDate("2020-01-01", "2021-01-01").mosaic().select(["A00", "A32"])
    features = [ee.Feature(ee.Geometry(shapely.geometry.mapping(s), CRS, False)) for s in shapes]
    both = ee.Reducer.mean().combine(ee.Reducer.stdDev(), sharedInputs=True)
    found = image.reduceRegions(ee.FeatureCollection(features), both, 10, CRS).getInfo()["features"]
    for ours, theirs in zip(found, oracle, strict=True):
        for number, band in ((1, "A00"), (2, "A32")):
            expected = theirs["properties"]
            assert ours["properties"][f"{band}_mean"] == pytest.approx(expected[f"band_{number}_mean"], abs=1e-6)
            assert ours["properties"][f"{band}_stdDev"] == pytest.approx(expected[f"band_{number}_stdev"], abs=1e-6)

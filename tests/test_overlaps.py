"""Where tiles of one zone and year overlap, every way of reading takes a pixel from the same tile."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from archives import FakeTile, extract, ground, make_archive, random_codes, sites, values_of, write_archive

from gee_polygons.alphaearth import BANDS, NODATA
from gee_polygons.collection import load
from gee_polygons.collection.download import download
from gee_polygons.reduction.overlaps import row_by_row
from gee_polygons.reduction.plan import BlockRef
from gee_polygons.site import sites_from_geodataframe
from gee_polygons.sources.cog import CogSource
from gee_polygons.zonal.grid import Window

CRS, COL, ROW = "EPSG:32722", 80_000, -750_000
# names of two tiles: the first in the order of paths counts, also where the file's own name would say otherwise; which
# of them are south-up; and whether the index lists them the other way round: against the order of paths, twice with it
CASES = {
    "against": (("a", "b"), (True, False), True),
    "against, as written": (("b", "a"), (False, True), False),
    "folders, with": (("a/y", "b/x"), (False, True), False),
    "folders, with, turned": (("b/x", "a/y"), (True, False), True),
}
# pixels (column, row) of the overlap and how many tiles have data there
PIXELS = {"both": (35, 20), "first masked": (38, 22), "second masked": (41, 24), "near a block's edge": (47, 31)}


def two_tiles(names, south_up):
    """Two tiles of unrelated codes that share columns 30 to 59, each with one masked pixel of them."""
    codes = [random_codes((50, 60), seed) for seed in (1, 2)]
    codes[0][:, 22, 38] = NODATA
    codes[1][:, 24, 41 - 30] = NODATA
    return [
        FakeTile(crs=CRS, col=COL, row=ROW, codes=codes[0], name=names[0], block=16, south_up=south_up[0]),
        FakeTile(crs=CRS, col=COL + 30, row=ROW, codes=codes[1], name=names[1], block=48, south_up=south_up[1]),
    ]


def pixel_of(tiles, col, row):
    """The codes that count, worked out here: the first tile, by path, that has data."""
    for tile in sorted(tiles, key=lambda tile: tile.path):
        found = tile.codes[:, row + ROW - tile.row, col + COL - tile.col]
        if (found != NODATA).all():
            return found
    raise AssertionError("no tile has data there")


def every_reading(folder, index, col, row):
    """The codes of one pixel, however they are asked for; the mean as vectors."""
    here = FakeTile(crs=CRS, col=COL, row=ROW, codes=np.zeros((64, 1, 1), np.int8))
    polygon = ground(shapely.box(col + 0.1, row + 0.1, col + 0.9, row + 0.9), here)
    wide = ground(shapely.box(col - 9.5, row - 9.5, col + 9.5, row + 9.5), here)
    source, collection = CogSource(index), load(str(index))
    window = (row + ROW, col + COL)

    def part(values, grid):
        corner = grid.window
        return values[..., window[0] - corner.row, window[1] - corner.col]

    image = source.image(wide, 2024)
    array = collection.get_numpy(polygon, decode=False)
    frame = collection.get_gdf(polygon, decode=False).iloc[0]
    dataset = collection.get_xarray(wide, decode=False).to_array().sel(year=2024)
    lazy = collection.get_xarray(wide, chunks={"y": 7, "x": 5}, decode=False).to_array().sel(year=2024)
    x, y = 10.0 * (window[1] + 0.5), -10.0 * (window[0] + 0.5)
    points = collection.sample_points(polygon.centroid, decode=False)
    several = collection.sample_points([polygon.centroid] * 3, max_distance_px=2, decode=False)
    assert (several["distance_px"] == 0).all()
    found = {
        "image": part(image.values, image.grid),
        "get_numpy": array[0, :, 0, 0].filled(NODATA),
        "get_gdf": frame["codes"][:, 0, 0],
        "get_xarray": dataset.sel(x=x, y=y).to_numpy(),
        "get_xarray, lazy": lazy.sel(x=x, y=y).to_numpy(),
        "sample_points": points[list(BANDS)].iloc[0].to_numpy(np.int8),
        "sample_points within 2 px": several[list(BANDS)].iloc[1].to_numpy(np.int8),
    }
    places = sites_from_geodataframe(sites([wide]))
    download(places, [2024], folder / "tif", source=source, format="tif")
    with rasterio.open(next((folder / "tif").glob("*.tif"))) as file:
        found["download, tif"] = file.read()[:, *file.index(x, y)]
    copy = download(places, [2024], folder / "archive", source=source)
    return found, {
        "mean": extract([polygon], source),
        "mean of a local archive": extract([polygon], CogSource(copy)),
    }


@pytest.mark.parametrize(("names", "south_up", "turned"), CASES.values(), ids=CASES)
def test_the_same_pixel_counts_everywhere(names, south_up, turned, tmp_path):
    tiles = two_tiles(names, south_up)
    index = write_archive(tmp_path, tiles[::-1] if turned else tiles)
    for number, (col, row) in enumerate(PIXELS.values()):
        truth = pixel_of(tiles, col, row)
        codes, means = every_reading(tmp_path / str(number), index, col, row)
        wrong = [name for name, values in codes.items() if not np.array_equal(values, truth)]
        bands = [list(table.loc[0, list(BANDS)]) for table in means.values()]
        wrong += [name for name, mean in zip(means, bands, strict=True) if not np.allclose(mean, values_of(truth))]
        assert not wrong, f"{list(PIXELS)[number]}: {wrong}"


def test_points_take_the_nearest_pixel_with_data_then_the_first_tile(tmp_path):
    tiles = two_tiles(("b", "a"), (True, False))
    for tile in tiles:  # a hole in both tiles; two columns west of it only the first has data, in the east both
        tile.codes[:, 10:15, 40 + COL - tile.col : 43 + COL - tile.col] = NODATA
    tiles[1].codes[:, 12, 9] = NODATA
    make_archive(tmp_path, tiles)
    collection = load(tmp_path / "aef_index.parquet")
    for col, nearest in ((40, (39, 12)), (42, (43, 12)), (41, None)):
        point = ground(shapely.Point(col + 0.5, 12.5), replace(tiles[0], codes=np.zeros((64, 1, 1), np.int8)))
        found = collection.sample_points(point, max_distance_px=1, decode=False).iloc[0]
        if nearest is None:
            assert pd.isna(found["distance_px"])
            assert found[list(BANDS)].isna().all()
        else:
            assert found["distance_px"] == 1
            assert np.array_equal(found[list(BANDS)].to_numpy(np.int8), pixel_of(tiles, *nearest))


def test_a_long_chain_of_overlapping_tiles_is_ordered():
    """Each tile overlaps the one north of it and takes precedence: the last one's pixels count before all others'."""
    n = 3000
    windows = [Window(8 * i, 0, 16, 16) for i in range(n)]
    blocks = [BlockRef(tile=f"{n - i:04d}", year=2024, index=(0, 0), window=w, inside=w) for i, w in enumerate(windows)]
    assert row_by_row(blocks) == blocks[::-1]

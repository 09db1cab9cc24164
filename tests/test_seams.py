"""Polygons across blocks, files, zones, hemispheres and the antimeridian: each against brute force.

Codes of different tiles are unrelated on purpose, also where they show the same ground: a pixel taken from the wrong
tile, twice, or not at all changes every mean. Within a zone nothing but equality or 1e-6 (rounding of coverage) will
do; where two zones measure the same ground their pixels differ by the zones' scale factors.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import shapely
from archives import (
    ALL_STATISTICS,
    FakeTile,
    assert_row,
    assert_same_bits,
    brute_pixels,
    extract,
    ground,
    index_row,
    make_archive,
    numbers,
    project,
    random_codes,
    sites,
    to_lon_lat,
    to_utm,
    values_of,
    write_archive,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import star, write_gdal

from gee_polygons import extract_embeddings
from gee_polygons.alphaearth import BANDS
from gee_polygons.network import ranges as _fetch
from gee_polygons.reduction.pipeline import reduce_polygons
from gee_polygons.sources.cog import CogSource

S22, S23 = "EPSG:32722", "EPSG:32723"
COL, ROW = 80_000, -750_000
SOME = ("mean", "std", "min", "max", "median", "count")


def tile_at(col, row, shape, seed, crs=S22, masked=0.0, **how):
    """Return a tile of random codes, `col` and `row` counted from (COL, ROW)."""
    return FakeTile(crs=crs, col=COL + col, row=ROW + row, codes=random_codes(shape, seed, masked), **how)


def frame(tile):
    """Polygons of these tests are given in pixels from (COL, ROW)."""
    return replace(tile, col=COL, row=ROW)


def check(tiles, polygons, source, statistics=ALL_STATISTICS, years=(2024,), **how):
    """Compare all rows with brute force; returns the table."""
    table = extract(polygons, source, statistics=statistics, years=list(years))
    pairs = itertools.product(polygons, years)
    for (polygon, year), (_, row) in zip(pairs, table.iterrows(), strict=True):
        assert row["year"] == year
        assert_row(row, brute_pixels(tiles, polygon, year, **how), statistics)
    return table


# --- blocks and files of one zone


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 999), st.floats(20, 75), st.floats(15, 60)), min_size=2, max_size=4))
def test_across_blocks_and_abutting_tiles(quartet, places):
    tiles, source = quartet
    polygons = [ground(star(seed, (x, y), 25, hole=seed % 2 == 0), frame(tiles[0])) for seed, x, y in places]
    check(tiles, polygons, source)


@pytest.fixture(scope="module")
def quartet(tmp_path_factory):
    """Four abutting tiles in different layouts, some of their pixels masked."""
    places = [(0, 0, (33, 48)), (48, 0, (33, 50)), (0, 33, (40, 48)), (48, 33, (40, 50))]
    layouts = [
        {"block": 16, "south_up": True, "name": "d"},
        {"block": 32, "south_up": False, "name": "b"},
        {"block": 16, "south_up": False, "name": "c", "layout": {"interleave": "pixel"}},
        {"block": 64, "south_up": True, "name": "a"},
    ]
    tiles = [
        tile_at(*place, seed=i, masked=0.1, **how) for i, (place, how) in enumerate(zip(places, layouts, strict=True))
    ]
    return tiles, make_archive(tmp_path_factory.mktemp("quartet"), tiles)


def test_a_polygon_partly_off_the_archive_counts_what_is_there(quartet):
    tiles, source = quartet
    places = ((0, 0), (98, 30), (50, 73), (-19.9, 10), (110, -12))  # the last two may miss it
    polygons = [ground(star(3, (x, y), 20), frame(tiles[0])) for x, y in places]
    table = check(tiles, polygons, source)
    assert (table["valid_fraction"] < 0.95).all()


def test_a_polygon_that_no_tile_touches_has_no_data(quartet):
    tiles, source = quartet
    around = shapely.box(-20, -20, 120, 100).difference(shapely.box(-2, -2, 100, 75))  # a frame around the archive
    polygons = [ground(shape, frame(tiles[0])) for shape in (shapely.box(150, 0, 160, 10), around)]
    table = extract(polygons, source, statistics=ALL_STATISTICS)
    assert table["status"].tolist() == ["no_data", "no_data"]
    assert (table["n_pixels"] == 0).all()
    assert (table["valid_fraction"] == 0).all()
    assert table[[c for c in table if c.startswith("A") or c == "Rbar"]].isna().all(axis=None)


@pytest.mark.parametrize("names", ["ab", "ba"])
@pytest.mark.parametrize("masked", [0.0, 0.4])
@pytest.mark.parametrize("blocks", [(16, 16), (32, 16), (48, 64)])
def test_across_overlapping_tiles(names, masked, blocks, tmp_path):
    tiles = [
        tile_at(0, 0, (50, 60), 1, masked=masked, name=names[0], block=blocks[0], south_up=True),
        tile_at(35, 11, (50, 60), 2, masked=masked, name=names[1], block=blocks[1], south_up=False),
    ]
    polygons = [ground(star(i, (47, 30), r), frame(tiles[0])) for i, r in enumerate((3, 12, 24, 60))]
    check(tiles, polygons, make_archive(tmp_path, tiles))


def test_across_three_tiles_that_all_overlap(tmp_path):
    tiles = [
        tile_at(0, 0, (40, 40), 1, masked=0.5, name="c", block=16),
        tile_at(10, 5, (40, 40), 2, masked=0.5, name="a", block=32),
        tile_at(5, 10, (40, 40), 3, masked=0.5, name="b", block=64, south_up=False),
    ]
    polygons = [ground(star(i, (22, 22), r), frame(tiles[0])) for i, r in enumerate((5, 15, 28))]
    table = check(tiles, polygons, make_archive(tmp_path, tiles))
    assert (table["n_pixels"] > 0).all()
    # a tile twice under one name: once
    again = CogSource(write_archive(tmp_path, tiles, [index_row(tile) for tile in tiles]))
    assert_same_bits(extract(polygons, again, statistics=ALL_STATISTICS), table)


def test_overlapping_tiles_of_the_same_pixels_count_once(tmp_path):
    codes = random_codes((60, 90), 4, masked=0.2)
    whole = FakeTile(crs=S22, col=COL, row=ROW, codes=codes, name="whole")
    halves = [
        FakeTile(crs=S22, col=COL, row=ROW, codes=codes[:, :, :60], name="west", block=16),
        FakeTile(crs=S22, col=COL + 40, row=ROW, codes=codes[:, :, 40:], name="east", block=48, south_up=False),
    ]
    polygons = [ground(star(i, (45, 30), r), whole) for i, r in enumerate((2, 9, 25, 44))]
    one = extract(polygons, make_archive(tmp_path / "one", [whole]), statistics=ALL_STATISTICS)
    several = [halves, halves[::-1], [whole, *halves], [replace(whole, name=name) for name in ("z", "a", "b")]]
    for number, tiles in enumerate(several):
        found = extract(polygons, make_archive(tmp_path / str(number), tiles), statistics=ALL_STATISTICS)
        assert_same_bits(found, one)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_hidden_pixel_is_no_medoid(names, tmp_path):
    # the one pixel in the direction of the mean lies in both tiles' overlap, in the tile that isn't counted there
    codes = random_codes((20, 30), 3, spread=1.0)
    values = np.sign(codes.astype(float)) * codes.astype(float) ** 2
    mean = values.mean(axis=(1, 2))
    nearest = np.rint(np.sign(mean) * np.sqrt(np.abs(mean) / np.linalg.norm(mean)) * 127.5).astype(np.int8)
    other = codes.copy()
    other[:, 10, 15] = nearest
    tiles = [
        FakeTile(crs=S22, col=COL, row=ROW, codes=codes, name="a", block=32),
        FakeTile(crs=S22, col=COL, row=ROW, codes=other, name="b", block=16),
    ]
    if names == "ba":  # the other way round it is the medoid
        tiles = [replace(tiles[0], name="b"), replace(tiles[1], name="a")]
    polygon = ground(shapely.box(1, 1, 29, 19), tiles[0])
    table = check(tiles, [polygon], make_archive(tmp_path, tiles))
    is_it = (numbers(table.iloc[0], "medoid") == values_of(nearest)).all()
    assert is_it == (names == "ba")


def test_overlapping_tiles_cost_what_the_plan_says(tmp_path, monkeypatch):
    # to know which pixels an earlier tile has, one band of it is enough
    tiles = [tile_at(0, 0, (60, 60), 1, name="a", block=64), tile_at(30, 0, (60, 60), 2, name="b", block=64)]
    source = make_archive(tmp_path, tiles)
    polygon = ground(star(1, (45, 30), 25), frame(tiles[0]))
    plan = source.plan(np.array([polygon], object), [2024])
    asked = []
    read = _fetch._local_ranges

    def counting(want):
        asked.extend(want.lengths)
        return read(want)

    monkeypatch.setattr(_fetch, "_local_ranges", counting)
    extract([polygon], source)
    assert (len(asked), sum(asked)) == (plan.requests, plan.bytes)


def test_padding_of_blocks_is_no_land(tmp_path):
    # GDAL fills what of a block lies past the file's sides with copies of the last pixels, here over the next tile
    tiles = [
        tile_at(0, 0, (50, 41), 1, name="a", block=32, south_up=False),
        tile_at(41, 0, (50, 41), 2, name="b", block=32),
        tile_at(0, 50, (41, 82), 3, name="c", block=48, masked=0.3),
    ]
    index = write_archive(tmp_path, tiles)
    for tile in tiles:
        write_gdal(
            tmp_path / tile.path, tile.grid, tile.codes, tiled=True, blockxsize=tile.block, blockysize=tile.block,
            compress="zstd", interleave="band",
        )  # fmt: skip
    polygons = [ground(star(i, (42, 50), r), frame(tiles[0])) for i, r in enumerate((4, 15, 45, 90))]
    check(tiles, polygons, CogSource(index))


def test_rows_listed_twice_count_once(tmp_path):
    tile = tile_at(0, 0, (40, 40), 1)
    polygon = ground(star(1, (20, 20), 15), tile)
    once = extract([polygon], make_archive(tmp_path, [tile]), statistics=ALL_STATISTICS)
    row = index_row(tile)
    spellings = [row["path"], f"./{row['path']}", str(tmp_path / row["path"]), f"2024/../{row['path']}"]
    for extra in spellings:
        twice = CogSource(write_archive(tmp_path, [tile], [row | {"path": extra}]))
        assert_same_bits(extract([polygon], twice, statistics=ALL_STATISTICS), once)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_nodata_tile_never_hides_a_valid_one(names, tmp_path):
    full = tile_at(0, 0, (40, 40), 1, name=names[0], block=16)
    empty = replace(full, codes=np.full_like(full.codes, -128), name=names[1], block=32)
    polygons = [ground(star(i, (20, 20), r), full) for i, r in enumerate((2, 8, 15))]
    alone = extract(polygons, make_archive(tmp_path / "alone", [full]), statistics=ALL_STATISTICS)
    both = extract(polygons, make_archive(tmp_path / "both", [full, empty]), statistics=ALL_STATISTICS)
    assert_same_bits(both, alone)
    # neither does one of the next zone, though its file reaches here
    west, south, east, north = full.grid.bounds
    x, y = to_utm(S23)(*to_lon_lat(S22)(np.array([west, east]), np.array([south, north])))
    beside = FakeTile(
        crs=S23, col=int(x.min() // 10) - 30, row=int(-y.max() // 10) - 30, codes=np.full((64, 120, 120), -128, np.int8)
    )
    three = extract(polygons, make_archive(tmp_path / "three", [full, empty, beside]), statistics=ALL_STATISTICS)
    assert_same_bits(three, alone)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(-1, 1), st.floats(30, 60))
def test_a_partition_adds_up_to_the_whole(quartet, seed, slope, middle):
    tiles, source = quartet
    whole = star(seed, (50, 35), 34)
    # cut along a line across the meeting point of the tiles: both parts share its vertices
    blade = shapely.Polygon([(middle - 60 * slope, -25), (200, -25), (200, 95), (middle + 60 * slope, 95)])
    parts = [whole.intersection(blade), whole.difference(blade)]
    polygons = [ground(shape, frame(tiles[0])) for shape in (whole, *parts) if shape.area > 0]
    table = extract(polygons, source)
    assert table["n_pixels"][1:].sum() == pytest.approx(table["n_pixels"][0], abs=1e-5)
    sums = table[list(BANDS)].mul(table["n_pixels"], axis=0).fillna(0.0)
    np.testing.assert_allclose(sums[1:].sum(), sums.iloc[0], atol=1e-5)


# --- years


def test_tiles_of_years_differ_and_years_do_not_mix(tmp_path):
    tiles = [
        tile_at(0, 0, (40, 40), 1, year=2020, name="p", block=16),
        tile_at(0, 0, (40, 40), 2, year=2021, name="q", block=32, south_up=False),
        tile_at(-20, -20, (70, 70), 3, year=2023, name="r", block=64),
    ]
    polygons = [ground(star(i, (20, 20), r), tiles[0]) for i, r in enumerate((4, 15, 30))]
    source = make_archive(tmp_path, tiles)
    years = [2019, 2020, 2021, 2022, 2023]
    table = extract(polygons, source, years=years, statistics=SOME)
    for polygon, (_, rows) in zip(polygons, table.groupby("site_id"), strict=True):
        for _, row in rows.iterrows():
            if row["year"] in (2019, 2022):
                assert row["status"] == "no_data"
            else:
                assert_row(row, brute_pixels(tiles, polygon, row["year"]), SOME)
    for year in years:  # each year as when asked for alone
        alone = extract(polygons, source, years=[year], statistics=SOME)
        assert_same_bits(alone, table[table["year"] == year].reset_index(drop=True))


@pytest.mark.parametrize("statistics", [["mean"], ["median", "medoid", "max"]])
def test_a_year_has_the_same_rows_whatever_other_years_are_asked_for(statistics, tmp_path):
    # blocks are padded at a tile's far sides, so two years' tiles of different size share a block's window
    tiles = [
        tile_at(0, 0, (60, 40), 1, year=2020, block=64, south_up=False),
        tile_at(0, 0, (30, 40), 2, year=2021, block=64, south_up=False),
    ]
    polygons = [ground(shapely.box(5, row, 15, row + 8), tiles[0]) for row in (10, 26, 40)]
    source = make_archive(tmp_path, tiles)
    both = extract(polygons, source, years=[2020, 2021], statistics=statistics)
    alone = extract(polygons, source, years=[2021], statistics=statistics)
    assert alone["status"].tolist() == ["ok", "ok", "no_data"]
    assert_same_bits(both[both["year"] == 2021].reset_index(drop=True), alone)


def test_years_on_shifted_grids_are_each_measured_on_their_own(tmp_path):
    first = tile_at(0, 0, (40, 40), 1, year=2020)
    tiles = [first, tile_at(0, 0, (40, 40), 2, year=2021)]
    index = write_archive(tmp_path, [first])
    # the year 2021 lies 4 m further east
    shifted = replace(tiles[1].grid, transform=(10.0, 0.0, 10.0 * COL + 4, 0.0, 10.0, tiles[1].grid.transform[5]))
    from gee_polygons.sources.cog.writing import write_tile

    path = tmp_path / tiles[1].path
    path.parent.mkdir(parents=True)
    write_tile(path, shifted, tiles[1].codes, block=32)
    row = index_row(tiles[1]) | {"utm_west": 10.0 * COL + 4, "utm_east": 10.0 * COL + 404}
    index = write_archive(tmp_path, [first], [row])
    polygon = ground(star(1, (20, 20), 15), first)
    table = extract([polygon], CogSource(index), years=[2020, 2021], statistics=SOME)
    assert_row(table.iloc[0], brute_pixels(tiles, polygon, 2020), SOME)
    back = project(project(polygon, to_utm(S22)), lambda x, y: (x - 4.0, y))
    assert_row(table.iloc[1], brute_pixels(tiles, project(back, to_lon_lat(S22)), 2021), SOME)


# --- zones


LAT = -22.35


def zone_tile(crs, west, east, seed, lat=LAT, height=90, **how):
    """Return a tile of a zone around a latitude, between two distances (m) from the meridian of 48 W."""
    lon = how.pop("lon", -48.0)
    x, y = to_utm(crs)(lon, lat)
    col, stop = int((x + west) // 10), int((x + east) // 10)
    codes = how.pop("codes", None)
    if codes is None:
        codes = random_codes((height, stop - col), seed, how.pop("masked", 0.0))
    return FakeTile(crs=crs, col=col, row=int(-y // 10) - height // 2, codes=codes, **how)


def at_meridian(shape, lon=-48.0, lat=LAT):
    """Return a shape given in pixels from a place, columns eastwards and rows southwards, in degrees."""
    metre = 1 / 111_320
    return shapely.transform(shape, lambda xy: xy * (10 * metre / np.cos(np.radians(lat)), -10 * metre) + (lon, lat))


CELLS = [(S22, (-54.0, -90.0, -48.0, 0.0)), (S23, (-48.0, -90.0, -42.0, 0.0))]


def test_across_a_zone_boundary_the_home_zone_measures_what_it_covers(tmp_path):
    tiles = [zone_tile(S22, -600, 400, 1, name="a"), zone_tile(S23, -400, 600, 2, name="b")]
    source = make_archive(tmp_path, tiles)
    west = [at_meridian(star(i, (-8 - i, 0), 25)) for i in range(4)]
    east = [at_meridian(star(i, (8 + i, 0), 25)) for i in range(4)]
    assert all(p.centroid.x < -48 < p.bounds[2] for p in west)
    assert all(p.bounds[0] < -48 < p.centroid.x for p in east)
    check(tiles, west, source, zones=[(S22, None)])
    check(tiles, east, source, zones=[(S23, None)])


def test_across_a_zone_boundary_what_the_home_zone_lacks_comes_from_the_next(tmp_path):
    # the home zone's file ends 100 m past the boundary, the polygon reaches 250 m
    tiles = [zone_tile(S22, -600, 100, 1, name="a", block=16), zone_tile(S23, -100, 600, 2, name="b", south_up=False)]
    source = make_archive(tmp_path, tiles)
    polygons = [at_meridian(star(i, (i - 2, 0), 34, hole=i == 1)) for i in range(5)]
    table = check(tiles, polygons, source, zones=CELLS)
    assert (table["valid_fraction"] == 1).all()
    parts = [shapely.MultiPolygon([at_meridian(star(7, (x, 0), 12)) for x in (-25, 14)])]
    check(tiles, parts, source, zones=CELLS)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_across_a_zone_boundary_files_without_data_beyond_it_are_replaced(names, tmp_path):
    # both zones' files cover all, but each has data on its own side of the boundary only, as published
    tiles = []
    for crs, name, seed in ((S22, names[0], 1), (S23, names[1], 2)):
        tile = zone_tile(crs, -600, 600, seed, name=name)
        rows, cols = np.indices(tile.codes.shape[1:])
        lon, _ = to_lon_lat(crs)(10.0 * (tile.col + cols + 0.5), -10.0 * (tile.row + rows + 0.5))
        beyond = lon > -48 + 3e-4 if crs == S22 else lon < -48 - 3e-4  # 30 m are published
        tiles.append(replace(tile, codes=np.where(beyond, np.int8(-128), tile.codes)))
    source = make_archive(tmp_path, tiles)
    polygons = [at_meridian(star(i, (2 * i - 5, 0), 30)) for i in range(5)]
    table = check(tiles, polygons, source, zones=CELLS)
    assert (table["valid_fraction"] == 1).all()
    # one that has enough at home stays there
    near = [at_meridian(shapely.box(-20, -5, 1, 5)), at_meridian(shapely.box(-1, -5, 20, 5))]
    check(tiles, near[:1], source, zones=[(S22, None)])
    check(tiles, near[1:], source, zones=[(S23, None)])


def test_a_masked_lake_on_the_boundary_is_not_counted_from_the_next_zone(tmp_path):
    # the same ground is masked in both zones: splitting finds nothing more, so the home zone's numbers stand
    tiles = []
    for crs, name, seed in ((S22, "a", 1), (S23, "b", 2)):
        tile = zone_tile(crs, -600, 600, seed, name=name)
        rows, cols = np.indices(tile.codes.shape[1:])
        lon, lat = to_lon_lat(crs)(10.0 * (tile.col + cols + 0.5), -10.0 * (tile.row + rows + 0.5))
        lake = (np.abs(lon + 48) < 1e-3) & (np.abs(lat - LAT) < 1e-3)
        tiles.append(replace(tile, codes=np.where(lake, np.int8(-128), tile.codes)))
    source = make_archive(tmp_path, tiles)
    polygon = at_meridian(shapely.box(-31, -20, 28, 20))
    table = check(tiles, [polygon], source, zones=[(S22, None)])
    assert table["valid_fraction"].between(0.75, 0.9).all()


def test_a_tile_year_missing_in_one_zone_only(tmp_path):
    tiles = [
        zone_tile(S22, -600, 100, 1, name="a", year=2020),
        zone_tile(S23, -100, 600, 2, name="b", year=2020),
        zone_tile(S23, -100, 600, 3, name="c", year=2021),
        zone_tile(S22, -600, 100, 4, name="d", year=2022),
        zone_tile(S22, -600, 600, 5, name="e", year=2023),
    ]
    source = make_archive(tmp_path, tiles)
    polygons = [at_meridian(star(i, (i - 2, 0), 34)) for i in range(4)]
    years = (2020, 2021, 2022)
    table = check(tiles, polygons, source, years=years, zones=CELLS, statistics=SOME)
    fractions = table.set_index(["site_id", "year"])["valid_fraction"].unstack()  # noqa: PD010
    assert (fractions[2020] == 1).all()
    assert fractions[[2021, 2022]].max(axis=None) < 0.8
    assert fractions[[2021, 2022]].min(axis=None) > 0.2
    # the areas of the halves are those of the whole: up to 1e-6 for the pixels that the meridian cuts
    np.testing.assert_allclose(fractions[2021] + fractions[2022], 1, atol=1e-6)
    everything = extract(polygons, source, years=range(2019, 2025), statistics=SOME)
    same = everything[everything["year"].isin(years)].reset_index(drop=True)
    assert_same_bits(same, table)
    assert (everything["status"][everything["year"].isin([2019, 2024])] == "no_data").all()
    for polygon, (_, row) in zip(polygons, everything[everything["year"] == 2023].iterrows(), strict=True):
        home = polygon.centroid.x < -48
        zones = [(S22, None)] if home else CELLS
        assert_row(row, brute_pixels(tiles, polygon, 2023, zones=zones), SOME)


def test_no_ground_is_counted_twice_across_a_zone_boundary(tmp_path):
    tiles = [zone_tile(S22, -600, 100, 1, name="a"), zone_tile(S23, -100, 600, 2, name="b")]
    source = make_archive(tmp_path, tiles)
    whole = at_meridian(star(9, (0, 0), 38))
    halves = [shapely.intersection(whole, shapely.box(*cell)) for _, cell in CELLS]
    strips = [shapely.intersection(whole, at_meridian(shapely.box(x, -99, x + 8, 99))) for x in range(-52, 52, 8)]
    strips = [strip for strip in strips if strip.area > 0]
    table = extract([whole, *halves, *strips], source)
    n = table["n_pixels"]
    assert (table["valid_fraction"] == 1).all()
    assert n[1] + n[2] == pytest.approx(n[0], rel=1e-9, abs=1e-5)  # split at the boundary, as the package does
    # strips on the boundary are measured whole in one zone: the scale factors of the zones, 3 degrees from their
    # middles, differ by 1e-6 over 400 m
    assert n[3:].sum() == pytest.approx(n[0], rel=1e-5)


# --- the equator


@pytest.fixture(scope="module")
def equator(tmp_path_factory):
    """A northern tile that reaches south of the equator with negative northings, and a southern one to its north."""
    lon = -60.5  # zone 20
    make = {
        "northern": lambda south, north: zone_tile("EPSG:32620", -500, 500, 1, lat=0, lon=lon, height=1, name="n"),
        "southern": lambda south, north: zone_tile("EPSG:32720", -500, 500, 2, lat=0, lon=lon, height=1, name="s"),
    }
    found = {}
    for kind, (north, south) in {"far": (60, 60), "short": (60, 3), "none": (60, 0)}.items():
        tiles = []
        for name, seed in (("northern", 1), ("southern", 2)):
            tile = make[name](0, 0)
            zero = 0 if name == "northern" else -1_000_000  # row of the equator
            up, down = (north, south) if name == "northern" else (south, north)
            codes = random_codes((up + down, tile.codes.shape[2]), seed)
            tiles.append(replace(tile, row=zero - up, codes=codes, south_up=name == "northern"))
        found[kind] = tiles, make_archive(tmp_path_factory.mktemp(kind), tiles)
    return lon, found


NORTH_SOUTH = [("EPSG:32620", (-66.0, 0.0, -60.0, 90.0)), ("EPSG:32720", (-66.0, -90.0, -60.0, 0.0))]


def test_the_tiles_at_the_equator_are_what_they_should_be(equator):
    tiles, _ = equator[1]["far"]
    assert tiles[0].grid.bounds[1] == -600  # metres: south of the equator
    assert tiles[1].grid.bounds[3] == 10_000_600


@pytest.mark.parametrize("kind", ["far", "short", "none"])
@pytest.mark.parametrize("middle", [-4, 4])
def test_across_the_equator(kind, middle, equator):
    lon, archives = equator
    tiles, source = archives[kind]
    polygons = [at_meridian(star(i, (0, -middle), 25, 30), lon, 0.0) for i in range(3)]
    home = ["EPSG:32720", "EPSG:32620"][middle > 0]
    assert all((p.centroid.y > 0) == (middle > 0) for p in polygons)
    check(tiles, polygons, source, zones=[(home, None)] if kind == "far" else NORTH_SOUTH)


def test_a_polygon_just_beside_the_equator_stays_in_its_zone(equator):
    lon, archives = equator
    tiles, source = archives["far"]
    for shape, crs in ((shapely.box(-9, -7, 9, 0), "EPSG:32620"), (shapely.box(-9, 0, 9, 7), "EPSG:32720")):
        check(tiles, [at_meridian(shape, lon, 0.0)], source, zones=[(crs, None)])


def test_no_ground_is_counted_twice_across_the_equator(equator):
    lon, archives = equator
    _, source = archives["none"]
    whole = at_meridian(star(2, (0, 3), 30), lon, 0.0)
    halves = [whole.intersection(shapely.box(*cell)) for _, cell in NORTH_SOUTH]
    n = extract([whole, *halves], source)["n_pixels"]
    assert n[1] + n[2] == pytest.approx(n[0], abs=1e-5)  # pixel edges of both hemispheres lie on the equator


# --- the antimeridian


N60, N01 = "EPSG:32660", "EPSG:32601"
FIJI = [(N60, (174.0, 0.0, 180.0, 90.0)), (N01, (180.0, 0.0, 186.0, 90.0))]


@pytest.fixture(scope="module")
def antimeridian(tmp_path_factory):
    """Tiles on both sides of 180 degrees, which overshoot it by 30 m or by 600 m."""
    found = {}
    for kind, over in {"short": 30, "far": 600}.items():
        tiles = [
            zone_tile(N60, -600, over, 1, lat=51.9, lon=180.0, name="a"),
            zone_tile(N01, -over, 600, 2, lat=51.9, lon=180.0, name="b", south_up=False),
        ]
        found[kind] = tiles, make_archive(tmp_path_factory.mktemp(kind), tiles)
    return found


def with_seam(polygon):
    """Add the vertices where edges cross 180: without, an edge is straight in UTM, 0.1 mm off the line in degrees."""
    return shapely.union_all([polygon.intersection(shapely.box(*cell)) for _, cell in FIJI])


def cut_at_180(polygon):
    """Return a polygon that runs past 180 as RFC 7946 wants it: two parts, near 180 and near -180."""
    west = shapely.intersection(polygon, shapely.box(0, -90, 180, 90))
    east = shapely.intersection(polygon, shapely.box(180, -90, 360, 90))
    east = shapely.transform(east, lambda xy: xy - (360.0, 0.0))
    return shapely.MultiPolygon([p for part in (west, east) for p in shapely.get_parts(part)])


@pytest.mark.parametrize("kind", ["short", "far"])
@pytest.mark.parametrize("middle", [-5, 5])
def test_across_the_antimeridian(kind, middle, antimeridian):
    tiles, source = antimeridian[kind]
    polygons = [at_meridian(star(i, (middle, 0), 27, 30, hole=i == 2), 180.0, 51.9) for i in range(3)]
    home = [N60, N01][middle > 0]
    assert all((p.centroid.x > 180) == (middle > 0) for p in polygons)
    check(tiles, polygons, source, zones=[(home, None)] if kind == "far" else FIJI)


@pytest.mark.parametrize("kind", ["short", "far"])
def test_a_polygon_cut_at_180_is_the_one_that_runs_past_it(kind, antimeridian):
    _, source = antimeridian[kind]
    whole = [with_seam(at_meridian(star(i, (3 * i - 4, 0), 27, hole=i == 2), 180.0, 51.9)) for i in range(4)]
    cut = [cut_at_180(polygon) for polygon in whole]
    assert all(p.bounds[0] == -180 and p.bounds[2] == 180 for p in cut)
    first = extract(whole, source, statistics=ALL_STATISTICS)
    assert (first["valid_fraction"] == 1).all()
    # 360 more or less rounds a longitude by 3e-14 degrees, 3 nm: coverage may round the other way
    second = extract(cut, source, statistics=ALL_STATISTICS)
    pd.testing.assert_frame_equal(second, first, check_exact=False, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["short", "far"])
def test_pixels_of_a_polygon_cut_at_180_are_read_by_the_source_itself(kind, antimeridian):
    # without the door that site collections come through
    _, source = antimeridian[kind]
    whole = with_seam(at_meridian(star(1, (2, 0), 27), 180.0, 51.9))
    forms = [whole, cut_at_180(whole), shapely.transform(whole, lambda xy: xy - (360.0, 0.0))]
    found = reduce_polygons(source, np.array(forms, object), [2024], bands=BANDS, statistics=["mean", "max"])
    assert (found.status == "ok").all()
    np.testing.assert_allclose(found.n_pixels[:, 0], found.n_pixels[0, 0], atol=1e-5)
    np.testing.assert_allclose(found.statistics["mean"][:, 0], found.statistics["mean"][[0] * 3, 0], atol=1e-6)


def test_a_polygon_that_ends_at_180_stays_in_its_zone(antimeridian):
    tiles, source = antimeridian["short"]
    for shape, crs in ((shapely.box(-20, -5, 0, 5), N60), (shapely.box(0, -5, 20, 5), N01)):
        polygon = at_meridian(shape, 180.0, 51.9)
        check(tiles, [polygon], source, zones=[(crs, None)])
    far = shapely.transform(polygon, lambda xy: xy - (360.0, 0.0))  # the last: at -180 the same place
    one, other = (extract([p], source, statistics=["count"]) for p in (polygon, far))
    pd.testing.assert_frame_equal(one, other, check_exact=False, rtol=0, atol=1e-6)


def test_no_ground_is_counted_twice_across_the_antimeridian(antimeridian):
    _, source = antimeridian["short"]
    whole = at_meridian(star(5, (0, 0), 35), 180.0, 51.9)
    halves = [whole.intersection(shapely.box(*cell)) for _, cell in FIJI]
    n = extract([whole, *halves], source)["n_pixels"]
    assert n[1] + n[2] == pytest.approx(n[0], rel=1e-9, abs=1e-5)


# --- more than two zones, irregular zones, small sites


def test_where_four_zones_meet(tmp_path):
    lon = -60.0  # zones 20 and 21, at the equator
    cells = {
        f"EPSG:{32600 + 100 * south + zone}": (zone * 6 - 186.0, -90.0 * south, zone * 6 - 180.0, 90.0 - 90.0 * south)
        for south, zone in itertools.product((0, 1), (20, 21))
    }
    tiles = [
        zone_tile(crs, *((-500, 30) if crs.endswith("20") else (-30, 500)), 0, lat=0, lon=lon, height=1, name=crs[5:])
        for crs in cells
    ]
    tiles = [
        replace(t, row=-1_000_000 - 3 if t.crs[5:8] == "327" else -47, codes=random_codes((50, t.codes.shape[2]), i))
        for i, t in enumerate(tiles)
    ]
    source = make_archive(tmp_path, tiles)
    polygons = [at_meridian(star(i, (i - 1, 1 - i), 30, 30, hole=i == 2), lon, 0.0) for i in range(4)]
    table = check(tiles, polygons, source, zones=list(cells.items()))
    assert (table["valid_fraction"] == 1).all()
    pieces = [[p.intersection(shapely.box(*cell)) for cell in cells.values()] for p in polygons]
    n = extract([piece for parts in pieces for piece in parts], source)["n_pixels"].to_numpy().reshape(4, 4)
    np.testing.assert_allclose(n.sum(axis=1), table["n_pixels"], rtol=1e-9, atol=2e-5)


def test_far_north_a_polygon_lies_in_three_zones(tmp_path):
    lat = 83.0  # a zone is 81 km wide here; tiles of 30 x 30 px lie along 83 N
    zones = {f"EPSG:326{zone}": (zone * 6.0 - 186, 0.0, zone * 6.0 - 180, 90.0) for zone in (31, 32, 33)}
    tiles = []
    for seed, (crs, (west, _, east, _)) in enumerate(zones.items()):
        for i, lon in enumerate(np.linspace(west + 0.1, east - 0.1, 3)):
            tiles.append(zone_tile(crs, -150, 150, 10 * seed + i, lat=lat, lon=lon, height=30, name=f"t{i}", block=16))
    source = make_archive(tmp_path, tiles)
    polygon = shapely.segmentize(shapely.box(3.0, 82.9995, 14.5, 83.0005), 0.01)  # 156 km x 110 m
    row = extract([polygon], source, statistics=SOME).iloc[0]
    sums, n_pixels, area = np.zeros(64), 0.0, 0.0
    for crs, cell in zones.items():
        part = project(polygon.intersection(shapely.box(*cell)), to_utm(crs))
        area += part.area / 100
        for tile in (t for t in tiles if t.crs == crs):
            inside = part.intersection(shapely.box(*tile.grid.bounds))
            if not inside.is_empty:
                pixels = brute_pixels([tile], project(inside, to_lon_lat(crs)))
                n_pixels += pixels.valid.area
                sums += (values_of(pixels.valid.codes) * pixels.valid.weights).sum(axis=1)
    assert row["n_pixels"] == pytest.approx(n_pixels, rel=1e-4)
    assert row["valid_fraction"] == pytest.approx(n_pixels / area, rel=1e-4)
    np.testing.assert_allclose(numbers(row, "mean"), sums / n_pixels, atol=1e-4)


def test_the_archive_knows_where_zones_are_irregular(tmp_path):
    # zone 32V is 3 degrees wider than others, to 3 E: tiles there claim what nominally is zone 31
    tile = zone_tile("EPSG:32632", -400, 400, 1, lat=60.4, lon=5.3, name="bergen")
    west, south, east, north = tile.grid.bounds
    lon, lat = to_lon_lat("EPSG:32632")(np.array([west, east]), np.array([south, north]))
    row = index_row(tile) | {"wgs84_west": lon[0], "wgs84_east": lon[1], "wgs84_south": lat[0], "wgs84_north": lat[1]}
    write_archive(tmp_path, [tile])
    table = pd.DataFrame([{"fid": 1, **row}])
    table.to_parquet(tmp_path / "aef_index.parquet")
    polygons = [at_meridian(star(i, (i, 0), 20), 5.3, 60.4) for i in range(3)]
    check([tile], polygons, CogSource(tmp_path), zones=[("EPSG:32632", None)])


def test_a_site_smaller_than_a_pixel_on_the_boundary_gets_its_value(tmp_path):
    # 5 m x 5 m on the meridian; the home zone's file is there, without data
    empty = zone_tile(S22, -300, 300, 1, name="a", masked=1.0)
    full = zone_tile(S23, -300, 300, 2, name="b")
    source = make_archive(tmp_path, [empty, full])
    site = at_meridian(shapely.box(-0.3, -0.25, 0.2, 0.25))
    row = extract([site], source, statistics=["mean"]).iloc[0]
    assert row["status"] == "ok"


# --- order, subsets, threads


N_SITES = 24


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Sites of all kinds: in one block, across blocks, files, overlaps and zones; several years; gaps."""
    tiles = [
        zone_tile(S22, -600, 100, 1, name="a", year=2020, block=32, masked=0.1),
        zone_tile(S23, -100, 600, 2, name="b", year=2020, block=32, south_up=False),
        zone_tile(S23, -40, 300, 7, name="f", year=2020, block=64, masked=0.5),
        zone_tile(S23, -100, 600, 3, name="c", year=2021, block=32),
        zone_tile(S22, -600, 250, 4, name="d", year=2022, block=48, masked=0.3),
        zone_tile(S23, -250, 600, 5, name="e", year=2022, block=64),
    ]
    rng = np.random.default_rng(1)
    shapes = [
        star(i, (rng.uniform(-70, 70), rng.uniform(-50, 50)), rng.choice([0.4, 2, 8, 25]), hole=i % 5 == 0)
        for i in range(N_SITES)
    ]
    return [at_meridian(shape) for shape in shapes], make_archive(tmp_path_factory.mktemp("mixed"), tiles)


YEARS = [2019, 2020, 2021, 2022]


@pytest.fixture(scope="module")
def mixed_table(mixed):
    polygons, source = mixed
    table = extract(polygons, source, ids=range(N_SITES), years=YEARS, statistics=ALL_STATISTICS, max_workers=1)
    assert set(table["status"]) >= {"ok", "no_data"}
    assert 0 < (table["valid_fraction"] == 1).sum() < (table["status"] == "ok").sum()
    return table


def test_the_order_of_sites_changes_no_bit(mixed, mixed_table):
    polygons, source = mixed
    order = np.random.default_rng(0).permutation(N_SITES)
    found = extract([polygons[i] for i in order], source, ids=order, years=YEARS, statistics=ALL_STATISTICS)
    found = found.sort_values(["site_id", "year"], ignore_index=True)
    assert_same_bits(found, mixed_table)


@pytest.mark.parametrize("chosen", [[0], [17], list(range(0, N_SITES, 3)), list(range(15, N_SITES))])
def test_other_sites_change_no_bit(chosen, mixed, mixed_table):
    polygons, source = mixed
    found = extract([polygons[i] for i in chosen], source, ids=chosen, years=YEARS, statistics=ALL_STATISTICS)
    assert_same_bits(found, mixed_table[mixed_table["site_id"].isin(chosen)].reset_index(drop=True))


@pytest.mark.parametrize("years", [[2020], [2021], [2022], [2019, 2022], [2022, 2020]])
def test_other_years_change_no_bit(years, mixed, mixed_table):
    polygons, source = mixed
    found = extract(polygons, source, ids=range(N_SITES), years=years, statistics=ALL_STATISTICS)
    assert_same_bits(found, mixed_table[mixed_table["year"].isin(years)].reset_index(drop=True))


@pytest.mark.parametrize("workers", [2, 4, 7])
def test_threads_change_no_bit(workers, mixed, mixed_table):
    polygons, source = mixed
    for _ in range(3 if workers == 2 else 1):
        found = extract(
            polygons, source, ids=range(N_SITES), years=YEARS, statistics=ALL_STATISTICS, max_workers=workers
        )
        assert_same_bits(found, mixed_table)


def test_the_same_site_many_times_has_the_same_numbers(mixed):
    polygons, source = mixed
    frame = sites([polygons[i] for i in (0, 5, 9) for _ in range(7)])
    table = extract_embeddings(frame, source=source, years=[2020], statistics=ALL_STATISTICS)
    for first in (0, 7, 14):
        for other in range(first + 1, first + 7):
            pd.testing.assert_series_equal(
                table.iloc[other].drop("site_id"), table.iloc[first].drop("site_id"), check_names=False
            )


def test_an_archive_is_found_by_a_path_through_the_parent_folder(tmp_path, monkeypatch):
    tile = tile_at(0, 0, (40, 40), 1)
    polygon = ground(star(1, (20, 20), 15), tile)
    expected = extract([polygon], make_archive(tmp_path, [tile]))
    (tmp_path / "beside").mkdir()
    monkeypatch.chdir(tmp_path / "beside")
    assert_same_bits(extract([polygon], "../aef_index.parquet"), expected)


# --- pictures


def pixels_by_hand(tiles, grid, year=2024):
    """Return an image's codes: its own zone's, else those of the zone in whose cell a pixel's centre lies."""
    rows, cols = np.indices(grid.shape)
    a, _, c, _, e, f = grid.transform
    x, y = c + a * (cols + 0.5), f + e * (rows + 0.5)
    codes = held_at(tiles, grid.crs, x, y, year)
    lon, lat = to_lon_lat(grid.crs)(x, y)
    for crs in {tile.crs for tile in tiles} - {grid.crs}:
        middle = int(crs[-2:]) * 6.0 - 183.0
        own = (np.abs((lon - middle + 180) % 360 - 180) <= 3) & ((lat >= 0) == (crs[5:8] == "326"))
        own &= (codes == -128).all(axis=0)
        codes[:, own] = held_at(tiles, crs, *to_utm(crs)(lon[own], lat[own]), year)
    return codes


def held_at(tiles, crs, x, y, year):
    """Return the codes that a zone's tiles hold at some places."""
    codes = np.full((64, *np.shape(x)), -128, np.int8)
    for tile in tiles:
        if (tile.crs, tile.year) == (crs, year):
            row, col = np.floor(-y / 10).astype(int) - tile.row, np.floor(x / 10).astype(int) - tile.col
            height, width = tile.codes.shape[1:]
            held = (row >= 0) & (row < height) & (col >= 0) & (col < width)
            codes[:, held] = tile.codes[:, row[held], col[held]]
    return codes


@pytest.mark.parametrize("side", [-12, 12])
def test_an_image_across_a_zone_boundary_is_whole(side, tmp_path):
    # each zone's file ends 100 m past the boundary, the image reaches further
    tiles = [zone_tile(S22, -600, 100, 1, name="a", masked=0.1), zone_tile(S23, -100, 600, 2, name="b", masked=0.1)]
    source = make_archive(tmp_path, tiles)
    region = at_meridian(shapely.box(side - 30, -20, side + 30, 20))
    image = source.image(region, 2024)
    home, other = (S22, S23) if side < 0 else (S23, S22)
    assert (image.grid.crs, image.resampled) == (home, (other,))
    np.testing.assert_array_equal(image.codes, pixels_by_hand(tiles, image.grid))
    assert 0.85 < image.valid.mean() < 0.95  # what is masked stays masked
    some = source.image(region, 2024, ["A09", "A01"])
    np.testing.assert_array_equal(some.codes, image.codes[[9, 1]])
    assert some.select(["A01"]).resampled == (other,)


def test_an_image_has_nothing_that_no_zone_has(tmp_path):
    tiles = [
        zone_tile(S22, -600, 100, 1, name="a", year=2020),
        zone_tile(S22, -600, 600, 3, name="c", year=2021),
        zone_tile(S23, -100, 600, 4, name="d", year=2021),
        zone_tile(S23, -100, 600, 5, name="e", year=2022),
    ]
    source = make_archive(tmp_path, tiles)
    region = at_meridian(shapely.box(-40, -20, 30, 20))
    for year, zones in ((2020, ()), (2021, ()), (2022, (S23,))):
        image = source.image(region, year)
        np.testing.assert_array_equal(image.codes, pixels_by_hand(tiles, image.grid, year))
        assert image.resampled == zones
        assert image.valid.all() == (year == 2021)
        assert image.valid.any()
    assert not source.image(region, 2019).valid.any()


def test_an_image_across_the_antimeridian_is_whole(tmp_path):
    west, east = "EPSG:32760", "EPSG:32701"
    tiles = [
        zone_tile(west, -600, 100, 1, name="a", lon=180.0, lat=-17.0),
        zone_tile(east, -100, 600, 2, name="b", lon=-180.0, lat=-17.0),
    ]
    source = make_archive(tmp_path, tiles)
    # as RFC 7946 has it, in two parts, and in one past 180 degrees
    past = at_meridian(shapely.box(-35, -20, 25, 20), lon=180.0, lat=-17.0)
    parts = shapely.MultiPolygon(
        [
            shapely.box(past.bounds[0], past.bounds[1], 180.0, past.bounds[3]),
            shapely.box(-180.0, past.bounds[1], past.bounds[2] - 360.0, past.bounds[3]),
        ]
    )
    for region in (past, parts):
        image = source.image(region, 2024)
        assert (image.grid.crs, image.resampled) == (west, (east,))
        np.testing.assert_array_equal(image.codes, pixels_by_hand(tiles, image.grid))
        assert image.valid.all()

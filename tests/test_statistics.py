"""Every statistic through the front door, against exactextract, brute force in float64 and exact fractions.

Coverage of the package and of the truth differ by rounding to 2^-24 and by 1e-9 m on the way through degrees, so sums
agree to 1e-6 (in fact a few 1e-8). Where no such difference exists (sets, extremes, boxes on a dyadic raster, other
blocks, orientations and threads) nothing but equality will do.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import shapely
from archives import (
    ALL_STATISTICS,
    LEAST,
    FakeTile,
    assert_row,
    assert_same_bits,
    brute_pixels,
    extract,
    ground,
    make_archive,
    numbers,
    quantile_range,
    random_codes,
    sites,
    values_of,
    weighted_quantile,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import star

from gee_polygons import extract_embeddings
from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import UsageError
from gee_polygons.sources import raster as raster_module
from gee_polygons.sources.raster import RasterSource
from gee_polygons.zonal.grid import Grid
from gee_polygons.zonal.statistics import STATISTICS, parse_statistics, quantiles

CRS = "EPSG:32722"
COL, ROW = 80_000, -750_000
SHAPE = (72, 80)  # no multiple of any block but 16, 8
UNIT = 127**2 / 127.5**2  # the value of code 127


def masks():
    """Patterns of nodata."""
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rng = np.random.default_rng(5)
    return {
        "none": np.zeros(SHAPE, bool),
        "scattered": rng.random(SHAPE) < 0.3,
        "half": cols < 37,
        "stripes": rows % 3 == 0,
        "nearly all": rng.random(SHAPE) < 0.995,
        "all": np.ones(SHAPE, bool),
    }


LAYOUTS = [
    {"block": block, "south_up": south_up, "layout": layout}
    for (block, layout), south_up in itertools.product(
        [
            (16, {}),
            (32, {"interleave": "pixel", "compress": "deflate"}),
            (48, {"predictor": 2}),
            (128, {"compress": "none"}),
        ],
        [True, False],
    )
]


def tile_of(codes, **how):
    return FakeTile(crs=CRS, col=COL, row=ROW, codes=codes, **how)


@pytest.fixture(scope="module")
def tiles():
    """A tile for each pattern of nodata."""
    base = random_codes(SHAPE, 1)
    return {name: tile_of(np.where(mask, np.int8(-128), base)) for name, mask in masks().items()}


@pytest.fixture(scope="module")
def archives(tiles, tmp_path_factory):
    """An archive for each pattern, each in another layout."""
    found = {}
    for i, (name, tile) in enumerate(tiles.items()):
        how = LAYOUTS[i % len(LAYOUTS)]
        found[name] = make_archive(tmp_path_factory.mktemp("archive"), [tile_of(tile.codes, **how)])
    return found


polygons_in_tile = st.builds(
    star,
    st.integers(0, 10_000),
    st.tuples(st.floats(10, 70), st.floats(10, 62)),
    st.sampled_from([0.3, 1.0, 4.0, 9.5, 25.0]),
    st.sampled_from([4, 7, 30]),
    st.booleans(),
)


# --- against brute force


@settings(max_examples=20, deadline=None)
@given(st.lists(polygons_in_tile, min_size=1, max_size=3), st.sampled_from(sorted(masks())))
def test_every_statistic_is_that_of_brute_force(tiles, archives, shapes, pattern):
    tile = tiles[pattern]
    polygons = [ground(shape, tile) for shape in shapes]
    table = extract(polygons, archives[pattern], statistics=ALL_STATISTICS)
    for polygon, (_, row) in zip(polygons, table.iterrows(), strict=True):
        assert_row(row, brute_pixels([tile], polygon))


# --- against exactextract


def exactextract_of(codes, polygon, ops, bands):
    """Return exactextract's answers {band: {op: value}} and its cells and coverages on the pixel frame."""
    from exactextract import exact_extract
    from exactextract.feature import JSONFeatureSource
    from exactextract.raster import NumPyRasterSource

    height, width = codes.shape[1:]
    frame = {"xmin": 0, "ymin": -height, "xmax": width, "ymax": 0}
    vectors = np.where(codes == -128, np.nan, values_of(codes))
    rasters = [NumPyRasterSource(vectors[b], name=BANDS[b], **frame) for b in bands]
    feature = {"type": "Feature", "id": 0, "properties": {}, "geometry": shapely.geometry.mapping(polygon)}
    found = exact_extract(rasters, JSONFeatureSource([feature]), ops)[0]["properties"]
    cells = exact_extract(
        NumPyRasterSource(np.zeros((height, width)), **frame), JSONFeatureSource([feature]), ["cell_id", "coverage"]
    )[0]["properties"]
    return found, np.asarray(cells["cell_id"], np.int64), np.asarray(cells["coverage"], np.float64)


@settings(max_examples=40, deadline=None)
@given(polygons_in_tile, st.sampled_from(["none", "scattered", "half", "stripes", "nearly all"]))
def test_statistics_are_exactextracts(tiles, archives, shape, pattern):
    tile, bands = tiles[pattern], [0, 17, 63]
    ops = ["mean", "stdev", "min", "max", "median", "quantile(q=0.1)", "quantile(q=0.975)", "count"]
    ours = ("mean", "std", "min", "max", "median", "p10", "p97.5")
    # exactextract takes the same place, 2.5e-9 m off: through degrees and back
    polygon = shapely.transform(shape, lambda xy: xy * (1.0, -1.0))
    theirs, cell, coverage = exactextract_of(tile.codes, polygon, ops, bands)
    row = extract([ground(shape, tile)], archives[pattern], statistics=ALL_STATISTICS).iloc[0]
    kept = coverage >= LEAST  # exactextract keeps smaller ones, this package drops them
    valid = kept & (tile.codes[0].flat[cell] != -128)
    weights = coverage[valid]
    assert row["n_pixels"] == pytest.approx(weights.sum(), rel=1e-6, abs=1e-6)
    if not len(weights):
        assert row["status"] == "masked"
        return
    for band in bands:
        codes = tile.codes[band].flat[cell][valid]
        values = values_of(codes)
        mean = (weights * values).sum() / weights.sum()
        variance = (weights * (values - mean) ** 2).sum() / weights.sum()
        expected = [mean, None, values.min(), values.max()]
        name = BANDS[band]
        found = {statistic: row[f"{name}_{statistic}"] for statistic in (*ours, "count")}
        assert found["count"] == len(weights)
        for statistic, value in zip(("mean", "std", "min", "max"), expected, strict=True):
            if value is not None:
                assert found[statistic] == pytest.approx(value, abs=1e-6)
        assert found["std"] ** 2 == pytest.approx(variance, abs=1e-6)
        levels = {"median": 0.5, "p10": 0.1, "p97.5": 0.975}
        for statistic, level in levels.items():
            low, high = quantile_range(values, weights, level)
            assert low - 1e-12 <= found[statistic] <= high + 1e-12
        if kept.all():  # the very numbers that exactextract printed
            assert theirs[f"{name}_count"] == pytest.approx(row["n_pixels"], rel=1e-6, abs=1e-6)
            assert theirs[f"{name}_mean"] == pytest.approx(found["mean"], abs=1e-6)
            assert theirs[f"{name}_stdev"] ** 2 == pytest.approx(found["std"] ** 2, abs=1e-6)
            assert (theirs[f"{name}_min"], theirs[f"{name}_max"]) == pytest.approx(
                (found["min"], found["max"]), abs=1e-15
            )
            for statistic, op in (("median", "median"), ("p10", "quantile_10"), ("p97.5", "quantile_97")):
                value = theirs[f"{name}_{op}"]  # 97 is how it names 0.975
                low, high = quantile_range(values, weights, levels[statistic], 2e-6)
                assert low - 1e-12 <= value <= high + 1e-12


# --- against fractions, where every coverage is a multiple of 2^-24: boxes on a raster of 2^-12 pixels

STEP = 2.0**-12  # degrees; a raster in EPSG:4326 needs no projection, so that polygons arrive to the last bit
GRID = Grid(crs="EPSG:4326", transform=(STEP, 0.0, -48.0, 0.0, -STEP, -22.0), shape=(24, 30))


@pytest.fixture(scope="module")
def dyadic():
    """Codes and a source of 24 x 30 pixels, worked in blocks of 7."""
    codes = random_codes(GRID.shape, 3, masked=0.15)
    codes[:, 3:9, 4:12] = codes[:, 5:6, 5:6]  # an area of equal pixels
    return codes, RasterSource(codes, grid=GRID, year=2024)


fine = st.integers(0, 2**12)


@st.composite
def boxes_with_a_hole(draw):
    """Return a box, with a hole perhaps and a second box perhaps, in 2^-12 pixels: (outer, hole, other)."""
    rows = sorted(draw(st.lists(st.integers(0, 23 * 4096), min_size=4, max_size=4, unique=True)))
    cols = sorted(draw(st.lists(st.integers(0, 20 * 4096), min_size=4, max_size=4, unique=True)))
    outer, hole = (cols[0], rows[0], cols[3], rows[3]), (cols[1], rows[1], cols[2], rows[2])
    other = (21 * 4096 + draw(fine), draw(fine), 23 * 4096 + draw(fine), 8 * 4096 + draw(fine))
    return outer, hole if draw(st.booleans()) else None, other if draw(st.booleans()) else None


def integer_coverage(boxes):
    """Coverage of boxes (positive) and holes (negative) in 2^-24 pixels, exactly, by outer products."""
    total = np.zeros(GRID.shape, np.int64)
    for sign, box in boxes:
        if box is not None:
            west, north, east, south = box
            across = [max(0, min(east, 4096 * (c + 1)) - max(west, 4096 * c)) for c in range(GRID.shape[1])]
            down = [max(0, min(south, 4096 * (r + 1)) - max(north, 4096 * r)) for r in range(GRID.shape[0])]
            total += sign * np.outer(down, across)
    return np.where(total < LEAST * 2**24, 0, total)


def as_degrees(shape):
    return shapely.transform(shape, lambda xy: xy * (STEP / 4096, -STEP / 4096) + (-48.0, -22.0))


@settings(max_examples=60, deadline=None)
@given(boxes_with_a_hole())
def test_numbers_are_exact_where_coverage_is(dyadic, boxes):
    codes, source = dyadic
    outer, hole, other = boxes
    shape = shapely.Polygon(shapely.box(*outer).exterior, [shapely.box(*hole).exterior] if hole else None)
    if other:
        shape = shapely.MultiPolygon([shape, shapely.box(*other)])
    weights = integer_coverage([(1, outer), (-1, hole), (1, other)])
    row = extract([as_degrees(shape)], source, statistics=ALL_STATISTICS).iloc[0]
    valid = (weights > 0) & (codes[0] != -128)
    assume(weights.any())  # a sliver that reaches 1e-6 of no pixel keeps what it touches: a test below
    w = [int(v) for v in weights[valid]]
    if not w:
        assert row["status"] == "masked"
        return
    assert row["n_pixels"] == sum(w) / 2**24
    assert row["valid_fraction"] == sum(w) / int(weights.sum())
    for band in (0, 31, 63):
        k = [int(v) for v in codes[band][valid]]
        name = BANDS[band]
        unit = Fraction(65025, 4)
        mean = sum(a * b * abs(b) for a, b in zip(w, k, strict=True)) / Fraction(sum(w)) / unit
        square = sum(a * b**4 for a, b in zip(w, k, strict=True)) / Fraction(sum(w)) / unit**2
        values = values_of(np.array(k))
        # a few roundings of a number up to 1
        assert row[f"{name}_mean"] == pytest.approx(float(mean), rel=1e-15, abs=1e-15)
        assert row[f"{name}_std"] ** 2 == pytest.approx(float(square - mean**2), abs=2e-15)
        assert row[f"{name}_min"] == pytest.approx(values.min(), rel=3e-16)
        assert row[f"{name}_max"] == pytest.approx(values.max(), rel=3e-16)
        assert row[f"{name}_count"] == len(w)
        for statistic, level in (("median", 0.5), ("p10", 0.1), ("p97.5", 0.975)):
            expected = weighted_quantile(values, np.array(w, float), level)
            assert row[f"{name}_{statistic}"] == pytest.approx(expected, abs=2e-15)


def test_blocks_orientations_and_order_of_axes_of_a_raster_change_no_bit(dyadic, monkeypatch):
    codes, source = dyadic
    shapes = [star(seed, (15, 12), 11, hole=seed % 2 == 0) for seed in range(5)]
    polygons = [shapely.transform(s, lambda xy: xy * (STEP, -STEP) + (-48.0, -22.0)) for s in shapes]
    expected = extract(polygons, source, statistics=ALL_STATISTICS)
    for block, (flip_y, flip_x) in zip((5, 7, 11, 16), itertools.product([1, -1], repeat=2), strict=True):
        monkeypatch.setattr(raster_module, "_BLOCK", block)
        west, north = (-48.0 if flip_x > 0 else -48.0 + 30 * STEP), (-22.0 if flip_y > 0 else -22.0 - 24 * STEP)
        grid = Grid(crs="EPSG:4326", transform=(flip_x * STEP, 0.0, west, 0.0, -flip_y * STEP, north), shape=(24, 30))
        turned = RasterSource(np.ascontiguousarray(codes[:, ::flip_y, ::flip_x]), grid=grid, year=2024)
        assert_same_bits(extract(polygons, turned, statistics=ALL_STATISTICS), expected)


# --- the same bits for any layout and number of threads


@pytest.fixture(scope="module")
def scattered_polygons(tiles):
    shapes = [star(i, (40, 36), r, hole=i % 2 == 0) for i, r in enumerate((0.4, 3, 12, 30, 34, 33))]
    shapes += [star(20, (15.5, 16), 2.2), star(21, (64, 48), 6), shapely.box(0, 0, 80, 72), shapely.box(31, 15, 33, 17)]
    return [ground(shape, tiles["scattered"]) for shape in shapes]


@pytest.fixture(scope="module")
def one_block(tiles, scattered_polygons, tmp_path_factory):
    """All statistics, read as a single block by a single thread."""
    tile = tile_of(tiles["scattered"].codes, block=128, south_up=False)
    source = make_archive(tmp_path_factory.mktemp("one"), [tile])
    assert source.plan(np.array(scattered_polygons, object), [2024]).blocks == 1
    return extract(scattered_polygons, source, statistics=ALL_STATISTICS, max_workers=1)


@pytest.mark.parametrize("how", LAYOUTS, ids=lambda how: f"{how['block']}-{'south' if how['south_up'] else 'north'}")
def test_layouts_and_threads_change_no_bit(how, tiles, scattered_polygons, one_block, tmp_path):
    source = make_archive(tmp_path, [tile_of(tiles["scattered"].codes, **how)])
    for workers in (1, 2, 4):
        found = extract(scattered_polygons, source, statistics=ALL_STATISTICS, max_workers=workers)
        assert_same_bits(found, one_block)


def test_files_change_no_bit(tiles, scattered_polygons, one_block, tmp_path):
    codes = tiles["scattered"].codes
    corners = [(0, 0, 40, 33), (0, 33, 40, 80), (40, 0, 72, 33), (40, 33, 72, 80)]
    parts = [
        FakeTile(crs=CRS, col=COL + c0, row=ROW + r0, codes=codes[:, r0:r1, c0:c1], name=name, south_up=up, block=16)
        for (r0, c0, r1, c1), name, up in zip(corners, "caDb", (True, False, True, False), strict=True)
    ]
    found = extract(scattered_polygons, make_archive(tmp_path, parts), statistics=ALL_STATISTICS)
    assert_same_bits(found, one_block)


def test_statistics_asked_for_together_are_those_asked_for_alone(tiles, scattered_polygons, one_block, tmp_path):
    source = make_archive(tmp_path, [tile_of(tiles["scattered"].codes, block=48)])
    for name in ALL_STATISTICS:
        alone = extract(scattered_polygons, source, statistics=[name])
        several = one_block[[f"{band}_{name}" for band in BANDS]]
        np.testing.assert_array_equal(alone[list(BANDS)].to_numpy(), several.to_numpy())
        for column in ("Rbar", "n_pixels", "valid_fraction", "status"):
            pd.testing.assert_series_equal(alone[column], one_block[column], check_exact=True)


# --- overflow, rounding, constant areas


def one_hot(band_of):
    """Codes of 127 in one band: unit vectors within the tolerance, and the largest k^4 there is."""
    band_of = np.asarray(band_of)
    codes = np.zeros((64, *band_of.shape), np.int8)
    rows, cols = np.indices(band_of.shape)
    codes[np.abs(band_of), rows, cols] = np.where(band_of < 0, -127, 127)
    return codes


@pytest.mark.parametrize("side", [3, 4, 40])  # 9 pixels pass 2^31, 17 pass 2^32, 1,600 many times
def test_sums_of_fourth_powers_do_not_overflow(side, tmp_path):
    sign = np.where(np.indices((40, 40)).sum(axis=0) % 2 == 0, 5, -5)  # a chessboard of +127 and -127 in band A05
    tile = tile_of(one_hot(sign), block=48)
    row = extract(
        [ground(shapely.box(0, 0, side, side), tile)], make_archive(tmp_path, [tile]), statistics=["mean", "std"]
    ).iloc[0]
    odd = side % 2  # the one more +127 of an odd board
    assert row["A05_mean"] == pytest.approx(odd * UNIT / side**2, abs=1e-9)
    assert row["A05_std"] == pytest.approx(UNIT * np.sqrt(1 - (odd / side**2) ** 2), abs=1e-9)
    assert row["A06_std"] == 0


def test_edge_pixels_of_the_largest_codes_do_not_overflow(tmp_path):
    tile = tile_of(one_hot(np.full((40, 40), 5)), block=48)
    comb = shapely.union_all([shapely.box(c + 0.25, 0.1, c + 0.75, 39.9) for c in range(40)])  # 1,600 edge pixels
    row = extract([ground(comb, tile)], make_archive(tmp_path, [tile]), statistics=["mean", "std", "p10"]).iloc[0]
    assert row["A05_mean"] == pytest.approx(UNIT, abs=1e-12)
    assert row["A05_std"] < 1e-7
    assert row["A05_p10"] == UNIT


def test_the_deviation_of_a_constant_area_is_nothing(tmp_path):
    # sqrt(E[v^2] - E[v]^2): both terms are rounded at 1e-16 of v^2 a few times, and a root of that is 3e-8 of v, so
    # below 1e-8 for all but the longest components. A clamp keeps it real; more would be a sum that isn't exact.
    codes = np.repeat(np.repeat(random_codes((1, 1), 7), 40, axis=1), 40, axis=2)
    tile = tile_of(codes, block=16)
    shapes = [star(i, (20, 20), r) for i, r in enumerate(np.linspace(0.5, 19, 40))]
    table = extract([ground(s, tile) for s in shapes], make_archive(tmp_path, [tile]), statistics=ALL_STATISTICS)
    values = values_of(codes[:, 0, 0])
    for _, row in table.iterrows():
        assert (numbers(row, "std") >= 0).all()
        assert (numbers(row, "std") <= 3e-8 * np.abs(values)).all()
        np.testing.assert_allclose(numbers(row, "mean"), values, rtol=1e-15)
        for name in ("median", "p10", "p97.5", "medoid"):
            np.testing.assert_array_equal(numbers(row, name), values)
        assert row["medoid_similarity"] == pytest.approx(1, abs=1e-15)


# --- quantiles


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-127, 127), st.integers(1, 2**24)), min_size=1, max_size=40),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_quantiles_of_a_histogram_are_those_of_fractions(pixels, levels):
    histogram = np.zeros((1, 256), np.int64)
    for code, weight in pixels:
        histogram[0, code + 128] += weight
    bins = np.flatnonzero(histogram[0])
    w = [Fraction(int(v)) for v in histogram[0][bins]]
    x = [Fraction(int(k) * abs(int(k))) * 4 / 65025 for k in bins - 128]
    n = len(w)
    s = [j * w[j] + (n - 1) * sum(w[:j]) for j in range(n)]
    for level, found in zip(levels, quantiles(histogram, levels)[0], strict=True):
        target = Fraction(level) * (n - 1) * sum(w)
        j = max(i for i in range(n) if s[i] <= target)
        expected = x[j] if j == n - 1 else x[j] + (target - s[j]) / (s[j + 1] - s[j]) * (x[j + 1] - x[j])
        assert found == pytest.approx(float(expected), abs=1e-12)


def test_extremes_are_the_values_of_codes_to_the_last_bit(tiles, archives):
    tile = tiles["none"]
    row = extract([ground(shapely.box(20, 30, 21, 31), tile)], archives["none"], statistics=["min", "max"]).iloc[0]
    values = codes_to_vectors(tile.codes[:, 30, 20], np.float64)
    np.testing.assert_array_equal(numbers(row, "min"), values)
    np.testing.assert_array_equal(numbers(row, "max"), values)


def test_the_ends_of_the_quantiles_are_the_extremes(archives, tiles, scattered_polygons):
    table = extract(scattered_polygons, archives["scattered"], statistics=["p0", "min", "p100", "max", "p50", "median"])
    for band in BANDS:
        for one, other in (("p0", "min"), ("p100", "max"), ("p50", "median")):
            np.testing.assert_array_equal(table[f"{band}_{one}"], table[f"{band}_{other}"])


# --- the medoid


@pytest.mark.parametrize("south_up", [True, False])
@pytest.mark.parametrize("block", [16, 64])
def test_of_equal_medoids_the_first_from_the_north_west_wins(south_up, block, tmp_path):
    # four kinds of pixels: A (bands 1, 2), A' (a mirror image that is as near the mean), and others farther off
    kinds = random_codes((1, 4), 11)[:, 0]
    board = np.full((40, 40), 2)
    twins = [(33, 3), (17, 20), (17, 36), (34, 1)]
    for row, col in twins:
        board[row, col] = 0
    codes = kinds[:, board]
    codes[:, :] = kinds[:, 2][:, None, None]
    for row, col in twins:  # the same direction as the others, not the same vector: which of the twins?
        codes[:, row, col] = kinds[:, 2]
    codes[:, 5:15, :] = kinds[:, 1][:, None, None]
    tile = tile_of(codes, south_up=south_up, block=block)
    source = make_archive(tmp_path, [tile])
    found = medoid_places(source, tile, shapely.box(0.5, 16.5, 39.5, 39.5))
    assert found == (16, 0)  # all pixels are equal: the first, though only half covered
    # two equal best pixels in one row, in different blocks, and one further south and west
    codes = kinds[:, np.where(np.indices((40, 40)).sum(axis=0) % 2 == 0, 1, 3)]
    mean = values_of(kinds[:, 1]) + values_of(kinds[:, 3])
    best = np.rint(np.sign(mean) * np.sqrt(np.abs(mean) / np.linalg.norm(mean)) * 127.5).astype(np.int8)
    for row, col in twins:
        codes[:, row, col] = best
    tile = tile_of(codes, south_up=south_up, block=block, name="twins")
    source = make_archive(tmp_path / "twins", [tile])
    assert medoid_places(source, tile, shapely.box(0, 0, 40, 40)) == (17, 20)
    assert medoid_places(source, tile, shapely.box(21, 0, 40, 40)) == (17, 36)
    assert medoid_places(source, tile, shapely.box(0, 18, 40, 40)) == (33, 3)


def medoid_places(source, tile, shape):
    """Return (row, column) of the medoid that the second pass chose, and check its values."""
    from gee_polygons.reduction import merging

    seen = []

    class Spy(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            seen.append(value.place[0])

    original = merging.Merger.__init__

    def spying(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self._candidates = Spy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging.Merger, "__init__", spying)
        row = extract([ground(shape, tile)], source, statistics=["medoid"]).iloc[0]
    place = seen[-1] - (tile.row, tile.col)
    np.testing.assert_array_equal(numbers(row, "medoid", several=False), values_of(tile.codes[:, place[0], place[1]]))
    return tuple(place.tolist())


def test_the_medoid_is_a_pixel_nearest_by_cosine_not_by_dot_product(tmp_path):
    # lengths of pixels differ by up to 1 %: a longer vector farther off in direction must not win
    base = random_codes((1, 1), 4)[:, 0, 0].astype(float)
    longer, shorter = np.rint(base * 1.005), np.rint(base * 0.996)
    longer[3] += 4
    codes = np.repeat(shorter[:, None], 9, axis=1).reshape(64, 3, 3).astype(np.int8)
    codes[:, 0, 0] = longer
    tile = tile_of(codes, block=16)
    lengths = np.linalg.norm(values_of(codes), axis=0)
    assert lengths[0, 0] > lengths[1, 1]
    assert np.abs(lengths - 1).max() < 0.012
    row = extract([ground(shapely.box(0, 0, 3, 3), tile)], make_archive(tmp_path, [tile]), statistics="medoid").iloc[0]
    np.testing.assert_array_equal(numbers(row, "medoid", several=False), values_of(shorter))


# --- small and thin polygons


@pytest.mark.parametrize("size", [1.0, 0.5, 1e-2, 1e-4, 1e-5])
def test_a_polygon_inside_one_pixel_has_that_pixels_values(size, tiles, archives):
    # 1e-4 px square are 1e-8 of a pixel, less than the least coverage: it keeps its pixel all the same
    tile = tiles["none"]
    low = 0.0 if size == 1.0 else 0.25
    polygon = ground(shapely.box(20 + low, 30 + low, 20 + low + size, 30 + low + size), tile)
    row = extract([polygon], archives["none"], statistics=ALL_STATISTICS).iloc[0]
    values = values_of(tile.codes[:, 30, 20])
    # through degrees and back a box of one pixel reaches 1e-9 px into its neighbours, which doesn't count
    assert (row["status"], row["A00_count"]) == ("ok", 1)
    assert row["n_pixels"] == pytest.approx(max(size**2, 2.0**-24), rel=1e-6, abs=2.0**-24)
    assert row["valid_fraction"] == 1
    for name in ("median", "p10", "p97.5", "medoid"):
        np.testing.assert_array_equal(numbers(row, name), values)
    for name in ("mean", "min", "max"):
        np.testing.assert_allclose(numbers(row, name), values, rtol=1e-15)
    assert (numbers(row, "std") <= 3e-8 * np.abs(values)).all()
    assert row["Rbar"] == pytest.approx(np.linalg.norm(values), abs=1e-12)
    assert row["medoid_similarity"] == pytest.approx(1, abs=1e-12)


def test_a_sliver_keeps_the_pixels_it_touches(tiles, archives):
    tile = tiles["none"]
    sliver = ground(shapely.Polygon([(10.5, 20.5), (50.5, 20.5), (50.5, 20.5 + 1e-7)]), tile)
    row = extract([sliver], archives["none"], statistics=["mean", "count"]).iloc[0]
    assert row["status"] == "ok"
    assert row["A00_count"] > 35
    inside = values_of(tile.codes[:, 20, 10:51])
    assert (numbers(row, "mean") >= inside.min(axis=1) - 1e-12).all()
    assert (numbers(row, "mean") <= inside.max(axis=1) + 1e-12).all()


def test_a_polygon_without_a_valid_pixel_has_a_row_without_numbers(tiles, archives):
    polygon = ground(shapely.box(3, 3, 20, 20), tiles["all"])
    row = extract([polygon], archives["all"], statistics=ALL_STATISTICS).iloc[0]
    assert row["status"] == "masked"
    assert (row["n_pixels"], row["valid_fraction"]) == (0, 0)
    wanted = [f"{band}_{name}" for name in ALL_STATISTICS for band in BANDS] + ["Rbar", "medoid_similarity"]
    assert row[wanted].isna().all()


# --- the table


def test_columns_come_in_the_order_asked_for(archives, tiles):
    polygon = ground(star(1, (30, 30), 5), tiles["none"])
    found = extract([polygon], archives["none"], statistics=["max", "p10", "mean", "medoid", "std"])
    expected = [f"{band}_{name}" for name in ("max", "p10", "mean", "medoid", "std") for band in BANDS]
    tail = ["medoid_similarity", "Rbar", "n_pixels", "valid_fraction", "status"]
    assert list(found) == ["site_id", "year", *expected, *tail]
    alone = extract([polygon], archives["none"], statistics=["p10"], bands=["A07", "A02"])
    assert list(alone) == ["site_id", "year", "A07", "A02", "Rbar", "n_pixels", "valid_fraction", "status"]
    np.testing.assert_array_equal(alone[["A07", "A02"]].to_numpy(), found[["A07_p10", "A02_p10"]].to_numpy())


@pytest.mark.parametrize("name", ALL_STATISTICS)
def test_rbar_stands_beside_every_statistic(name, archives, tiles):
    polygon = ground(star(1, (30, 30), 9), tiles["none"])
    found = extract([polygon], archives["none"], statistics=[name]).iloc[0]
    means = extract([polygon], archives["none"]).iloc[0][list(BANDS)].to_numpy(float)
    assert found["Rbar"] == pytest.approx(np.linalg.norm(means), abs=1e-15)


def test_some_bands_have_the_numbers_of_all(archives, tiles, scattered_polygons):
    asked = [name for name in ALL_STATISTICS if name != "medoid"]
    whole = extract(scattered_polygons, archives["scattered"], statistics=asked)
    for bands in (["A00"], ["A63", "A05"], list(BANDS[::-1])):
        some = extract(scattered_polygons, archives["scattered"], statistics=asked, bands=bands)
        assert some["Rbar"].isna().all() == (len(bands) < 64)
        same = ["n_pixels", "valid_fraction", "status", *(f"{band}_{name}" for band in bands for name in asked)]
        pd.testing.assert_frame_equal(some[same], whole[same], check_exact=True)


def test_the_medoid_needs_all_bands(archives, scattered_polygons):
    with pytest.raises(UsageError, match="bands"):
        extract(scattered_polygons, archives["none"], statistics=["medoid"], bands=["A00", "A01"])


@pytest.mark.parametrize(
    "statistics",
    ["average", ["mean", "mode"], ["p101"], ["p-1"], ["p"], ["pNN"], ["P10"], [], ["mean", "mean"], ["p100.5"], [""]],
)
def test_what_is_no_statistic_is_refused_before_anything_is_read(statistics, archives, scattered_polygons):
    with pytest.raises(UsageError) as caught:
        extract(scattered_polygons, archives["none"], statistics=statistics)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_two_names_of_one_quantile_are_two_columns():
    names, needs = parse_statistics(["median", "p50", "p50.0"])
    assert names == ("median", "p50", "p50.0")
    assert needs.quantiles == (0.5, 0.5, 0.5)


def test_the_list_of_statistics_is_what_is_accepted():
    for name in STATISTICS:
        if name != "pNN":
            assert parse_statistics(name)[0] == (name,)


# --- float rasters


@pytest.fixture(scope="module")
def float_raster(tiles):
    """Vectors that don't lie on the 255 levels."""
    tile = tiles["scattered"]
    rng = np.random.default_rng(0)
    vectors = codes_to_vectors(tile.codes).astype(np.float32)
    vectors = (vectors * rng.uniform(0.99, 1.0, tile.codes.shape)).astype(np.float32)
    return vectors, RasterSource(vectors, grid=tile.grid, year=2024)


@pytest.mark.parametrize("name", ["std", "median", "p10", "medoid"])
def test_statistics_of_codes_are_refused_for_floats(name, float_raster, scattered_polygons):
    with pytest.raises(UsageError, match="quantise"):
        extract(scattered_polygons, float_raster[1], statistics=["mean", name])


def test_mean_and_extremes_of_floats_are_those_of_brute_force(float_raster, tiles, scattered_polygons):
    vectors, source = float_raster
    # the raster's rows are given from the south, as its grid says; the truth's from the north
    north_up = vectors[:, ::-1].astype(np.float64)
    table = extract(scattered_polygons, source, statistics=["mean", "min", "max", "count"])
    for polygon, (_, row) in zip(scattered_polygons, table.iterrows(), strict=True):
        pixels = brute_pixels([tiles["none"]], polygon)
        r, c = (pixels.places - (ROW, COL)).T
        values = north_up[:, r, c]
        valid = ~np.isnan(values[0])
        weights = pixels.weights[valid]
        mean = (values[:, valid] * weights).sum(axis=1) / weights.sum()
        assert row["n_pixels"] == pytest.approx(weights.sum(), rel=1e-6)
        assert row["A00_count"] == valid.sum()
        np.testing.assert_allclose(numbers(row, "mean"), mean, atol=1e-6)
        np.testing.assert_allclose(numbers(row, "min"), values[:, valid].min(axis=1), atol=2.0**-30)
        np.testing.assert_allclose(numbers(row, "max"), values[:, valid].max(axis=1), atol=2.0**-30)


def test_sites_come_back_in_the_order_asked_for(archives, tiles):
    shapes = [star(i, (40, 36), 4 + i) for i in range(6)]
    frame = sites([ground(s, tiles["none"]) for s in shapes], ids=[30, 10, 20, 5, 7, 6])
    table = extract_embeddings(frame, source=archives["none"], years=[2024], statistics=["mean", "count"])
    assert table["site_id"].tolist() == [30, 10, 20, 5, 7, 6]
    assert (np.diff(table["A00_count"]) > 0).all()

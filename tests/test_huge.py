"""Polygons of 100 km, of 100,000 vertices, a thousand on one block, and whole tiles in bounded memory."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
import weakref
from pathlib import Path

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
    pixel_weights,
    project,
    random_codes,
    sites,
    to_lon_lat,
    to_utm,
    values_of,
)
from oracles import exactextract_coverage, star

from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.zonal.grid import Grid

CRS = "EPSG:32722"
COL, ROW = 70_000, -750_000


def tile_at(col, row, size, seed, **how):
    how.setdefault("block", 32)
    return FakeTile(crs=CRS, col=COL + col, row=ROW + row, codes=random_codes((size, size), seed), **how)


# --- 100 km


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    """Ten tiles of 640 m, far apart."""
    rng = np.random.default_rng(0)
    places = [(0, 0), (9_000, 100), (5_000, 5_000), (4_968, 30), (20, 7_000), *rng.integers(0, 9_900, (5, 2)).tolist()]
    tiles = [tile_at(*place, 64, i, name=f"t{i}", south_up=i % 2 == 0) for i, place in enumerate(places)]
    return tiles, make_archive(tmp_path_factory.mktemp("coarse"), tiles)


def brute_force(tiles, polygon):
    """Return n_pixels, valid_fraction and mean, with edges straight in degrees: a vertex every 20 m."""
    fine = project(shapely.segmentize(polygon, 2e-4), to_utm(CRS))
    fine = shapely.transform(fine, lambda xy: xy / (10.0, -10.0))
    n_pixels, sums = 0.0, np.zeros(64)
    for tile in tiles:
        inside = shapely.intersection(fine, shapely.box(tile.col, tile.row, tile.col + 64, tile.row + 64))
        if inside.area:
            rows, cols, weights = pixel_weights(inside)
            keep = (rows < tile.row + 64) & (cols < tile.col + 64)
            values = values_of(tile.codes[:, rows[keep] - tile.row, cols[keep] - tile.col])
            n_pixels += weights[keep].sum()
            sums += (values * weights[keep]).sum(axis=1)
    return n_pixels, n_pixels / fine.area, sums / n_pixels


@pytest.mark.parametrize("hole", [False, True])
def test_a_polygon_of_100_km_mostly_without_tiles(hole, coarse):
    tiles, source = coarse
    # corners 100 km apart: each edge bends by 8 px in UTM, so where it runs matters
    corners = ground(shapely.Polygon([(30, 25), (9_960, 130), (9_800, 9_700), (35, 9_900)]), tiles[0])
    if hole:
        corners = corners.difference(ground(shapely.Point(5_000, 5_000).buffer(2_000), tiles[0]))
    source_plan = source.plan(np.array([corners], object), [2024])
    assert source_plan.blocks <= 40
    started = time.process_time()  # however busy the machine is
    row = extract([corners], source, statistics=["mean", "median", "count"]).iloc[0]
    assert time.process_time() - started < 20
    n_pixels, fraction, mean = brute_force(tiles, corners)
    # an edge may leave its true course by 0.01 px; it runs through 64 px of a few tiles
    assert row["n_pixels"] == pytest.approx(n_pixels, abs=2)
    assert row["n_pixels"] > 15_000
    assert row["valid_fraction"] == pytest.approx(fraction, rel=2e-4)
    assert 1e-5 < row["valid_fraction"] < 1e-3
    np.testing.assert_allclose(numbers(row, "mean"), mean, atol=1e-4)


def test_100_km_cut_into_strips_add_up(coarse):
    tiles, source = coarse
    whole = ground(shapely.Polygon([(30, 25), (9_960, 130), (9_800, 9_700), (35, 9_900)]), tiles[0])
    west, south, east, north = whole.bounds
    lons = np.linspace(west, east, 12)
    strips = [whole.intersection(shapely.box(a, south - 1, b, north + 1)) for a, b in itertools.pairwise(lons)]
    n = extract([whole, *strips], source)["n_pixels"]
    assert n[1:].sum() == pytest.approx(n[0], abs=2)  # 0.01 px along what cuts run through tiles


# --- 100,000 vertices


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    tile = tile_at(0, 0, 200, 1, block=64)
    return tile, make_archive(tmp_path_factory.mktemp("square"), [tile])


def test_a_polygon_of_100_000_vertices(square):
    tile, source = square
    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 100_000))
    radii = 60 + 30 * np.cos(5 * angles) + rng.uniform(-4, 4, 100_000)  # crosses a pixel side at each step or so
    shell = np.column_stack([100 + radii * np.cos(angles), 100 + radii * np.sin(angles)])
    shape = shapely.Polygon(shell, [0.2 * (shell[::40] - 100) + 100])
    polygon = ground(shape, tile)
    assert shapely.get_num_coordinates(polygon) >= 100_000
    started = time.process_time()  # however busy the machine is
    row = extract([polygon], source, statistics=ALL_STATISTICS).iloc[0]
    assert time.process_time() - started < 20
    metres = project(polygon, to_utm(CRS))
    north_up = Grid(crs=CRS, transform=(10, 0, 10.0 * COL, 0, -10, -10.0 * ROW), shape=(200, 200))
    weights = exactextract_coverage(metres, north_up)
    assert row["n_pixels"] == pytest.approx(metres.area / 100, rel=1e-7)
    assert row["n_pixels"] == pytest.approx(weights.sum(), rel=1e-6)
    values = values_of(tile.codes)
    mean = (values * weights).sum(axis=(1, 2)) / weights.sum()
    np.testing.assert_allclose(numbers(row, "mean"), mean, atol=1e-6)
    squares = (values**2 * weights).sum(axis=(1, 2)) / weights.sum()
    np.testing.assert_allclose(numbers(row, "std"), np.sqrt(squares - mean**2), atol=1e-6)
    assert row["A00_count"] == (weights >= 1e-6).sum()


# --- a thousand on one block


def test_a_thousand_overlapping_polygons_on_one_block(tmp_path):
    tile = tile_at(0, 0, 96, 1, block=96)
    source = make_archive(tmp_path, [tile])
    rng = np.random.default_rng(1)
    shapes = [star(i, rng.uniform(20, 76, 2), rng.uniform(0.3, 20), hole=i % 3 == 0) for i in range(1000)]
    polygons = [ground(shape, tile) for shape in shapes]
    plan = source.plan(np.array(polygons, object), [2024])
    assert plan.blocks == 1  # fetched once and decoded once
    assert plan.requests == 64
    table = extract(polygons, source, ids=range(1000), statistics=ALL_STATISTICS)
    for i in range(0, 1000, 61):
        assert_row(table.iloc[i], brute_pixels([tile], polygons[i]))
    order = rng.permutation(1000)
    again = extract([polygons[i] for i in order], source, ids=order, statistics=ALL_STATISTICS, max_workers=1)
    assert_same_bits(again.sort_values("site_id", ignore_index=True), table)


# --- whole tiles, measured from outside


PATCH = 256


def write_big(folder: Path, size: int, block: int) -> Path:
    """Write a tile that repeats a patch of 256 x 256 pixels: its mean is known, and it takes little room."""
    patch = random_codes((PATCH, PATCH), 5, masked=0.01)
    grid = Grid(crs=CRS, transform=(10, 0, 10.0 * COL, 0, 10, -10.0 * ROW), shape=(size, size))
    top = -int(grid.bounds[3]) // 10

    def codes(window):
        rows = (window.row - top + np.arange(window.height)) % PATCH
        cols = (window.col - COL + np.arange(window.width)) % PATCH
        return patch[:, rows[:, None], cols[None]]

    path = folder / "2024" / "22S" / "big.tiff"
    path.parent.mkdir(parents=True)
    write_tile(path, grid, codes, block=block)
    stand_in = FakeTile(crs=CRS, col=COL, row=top, codes=patch, name="big")
    west, south, east, north = grid.bounds
    row = index_row(stand_in) | {"utm_west": west, "utm_south": south, "utm_east": east, "utm_north": north}
    pd.DataFrame([{"fid": 1, **row}]).to_parquet(folder / "aef_index.parquet")
    return folder


SCRIPT = """
import json, re, sys, time
from pathlib import Path
import geopandas, shapely
from gee_polygons import extract_embeddings
from gee_polygons.sources.cog.source import CogSource

def peak():  # ru_maxrss would be that of the test process, which this one was forked from
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

folder, statistics = Path(sys.argv[1]), sys.argv[2].split(",")
shapes = geopandas.read_file(folder / "sites.geojson")
source = CogSource(folder)
small = extract_embeddings(shapes[:1], source=source, years=[2024], statistics=statistics)
before, started = peak(), time.perf_counter()
table = extract_embeddings(shapes[1:], source=source, years=[2024], statistics=statistics)
table.to_parquet(folder / "table.parquet")
print(json.dumps({"before": before, "after": peak(), "seconds": time.perf_counter() - started}))
"""


def corner_and_whole(size: int):
    """Return a small site in a corner of the tile, and the whole tile, in degrees."""
    west, north, step = 10.0 * COL, -10.0 * ROW + 10.0 * size, 10.0 * size
    small = shapely.box(west + 100, north - 2_000, west + 300, north - 1_800)
    whole = shapely.segmentize(shapely.box(west, north - step, west + step, north), 100)
    return [project(p, to_lon_lat(CRS)) for p in (small, whole)]


def measure(folder: Path, size: int, statistics) -> tuple[dict[str, float], object]:
    """Extract a small site, then the whole tile, in a process of its own."""
    sites(corner_and_whole(size)).to_file(folder / "sites.geojson", COORDINATE_PRECISION=12)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), ",".join(statistics)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout), pd.read_parquet(folder / "table.parquet").iloc[0]


def check_big(row, size, statistics) -> None:
    """Compare with the patch that the tile repeats."""
    patch = random_codes((PATCH, PATCH), 5, masked=0.01)
    valid = patch[:, patch[0] != -128]
    repeats = (size // PATCH) ** 2
    several = len(statistics) > 1
    assert row["n_pixels"] == pytest.approx(valid.shape[1] * repeats, rel=1e-7)
    assert row["valid_fraction"] == pytest.approx(valid.shape[1] / PATCH**2, rel=1e-7)
    values = values_of(valid)
    np.testing.assert_allclose(numbers(row, "mean", several), values.mean(axis=1), atol=1e-7)
    if "std" in statistics:
        np.testing.assert_allclose(numbers(row, "std"), values.std(axis=1), atol=1e-7)
        # pixels beyond the tile are touched with less than 1e-6, and some of its own would be lost if they weren't
        assert row["A00_count"] == valid.shape[1] * repeats
        for name in ("min", "max"):
            np.testing.assert_allclose(numbers(row, name), getattr(values, name)(axis=1), rtol=1e-15)
        np.testing.assert_allclose(numbers(row, "median"), np.median(values, axis=1), atol=2e-2)


def test_a_whole_tile_of_2048_px_takes_no_more_memory_than_its_blocks(tmp_path):
    folder = write_big(tmp_path, 2048, 256)
    memory, row = measure(folder, 2048, ["mean"])
    check_big(row, 2048, ["mean"])
    # 268 MB of codes; a few blocks of 4 MB are in hand at a time
    assert memory["after"] - memory["before"] < 60
    assert memory["after"] < 600


def test_every_statistic_of_a_whole_tile(tmp_path):
    folder = write_big(tmp_path, 512, 128)
    statistics = ["mean", "std", "min", "max", "median", "count", "medoid"]
    row = extract([corner_and_whole(512)[1]], CogSource(folder), statistics=statistics).iloc[0]
    check_big(row, 512, statistics)
    assert row["medoid_similarity"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("statistics", [["mean", "std", "min", "max", "median", "count"], ["medoid"]], ids=len)
def test_a_whole_tile_of_8192_px_in_less_than_1_gb(statistics, tmp_path):
    folder = write_big(tmp_path, 8192, 1024)  # the published size and blocks
    memory, row = measure(folder, 8192, statistics)
    if "mean" in statistics:
        check_big(row, 8192, statistics)
    assert memory["after"] < 1000


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_each_block_is_read_once_and_few_are_held(workers, tmp_path, monkeypatch):
    tile = tile_at(0, 0, 200, 1, block=16)
    source = make_archive(tmp_path, [tile])
    whole = ground(shapely.box(0, 0, 200, 200), tile)
    fetched, held, most = [], weakref.WeakSet(), 0
    read = CogSource.read

    def watched(self, refs, bands):
        nonlocal most
        for block in read(self, refs, bands):
            fetched.append(block.ref.index)
            held.add(block)
            most = max(most, len(held))
            yield block

    monkeypatch.setattr(CogSource, "read", watched)
    extract([whole], source, max_workers=workers)
    assert len(fetched) == len(set(fetched)) == 13 * 13
    assert most <= workers + 6  # the threads' own, and a few ahead

"""The archive of tiles: every layout that GDAL writes, plans, reading once, bad tiles, overlapping tiles.

All of one raster's layouts must give the same bits as the same pixels in memory (`RasterSource` over an array, which
has its own tests against oracles).
"""

import collections
import pickle

import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.shutil
import shapely
from oracles import (
    SHARED,
    archive,
    index_row,
    on_grid,
    one_line,
    open_tile,
    same,
    sites,
    small_grid,
    star,
    unit_codes,
    write_gdal,
    write_index,
)

from gee_polygons import extract_embeddings, open_source
from gee_polygons.alphaearth import BANDS
from gee_polygons.errors import ArchiveError, GeePolygonsError, InputFileError, ReadError, TileError, UsageError
from gee_polygons.network import ranges as _fetch
from gee_polygons.network.request import Network
from gee_polygons.reduction.plan import PixelSource, Plan
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog.header import open_tiles
from gee_polygons.sources.cog.tile import Tile, TileBlock
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.sources.raster import RasterSource
from gee_polygons.zonal.grid import Grid

SHAPE = (75, 90)
GRID = small_grid(SHAPE)
NORTH_UP = small_grid(SHAPE, south_up=False)
SHAPES = {
    "field": star(1, (30, 30), 20),
    "hole": star(2, (45, 35), 28, 20, hole=True),
    "multi": shapely.MultiPolygon([shapely.box(2.3, 2.1, 5.7, 9.9), shapely.box(80.2, 30.5, 80.4, 74.1)]),
    "sliver": shapely.Polygon([(3, 3), (85, 70), (85, 70.01), (3, 3.01)]),
    "sub-pixel": shapely.box(10.4, 10.2, 10.7, 10.6),
    "block corner": shapely.box(31.5, 41.5, 32.5, 44.25),
    "edge": star(3, (88, 70), 8),
    "whole": shapely.box(-3, -3, 100, 80),
    "outside": shapely.box(100, 10, 110, 20),
}


@pytest.fixture(scope="module")
def codes():
    return unit_codes(SHAPE, seed=11, masked=0.05)


@pytest.fixture(scope="module")
def frame():
    return sites(on_grid(SHAPES.values(), NORTH_UP), ids=list(SHAPES))


@pytest.fixture(scope="module")
def expected(codes, frame):
    return extract_embeddings(frame, source=RasterSource(codes, grid=NORTH_UP, year=2024))


@pytest.fixture
def source(tmp_path, codes):
    """An archive of one tile in the published layout, with small blocks."""
    path = write_tile(tmp_path / "tile.tiff", GRID, codes, block=32)
    return archive(tmp_path, [(path, GRID, 2024)])


# --- layouts

BAND, PIXEL = {"interleave": "band"}, {"interleave": "pixel"}
ZSTD, DEFLATE, LZW = ({"compress": name} for name in ("zstd", "deflate", "lzw"))
DIFFERENCES = {"predictor": 2}


def blocks(height, width):
    return {"tiled": True, "blockxsize": width, "blockysize": height}


LAYOUTS = {
    "as published": BAND | ZSTD | blocks(1024, 1024),
    "deflate": BAND | DEFLATE | blocks(32, 32),
    "zstd, predictor 2": BAND | ZSTD | DIFFERENCES | blocks(32, 32),
    "deflate, predictor 2": BAND | DEFLATE | DIFFERENCES | blocks(48, 16),
    "lzw": BAND | LZW | blocks(32, 32),
    "lzw, predictor 2": BAND | LZW | DIFFERENCES | blocks(32, 32),
    "uncompressed": BAND | blocks(32, 32),
    "by pixel": PIXEL | ZSTD | blocks(32, 32),
    "by pixel, predictor 2": PIXEL | ZSTD | DIFFERENCES | blocks(32, 32),
    "by pixel, lzw, predictor 2": PIXEL | LZW | DIFFERENCES | blocks(16, 16),
    "by pixel, uncompressed": PIXEL | blocks(64, 32),
    "bigtiff": BAND | ZSTD | blocks(32, 32) | {"bigtiff": "yes"},
    "big-endian": BAND | ZSTD | blocks(32, 32) | {"endianness": "big"},
}


@pytest.mark.parametrize("south_up", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_a_tile_changes_no_bit(layout, south_up, tmp_path, codes, frame, expected):
    grid = GRID if south_up else NORTH_UP
    path = write_gdal(tmp_path / "x.tif", grid, codes, **LAYOUTS[layout])
    source = archive(tmp_path, [(path, grid, 2024)])
    same(extract_embeddings(frame, source=source), expected)
    some = extract_embeddings(frame, source=source, bands=["A40", "A03"])
    same(some[["A40", "A03"]], expected[["A40", "A03"]])


@pytest.mark.parametrize("south_up", [True, False])
@pytest.mark.parametrize("block", [16, 48, 80, 96])
def test_the_size_of_blocks_and_the_number_of_threads_change_no_bit(block, south_up, tmp_path, codes, frame, expected):
    grid = GRID if south_up else NORTH_UP
    path = write_tile(tmp_path / "x.tif", grid, codes, block=block)
    source = archive(tmp_path, [(path, grid, 2024)])
    for workers in (1, 2, 5):
        same(extract_embeddings(frame, source=source, max_workers=workers), expected)


def test_a_cog_with_overviews_written_by_gdal(tmp_path, codes, frame, expected):
    plain = write_gdal(tmp_path / "x.tif", NORTH_UP, codes)
    rasterio.shutil.copy(plain, tmp_path / "cog.tif", driver="COG", compress="zstd", blocksize=16, overviews="auto")
    with rasterio.open(tmp_path / "cog.tif") as file:
        assert file.overviews(1)
    same(extract_embeddings(frame, source=archive(tmp_path, [(tmp_path / "cog.tif", NORTH_UP, 2024)])), expected)


@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_blocks_that_were_never_written_are_nodata(interleave, tmp_path, codes, frame):
    holed = codes.copy()
    holed[:, 10:75, :64] = -128
    path = write_gdal(tmp_path / "x.tif", GRID, holed, tiled=True, blockxsize=32, blockysize=32, compress="zstd",
                      interleave=interleave, SPARSE_OK="TRUE")  # fmt: skip
    tile = open_tile(str(path), 2024)
    assert (tile.lengths == 0).any()
    true = extract_embeddings(frame, source=RasterSource(holed, grid=NORTH_UP, year=2024))
    assert "masked" in true["status"].tolist()
    same(extract_embeddings(frame, source=archive(tmp_path, [(path, GRID, 2024)])), true)


@pytest.mark.parametrize("south_up", [True, False])
@pytest.mark.parametrize("area_or_point", ["Area", "Point"])
def test_the_place_is_the_one_that_gdal_reads(area_or_point, south_up, tmp_path, codes):
    grid = GRID if south_up else NORTH_UP
    path = write_gdal(tmp_path / "x.tif", grid, codes, tiled=True, blockxsize=16, blockysize=16)
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT=area_or_point)
    with rasterio.open(path) as file:
        true = Grid(crs=file.crs.to_string(), transform=tuple(file.transform)[:6], shape=file.shape)
    assert open_tile(str(path), 2024).grid == true
    assert true.flip_y == south_up


@pytest.mark.parametrize("south_up", [True, False])
def test_an_image_is_the_pixels_north_up(south_up, tmp_path, codes):
    grid = GRID if south_up else NORTH_UP
    path = write_tile(tmp_path / "x.tif", grid, codes, block=32)
    source = archive(tmp_path, [(path, grid, 2024)])
    region = sites(on_grid([shapely.box(20.2, 25.3, 95, 70.1)], NORTH_UP)).geometry[0]  # past the eastern edge
    image = source.image(region, 2024)
    row, col = image.grid.window.row - NORTH_UP.window.row, image.grid.window.col - NORTH_UP.window.col
    held = image.codes[:, :, : 90 - col]
    assert np.array_equal(held, codes[:, row : row + held.shape[1], col:90])
    assert np.all(image.codes[:, :, 90 - col :] == -128)
    assert not source.image(region, 2020).valid.any()
    assert np.array_equal(source.image(region, 2024, ["A50", "A02"]).codes, image.codes[[50, 2]])


# --- plans


def test_a_plan_is_data(source, frame, codes):
    polygons = frame.geometry.to_numpy()
    plan = source.plan(polygons, [2024])
    again = CogSource(source.archive).plan(polygons, [2024])
    assert plan == again
    assert hash(plan) == hash(again)
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert repr(plan) == f"Plan(cog: 9 polygons x 1 years, 9 blocks, 576 requests, {plan.bytes / 1e6:.1f} MB)"
    assert isinstance(plan, Plan)
    assert isinstance(source, PixelSource)


def test_a_plan_knows_its_cost_and_reads_no_pixels(source, frame, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a pixel was read while planning")

    monkeypatch.setattr(_fetch, "_local_ranges", refuse)
    monkeypatch.setattr(TileBlock, "decode", refuse)
    plan = source.plan(frame.geometry.to_numpy(), [2024, 2023])
    tile = open_tile(plan.jobs[0].reads[0].tile, 2024)
    assert (plan.blocks, plan.requests, plan.bytes) == (9, 9 * 64, int(tile.lengths.sum()))


def test_only_blocks_that_polygons_cover_are_planned(tmp_path, codes):
    path = write_tile(tmp_path / "x.tif", GRID, codes, block=16)
    source = archive(tmp_path, [(path, GRID, 2024)])
    # an L along two sides: its box holds all 30 blocks, itself 10
    corner = shapely.union(shapely.box(2, 2, 5, 73), shapely.box(2, 70, 88, 73))
    plan = source.plan(sites(on_grid([corner], NORTH_UP)).geometry.to_numpy(), [2024])
    found = {ref.index for job in plan.jobs for ref in job.reads}
    assert found == {(row, 0) for row in range(5)} | {(0, col) for col in range(6)}


@pytest.mark.parametrize("name", ["outside", "nowhere"])
def test_a_polygon_that_no_tile_holds_costs_nothing(name, source, frame):
    polygon = frame.set_index("site_id").geometry["outside"] if name == "outside" else shapely.box(10, 10, 11, 11)
    plan = source.plan(np.array([polygon], object), [2024])
    assert (plan.blocks, plan.requests, plan.bytes) == (0, 0, 0)


def test_a_plan_can_be_read_by_another_process_source(source, frame):
    plan = source.plan(frame.geometry.to_numpy(), [2024])
    refs = [ref for job in pickle.loads(pickle.dumps(plan)).jobs for ref in job.reads]
    other = pickle.loads(pickle.dumps(CogSource(source.archive)))
    blocks = list(other.read(refs, BANDS))
    assert [block.ref for block in blocks] == refs
    assert all(block.decode(5).shape[0] == 1 for block in blocks)


# --- each block once


@pytest.fixture
def reads(monkeypatch):
    """Byte ranges read, by (file, first byte)."""
    counts = collections.Counter()
    original = _fetch._local_ranges

    def counting(want):
        counts.update((want.place, start) for start in want.starts)
        return original(want)

    monkeypatch.setattr(_fetch, "_local_ranges", counting)
    return counts


def test_each_block_is_read_once_however_many_polygons_touch_it(source, reads, frame):
    many = sites(on_grid([shapely.box(x, y, x + 3, y + 2) for x in range(0, 88, 3) for y in range(0, 72, 4)], NORTH_UP))
    extract_embeddings(many, source=source)
    assert len(reads) == 9 * 64
    assert set(reads.values()) == {1}


def test_only_the_bands_asked_for_are_read(source, reads, frame):
    extract_embeddings(frame, source=source, bands=["A07", "A08", "A63"])
    assert len(reads) == 9 * 3
    assert set(reads.values()) == {1}


def test_a_year_that_the_archive_lacks_is_a_row_and_no_read(source, reads, frame):
    table = extract_embeddings(frame, source=source, years=[2019])
    assert set(table["status"]) == {"no_data"}
    assert table[list(BANDS)].isna().all(axis=None)
    assert not reads


# --- tiles that overlap or abut in one zone


def part_grid(row, col, height, width, south_up=True):
    west, _, _, north = NORTH_UP.bounds
    return small_grid((height, width), south_up=south_up, origin=(west + 10 * col, north - 10 * row))


def write_parts(folder, codes, cuts, block=16):
    """Write parts of one raster as tiles; `cuts` are (name, row, col, height, width, codes of the part or None)."""
    tiles = []
    for number, (name, row, col, height, width, values) in enumerate(cuts):
        grid = part_grid(row, col, height, width, south_up=number % 2 == 0)
        values = codes[:, row : row + height, col : col + width] if values is None else values
        tiles.append((write_tile(folder / name, grid, np.ascontiguousarray(values), block=block), grid, 2024))
    return archive(folder, tiles)


def test_tiles_that_abut_are_one_raster(tmp_path, codes, frame, expected):
    cuts = [("a.tif", 0, 0, 40, 50, None), ("b.tif", 0, 50, 40, 40, None), ("c.tif", 40, 0, 35, 90, None)]
    same(extract_embeddings(frame, source=write_parts(tmp_path, codes, cuts)), expected)


@pytest.mark.parametrize("names", [("a.tif", "b.tif"), ("b.tif", "a.tif")])
def test_what_two_tiles_hold_is_counted_once(names, tmp_path, codes, frame, expected):
    cuts = [(names[0], 0, 0, 75, 60, None), (names[1], 0, 23, 75, 67, None)]
    same(extract_embeddings(frame, source=write_parts(tmp_path, codes, cuts)), expected)


def test_three_tiles_over_each_other_are_counted_once(tmp_path, codes, frame, expected):
    cuts = [("c.tif", 0, 0, 75, 60, None), ("b.tif", 5, 7, 70, 83, None), ("a.tif", 0, 0, 75, 90, None)]
    same(extract_embeddings(frame, source=write_parts(tmp_path, codes, cuts)), expected)


@pytest.mark.parametrize("names", [("a.tif", "b.tif"), ("b.tif", "a.tif")])
def test_a_tile_of_nodata_never_hides_a_valid_one(names, tmp_path, codes, frame, expected):
    empty = np.full((64, 75, 70), -128, np.int8)
    cuts = [(names[0], 0, 0, 75, 90, None), (names[1], 0, 20, 75, 70, empty)]
    same(extract_embeddings(frame, source=write_parts(tmp_path, codes, cuts)), expected)


def test_each_of_two_tiles_fills_the_others_gaps(tmp_path, codes, frame, expected):
    chess = (np.indices(SHAPE).sum(axis=0) // 5) % 2 == 0
    white, black = np.where(chess, codes, np.int8(-128)), np.where(chess, np.int8(-128), codes)
    cuts = [("a.tif", 0, 0, 75, 90, white), ("b.tif", 0, 0, 75, 90, black)]
    same(extract_embeddings(frame, source=write_parts(tmp_path, codes, cuts)), expected)


def test_an_image_of_overlapping_tiles_is_filled_too(tmp_path, codes):
    chess = (np.indices(SHAPE).sum(axis=0) // 5) % 2 == 0
    white, black = np.where(chess, codes, np.int8(-128)), np.where(chess, np.int8(-128), codes)
    source = write_parts(tmp_path, codes, [("a.tif", 0, 0, 75, 90, white), ("b.tif", 0, 0, 75, 90, black)])
    region = sites(on_grid([shapely.box(10.2, 15.3, 70, 60.1)], NORTH_UP)).geometry[0]
    image = source.image(region, 2024)
    row, col = image.grid.window.row - NORTH_UP.window.row, image.grid.window.col - NORTH_UP.window.col
    height, width = image.grid.shape
    assert np.array_equal(image.codes, codes[:, row : row + height, col : col + width])


def test_a_tile_listed_twice_is_one_tile(tmp_path, codes, frame, expected, reads):
    path = write_tile(tmp_path / "x.tif", GRID, codes, block=32)
    rows = [index_row(path, GRID), index_row("x.tif", GRID)]  # absolute, and relative to the index
    same(extract_embeddings(frame, source=CogSource(write_index(tmp_path, rows))), expected)
    assert set(reads.values()) == {1}


def test_tiles_of_other_years_are_other_pixels(tmp_path, codes, frame, expected):
    other = unit_codes(SHAPE, seed=12)
    tiles = [
        (write_tile(tmp_path / "a.tif", GRID, codes, block=32), GRID, 2024),
        (write_tile(tmp_path / "b.tif", NORTH_UP, other, block=48), NORTH_UP, 2023),
    ]
    table = extract_embeddings(frame, source=archive(tmp_path, tiles), years=[2023, 2024])
    same(table[table["year"] == 2024].reset_index(drop=True), expected)
    true = extract_embeddings(frame, source=RasterSource(other, grid=NORTH_UP, year=2023))
    same(table[table["year"] == 2023].reset_index(drop=True), true)


def test_tiles_half_a_pixel_off_round_numbers_line_up(tmp_path, codes):
    # centres on multiples of 10 m: half-pixel phase, even and odd columns
    west, north = 800_005.0, 7_500_005.0
    grids = [small_grid((75, 45), origin=(west + 10 * c, north)) for c in (0, 45)]
    tiles = [(write_tile(tmp_path / f"{i}.tif", g, codes[:, :, 45 * i : 45 * i + 45], block=32), g, 2024)
             for i, g in enumerate(grids)]  # fmt: skip
    whole = small_grid(SHAPE, origin=(west, north), south_up=False)
    frame = sites(on_grid(SHAPES.values(), whole), ids=list(SHAPES))
    true = extract_embeddings(frame, source=RasterSource(codes, grid=whole, year=2024))
    same(extract_embeddings(frame, source=archive(tmp_path, tiles)), true)


def test_tiles_whose_pixels_do_not_line_up_are_refused(tmp_path, codes, frame):
    shifted = small_grid(SHAPE, origin=(800_003.0, 7_500_000.0))
    tiles = [(write_tile(tmp_path / "a.tif", GRID, codes, block=32), GRID, 2024),
             (write_tile(tmp_path / "b.tif", shifted, codes, block=32), shifted, 2024)]  # fmt: skip
    with pytest.raises(TileError, match=r"b\.tif: its pixels don't line up with those of .*a\.tif") as error:
        extract_embeddings(frame, source=archive(tmp_path, tiles))
    assert one_line(error.value)


def test_a_misaligned_tile_spoils_only_the_sites_that_touch_it(tmp_path, codes):
    aligned = [small_grid((75, 45), origin=(800_000.0 + 450 * i, 7_500_000.0)) for i in range(2)]
    shifted = small_grid((75, 45), origin=(800_000.0 + 900 + 3, 7_500_000.0))
    grids = [*aligned, shifted]
    tiles = [(write_tile(tmp_path / f"{i}.tif", g, codes[:, :, :45], block=32), g, 2024) for i, g in enumerate(grids)]
    boxes = [shapely.box(5, 20, 30, 50), shapely.box(35, 20, 60, 50), shapely.box(100, 20, 120, 50),
             shapely.box(80, 20, 100, 50)]  # fmt: skip
    frame = sites(on_grid(boxes, aligned[0]))
    source = archive(tmp_path, tiles)
    with pytest.raises(TileError, match=r"2\.tif: its pixels don't line up"):
        extract_embeddings(frame, source=source)
    table = extract_embeddings(frame, source=source, on_error="collect")
    assert table["status"].tolist() == ["ok", "ok", "error", "error"]
    assert [error["site_ids"] for error in table.attrs["errors"]] == [frame["site_id"].tolist()[2:]]
    alone = extract_embeddings(frame[:2], source=archive(tmp_path, tiles[:2]))
    same(table[:2], alone)


# --- bad tiles


def bad_tile(case, folder, codes):
    path = folder / "bad.tif"
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    if case == "63 bands":
        return write_gdal(path, GRID, codes[:63], **tiled)
    if case == "65 bands":
        return write_gdal(path, GRID, np.concatenate([codes, codes[:1]]), **tiled)
    if case == "uint8":
        return write_gdal(path, GRID, codes.view(np.uint8), nodata=0, **tiled)
    if case == "int16":
        return write_gdal(path, GRID, codes.astype(np.int16), **tiled)
    if case == "float32":
        return write_gdal(path, GRID, codes.astype(np.float32) / 128, **tiled)
    if case == "strips":
        return write_gdal(path, GRID, codes)
    if case == "packbits":
        return write_gdal(path, GRID, codes, compress="packbits", **tiled)
    if case == "lerc":
        return write_gdal(path, GRID, codes, compress="lerc_zstd", **tiled)
    if case == "nodata":
        return write_gdal(path, GRID, codes, nodata=-127, **tiled)
    if case == "nodata and more":
        write_gdal(path, GRID, codes, nodata=-127, **tiled)
        path.write_bytes(path.read_bytes().replace(b"-127\0", b"-1\n7\0"))
        return path
    if case == "no crs":
        return write_gdal(path, small_grid(SHAPE, crs=None), codes, **tiled)
    if case == "rotated":
        rotated = rasterio.Affine(10, 1, 800_000, 1, -10, 7_500_000)
        with rasterio.open(path, "w", driver="GTiff", width=90, height=75, count=64, dtype="int8", crs="EPSG:32722",
                           transform=rotated, **tiled) as file:  # fmt: skip
            file.write(codes)
    elif case == "not a TIFF":
        path.write_text("hello, this is no TIFF at all " * 20)
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "cut header":
        path.write_bytes(write_tile(path, GRID, codes, block=16).read_bytes()[:700])
    elif case == "folder":
        path.mkdir()
    elif case == "reordered bands":
        write_tile(path, GRID, codes, block=16, bands=[*BANDS[:3], "A05", "A04", "A03", *BANDS[6:]])
    elif case == "renamed bands":
        write_tile(path, GRID, codes, block=16, bands=[f"emb_{i}" for i in range(64)])
    elif case == "not georeferenced":
        data = write_gdal(path, NORTH_UP, codes, **tiled).read_bytes()
        # blank the tag numbers of ModelPixelScale and ModelTiepoint
        for tag in (33550, 33922):
            double = b"\x0c\x00"
            data = data.replace(tag.to_bytes(2, "little") + double, b"\xe8\xfd" + double)
        path.write_bytes(data)
    return path


BAD = {
    "63 bands": (TileError, "63 bands; an AlphaEarth tile has 64"),
    "65 bands": (TileError, "65 bands; an AlphaEarth tile has 64"),
    "uint8": (TileError, "holds uint8; an AlphaEarth tile holds int8"),
    "int16": (TileError, "holds int16"),
    "float32": (TileError, "holds float32"),
    "strips": (TileError, "stored in strips"),
    "packbits": (TileError, "compression 32773 is not supported"),
    "lerc": (TileError, "compression 34887 is not supported"),
    "nodata": (TileError, "nodata is -127"),
    "nodata and more": (TileError, "nodata is -1;"),
    "no crs": (TileError, "no EPSG code"),
    "rotated": (TileError, "rotated"),
    "not georeferenced": (TileError, "not georeferenced"),
    "reordered bands": (TileError, "expected bands A00..A63 in this order, found 'A05' as number 4 "),
    "renamed bands": (TileError, "expected bands A00..A63 in this order, found 'emb_0' as number 1 "),
    "not a TIFF": (ReadError, "not a TIFF"),
    "empty": (ReadError, "can't be read|not a TIFF"),
    "cut header": (ReadError, "can't be read"),
    "folder": (ReadError, "can't be read|missing"),
    "missing": (ReadError, "the tile is missing; the index names it"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_tile_gets_one_clear_line_that_names_it(case, tmp_path, codes, frame):
    kind, words = BAD[case]
    path = bad_tile(case, tmp_path, codes)
    with pytest.raises(kind, match=words) as error:
        open_tile(str(path), 2024)
    assert str(path) in str(error.value)
    assert one_line(error.value)
    source = archive(tmp_path, [(path, GRID, 2024)])
    with pytest.raises(GeePolygonsError, match=words) as error:
        extract_embeddings(frame, source=source)
    assert one_line(error.value)
    assert error.value.exit_status == 1


@pytest.mark.parametrize("case", BAD)
def test_collected_errors_spoil_exactly_the_sites_and_years_concerned(case, tmp_path, codes):
    path = bad_tile(case, tmp_path, codes)
    east = part_grid(0, 90, 75, 40)
    good = unit_codes((75, 40), seed=3)
    tiles = [
        (path, GRID, 2024),
        (write_tile(tmp_path / "east.tif", east, good, block=16), east, 2024),
        (write_tile(tmp_path / "before.tif", GRID, codes, block=16), GRID, 2023),
    ]
    shapes = {
        "in it": SHAPES["field"],
        "across": star(5, (90, 30), 12),
        "beside": star(6, (110, 30), 12),
        "far": shapely.box(300, 300, 305, 305),
    }
    frame = sites(on_grid(shapes.values(), NORTH_UP), ids=list(shapes))
    table = extract_embeddings(frame, source=archive(tmp_path, tiles), years=[2022, 2023, 2024], on_error="collect")
    status = {(row.site_id, row.year): row.status for row in table.itertuples()}
    assert len(table) == 12
    assert status["in it", 2024] == status["across", 2024] == "error"
    assert status["beside", 2024] == "ok"
    assert status["far", 2024] == "no_data"
    assert status["in it", 2023] == status["across", 2023] == "ok"
    assert {status[name, 2022] for name in shapes} == {"no_data"}
    spoiled = table[table["status"] == "error"]
    assert spoiled[[*BANDS, "Rbar", "n_pixels", "valid_fraction"]].isna().all(axis=None)
    (error,) = table.attrs["errors"]
    assert sorted(error["site_ids"]) == ["across", "in it"]
    assert error["year"] == 2024
    assert error["url"] == str(path)
    assert one_line(error["message"])
    # and what was sound is as if nothing had happened
    sound = extract_embeddings(frame.iloc[[2]], source=archive(tmp_path, tiles[1:2]))
    same(table[(table["site_id"] == "beside") & (table["year"] == 2024)].reset_index(drop=True), sound)


def test_a_missing_tile_that_no_site_needs_is_no_error(tmp_path, codes):
    far = part_grid(500, 500, 75, 90)
    tiles = [(write_tile(tmp_path / "a.tif", GRID, codes, block=32), GRID, 2024), (tmp_path / "none.tif", far, 2024)]
    table = extract_embeddings(sites(on_grid([SHAPES["field"]], NORTH_UP)), source=archive(tmp_path, tiles))
    assert table["status"].tolist() == ["ok"]


def test_sites_beside_and_around_a_missing_tile_are_not_spoiled(tmp_path, codes):
    east = part_grid(0, 90, 75, 40)
    tiles = [(write_tile(tmp_path / "a.tif", GRID, codes, block=32), GRID, 2024), (tmp_path / "none.tif", east, 2024)]
    shapes = [
        shapely.box(80, 10, 90, 20),  # ends at its edge
        shapely.union(shapely.box(85, 76, 110, 80), shapely.box(85, 10, 89, 80)),  # an L: only its box reaches in
        shapely.box(80, 10, 90.01, 20),
    ]
    source = archive(tmp_path, tiles)
    table = extract_embeddings(sites(on_grid(shapes, NORTH_UP)), source=source, on_error="collect")
    assert table["status"].tolist() == ["ok", "ok", "error"]
    extract_embeddings(sites(on_grid(shapes[:2], NORTH_UP)), source=source)


@pytest.mark.parametrize("kept", [0.999, 0.7, 0.3])
def test_a_truncated_tile_names_itself_and_spoils_what_lay_beyond_the_cut(kept, tmp_path, codes):
    path = write_tile(tmp_path / "x.tif", GRID, codes, block=32)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    source = archive(tmp_path, [(path, GRID, 2024)])
    # the last block of the last band lies at the end of the file: north-east, south-up
    north_east, south_west = shapely.box(70, 2, 80, 8), shapely.box(3, 60, 20, 70)
    frame = sites(on_grid([north_east, south_west], NORTH_UP))
    with pytest.raises(ReadError, match=r"x\.tif") as error:
        extract_embeddings(frame, source=source)
    assert one_line(error.value)
    table = extract_embeddings(frame, source=source, on_error="collect")
    assert table["status"].tolist() == ["error", "ok" if kept == 0.999 else "error"]
    # its first bands are all there
    assert extract_embeddings(frame, source=source, bands=["A00", "A01"])["status"].tolist() == ["ok", "ok"]


def test_a_tile_in_another_zone_than_the_index_says_is_an_error_and_not_no_data(tmp_path, codes, frame):
    path = write_tile(tmp_path / "x.tif", GRID, codes, block=32)
    source = CogSource(write_index(tmp_path, [{**index_row(path, GRID), "crs": "EPSG:32723"}]))
    near = sites([shapely.box(*GRID.bounds)], crs="EPSG:32723")
    with pytest.raises(GeePolygonsError, match="lies in EPSG:32722, the index says EPSG:32723") as error:
        extract_embeddings(near, source=source)
    assert one_line(error.value)


def test_many_headers_come_back_in_order_with_their_errors(tmp_path, codes):
    good = write_tile(tmp_path / "x.tif", GRID, codes, block=32)
    places = [str(good), str(tmp_path / "none.tif"), str(good)] * 20
    opened = open_tiles([(place, 2024) for place in places])
    assert [isinstance(tile, Tile) for tile in opened] == [True, False, True] * 20
    assert open_tiles([]) == []


def test_tiles_are_opened_where_a_loop_is_running_already(source, frame, expected):
    import asyncio

    async def in_a_notebook():
        return extract_embeddings(frame, source=CogSource(source.archive))

    same(asyncio.run(in_a_notebook()), expected)


# --- the index


def without(column):
    return lambda rows: [{k: v for k, v in row.items() if k != column} for row in rows]


def having(**values):
    return lambda rows: [{**row, **values} for row in rows]


INDEXES = {
    **{f"no {c}": (without(c), f"column '{c}' is missing") for c in ("crs", "year", "path", "utm_west", "wgs84_north")},
    "no rows": (lambda rows: pd.DataFrame(rows).iloc[:0], "lists no tile"),
    "empty year": (having(year=None), "column 'year' has 1 empty"),
    "empty bounds": (having(utm_east=None), "column 'utm_east' has 1 empty"),
    "year in words": (having(year="last"), "column 'year'"),
    "bounds in words": (having(utm_south="down"), "column 'utm_south'"),
    "infinite bounds": (having(utm_south=np.inf), "column 'utm_south'"),
    "path is a number": (having(path=3), "column 'path'"),
}


@pytest.mark.parametrize("case", INDEXES)
def test_a_bad_index_gets_one_clear_line(case, tmp_path):
    change, words = INDEXES[case]
    path = write_index(tmp_path, change([index_row("x.tif", GRID)]))
    with pytest.raises(ArchiveError, match=words) as error:
        CogSource(path)
    assert str(path) in str(error.value)
    assert one_line(error.value)


def test_an_index_that_is_not_there_or_not_one(tmp_path):
    (tmp_path / "text.parquet").write_text("hello")
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for place, words in {
        "none.parquet": "no such index",
        "text.parquet": "not a Parquet file",
        "empty.parquet": "not a Parquet file",
        "folder": "no aef_index.parquet in this folder",
    }.items():
        with pytest.raises(InputFileError, match=words) as error:
            open_source(tmp_path / place)
        assert one_line(error.value)
    with pytest.raises(InputFileError, match="no such index") as error:
        CogSource((tmp_path / "none.parquet").as_uri())
    assert one_line(error.value)


def test_kinds_of_columns_are_taken_leniently(tmp_path, codes, frame, expected):
    write_tile(tmp_path / "x.tif", GRID, codes, block=32)
    row = index_row("x.tif", GRID)
    kinds = [
        {"year": "2024"}, {"year": 2024.0}, {"year": np.int16(2024)}, {"crs": "32722"}, {"crs": "epsg:32722"},
        {"utm_west": str(row["utm_west"])}, {"utm_west": np.float32(row["utm_west"])},
        {"path": str(tmp_path / "x.tif")}, {"path": (tmp_path / "x.tif").as_uri()},
    ]  # fmt: skip
    for kind in kinds:
        same(extract_embeddings(frame, source=CogSource(write_index(tmp_path, [{**row, **kind}]))), expected)


@pytest.mark.parametrize("name", ["with space", "ü", "100%", "a%20b", "x#1", "q?x", "c[1]", "a:b"])
def test_folders_may_have_any_name(name, tmp_path, codes, frame, expected):
    folder = tmp_path / name
    folder.mkdir()
    path = write_tile(folder / "x.tif", GRID, codes, block=32)
    index = write_index(folder, [index_row("x.tif", GRID)])
    same(extract_embeddings(frame, source=CogSource(index)), expected)
    same(extract_embeddings(frame, source=CogSource(index.as_uri())), expected)
    (tmp_path / "beside").mkdir()
    allowed = Network(url_rewrite={str(folder): str(folder)})
    for beside in (f"../{name}/x.tif", path.as_uri()):
        there = archive(tmp_path / "beside", [(beside, GRID, 2024)], network=allowed)
        same(extract_embeddings(frame, source=there), expected)
        if beside.startswith(".."):
            with pytest.raises(ArchiveError, match="lies outside; if you trust it, allow a folder by") as error:
                CogSource(there.archive)
            assert one_line(error.value)


def test_an_archive_is_opened_by_its_folder_its_index_or_a_file_url(tmp_path, codes, frame, expected):
    folder = tmp_path / "v1" / "annual"
    folder.mkdir(parents=True)
    write_tile(folder / "x.tif", GRID, codes, block=32)
    index = write_index(folder, [index_row("x.tif", GRID)])
    for spec in (tmp_path, folder, index, str(index), index.as_uri()):
        same(extract_embeddings(frame, source=spec), expected)


def test_unknown_bands_are_refused(source, frame):
    with pytest.raises(UsageError, match="unknown band 'B8'"):
        source.image(frame.geometry[0], 2024, ["B8"])
    with pytest.raises(UsageError, match="unknown band 'B8'"):
        list(source.read([], ["B8"]))


# --- a strip file of published pixels


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED}: the real files aren't here")
def test_a_strip_file_of_published_pixels_gets_one_clear_line(tmp_path):
    path = SHARED / "cogeotiff_model_transformation.tif"
    grid = Grid(crs="EPSG:32613", transform=(10, 0, 418080, 0, 10, 4423680), shape=(10, 10))
    frame = sites([shapely.box(418100, 4423700, 418150, 4423750)], crs="EPSG:32613")
    with pytest.raises(GeePolygonsError, match=r"stored in strips; .* \(open it as a single raster instead\)") as error:
        extract_embeddings(frame, source=archive(tmp_path, [(path, grid, 2024)]))
    assert one_line(error.value)
    assert extract_embeddings(frame, source=RasterSource(path, year=2024))["status"].tolist() == ["ok"]

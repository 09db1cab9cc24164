"""The sample archive: published layout, truth behind each pixel, statistics like the real ones, sites as promised."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely

from benchmarks.tile import make_benchmark_tile
from gee_polygons.alphaearth import BANDS, NODATA
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import OutputError, UsageError
from gee_polygons.sources.cog import writing
from gee_polygons.sources.sample import (
    LAND_COVER,
    UNLABELLED,
    archive,
    build_sample_archive,
    sample_archive_path,
    sample_sites,
    truth_codes,
    truth_label,
    truth_vectors,
    write_sample_sites,
    write_tile,
)
from gee_polygons.sources.sample.landscape import Landscape
from gee_polygons.zonal.grid import Grid, Window

WEST, EAST = "EPSG:32722", "EPSG:32723"
TILE_A = Window(row=-752695, col=80360, height=320, width=320)
TILE_B = Window(row=-752695, col=80680, height=320, width=320)
TILE_C = Window(row=-752695, col=19000, height=320, width=320)
INDEX_COLUMNS = [
    "fid", "geom", "crs", "year", "utm_zone",
    "utm_west", "utm_south", "utm_east", "utm_north",
    "wgs84_west", "wgs84_south", "wgs84_east", "wgs84_north", "path",
]  # fmt: skip


@pytest.fixture(scope="module")
def index_path(tmp_path_factory):
    return build_sample_archive(tmp_path_factory.mktemp("archive") / "sample")


@pytest.fixture(scope="module")
def index(index_path):
    return geopandas.read_parquet(index_path)


@pytest.fixture(scope="module")
def sites():
    return sample_sites().set_index("site_id")


def grid_of(shape=(50, 70), *, south_up=True):
    south, height = 7_500_000.0, shape[0]
    step, origin = (10.0, south) if south_up else (-10.0, south + 10 * height)
    return Grid(crs=WEST, transform=(10.0, 0.0, 800_000.0, 0.0, step, origin), shape=shape)


def some_codes(shape=(64, 50, 70)):
    return np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)


def read_north_up(path):
    """What rasterio reads, with the window on the lattice that the file's own transform gives."""
    with rasterio.open(path) as file:
        grid = Grid(crs=file.crs.to_string(), transform=tuple(file.transform)[:6], shape=file.shape)
        codes = file.read()
    return codes[:, ::-1] if grid.flip_y else codes, grid


def tags_of(path):
    import async_tiff
    from obstore.store import LocalStore

    async def read():
        return (await async_tiff.TIFF.open(path.name, store=LocalStore(path.parent))).ifds[0]

    return asyncio.run(read())


def unit(codes):
    vectors = codes_to_vectors(codes, np.float64)
    return vectors / np.linalg.norm(vectors, axis=0)


# --- the TIFF writer


@pytest.mark.parametrize("south_up", [True, False])
def test_a_tile_is_read_back_by_gdal(tmp_path, south_up):
    codes, grid = some_codes(), grid_of(south_up=south_up)
    path = write_tile(tmp_path / "t.tiff", grid, codes, block=32)
    read, read_grid = read_north_up(path)
    assert np.array_equal(read, codes)
    assert read_grid == grid
    with rasterio.open(path) as file:
        assert file.nodata == NODATA
        assert file.descriptions == BANDS
        assert file.block_shapes[0] == (32, 32)
        assert file.crs.to_epsg() == 32722
    assert [p.name for p in tmp_path.iterdir()] == ["t.tiff"]  # no temporary file is left


def test_a_tile_too_large_for_32_bit_offsets_is_a_bigtiff_with_the_same_pixels(tmp_path, monkeypatch):
    codes = some_codes()
    assert write_tile(tmp_path / "t.tiff", grid_of(), codes, block=32).read_bytes()[2] == 42
    monkeypatch.setattr(writing, "_CLASSIC_BYTES", 100_000)
    path = write_tile(tmp_path / "t.tiff", grid_of(), codes, block=32)
    assert path.read_bytes()[2] == 43
    assert np.array_equal(read_north_up(path)[0], codes)
    assert tags_of(path).model_transformation[5] == 10.0


def test_a_callable_gives_the_same_bytes_as_its_array(tmp_path):
    codes, grid = some_codes(), grid_of()
    asked = []

    def part(window):
        asked.append(window)
        row, col = window.row - grid.window.row, window.col - grid.window.col
        return codes[:, row : row + window.height, col : col + window.width]

    one = write_tile(tmp_path / "one.tiff", grid, codes, block=32, max_workers=1)
    two = write_tile(tmp_path / "two.tiff", grid, part, block=32, max_workers=2)
    assert one.read_bytes() == two.read_bytes()
    assert sum(w.height * w.width for w in asked) == 50 * 70
    assert max(w.height for w in asked) == 32


def test_blocks_lie_band_by_band_then_row_by_row_8_bytes_apart(tmp_path):
    ifd = tags_of(write_tile(tmp_path / "t.tiff", grid_of(), some_codes(), block=32))
    offsets, counts = np.array(ifd.tile_offsets), np.array(ifd.tile_byte_counts)
    assert len(offsets) == 64 * 2 * 3
    assert np.all(offsets[1:] - offsets[:-1] - counts[:-1] == 8)


def test_wrong_layouts_are_refused(tmp_path):
    path, grid, codes = tmp_path / "t.tiff", grid_of(), some_codes()
    with pytest.raises(UsageError, match="multiple of 16"):
        write_tile(path, grid, codes, block=100)
    with pytest.raises(UsageError, match="int8 of shape"):
        write_tile(path, grid, codes[:63], block=32)
    with pytest.raises(UsageError, match="int8"):
        write_tile(path, grid, lambda w: np.zeros((64, w.height, w.width), np.int16), block=32)
    with pytest.raises(UsageError, match="EPSG"):
        write_tile(path, Grid(crs="EPSG:4326", transform=grid.transform, shape=grid.shape), codes, block=32)
    assert not list(tmp_path.iterdir())


# --- the archive's layout


def test_the_index_has_the_published_columns_and_rows(index_path, index):
    assert index_path.parts[-3:] == ("v1", "annual", "aef_index.parquet")
    assert pq.read_schema(index_path).names == INDEX_COLUMNS
    assert len(index) == 3 * 7 - 1
    assert sorted(set(index.year)) == list(range(2018, 2025))
    assert set(zip(index["utm_zone"], index["crs"], strict=True)) == {("22S", WEST), ("23S", EAST)}
    assert index.geometry.name == "geom"
    assert shapely.box(*index.iloc[0][["wgs84_west", "wgs84_south", "wgs84_east", "wgs84_north"]]).equals(index.geom[0])
    geo = json.loads(pq.read_schema(index_path).metadata[b"geo"])
    assert geo["primary_column"] == "geom"
    assert geo["columns"]["geom"]["bbox"] == pytest.approx(index.total_bounds.tolist())


def test_the_paths_are_relative_and_named_as_published(index_path, index):
    for row in index.itertuples():
        assert (index_path.parent / row.path).is_file()
        year, zone, name = row.path.split("/")
        assert (year, zone) == (str(row.year), row.utm_zone)
        assert name.endswith("-0000000000-0000000000.tiff")
    assert index.path.is_unique
    assert len({p.split("/")[-1] for p in index.path}) == len(index)  # the id differs by year


def test_the_archive_is_small_and_has_nothing_else(index_path):
    root = index_path.parents[2]
    files = [p for p in root.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 100e6
    assert len(files) == 20 + 3
    assert [p.name for p in root.parent.iterdir()] == [root.name]  # no temporary folder is left


def test_tags_are_the_published_ones(index_path, index):
    ifd = tags_of(index_path.parent / index.path[0])
    assert (ifd.image_width, ifd.image_height) == (320, 320)
    assert (ifd.tile_width, ifd.tile_height) == (128, 128)
    assert int(ifd.compression) == 50000
    assert int(ifd.planar_configuration) == 2
    assert int(ifd.predictor or 1) == 1
    assert ifd.samples_per_pixel == 64
    assert {int(f) for f in ifd.sample_format} == {2}
    assert ifd.gdal_nodata.strip("\0") == "-128"
    assert ifd.geo_key_directory.projected_type == 32722
    assert list(ifd.model_transformation) == [10, 0, 0, 803600, 0, 10, 0, 7523750, 0, 0, 0, 0, 0, 0, 0, 1]
    assert ifd.model_pixel_scale is None
    assert ifd.model_tiepoint is None


def test_every_file_says_that_it_is_synthetic(index_path, index):
    for path in index.path:
        with rasterio.open(index_path.parent / path) as file:
            assert file.tags()["SYNTHETIC"] == "YES"
            assert file.tags()["TIFFTAG_IMAGEDESCRIPTION"].startswith("SYNTHETIC")
    assert b"SYNTHETIC" in pq.read_schema(index_path).metadata[b"synthetic"]
    assert (index_path.parents[2] / "SYNTHETIC.txt").read_text("utf-8").startswith("SYNTHETIC")


# --- the truth


@pytest.mark.parametrize("year", [2018, 2021, 2022])
def test_pixels_are_the_truth(index_path, index, year):
    for row in index[index.year == year].itertuples():
        codes, grid = read_north_up(index_path.parent / row.path)
        assert grid.flip_y
        assert grid.bounds == (row.utm_west, row.utm_south, row.utm_east, row.utm_north)
        assert np.array_equal(codes, truth_codes(row.crs, grid.window, year))


def test_a_north_up_tile_is_the_same_truth(tmp_path):
    window = Window(TILE_B.row + 40, TILE_B.col + 30, 60, 90)
    grid = Grid(crs=WEST, transform=(10, 0, window.col * 10, 0, -10, -window.row * 10), shape=(60, 90))
    path = write_tile(tmp_path / "t.tiff", grid, lambda w: truth_codes(WEST, w, 2019), block=32)
    codes, read_grid = read_north_up(path)
    assert read_grid.window == window
    assert np.array_equal(codes, truth_codes(WEST, window, 2019))


def test_a_pixel_has_the_same_bits_in_any_window():
    whole = truth_codes(WEST, TILE_B, 2020)
    rng = np.random.default_rng(1)
    for _ in range(25):
        height, width = (int(v) for v in rng.integers(1, 70, 2))
        row, col = int(rng.integers(0, 320 - height)), int(rng.integers(0, 320 - width))
        part = truth_codes(WEST, Window(TILE_B.row + row, TILE_B.col + col, height, width), 2020)
        assert np.array_equal(part, whole[:, row : row + height, col : col + width])


def test_nodata_is_in_all_bands_or_none_and_labels_agree():
    for crs, window, year in ((WEST, TILE_B, 2022), (EAST, TILE_C, 2021), (WEST, TILE_A, 2020)):
        codes = truth_codes(crs, window, year)
        masked = codes == NODATA
        assert np.array_equal(masked.all(axis=0), masked.any(axis=0))
        labels = truth_label(crs, window, year)
        assert np.array_equal(labels == UNLABELLED, masked[0])
        assert labels[labels != UNLABELLED].max() < len(LAND_COVER)
        assert np.array_equal(np.isnan(truth_vectors(crs, window, year)), masked)


def test_a_place_too_far_away_is_refused():
    with pytest.raises(UsageError, match="too far"):
        Landscape(lon=-48, lat=-22).codes("EPSG:32660", Window(0, 10**8, 4, 4), 2020)


# --- seams, gaps, masks


def test_two_tiles_abut_and_the_land_goes_on():
    assert TILE_A.col_stop == TILE_B.col
    assert (TILE_A.row, TILE_A.height) == (TILE_B.row, TILE_B.height)
    west, east = unit(truth_codes(WEST, TILE_A, 2019)[:, :, -2:]), unit(truth_codes(WEST, TILE_B, 2019)[:, :, :1])
    across = (west[:, :, 1:] * east).sum(axis=0).mean()
    inside = (west[:, :, :1] * west[:, :, 1:]).sum(axis=0).mean()
    assert across == pytest.approx(inside, abs=0.003)


def test_tiles_of_two_zones_show_the_same_ground():
    import pyproj

    rng = np.random.default_rng(2)
    col, row = (
        rng.integers(TILE_B.col + 240, TILE_B.col_stop, 200),
        rng.integers(TILE_B.row + 20, TILE_B.row_stop - 20, 200),
    )
    x, y = pyproj.Transformer.from_crs(WEST, EAST, always_xy=True).transform((col + 0.5) * 10, -(row + 0.5) * 10)
    col_c, row_c = np.floor(x / 10).astype(int) - TILE_C.col, np.floor(-y / 10).astype(int) - TILE_C.row
    assert col_c.min() >= 0  # the overlap lies in tile C
    b, c = truth_codes(WEST, TILE_B, 2019), truth_codes(EAST, TILE_C, 2019)
    from_b, from_c = b[:, row - TILE_B.row, col - TILE_B.col], c[:, row_c, col_c]
    valid = (from_b[0] != NODATA) & (from_c[0] != NODATA)
    assert valid.sum() > 150
    assert (unit(from_b[:, valid]) * unit(from_c[:, valid])).sum(axis=0).mean() > 0.98
    assert not np.array_equal(from_b, from_c)  # resampled and with noise of their own, not copied


def test_one_tile_year_is_missing(index_path, index):
    of_a = index[index.utm_west == 803600]
    assert sorted(of_a.year) == [2018, 2019, 2021, 2022, 2023, 2024]
    assert len(list((index_path.parent / "2020" / "22S").iterdir())) == 1


def test_overshoot_has_nodata_in_some_tile_years_only_beyond_the_zone_edge():
    def masked_share(crs, window, year):
        return (truth_label(crs, window, year) == UNLABELLED).mean(axis=0)

    assert masked_share(EAST, TILE_C, 2021)[:50].min() == 1.0
    assert masked_share(EAST, TILE_C, 2020)[:50].max() < 1.0
    assert masked_share(EAST, TILE_C, 2021)[100:].max() < 0.5  # 48 W is 100 pixels into the tile
    assert masked_share(WEST, TILE_B, 2022)[-30:].min() == 1.0
    assert masked_share(WEST, TILE_B, 2022)[:220].max() < 0.5


def test_wgs84_bounds_are_clipped_at_the_zone_edge_and_utm_bounds_are_the_files(index):
    seam = index[index.utm_west != 803600]
    b, c = seam[seam.utm_zone == "22S"], seam[seam.utm_zone == "23S"]
    assert (b.wgs84_east == -48.0).all()
    assert (c.wgs84_west == -48.0).all()
    for row in index.itertuples():
        assert (row.utm_east - row.utm_west, row.utm_north - row.utm_south) == (3200, 3200)
        box = shapely.box(row.utm_west, row.utm_south, row.utm_east, row.utm_north)
        file = geopandas.GeoSeries([box], crs=row.crs).to_crs(4326).iloc[0]
        assert shapely.box(*file.bounds).buffer(1e-9).covers(row.geom)
        assert row.geom.area > 0.5 * file.area


def test_the_reservoir_is_masked_in_all_years():
    labels = [truth_label(WEST, TILE_B, year) for year in (2018, 2021, 2024)]
    for label in labels:
        assert 3000 < (label == UNLABELLED).sum() < 4000  # about 34 ha
        assert np.array_equal(label == UNLABELLED, labels[0] == UNLABELLED)


# --- statistics, against the real ones in AEF.md


@pytest.fixture(scope="module")
def pixels():
    window = Window(TILE_A.row, TILE_A.col, 320, 640)
    return {year: truth_codes(WEST, window, year) for year in (2018, 2019, 2020)}


def test_pixels_are_unit_vectors_with_the_spread_of_real_codes(pixels):
    codes = pixels[2018][:, :, :320]
    norm = np.linalg.norm(codes_to_vectors(codes, np.float64), axis=0)
    assert norm.mean() == pytest.approx(1, abs=5e-4)
    assert norm.std() < 0.0025
    assert 0.988 < norm.min() < norm.max() < 1.012
    spread = codes.reshape(64, -1).std(axis=1)
    assert 20 < spread.mean() < 27
    assert 5 < spread.min() < spread.max() < 50


def test_correlation_in_space_is_like_the_real_one(pixels):
    vectors = unit(pixels[2018][:, :, :320])
    for lag, real, tolerance in ((1, 0.989, 0.004), (10, 0.82, 0.04), (50, 0.64, 0.06)):
        cosine = (vectors[:, :, lag:] * vectors[:, :, :-lag]).sum(axis=0).mean()
        assert cosine == pytest.approx(real, abs=tolerance), lag
    for side, real in ((3, 0.990), (10, 0.946), (20, 0.905)):
        n = 320 // side
        mean = vectors[:, : n * side, : n * side].reshape(64, n, side, n, side).mean(axis=(2, 4))
        assert np.linalg.norm(mean, axis=0).mean() == pytest.approx(real, abs=0.02), side


def test_change_between_years_is_like_the_real_one(pixels):
    for first, second in ((2018, 2019), (2019, 2020)):
        valid = pixels[first][0] != NODATA
        a, b = unit(pixels[first][:, valid]), unit(pixels[second][:, valid])
        cosine, step = (a * b).sum(axis=0), b - a
        assert np.median(cosine) == pytest.approx(0.973, abs=0.007)
        assert np.percentile(cosine, 5) == pytest.approx(0.897, abs=0.03)
        shared = (step.mean(axis=1) ** 2).sum() / (step**2).sum(axis=0).mean()
        assert 0.42 < shared < 0.87


def test_compression_ratio_is_like_the_real_one(index_path, index):
    for path in index.path[:3]:
        ifd = tags_of(index_path.parent / path)
        full = [band * 9 + block for band in range(64) for block in (0, 1, 3, 4)]  # blocks without padding
        assert 1.3 < 64 * 4 * 128 * 128 / np.array(ifd.tile_byte_counts)[full].sum() < 1.9


# --- building


def test_the_same_bytes_on_every_build_and_with_any_number_of_workers(tmp_path):
    for name, workers in (("one", 1), ("two", 2)):
        build_sample_archive(tmp_path / name, years=[2021], max_workers=workers)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 3 + 3
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_complete_archive_is_reused_and_a_damaged_one_rebuilt(tmp_path):
    out = tmp_path / "sample"
    seen = []
    path = build_sample_archive(out, years=[2020], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    before, tiff = path.stat(), next(out.rglob("*.tiff"))
    whole = tiff.read_bytes()
    build_sample_archive(out, years=[2020], progress=lambda done, total: seen.append((done, total)))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(seen) == 2
    tiff.write_bytes(whole[:1000])
    build_sample_archive(out, years=[2020])
    assert tiff.read_bytes() == whole
    build_sample_archive(out, years=[2021])  # other years: another archive
    assert sorted(p.name for p in (out / "v1" / "annual").iterdir()) == ["2021", "aef_index.parquet"]


def test_a_folder_with_other_things_in_it_is_never_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        build_sample_archive(tmp_path, years=[2020])
    with pytest.raises(OutputError, match="is a file"):
        build_sample_archive(tmp_path / "notes.txt", years=[2020])
    with pytest.raises(OutputError, match="can't write"):
        build_sample_archive(tmp_path / "notes.txt" / "below", years=[2020])
    with pytest.raises(UsageError, match="no years"):
        build_sample_archive(tmp_path / "new", years=[])
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["notes.txt", "v1/annual/2020/22S/mine.tiff", "v1/annual/2021/x.tiff"])
def test_a_file_that_the_build_did_not_write_is_never_deleted(tmp_path, name):
    out = tmp_path / "sample"
    tiff = next(build_sample_archive(out, years=[2020]).parent.rglob("*.tiff"))
    own = out / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("mine")
    build_sample_archive(out, years=[2020])  # complete: left as it is
    whole = tiff.read_bytes()
    for years in ([2021], [2020]):
        with pytest.raises(OutputError, match=f"holds other files, such as {name}"):
            build_sample_archive(out, years=years)
        assert own.read_text() == "mine"
        tiff.write_bytes(whole[:1000])  # damaged, for the second turn
    own.unlink()
    build_sample_archive(out, years=[2020])
    assert tiff.read_bytes() == whole


def test_a_file_saved_during_the_build_is_never_deleted(tmp_path, monkeypatch):
    out, write = tmp_path / "sample", archive._write_sample_tile
    build_sample_archive(out, years=[2020])

    def write_beside(*args):
        (out / "notes.txt").write_text("mine")
        return write(*args)

    monkeypatch.setattr(archive, "_write_sample_tile", write_beside)
    with pytest.raises(OutputError, match=r"holds other files, such as notes\.txt"):
        build_sample_archive(out, years=[2021])
    assert (out / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]
    assert (out / "v1" / "annual" / "2020").is_dir()


@pytest.mark.parametrize("manifest", [None, "", "[]", '{"files": {"SYNTHETIC.txt": 4}}', '{"what": "x", "files": []}'])
def test_a_note_alone_does_not_make_a_folder_replaceable(tmp_path, manifest):
    (tmp_path / "SYNTHETIC.txt").write_text("mine")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(OutputError, match="other files"):
        build_sample_archive(tmp_path, years=[2020])
    assert (tmp_path / "SYNTHETIC.txt").read_text() == "mine"


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    def stop(root, tile, year):
        (root / tile.path(year)).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "_write_sample_tile", stop)
    with pytest.raises(KeyboardInterrupt):
        build_sample_archive(tmp_path / "sample", years=[2020])
    assert not list(tmp_path.iterdir())


def test_the_cache_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("GEE_POLYGONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(archive, "SAMPLE_YEARS", range(2019, 2020))
    monkeypatch.setattr(archive, "build_sample_archive", lambda out: build_sample_archive(out, years=[2019]))
    folder = sample_archive_path()
    assert folder.parent == tmp_path / "cache"
    assert (folder / archive.INDEX_PATH).is_file()
    monkeypatch.setattr(archive, "build_sample_archive", None)  # the second time nothing is built
    assert sample_archive_path() == folder


def test_a_benchmark_tile_is_the_same_with_any_number_of_workers_and_as_compressible_as_real_ones(tmp_path):
    one = make_benchmark_tile(tmp_path / "one.tiff", size=512, block=256, seed=3, max_workers=1)
    two = make_benchmark_tile(tmp_path / "two.tiff", size=512, block=256, seed=3, max_workers=2)
    assert one.read_bytes() == two.read_bytes()
    assert 1.3 < 64 * 512 * 512 / one.stat().st_size < 1.9
    codes, grid = read_north_up(one)
    assert grid.flip_y
    assert 0.005 < (codes[0] == NODATA).mean() < 0.02
    other = make_benchmark_tile(tmp_path / "three.tiff", size=64, block=32, seed=4, south_up=False)
    assert not read_north_up(other)[1].flip_y


def test_importing_the_package_does_not_import_the_generator():
    code = "import sys, gee_polygons; print([m for m in sys.modules if 'sample' in m or m in ('numba', 'rasterio')])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


# --- sites


def test_the_sites_are_those_of_the_file(tmp_path):
    committed = Path(__file__).parents[1] / "data" / "sample_sites.geojson"
    assert write_sample_sites(tmp_path / "sites.geojson").read_text() == committed.read_text()
    read, made = geopandas.read_file(committed), sample_sites()
    assert list(made.columns) == ["site_id", "name", "kind", "start_year", "geometry"]
    assert made.crs == read.crs == "EPSG:4326"
    assert read.site_id.tolist() == made.site_id.tolist()
    assert read.name.tolist() == made.name.tolist()
    assert read.kind.tolist() == made.kind.tolist()
    assert read.start_year.astype("Int64").equals(made.start_year)
    assert read.geometry.geom_equals_exact(made.geometry, 0).all()


def test_sites_are_sound_and_of_natural_size(sites):
    assert 14 <= len(sites) <= 20
    assert sites.index.is_unique
    assert sites.is_valid.all()
    area = sites.to_crs(WEST).area / 1e4
    assert area.drop("sub-pixel").between(1, 41).all()
    assert set(sites.kind) == {"restoration", "control", "reference", "clearing"}
    assert sites.start_year[sites.kind == "restoration"].notna().all()
    assert sites.start_year[sites.kind.isin(["control", "reference"])].isna().all()
    assert sites.start_year.dropna().between(2018, 2024).all()
    assert (sites.geometry.count_coordinates() > 30).sum() >= 15  # not only rectangles
    projected = sites.to_crs(WEST).geometry
    assert sum(projected.iloc[i].intersects(projected.iloc[j]) for i in range(len(sites)) for j in range(i)) == 0


def test_the_special_sites_are_what_they_are_called(sites, index):
    footprint = {}
    for name, (crs, west) in {"A": (WEST, 803600), "B": (WEST, 806800), "C": (EAST, 190000)}.items():
        row = index[index.utm_west == west].iloc[0]
        footprint[name] = crs, shapely.box(row.utm_west, row.utm_south, row.utm_east, row.utm_north)

    def within(site_id, tile):
        crs, box = footprint[tile]
        return sites.loc[[site_id]].to_crs(crs).geometry.iloc[0].within(box)

    def touches(site_id, tile):
        crs, box = footprint[tile]
        return sites.loc[[site_id]].to_crs(crs).geometry.iloc[0].intersects(box)

    shape = sites.geometry
    assert touches("tile-edge", "A")
    assert touches("tile-edge", "B")
    assert not within("tile-edge", "A")
    assert not within("tile-edge", "B")
    for site_id in ("zone-seam", "zone-seam-long"):
        west, _, east, _ = shape[site_id].bounds
        assert west < -48 < east
    assert within("zone-seam", "B")
    assert within("zone-seam", "C")
    assert shape["zone-seam"].centroid.x > -48
    assert not within("zone-seam-long", "B")
    assert not within("zone-seam-long", "C")
    assert shape["zone-seam-long"].centroid.x < -48
    assert len(shape["hole"].interiors) == 1
    assert len(shape["multipolygon"].geoms) == 3
    assert sites.to_crs(WEST).area["sub-pixel"] < 100
    assert within("sub-pixel", "B")
    assert not any(touches("outside", tile) for tile in footprint)
    ordinary = ["pasture-fast", "pasture-medium", "pasture-slow", "pasture-late", "crop-to-forest", "stalled",
                "pasture-control", "forest-reference-1", "cleared"]  # fmt: skip
    assert all(within(site_id, "A") for site_id in ordinary)
    assert all(within(site_id, "C") for site_id in ("crop-control", "forest-reference-2", "pasture-east"))


def pixels_inside(site, crs, window):
    """Boolean mask of the pixels whose centres lie in a site."""
    shape = geopandas.GeoSeries([site], crs=4326).to_crs(crs).iloc[0]
    x, y = (window.col + np.arange(window.width) + 0.5) * 10, -(window.row + np.arange(window.height) + 0.5) * 10
    return shapely.contains_xy(shape, *np.meshgrid(x, y))


def test_one_site_is_half_in_masked_water(sites):
    label = truth_label(WEST, TILE_B, 2020)
    inside = pixels_inside(sites.geometry["half-water"], WEST, TILE_B)
    masked = label[inside] == UNLABELLED
    assert 0.4 < masked.mean() < 0.6
    for site_id in sites.index.drop("half-water"):
        inside = pixels_inside(sites.geometry[site_id], WEST, TILE_B)
        assert not (label[inside] == UNLABELLED).any()


def test_the_land_inside_the_sites_has_its_history(sites):
    cover = {name: i for i, name in enumerate(LAND_COVER)}
    east = ["crop-control", "forest-reference-2", "pasture-east"]
    years = range(2018, 2025)
    label, cosine = {}, {}
    for crs, tile, site_ids in ((WEST, TILE_A, sites.index.difference(east)), (EAST, TILE_C, east)):
        labels = {year: truth_label(crs, tile, year) for year in years}
        first, last = (unit(truth_codes(crs, tile, year)) for year in (2018, 2024))
        for site_id in site_ids:
            inside = pixels_inside(sites.geometry[site_id], crs, tile)
            if inside.sum() > 50:
                label[site_id] = {year: labels[year][inside] for year in years}
                a, b = first[:, inside].mean(axis=1), last[:, inside].mean(axis=1)
                cosine[site_id] = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    # what turns to forest, fast before slow; what stays; what is cleared
    assert cosine["pasture-fast"] < cosine["pasture-medium"] < cosine["pasture-slow"] < cosine["stalled"]
    assert cosine["pasture-fast"] < 0.8
    for steady in ("stalled", "pasture-control", "forest-reference-1", "forest-reference-2"):
        assert cosine[steady] > 0.93, steady
    assert cosine["crop-control"] > 0.88
    assert cosine["cleared"] < 0.8
    assert np.all(label["pasture-fast"][2018] == cover["pasture"])
    assert np.mean(label["pasture-fast"][2024] == cover["mature forest"]) > 0.9
    assert np.mean(label["pasture-medium"][2021] == cover["young forest"]) > 0.5
    assert np.all(label["pasture-control"][2024] == cover["pasture"])
    assert np.all(label["forest-reference-1"][2021] == cover["mature forest"])
    assert np.all(label["crop-control"][2021] == cover["crop"])
    assert np.all(label["crop-to-forest"][2018] == cover["crop"])
    assert np.all(label["cleared"][2020] == cover["mature forest"])
    assert np.mean(label["cleared"][2022] == cover["pasture"]) > 0.95
    assert np.all(label["pasture-late"][2021] == cover["pasture"])
    assert np.mean(label["pasture-late"][2024] == cover["pasture"]) < 0.1

"""Single rasters: any GeoTIFF that GDAL writes, and NumPy arrays with a stated grid.

Tolerances: orientation, layout and blocks never change a bit. Against the oracle 1e-6 (weights are multiples of 2^-24,
fractions below 1e-6 are 0). Float32 vectors are 3e-8 from the codes' values.
"""

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from oracles import (
    ORIGIN,
    SHARED,
    UTM,
    exact_means,
    lattice_coverage,
    on_grid,
    one_line,
    shapely_coverage,
    sites,
    small_grid,
    star,
    unit_codes,
    weighted_means,
    write_gdal,
)

from gee_polygons import extract_embeddings, open_source
from gee_polygons.alphaearth import BANDS
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import CrsError, GeePolygonsError, InputFileError, ReadError, TileError, UsageError
from gee_polygons.sources import raster
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.sources.raster import RasterSource
from gee_polygons.zonal.coverage import FULL
from gee_polygons.zonal.grid import Grid, Window

SHAPE = (45, 61)
GRID = small_grid(SHAPE)
NORTH_UP = small_grid(SHAPE, south_up=False)
SHAPES = {
    "field": star(1, (20, 20), 12),
    "hole": star(2, (30, 25), 15, 20, hole=True),
    "multi": shapely.MultiPolygon([shapely.box(2.3, 2.1, 5.7, 9.9), shapely.box(50.2, 30.5, 50.4, 44.1)]),
    "sliver": shapely.Polygon([(3, 3), (55, 40), (55, 40.01), (3, 3.01)]),
    "sub-pixel": shapely.box(10.4, 10.2, 10.7, 10.6),
    "edge": star(3, (60, 40), 8),
    "corner": shapely.box(-5, -5, 1.5, 1.25),
    "whole": shapely.box(-3, -3, 70, 50),
    "outside": shapely.box(70, 10, 80, 20),
    "beside": shapely.box(61, 10, 70, 20),
}


@pytest.fixture(scope="module")
def codes():
    return unit_codes(SHAPE, seed=4, masked=0.07)


@pytest.fixture(scope="module")
def frame():
    return sites(on_grid(SHAPES.values(), NORTH_UP), ids=list(SHAPES))


@pytest.fixture(scope="module")
def expected(codes, frame):
    return extract_embeddings(frame, source=RasterSource(north_up(codes), grid=NORTH_UP, year=2024))


def north_up(codes):
    return np.ascontiguousarray(codes)


def same(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)


# --- the numbers


@pytest.mark.parametrize("name", SHAPES)
def test_means_are_the_oracles(name, codes, expected):
    row = expected.set_index("site_id").loc[name]
    weights = shapely_coverage(SHAPES[name], Window(0, 0, *SHAPE))
    weights[weights < 1e-6] = 0
    means, n_pixels = weighted_means(codes_to_vectors(codes, np.float64), weights)
    assert row["status"] == ("ok" if n_pixels else "no_data")
    assert row["n_pixels"] == pytest.approx(n_pixels, abs=1e-5)
    assert row["valid_fraction"] == pytest.approx(n_pixels / SHAPES[name].area, rel=1e-5)
    if n_pixels:
        assert np.abs(row[list(BANDS)].to_numpy(float) - means).max() < 1e-6
        assert row["Rbar"] == pytest.approx(np.linalg.norm(means), abs=1e-6)
    else:
        assert row[[*BANDS, "Rbar"]].isna().all()


def test_means_are_exact_quotients_of_integers(codes):
    # in the raster's own pixels, so that the weights are known to the last bit
    polygon = SHAPES["field"]
    frame = sites(on_grid([polygon], NORTH_UP))
    row = extract_embeddings(frame, source=RasterSource(codes, grid=NORTH_UP, year=2024)).iloc[0]
    weights = np.rint(lattice_coverage([polygon]).rasterize(0, Window(0, 0, *SHAPE)) * FULL)
    # to degrees and back, a vertex moves by a nanometre: a few weights by one unit of 2^-24
    for band, mean in zip(BANDS, exact_means(codes, weights), strict=True):
        assert row[band] == pytest.approx(float(mean), abs=1e-9)


@pytest.mark.parametrize(("a", "e"), [(1, -1), (1, 1), (-1, -1), (-1, 1)])
def test_the_order_of_rows_and_columns_changes_no_bit(a, e, codes, frame, expected):
    west, south, east, north = NORTH_UP.bounds
    grid = Grid(
        crs=UTM, transform=(10 * a, 0, west if a > 0 else east, 0, 10 * e, north if e < 0 else south), shape=SHAPE
    )
    same(extract_embeddings(frame, source=RasterSource(codes[:, ::-e, ::a], grid=grid, year=2024)), expected)


LAYOUTS = {
    "strips": {},
    "one-row strips, deflate": {"blockysize": 1, "compress": "deflate"},
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "zstd", "interleave": "band"},
    "tiles, predictor": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "lzw", "predictor": 2},
    "interleaved by pixel": {"tiled": True, "blockxsize": 32, "blockysize": 32, "interleave": "pixel"},
}


@pytest.mark.parametrize("south_up", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_a_file_changes_no_bit(layout, south_up, tmp_path, codes, frame, expected):
    path = write_gdal(tmp_path / "x.tif", GRID if south_up else NORTH_UP, codes, **LAYOUTS[layout])
    same(extract_embeddings(frame, source=RasterSource(path, year=2024)), expected)


@pytest.mark.parametrize("block", [7, 16, 45, 60, 61, 100])
def test_the_size_of_blocks_changes_no_bit(block, monkeypatch, tmp_path, codes, frame, expected):
    monkeypatch.setattr(raster, "_BLOCK", block)
    path = write_gdal(tmp_path / "x.tif", GRID, codes)
    same(extract_embeddings(frame, source=RasterSource(path, year=2024)), expected)
    same(extract_embeddings(frame, source=RasterSource(path, year=2024), max_workers=1), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nodata", [np.nan, -9999.0, None])
def test_float_vectors_are_the_codes_to_float_rounding(dtype, nodata, tmp_path, codes, frame, expected):
    vectors = codes_to_vectors(codes, dtype)
    stored = vectors if nodata is None else np.where(np.isnan(vectors), nodata, vectors).astype(dtype)
    path = write_gdal(tmp_path / "x.tif", GRID, stored, nodata=nodata, compress="deflate")
    found = extract_embeddings(frame, source=RasterSource(path, year=2024))
    same(
        found[["site_id", "n_pixels", "valid_fraction", "status"]],
        expected[["site_id", "n_pixels", "valid_fraction", "status"]],
    )
    difference = (found[list(BANDS)] - expected[list(BANDS)]).abs().to_numpy()
    assert np.array_equal(np.isnan(difference), expected[list(BANDS)].isna())
    assert np.nanmax(difference) < (3.1e-8 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "float16", "longdouble"])
def test_any_kind_of_float_is_taken(dtype, codes, frame, expected):
    vectors = codes_to_vectors(codes, np.float64).astype(dtype)
    found = extract_embeddings(frame, source=RasterSource(vectors, grid=NORTH_UP, year=2024))
    tolerance = 3e-4 if dtype == "float16" else 3.1e-8
    assert np.nanmax((found[list(BANDS)] - expected[list(BANDS)]).abs().to_numpy()) < tolerance
    assert found["n_pixels"].tolist() == expected["n_pixels"].tolist()


@pytest.mark.parametrize("as_codes", [True, False])
def test_a_pixel_that_lacks_a_band_is_no_pixel(as_codes, codes):
    # it would count in the weight and not in that band's sum: a mean drawn towards 0
    values = codes if as_codes else codes_to_vectors(codes, np.float32)
    broken, masked = values.copy(), values.copy()
    missing = -128 if as_codes else np.nan
    broken[40, 18:22, 20], masked[:, 18:22, 20] = missing, missing
    frame = sites(on_grid([SHAPES["field"]], NORTH_UP))
    found, true = (
        extract_embeddings(frame, source=RasterSource(v, grid=NORTH_UP, year=2024)) for v in (broken, masked)
    )
    same(found, true)


@pytest.mark.parametrize(
    ("step", "origin"), [(10.0, (800_005.0, 7_500_005.0)), (30.0, (799_987.5, 7_499_991.25)), (2.5, ORIGIN)]
)
@pytest.mark.parametrize("south_up", [True, False])
def test_other_steps_and_phases(step, origin, south_up, codes):
    grid = small_grid(SHAPE, step=step, origin=origin, south_up=south_up)
    frame = sites(on_grid(SHAPES.values(), grid), ids=list(SHAPES))
    found = extract_embeddings(frame, source=RasterSource(codes[:, :: -1 if south_up else 1], grid=grid, year=2024))
    base = extract_embeddings(sites(on_grid(SHAPES.values(), NORTH_UP), ids=list(SHAPES)),
                              source=RasterSource(codes, grid=NORTH_UP, year=2024))  # fmt: skip
    # in pixels these are the same polygons, to the rounding of degrees
    ok = base["status"] == "ok"
    assert found["status"].tolist() == base["status"].tolist()
    assert np.abs(found.loc[ok, list(BANDS)] - base.loc[ok, list(BANDS)]).to_numpy().max() < 1e-6


def test_a_raster_in_degrees(codes):
    grid = Grid(crs="EPSG:4326", transform=(1e-4, 0, -48.2, 0, -1e-4, -22.3), shape=SHAPE)
    polygons = [shapely.transform(SHAPES[n], lambda xy: xy * (1e-4, -1e-4) + (-48.2, -22.3)) for n in ("field", "hole")]
    found = extract_embeddings(sites(polygons, crs=4326), source=RasterSource(codes, grid=grid, year=2024))
    for i, name in enumerate(("field", "hole")):
        means, n_pixels = weighted_means(
            codes_to_vectors(codes, float), shapely_coverage(SHAPES[name], Window(0, 0, *SHAPE))
        )
        assert np.abs(found.loc[i, list(BANDS)].to_numpy(float) - means).max() < 1e-6
        assert found.loc[i, "n_pixels"] == pytest.approx(n_pixels, abs=1e-5)


def test_a_subset_of_bands_is_the_same_numbers_in_the_order_asked_for(codes, frame, expected):
    source = RasterSource(codes, grid=NORTH_UP, year=2024)
    found = extract_embeddings(frame, source=source, bands=["A40", "A03"])
    assert list(found.columns[2:4]) == ["A40", "A03"]
    same(found[["A40", "A03"]], expected[["A40", "A03"]])
    assert found["Rbar"].isna().all()


# --- places far away


@pytest.mark.parametrize("place", [(39.0, 1.0), (129.0, 22.0), (-51.0, -89.0), (179.9, 10.0), (-141.0, -5.0)])
def test_a_site_far_from_the_raster_is_no_data_even_where_its_crs_has_no_place_for_it(place, codes):
    far = shapely.box(place[0], place[1], place[0] + 0.05, place[1] + 0.05)
    near = sites(on_grid([SHAPES["field"]], NORTH_UP)).geometry[0]
    table = extract_embeddings(sites([near, far], crs=4326), source=RasterSource(codes, grid=NORTH_UP, year=2024))
    assert table["status"].tolist() == ["ok", "no_data"]
    assert table["valid_fraction"].tolist() == [pytest.approx(0.93, abs=0.07), 0.0]


def test_a_raster_at_the_antimeridian_serves_sites_on_both_sides(codes):
    grid = Grid(crs="EPSG:32701", transform=(10, 0, 176_000, 0, -10, 8_100_000), shape=SHAPE)
    west, south, _, _ = grid.bounds
    inside = shapely.box(west + 105, south + 105, west + 305, south + 205)
    frame = sites([inside], crs=grid.crs)
    table = extract_embeddings(frame, source=RasterSource(codes, grid=grid, year=2024))
    assert table["n_pixels"][0] > 150


# --- years and images


def test_its_year_is_that_of_the_tag_or_the_name(tmp_path, codes):
    path = write_gdal(tmp_path / "aef_2021_x.tif", GRID, codes)
    assert RasterSource(path).years() == [2021]
    with rasterio.open(path, "r+") as file:
        file.update_tags(YEAR="2019")
    assert RasterSource(path).years() == [2019]
    assert RasterSource(path, year=2018).years() == [2018]
    assert open_source(path, year=2017).years() == [2017]


@pytest.mark.parametrize("name", ["x.tif", "from_2018_to_2024.tif", "20245.tif", "2009.tif"])
def test_a_year_that_is_not_known_is_asked_for(name, tmp_path, codes):
    path = write_gdal(tmp_path / name, GRID, codes)
    with pytest.raises(UsageError, match="in Python year=") as error:
        RasterSource(path)
    assert one_line(error.value)


def test_another_year_has_no_data(codes, frame):
    table = extract_embeddings(frame, years=[2023, 2024], source=RasterSource(codes, grid=NORTH_UP, year=2024))
    assert set(table.loc[table["year"] == 2023, "status"]) == {"no_data"}
    assert "ok" in set(table.loc[table["year"] == 2024, "status"])


@pytest.mark.parametrize("south_up", [True, False])
def test_an_image_is_the_pixels_north_up(south_up, tmp_path, codes, monkeypatch):
    monkeypatch.setattr(raster, "_BLOCK", 16)
    source = RasterSource(write_gdal(tmp_path / "x.tif", GRID if south_up else NORTH_UP, codes), year=2024)
    region = sites(on_grid([shapely.box(10.2, 5.3, 40.6, 30.1)], NORTH_UP)).geometry[0]
    image = source.image(region, 2024)
    window, whole = image.grid.window, NORTH_UP.window
    row, col = window.row - whole.row, window.col - whole.col
    assert np.array_equal(image.codes, codes[:, row : row + window.height, col : col + window.width])
    assert row <= 5
    assert row + window.height >= 31
    assert not source.image(region, 2023).valid.any()
    assert np.array_equal(source.image(region, 2024, ["A09"]).codes[0], image.codes[9])


# --- NumPy files


def test_numpy_files(tmp_path, codes, frame, expected):
    np.save(tmp_path / "a.npy", codes)
    np.savez(tmp_path / "a.npz", codes=codes, transform=np.array(NORTH_UP.transform), crs=UTM)
    np.savez_compressed(
        tmp_path / "b.npz", vectors=codes_to_vectors(codes), transform=[*NORTH_UP.transform, 0, 0, 1], crs=UTM
    )
    same(extract_embeddings(frame, source=RasterSource(tmp_path / "a.npy", grid=NORTH_UP, year=2024)), expected)
    same(extract_embeddings(frame, source=RasterSource(tmp_path / "a.npz", year=2024)), expected)
    floats = extract_embeddings(frame, source=RasterSource(tmp_path / "b.npz", year=2024))
    assert np.nanmax((floats[list(BANDS)] - expected[list(BANDS)]).abs().to_numpy()) < 3.1e-8


def save(folder, name, values=None, **arrays):
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, values)
    else:
        np.savez(path, **arrays)
    return path


def _cases(folder, codes):
    """name -> (how it is opened, error, words)."""
    grid = {"transform": np.array(NORTH_UP.transform), "crs": UTM}
    npy = save(folder, "a.npy", codes)
    npz = save(folder, "ok.npz", codes=codes, **grid)
    (folder / "text.npy").write_text("hello")
    (folder / "text.tif").write_text("hello")
    (folder / "short.npz").write_bytes(npz.read_bytes()[:5000])
    (folder / "short.npy").write_bytes(npy.read_bytes()[:5000])
    tif = {
        "nocrs": write_gdal(folder / "nocrs.tif", small_grid(SHAPE, crs=None), codes),
        "uint8": write_gdal(folder / "uint8.tif", GRID, codes.view(np.uint8), nodata=0),
        "int16": write_gdal(folder / "int16.tif", GRID, codes.astype(np.int16)),
        "nodata": write_gdal(folder / "nodata.tif", GRID, codes, nodata=0),
        "10 bands": write_gdal(folder / "ten.tif", GRID, codes[:10]),
    }
    rotated = {"transform": rasterio.Affine(10, 2, 8e5, -2, -10, 7.5e6), "crs": UTM, "driver": "GTiff"}
    with rasterio.open(folder / "rotated.tif", "w", width=61, height=45, count=64, dtype="int8", **rotated) as file:
        file.write(codes)
    return {
        "missing": (lambda: RasterSource(folder / "none.tif", year=2024), InputFileError, "no such file"),
        "missing npy": (lambda: RasterSource(folder / "none.npy", year=2024), InputFileError, "no such file"),
        "not a raster": (lambda: RasterSource(folder / "text.tif", year=2024), InputFileError, "not a raster"),
        "no crs": (lambda: RasterSource(tif["nocrs"], year=2024), TileError, "no CRS"),
        "uint8": (lambda: RasterSource(tif["uint8"], year=2024), TileError, "holds uint8"),
        "int16": (lambda: RasterSource(tif["int16"], year=2024), TileError, "holds int16"),
        "another nodata": (lambda: RasterSource(tif["nodata"], year=2024), TileError, "nodata is 0"),
        "ten bands": (lambda: RasterSource(tif["10 bands"], year=2024), TileError, "10 bands without names"),
        "rotated": (lambda: RasterSource(folder / "rotated.tif", year=2024), TileError, r"rotated\.tif: rotated"),
        "grid for a GeoTIFF": (lambda: RasterSource(tif["int16"], grid=GRID), UsageError, "leave grid= out"),
        "array without a grid": (lambda: RasterSource(codes, year=2024), UsageError, "in Python grid="),
        "npy without a grid": (lambda: RasterSource(npy, year=2024), UsageError, "in Python grid="),
        "npz without a grid": (
            lambda: RasterSource(save(folder, "nogrid.npz", codes=codes), year=2024), UsageError, "in Python grid="),
        "another shape": (lambda: RasterSource(codes[:, 1:], grid=GRID, year=2024), UsageError, "the grid"),
        "two dimensions": (lambda: RasterSource(codes[0], grid=GRID, year=2024), TileError, "bands, height, width"),
        "two dimensions in npz": (
            lambda: RasterSource(save(folder, "flat.npz", codes=codes[0], **grid), year=2024), UsageError | TileError,
            "npz"),
        "npz without values": (
            lambda: RasterSource(save(folder, "empty.npz", other=codes), year=2024), InputFileError, "'codes' or"),
        "npz rotated": (
            lambda: RasterSource(save(folder, "r.npz", codes=codes, transform=[10, 1, 0, 0, -10, 0], crs=UTM),
                                 year=2024), TileError, r"r\.npz: rotated"),
        "npz with half a transform": (
            lambda: RasterSource(save(folder, "h.npz", codes=codes, transform=[10, 0, 0], crs=UTM), year=2024),
            TileError, "6 numbers"),
        "npz in an unknown CRS": (
            lambda: RasterSource(save(folder, "c.npz", codes=codes, transform=NORTH_UP.transform, crs="EPSG:99999"),
                                 year=2024), CrsError, "EPSG:99999"),
        "text as npy": (lambda: RasterSource(folder / "text.npy", grid=GRID, year=2024), InputFileError, "not a NumPy"),
        "short npy": (lambda: RasterSource(folder / "short.npy", grid=GRID, year=2024), InputFileError, "not a NumPy"),
        "short npz": (lambda: RasterSource(folder / "short.npz", year=2024), InputFileError, "not a NumPy"),
        "pickled npy": (
            lambda: RasterSource(save(folder, "p.npy", np.array([{}], object)), grid=GRID, year=2024), InputFileError,
            "not a NumPy"),
        "names": (
            lambda: RasterSource(codes, grid=GRID, year=2024, bands=["A00"]), UsageError, "64 bands need as many"),
        "unknown band": (
            lambda: RasterSource(codes, grid=GRID, year=2024).image(shapely.box(0, 0, 1, 1), 2024, ["B1"]), UsageError,
            "unknown band 'B1'"),
    }  # fmt: skip


CASES = [
    "missing", "missing npy", "not a raster", "no crs", "uint8", "int16", "another nodata", "ten bands", "rotated",
    "grid for a GeoTIFF", "array without a grid", "npy without a grid", "npz without a grid", "another shape",
    "two dimensions", "two dimensions in npz", "npz without values", "npz rotated", "npz with half a transform",
    "npz in an unknown CRS", "text as npy", "short npy", "short npz", "pickled npy", "names", "unknown band",
]  # fmt: skip


@pytest.fixture(scope="module")
def bad(tmp_path_factory, codes):
    return _cases(tmp_path_factory.mktemp("bad"), codes)


def test_every_bad_raster_is_asked_for(bad):
    assert sorted(bad) == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_bad_raster_gets_one_clear_line(case, bad):
    make, kind, words = bad[case]
    with pytest.raises(GeePolygonsError, match=words) as error:
        make()
    assert isinstance(error.value, kind)
    assert one_line(error.value)


@pytest.mark.parametrize("value", [1.5, -127.0, np.inf, -np.inf])
@pytest.mark.parametrize("on_disk", [True, False])
def test_floats_that_are_no_vectors_are_refused(value, on_disk, tmp_path, codes):
    vectors = codes_to_vectors(codes)
    vectors[3, 20, 20] = value
    source = RasterSource(write_gdal(tmp_path / "x.tif", NORTH_UP, vectors, nodata=None), year=2024) if on_disk else \
        RasterSource(vectors, grid=NORTH_UP, year=2024)  # fmt: skip
    frame = sites(on_grid([SHAPES["field"]], NORTH_UP))
    with pytest.raises(ReadError, match="aren't embedding vectors") as error:
        extract_embeddings(frame, source=source)
    assert one_line(error.value)
    table = extract_embeddings(frame, source=source, on_error="collect")
    assert table["status"].tolist() == ["error"]


def test_a_truncated_geotiff_is_an_error_that_names_it(tmp_path, codes):
    path = write_tile(tmp_path / "x.tif", NORTH_UP, codes, block=16)  # its header comes first
    path.write_bytes(path.read_bytes()[:-5000])
    frame = sites(on_grid([SHAPES["whole"]], NORTH_UP))
    with pytest.raises(ReadError, match=r"x\.tif") as error:
        extract_embeddings(frame, source=RasterSource(path, year=2024))
    assert one_line(error.value)


# --- a window of a published tile, untouched: strips, no compression, south-up by ModelTransformation


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED}: the real files aren't here")
def test_the_window_of_a_published_tile():
    path = SHARED / "cogeotiff_model_transformation.tif"
    source = RasterSource(path, year=2024)
    assert source.grid == Grid(crs="EPSG:32613", transform=(10, 0, 418080, 0, 10, 4423680), shape=(10, 10))
    with rasterio.open(path) as file:
        stored = file.read()
    polygon = shapely.Polygon([(418093, 4423691), (418171, 4423702), (418120, 4423777)])
    table = extract_embeddings(sites([polygon], crs="EPSG:32613"), source=source)
    in_pixels = shapely.transform(polygon, lambda xy: (xy - (418080, 4423780)) / (10, -10))
    means, n_pixels = weighted_means(
        codes_to_vectors(stored[:, ::-1], float), shapely_coverage(in_pixels, Window(0, 0, 10, 10))
    )
    assert np.abs(table.loc[0, list(BANDS)].to_numpy(float) - means).max() < 1e-6
    assert table.loc[0, "n_pixels"] == pytest.approx(n_pixels, abs=1e-5)
    assert 0.9 < table.loc[0, "Rbar"] <= 1

"""The Zarr mosaic against brute force on its own pixels, in all layouts that zarr-python writes, from disk and HTTP.

Tolerances: layout, codecs, blocks and orders change no bit. Against the truth (double precision, geodesic areas) 1e-6.
"""

import json
import shutil

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaics import (
    BANDS,
    STEP,
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    TransposeCodec,
    ZstdCodec,
    make,
)
from oracles import any_polygons, one_line, star
from rangeserver import Faults, serve

from gee_polygons import extract_embeddings, open_source
from gee_polygons.errors import GeePolygonsError, InputFileError, ReadError, TileError, UsageError
from gee_polygons.network.request import Network
from gee_polygons.sources.mosaic import MOSAIC_URL, MosaicSource

QUICK = Network(attempts=8, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=10)
EVERYTHING = ("mean", "std", "min", "max", "count", "median", "p10", "medoid")
SOME = ("mean", "count", "p10")  # one pass over the blocks
MOSAIC = make()
HEIGHT, WIDTH = MOSAIC.codes.shape[2:]


def to_degrees(polygon, mosaic=MOSAIC):
    """A polygon in (column, row) of a mosaic, in degrees."""
    return shapely.transform(polygon, lambda xy: xy * (mosaic.step, -mosaic.step) + (mosaic.west, mosaic.north))


SHAPES = {
    "field": star(1, (48, 32), 20),
    "hole": star(2, (26, 28), 24, 20, hole=True),
    "multi": shapely.MultiPolygon([shapely.box(2.3, 2.1, 5.7, 9.9), shapely.box(90.2, 50.5, 90.4, 60.1)]),
    "sliver": shapely.Polygon([(3, 3), (90, 60), (90, 60.01), (3, 3.01)]),
    "sub-pixel": shapely.box(10.4, 10.2, 10.7, 10.6),
    "one chunk": shapely.box(16, 16, 32, 32),
    "corner": shapely.box(-5, -5, 1.5, 1.25),
    "whole": shapely.box(-3, -3, 99, 67),
    "outside": shapely.box(110, 10, 120, 20),
    "beside": shapely.box(96, 10, 106, 20),
}


def frame_of(polygons, ids=None):
    ids = list(ids) if ids is not None else [f"s{i}" for i in range(len(polygons))]
    return geopandas.GeoDataFrame({"site_id": ids}, geometry=list(polygons), crs=4326)


FRAME = frame_of([to_degrees(p) for p in SHAPES.values()], SHAPES)


def same(one, other):
    """Equal to the last bit; `other` may have more statistics."""
    pd.testing.assert_frame_equal(one, other[list(one.columns)], check_exact=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return MOSAIC.write(tmp_path_factory.mktemp("mosaic") / "m.zarr")


@pytest.fixture(scope="module")
def expected(store):
    return extract_embeddings(FRAME, source=str(store), years=[2023, 2024], statistics=EVERYTHING)


def assert_truth(row, truth):
    assert row["n_pixels"] == pytest.approx(truth["n_pixels"], abs=1e-5)
    assert row["valid_fraction"] == pytest.approx(truth["valid_fraction"], rel=1e-5, abs=1e-9)
    if truth["n_pixels"] == 0:
        assert row[[f"{band}_mean" for band in BANDS]].isna().all()
        return
    assert row["status"] == "ok"
    assert row["A00_count"] == truth["count"]
    for name in ("mean", "std", "min", "max", "medoid"):
        if name in truth:
            found = row[[f"{band}_{name}" for band in BANDS]].to_numpy(float)
            assert np.abs(found - truth[name]).max() < 1e-6, name
    assert row["Rbar"] == pytest.approx(truth["Rbar"], abs=1e-6)
    assert row["medoid_similarity"] == pytest.approx(truth["medoid_similarity"], abs=1e-6)


# --- the numbers


@pytest.mark.parametrize("year", [2023, 2024])
@pytest.mark.parametrize("name", SHAPES)
def test_numbers_are_those_of_brute_force(name, year, expected):
    row = expected[(expected["site_id"] == name) & (expected["year"] == year)].iloc[0]
    assert_truth(row, MOSAIC.truth(to_degrees(SHAPES[name]), year))
    assert row["status"] == ("no_data" if name in ("outside", "beside") else "ok")


@pytest.mark.parametrize("name", ["field", "hole", "whole"])
def test_quantiles_are_of_weighted_pixels(name, expected):
    row = expected[(expected["site_id"] == name) & (expected["year"] == 2024)].iloc[0]
    weights = MOSAIC.coverage(to_degrees(SHAPES[name])) * MOSAIC.areas()[:, None]
    for band in (0, 31):
        codes = MOSAIC.codes[1, band]
        keep = (codes != -128) & (weights > 0)
        values = np.sign(codes[keep]) * (codes[keep] / 127.5) ** 2
        levels, which = np.unique(values, return_inverse=True)
        w = np.bincount(which, weights[keep])
        # exactextract's formula: see docs/statistics.md
        at = np.arange(len(w)) * w + (len(w) - 1) * (np.cumsum(w) - w)
        for statistic, q in (("median", 0.5), ("p10", 0.1)):
            assert row[f"A{band:02d}_{statistic}"] == pytest.approx(np.interp(q * at[-1], at, levels), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(any_polygons, st.floats(1, 12), st.floats(0, 80), st.floats(0, 50))
def test_random_polygons(store, polygon, scale, right, down):
    # of a twentieth of a pixel at least: less is noise in degrees
    polygon = shapely.transform(polygon, lambda xy: xy * scale + (right, down))
    polygon = to_degrees(polygon)
    table = extract_embeddings(
        frame_of([polygon]), source=str(store), years=[2024], statistics=("mean", "count", "medoid")
    )
    truth = MOSAIC.truth(polygon, 2024)
    row = table.iloc[0]
    assert row["n_pixels"] == pytest.approx(truth["n_pixels"], abs=1e-4)
    if truth["n_pixels"] > 0.05:
        found = row[[f"{band}_mean" for band in BANDS]].to_numpy(float)
        assert np.abs(found - truth["mean"]).max() < 1e-6


@pytest.mark.parametrize("north", [75.0, 0.02, -60.0, -89.0])
def test_rows_weigh_by_their_area_on_both_hemispheres(north, tmp_path):
    # rows of 0.02 degrees: at 75 N the first is 12 % smaller than the last
    mosaic = make((96, 64), n_years=1, north=north, west=20.0, step=0.01, chunk=(1, 64, 32, 32), shard=(1, 64, 96, 64))
    mosaic.write(tmp_path / "m.zarr")
    polygon = to_degrees(shapely.Polygon([(3, 2), (60, 5), (50, 93), (10, 90)]), mosaic)
    row = extract_embeddings(frame_of([polygon]), source=str(tmp_path / "m.zarr"), statistics=EVERYTHING).iloc[0]
    truth = mosaic.truth(polygon, 2024)
    assert_truth(row, truth)
    by_coverage = np.nanmean(np.where(mosaic.codes[0] == -128, np.nan, mosaic.codes[0]), axis=(1, 2))
    assert by_coverage.shape == (64,)


def test_weights_matter(tmp_path):
    # the north is one vector, the south another: by coverage alone the mean would be in the middle
    codes = np.zeros((1, 64, 64, 64), np.int8)
    codes[:, 0, :32], codes[:, 1, 32:] = 127, 127
    mosaic = make((64, 64), n_years=1, masked=0).but(codes=codes, west=10.0, north=72.0, step=0.1, years=(2024,))
    mosaic.write(tmp_path / "m.zarr")
    polygon = shapely.box(10.5, 66.0, 16.0, 71.6)
    row = extract_embeddings(frame_of([polygon]), source=str(tmp_path / "m.zarr")).iloc[0]
    truth = mosaic.truth(polygon, 2024)
    assert abs(row["A00"] - truth["mean"][0]) < 1e-6
    one = (127 / 127.5) ** 2
    share = row["A00"] / one  # 28 of 56 rows, the smaller ones
    assert share == pytest.approx(
        np.cos(np.radians(70.2)) / (np.cos(np.radians(70.2)) + np.cos(np.radians(67.4))), abs=1e-3
    )
    assert share < 0.47


# --- layouts: the same pixels, the same bits

ZSTD = (BytesCodec(), ZstdCodec(level=1))
LAYOUTS = {
    "unsharded": {"shard": None},
    "one shard": {"shard": (1, 64, 64, 96)},
    "shards past the edge": {"shard": (1, 64, 48, 80)},
    "chunks past the edge": {"shard": (1, 64, 34, 68), "chunk": (1, 64, 17, 34)},
    "big chunks, unsharded": {"shard": None, "chunk": (1, 64, 64, 96)},
    "one-row chunks": {"shard": None, "chunk": (1, 64, 1, 96)},
    "index at the start": {"index_location": "start"},
    "index without a checksum": {"index_codecs": (BytesCodec(),)},
    "bytes alone": {"codecs": (BytesCodec(),)},
    "bytes alone, unsharded": {"codecs": (BytesCodec(),), "shard": None},
    "zstd with checksum": {"codecs": (BytesCodec(), ZstdCodec(level=5, checksum=True))},
    "blosc": {"codecs": (BytesCodec(), BloscCodec(cname="lz4", typesize=1, shuffle="shuffle"))},
    "gzip": {"codecs": (BytesCodec(), GzipCodec(level=1)), "shard": None},
    "checksum of chunks": {"codecs": (*ZSTD, Crc32cCodec())},
    "transposed inside": {"codecs": (TransposeCodec(order=(0, 2, 3, 1)), *ZSTD)},
    "transposed, unsharded": {"codecs": (TransposeCodec(order=(3, 2, 1, 0)), *ZSTD), "shard": None},
    "bands in four chunks": {"chunk": (1, 16, 16, 16)},
    "bands in four chunks, unsharded": {"chunk": (1, 16, 32, 32), "shard": None},
    "one chunk a band": {"chunk": (1, 1, 32, 48), "shard": None},
    "both years in a chunk": {"chunk": (2, 64, 16, 16), "shard": (2, 64, 64, 64)},
    "both years in a shard": {"chunk": (1, 64, 16, 16), "shard": (2, 64, 64, 64)},
    "south-up": {"flip_y": True},
    "south-up, chunks past the edge": {"flip_y": True, "shard": None, "chunk": (1, 64, 17, 34)},
    "x before y": {"order": (0, 1, 3, 2)},
    "bands last": {"order": (0, 2, 3, 1)},
    "any order": {"order": (2, 1, 3, 0), "shard": None},
    "keys of version 2": {"key": {"name": "v2", "configuration": {"separator": "."}}},
    "keys of version 2, slashes": {"key": {"name": "v2", "configuration": {"separator": "/"}}},
    "keys with dots": {"key": {"name": "default", "configuration": {"separator": "."}}, "shard": None},
    "consolidated": {"consolidated": True},
    "attributes on the array": {"on": "array", "names": ("time", "embedding", "y", "x"), "time": "attributes"},
    "attributes on the array, sharded not": {"on": "array", "names": ("time", "embedding", "y", "x"), "shard": None},
    "latitude and longitude": {"names": ("year", "feature", "latitude", "longitude")},
    "no names": {"names": None},
    "another fill value": {"fill": 0},
    "another name": {"name": "aef"},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_changes_no_bit(layout, tmp_path, expected):
    path = MOSAIC.but(**LAYOUTS[layout]).write(tmp_path / "m.zarr")
    found = extract_embeddings(FRAME, source=f"mosaic:{path}", years=[2023, 2024], statistics=SOME)
    same(found, expected)


@pytest.mark.parametrize("layout", ["unsharded", "both years in a chunk", "bands in four chunks", "south-up"])
def test_threads_and_the_order_of_sites_change_no_bit(layout, tmp_path, expected):
    path = MOSAIC.but(**LAYOUTS[layout]).write(tmp_path / "m.zarr")
    backwards = FRAME.iloc[::-1].reset_index(drop=True)
    found = extract_embeddings(backwards, source=path, years=[2024, 2023], statistics=EVERYTHING, max_workers=1)
    found = found.set_index(["site_id", "year"]).loc[expected.set_index(["site_id", "year"]).index].reset_index()
    same(found, expected)


def test_some_bands_are_the_same_numbers(store, expected):
    some = extract_embeddings(FRAME, source=str(store), years=[2024], bands=["A63", "A02"])
    whole = expected[expected["year"] == 2024].reset_index(drop=True)
    for band in ("A63", "A02"):
        assert np.array_equal(some[band], whole[f"{band}_mean"], equal_nan=True)
    assert some["n_pixels"].equals(whole["n_pixels"])


def test_a_shard_inside_another_codec_is_decoded_whole(tmp_path, expected):
    path = MOSAIC.write(tmp_path / "m.zarr")
    shutil.rmtree(path / "embeddings")
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    inner = {"name": "sharding_indexed", "configuration": {
        "chunk_shape": [1, 64, 16, 16], "codecs": [{"name": "bytes"}, zstd],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]}}  # fmt: skip
    group = json.loads((path / "zarr.json").read_text())
    assert group["node_type"] == "group"
    document = {
        "zarr_format": 3, "node_type": "array", "shape": list(MOSAIC.codes.shape), "data_type": "int8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 64, 32, 48]}}, "fill_value": -128,
        "chunk_key_encoding": {"name": "default"}, "dimension_names": ["time", "band", "y", "x"],
        "codecs": [inner, {"name": "crc32c"}],
    }  # fmt: skip
    (path / "embeddings").mkdir()
    (path / "embeddings" / "zarr.json").write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="disables partial reads"):
        zarr.open_array(path / "embeddings", mode="r+")[...] = MOSAIC.codes
    same(extract_embeddings(FRAME, source=path, years=[2023, 2024], statistics=EVERYTHING), expected)


# --- what the metadata say


STATED = {
    "root attributes": {},
    "array attributes": {"on": "array"},
    "GDAL's order": {"transform": "gdal"},
    "nine numbers": {"transform": [*MOSAIC.transform, 0, 0, 1]},
    "node registration": {"transform": "node"},
    "bounds": {"bounds": True},
    "geo:proj": {"crs": "geo:proj"},
    "WKT": {"crs": "wkt"},
    "PROJJSON": {"crs": "projjson"},
    "CRS84": {"crs": "OGC:CRS84"},
    "CRS in an array": {"crs": "grid_mapping"},
    "coordinates": {"transform": None, "coordinates": True},
    "coordinates, latitude and longitude": {
        "transform": None,
        "coordinates": True,
        "crs": None,
        "names": ("lat", "lon"),
    },
    "coordinates, south-up": {"transform": None, "coordinates": True, "flip_y": True},
}


def stated(how):
    """Return the attributes, and what else a mosaic says, of a way to say where it is."""
    import pyproj

    y, x = how.get("names", ("y", "x"))
    attributes, transform, crs = {}, how.get("transform", MOSAIC.transform), how.get("crs", "EPSG:4326")
    a, _, c, _, e, f = MOSAIC.transform
    if how.get("bounds"):
        attributes["bounds"] = [c, f + e * HEIGHT, c + a * WIDTH, f]
    elif transform == "gdal":
        attributes["transform"] = [c, a, 0.0, f, 0.0, e]
    elif transform == "node":
        attributes |= {"spatial:transform": [a, 0, c + a / 2, 0, e, f + e / 2], "spatial:registration": "node"}
    elif transform is not None:
        attributes["transform" if len(transform) == 9 else "spatial:transform"] = transform
    full = pyproj.CRS("EPSG:4326")
    if crs == "geo:proj":
        attributes["geo:proj"] = {"code": "EPSG:4326", "spatial_dims": ["y", "x"]}
    elif crs in ("wkt", "projjson"):
        attributes[{"wkt": "proj:wkt2", "projjson": "proj:projjson"}[crs]] = (
            full.to_wkt() if crs == "wkt" else full.to_json_dict()
        )
    elif crs == "grid_mapping":
        attributes["grid_mapping"] = "spatial_ref"
    elif crs is not None:
        attributes["crs" if "CRS84" in crs else "proj:code"] = crs
    return attributes, ("time", "band", y, x)


@pytest.mark.parametrize("how", STATED)
def test_the_grid_is_read_from_all_supported_metadata(how, tmp_path, expected):
    said = STATED[how]
    attributes, names = stated(said)
    mosaic = MOSAIC.but(
        attributes=attributes, names=names, on=said.get("on", "group"), flip_y=said.get("flip_y", False)
    )
    path = mosaic.write(tmp_path / "m.zarr")
    group = zarr.open_group(path, mode="r+")
    if said.get("crs") == "grid_mapping":
        import pyproj

        group.create_array("spatial_ref", shape=(), dtype="int32", attributes={"crs_wkt": pyproj.CRS(4326).to_wkt()})
    if said.get("coordinates"):
        south_up = said.get("flip_y", False)
        y = MOSAIC.north - STEP * (np.arange(HEIGHT) + 0.5)
        group.create_array(names[2], data=y[::-1].copy() if south_up else y, dimension_names=[names[2]])
        group.create_array(names[3], data=MOSAIC.west + STEP * (np.arange(WIDTH) + 0.5), dimension_names=[names[3]])
    found = extract_embeddings(FRAME, source=path, years=[2023, 2024], statistics=SOME)
    exact = not (said.get("coordinates") or "transform" in said or "bounds" in said)
    if exact:
        same(found, expected)
    else:  # edges are known to a few 1e-9 of a pixel
        pd.testing.assert_frame_equal(found, expected[list(found.columns)], check_exact=False, rtol=1e-6, atol=1e-8)


TIMES = {
    "int64": (np.array([2023, 2024]), {}),
    "float": (np.array([2023.0, 2024.0]), {}),
    "datetimes": (np.array(["2023-01-01", "2024-01-01"], "datetime64[s]"), {}),
    "days": (np.array([0, 365]), {"units": "days since 2023-01-01", "calendar": "proleptic_gregorian"}),
    "hours, with a time of day": (np.array([0.0, 8760.0]), {"units": "hours since 2023-01-01 00:00:00"}),
    "seconds": (np.array([1672531200, 1704067200]), {"units": "seconds since 1970-01-01T00:00:00Z"}),
    "years since": (np.array([6, 7]), {"units": "years since 2017-01-01"}),
    "text": (np.array(["2023", "2024"]), {}),
    "dates as text": (np.array(["2023-01-01", "2024-01-01"]), {}),
}


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # zarr's, on writing text and datetimes
def test_years_in_all_supported_forms(time, tmp_path):
    path = MOSAIC.but(time=TIMES[time]).write(tmp_path / "m.zarr")
    assert MosaicSource(path).years() == [2023, 2024]


@pytest.mark.parametrize("attributes", [{"years": [2023, 2024]}, {"start_year": 2023, "num_years": 2}])
def test_years_in_attributes(attributes, tmp_path):
    said = {"proj:code": "EPSG:4326", "spatial:transform": MOSAIC.transform, **attributes}
    assert MosaicSource(MOSAIC.but(time=None, attributes=said, on="array").write(tmp_path / "m")).years() == [
        2023,
        2024,
    ]


def test_years_needn_t_be_in_order(store, tmp_path, expected):
    turned = MOSAIC.but(codes=MOSAIC.codes[::-1], years=(2024, 2023))
    source = MosaicSource(turned.write(tmp_path / "m.zarr"))
    assert source.years() == [2023, 2024]
    same(extract_embeddings(FRAME, source=source, years=[2023, 2024], statistics=SOME), expected)


def test_one_year_without_a_time_axis(tmp_path, expected):
    path = MOSAIC.but(time=None).write(tmp_path / "m.zarr")
    shutil.rmtree(path / "embeddings")
    group = zarr.open_group(path, mode="r+")
    names = ["band", "y", "x"]
    group.create_array("embeddings", data=MOSAIC.codes[1], chunks=(64, 16, 16), dimension_names=names, fill_value=-128)
    with pytest.raises(UsageError, match=r"doesn't state its 1 years; .*; give year="):
        MosaicSource(path).years()
    found = extract_embeddings(FRAME, source=open_source(path, year=2024), statistics=SOME)
    same(found, expected[expected["year"] == 2024].reset_index(drop=True))


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.parametrize(
    "names", [[f"a{i:02d}" for i in range(63, -1, -1)], list(range(63, -1, -1))], ids=["text", "numbers"]
)
def test_bands_are_matched_by_name(names, tmp_path, expected):
    path = MOSAIC.but(codes=np.ascontiguousarray(MOSAIC.codes[:, ::-1])).write(tmp_path / "m.zarr")
    zarr.open_group(path, mode="r+").create_array("band", data=np.array(names), dimension_names=["band"])
    same(extract_embeddings(FRAME, source=path, years=[2023, 2024], statistics=SOME), expected)


def test_the_array_itself_and_its_document_can_be_named(store, expected):
    for spec in (
        store / "embeddings",
        f"{store}/",
        f"{store}/zarr.json",
        f"file://{store}",
        f"mosaic:{store}/embeddings",
    ):
        same(extract_embeddings(FRAME, source=spec, years=[2023, 2024], statistics=SOME), expected)
    lonely = store.parent / "plain-folder"
    if not lonely.exists():
        shutil.copytree(store, lonely)
    assert isinstance(open_source(lonely), MosaicSource)


def test_float_vectors(tmp_path):
    vectors = np.sign(MOSAIC.codes.astype(np.float32)) * (MOSAIC.codes.astype(np.float32) / 127.5) ** 2
    vectors[MOSAIC.codes == -128] = np.nan
    path = MOSAIC.but(codes=vectors, dtype="float32", fill=float("nan")).write(tmp_path / "m.zarr")
    table = extract_embeddings(FRAME, source=path, years=[2024], statistics=("mean", "min", "max", "count"))
    for _, row in table.iterrows():
        truth = MOSAIC.truth(to_degrees(SHAPES[row["site_id"]]), 2024)
        assert row["n_pixels"] == pytest.approx(truth["n_pixels"], abs=1e-5)
        if truth["n_pixels"]:
            for name in ("mean", "min", "max"):
                assert np.abs(row[[f"{b}_{name}" for b in BANDS]].to_numpy(float) - truth[name]).max() < 1e-6


# --- statuses


def test_chunks_that_were_never_written_are_nodata(tmp_path):
    codes = MOSAIC.codes.copy()
    codes[1, :, :, 64:] = -128  # whole shards of 2024
    codes[0, :, 32:64] = -128  # some chunks of 2023
    written = [
        extract_embeddings(FRAME, source=MOSAIC.but(codes=codes, **how).write(tmp_path / str(i)), statistics=EVERYTHING)
        for i, how in enumerate([{}, {"shard": None}, {"shard": None, "chunk": (1, 64, 64, 96)}, {"fill": 0}])
    ]
    for table in written[1:]:
        same(table, written[0])
    table = written[0].set_index(["site_id", "year"])
    mosaic = MOSAIC.but(codes=codes)
    for name, polygon in SHAPES.items():
        for year in (2023, 2024):
            assert_truth(table.loc[(name, year)], mosaic.truth(to_degrees(polygon), year))
    here = extract_embeddings(
        frame_of([to_degrees(shapely.box(70, 5, 90, 25))]), source=tmp_path / "0", years=[2022, 2023, 2024]
    )
    assert here["status"].tolist() == ["no_data", "ok", "masked"]
    assert here["n_pixels"].tolist()[::2] == [0, 0]


def test_a_pixel_without_one_band_has_no_data(tmp_path):
    codes = MOSAIC.codes.copy()
    codes[:, 17, 40:50, 70:90] = -128
    table = extract_embeddings(FRAME, source=MOSAIC.but(codes=codes).write(tmp_path / "one"), statistics=EVERYTHING)
    codes[:, :, 40:50, 70:90] = -128
    same(
        table, extract_embeddings(FRAME, source=MOSAIC.but(codes=codes).write(tmp_path / "all"), statistics=EVERYTHING)
    )


def test_averaged_codes_are_no_damage(tmp_path):
    mosaic = MOSAIC.but(codes=(MOSAIC.codes // 2).astype(np.int8))  # vectors of a quarter of the length
    polygon = to_degrees(SHAPES["hole"])
    row = extract_embeddings(frame_of([polygon]), source=mosaic.write(tmp_path / "m"), years=2024).iloc[0]
    assert np.abs(row[list(BANDS)].to_numpy(float) - mosaic.truth(polygon, 2024)["mean"]).max() < 1e-6


# --- the antimeridian


@pytest.fixture(scope="module")
def round_the_world(tmp_path_factory):
    """All longitudes and a little more, coarse, as the published mosaic has it."""
    mosaic = make((32, 3648), n_years=1, masked=0.02).but(
        west=-180.0, north=10.0, step=0.1, chunk=(1, 64, 32, 64), shard=(1, 64, 32, 1216), years=(2024,)
    )
    assert mosaic.west + 3648 * 0.1 > 184
    return mosaic, mosaic.write(tmp_path_factory.mktemp("world") / "m.zarr")


def means(row):
    return row[list(BANDS)].to_numpy(float)


def test_a_polygon_across_180_is_measured_on_both_sides(round_the_world):
    mosaic, path = round_the_world
    west, east = shapely.box(178.95, 7.5, 180, 9.05), shapely.box(-180, 7.5, -179.33, 9.05)
    both = shapely.MultiPolygon([west, east])
    past = shapely.box(178.95, 7.5, 180.67, 9.05)
    table = extract_embeddings(frame_of([both, past, west, east]), source=path)
    one = mosaic.coverage(west) + mosaic.coverage(east)
    weights = one * mosaic.areas()[:, None] * (mosaic.codes[0, 0] != -128)
    values = np.sign(mosaic.codes[0]) * (mosaic.codes[0] / 127.5) ** 2
    truth = (values * weights).sum(axis=(1, 2)) / weights.sum()
    for row in (table.iloc[0], table.iloc[1]):
        assert np.abs(means(row) - truth).max() < 1e-6
        assert row["n_pixels"] == pytest.approx((one * (mosaic.codes[0, 0] != -128)).sum(), abs=1e-5)
        assert row["n_pixels"] == pytest.approx(table["n_pixels"][2:].sum(), abs=1e-5)
        assert row["valid_fraction"] == pytest.approx(row["n_pixels"] / one.sum(), abs=1e-6)
    assert np.abs(means(table.iloc[3]) - mosaic.truth(east, 2024)["mean"]).max() < 1e-6


def test_a_regional_mosaic_past_180(tmp_path):
    mosaic = make((48, 80), n_years=1, years=(2024,), west=178.0, north=-15.0, step=0.05)
    path = mosaic.write(tmp_path / "fiji.zarr")  # 178 to 182 degrees
    over = shapely.box(179.52, -16.9, 180.71, -15.2)
    cut = shapely.MultiPolygon([shapely.box(179.52, -16.9, 180, -15.2), shapely.box(-180, -16.9, -179.29, -15.2)])
    east, far = shapely.box(-179.5, -16.5, -179.03, -15.8), shapely.box(-50, -16.5, -49.5, -15.8)
    edge = shapely.box(-178.4, -16.5, -177.2, -15.8)  # half of it beyond the eastern edge, at 182
    table = extract_embeddings(frame_of([over, cut, east, far, edge]), source=path)
    assert_truth_of_means = [
        over,
        over,
        shapely.box(180.5, -16.5, 180.97, -15.8),
        None,
        shapely.box(181.6, -16.5, 182.8, -15.8),
    ]
    for (_, row), polygon in zip(table.iterrows(), assert_truth_of_means, strict=True):
        if polygon is None:
            assert row["status"] == "no_data"
            continue
        truth = mosaic.truth(polygon, 2024)
        assert np.abs(means(row) - truth["mean"]).max() < 1e-6
        assert row["n_pixels"] == pytest.approx(truth["n_pixels"], abs=1e-5)
        assert row["valid_fraction"] == pytest.approx(truth["valid_fraction"], abs=1e-6)
    assert table["valid_fraction"][4] < 0.4


def test_a_picture_across_the_seam(round_the_world):
    mosaic, path = round_the_world
    image = MosaicSource(path).image(shapely.box(179.2, 8.0, 180.4, 9.0), 2024)
    assert image.codes.shape == (64, 10, 12)
    assert np.array_equal(image.codes[:, :, :7], mosaic.codes[0][:, 10:20, 3592:3599])
    # past 180 both ends of the mosaic show the same ground here: what it has there first, then its beginning
    filled = mosaic.codes[0][:, 10:20, 3592:3604].copy()
    other = mosaic.codes[0][:, 10:20, 0:4]
    filled[:, :, 8:] = np.where(filled[:, :, 8:] == -128, other, filled[:, :, 8:])
    assert np.array_equal(image.codes[:, :, 8:], filled[:, :, 8:])


def test_a_picture_is_the_pixels(store):
    source = MosaicSource(store)
    west, north = MOSAIC.west + 10 * STEP, MOSAIC.north - 20 * STEP
    image = source.image(shapely.box(west, north - 30 * STEP, west + 40 * STEP, north), 2023)
    assert np.array_equal(image.codes, MOSAIC.codes[0][:, 20:50, 10:50])
    assert image.grid.crs == "EPSG:4326"
    assert image.grid.bounds == pytest.approx((west, north - 30 * STEP, west + 40 * STEP, north), abs=1e-9)
    two = source.image(shapely.box(west, north - 3 * STEP, west + 4 * STEP, north), 2024, ["A05", "A01"])
    assert np.array_equal(two.codes, MOSAIC.codes[1][[5, 1], 20:23, 10:14])
    assert not source.image(shapely.box(west, north - STEP, west + STEP, north), 2019).valid.any()
    outside = source.image(
        shapely.box(MOSAIC.west - 2 * STEP, MOSAIC.north, MOSAIC.west + STEP, MOSAIC.north + STEP), 2024
    )
    assert not outside.valid.any()


# --- over HTTP


def over_http(server, name="m.zarr", **how):
    return MosaicSource(f"{server.url}/{name}", network=Network(**{**vars(QUICK), **how}))


def chunk_requests(server):
    """Requests for data: not metadata, not coordinates."""
    return [entry for entry in server.log if "/embeddings/c/" in entry[0]]


@pytest.mark.parametrize("shard", [(1, 64, 32, 64), None], ids=["sharded", "unsharded"])
def test_each_chunk_and_each_index_is_requested_once(shard, tmp_path, expected):
    path = MOSAIC.but(shard=shard).write(tmp_path / "m.zarr")
    with serve(tmp_path) as server:
        source = over_http(server)
        assert repr(source) == f"MosaicSource('{server.url}/m.zarr')"
        assert server.requests == 0
        plan = source.plan(FRAME.geometry.to_numpy(), [2023, 2024])
        repr(source), source.years()
        indexes = chunk_requests(server)
        assert all("/c/" in entry[0] or entry[1] == 0 for entry in server.log)
        metadata = [entry[0] for entry in server.log if "/c/" not in entry[0]]
        assert len(metadata) == len(set(metadata))
        assert len(indexes) == (len(list((path / "embeddings" / "c").rglob("*/*/*/*"))) if shard else 0)
        assert all(last - first + 1 == 8 * 16 + 4 for _, first, last, _ in indexes)
        server.reset()
        table = extract_embeddings(FRAME, source=source, years=[2023, 2024], statistics=EVERYTHING[:-1])
        same(table, expected)
        data = chunk_requests(server)
        assert data == server.log  # nothing is asked again of the metadata, nor of the indexes
        assert len(data) == len(set(data)) <= plan.requests
        if shard is None:
            assert len(data) == plan.requests == plan.blocks == 2 * 24
        else:
            assert plan.bytes <= server.sent <= plan.bytes * 1.3
            assert plan.requests == plan.blocks == 2 * 24


def test_a_server_without_ranges_from_the_end(tmp_path, expected):
    MOSAIC.write(tmp_path / "m.zarr")
    with serve(tmp_path) as server:
        server.counts_from_the_end = False
        source = over_http(server)
        same(extract_embeddings(FRAME, source=source, years=[2023, 2024], statistics=SOME), expected)
        sizes = [entry for entry in server.log if entry[1:] == (0, 0, 206)]
        assert len(sizes) == server.statuses[416] == 8  # once for each shard


def test_chunks_of_two_years_are_requested_once(tmp_path):
    MOSAIC.but(chunk=(2, 64, 16, 16), shard=None).write(tmp_path / "m.zarr")
    with serve(tmp_path) as server:
        table = extract_embeddings(FRAME, source=over_http(server), years=[2023, 2024])
        assert set(table["status"]) == {"ok", "no_data"}
        assert len(chunk_requests(server)) == 24


def test_a_chunk_is_requested_once_for_polygons_on_both_sides_of_180(round_the_world):
    _, path = round_the_world
    polygons = [shapely.box(179, 8, 181, 9), shapely.box(-179.7, 8, -179.2, 9), shapely.box(179.3, 8, 179.6, 9)]
    with serve(path.parent) as server:
        extract_embeddings(frame_of(polygons), source=over_http(server))
        data = chunk_requests(server)
        assert len(data) == len(set(data)) == 2 + 2  # two indexes, two chunks


FAULTS = {
    "503": Faults(error=0.2, seed=1),
    "429": Faults(error=0.2, status=429, seed=6),
    "truncated": Faults(truncate=0.2, seed=2),
    "dropped": Faults(drop=0.2, seed=3),
    "wrong length": Faults(wrong_length=0.05, seed=4),
    "lies": Faults(lie=0.05, seed=5),
}


@pytest.mark.parametrize("shard", [(1, 64, 32, 64), None], ids=["sharded", "unsharded"])
@pytest.mark.parametrize("faults", FAULTS)
def test_faults_change_no_number(shard, faults, tmp_path, expected):
    MOSAIC.but(shard=shard).write(tmp_path / "m.zarr")
    with serve(tmp_path, faults=FAULTS[faults]) as server:
        table = extract_embeddings(FRAME, source=over_http(server), years=[2023, 2024], statistics=SOME)
        asked = server.requests
    same(table, expected)
    with serve(tmp_path) as server:
        extract_embeddings(FRAME, source=over_http(server), years=[2023, 2024], bands=["A00"])
        assert asked >= server.requests > 20
        rare = faults in ("wrong length", "lies")  # a request that meets three of these is given up
        assert rare or asked > server.requests


@pytest.mark.parametrize("shard", [(1, 64, 32, 64), None], ids=["sharded", "unsharded"])
@pytest.mark.parametrize("kind", ["error", "truncate", "drop", "wrong_length", "lie"])
def test_what_stays_broken_is_named(kind, shard, tmp_path):
    MOSAIC.but(shard=shard).write(tmp_path / "m.zarr")
    with serve(tmp_path, faults=Faults(**{kind: 1.0}, only="embeddings/c/")) as server:
        source = over_http(server, attempts=2)
        with pytest.raises(
            ReadError, match=r"http://.*/embeddings: chunk \(row \d, column \d\), 2024: http://"
        ) as caught:
            extract_embeddings(FRAME[:1], source=source, years=[2024])
        assert one_line(caught.value)
        assert caught.value.url.startswith(f"{server.url}/m.zarr/embeddings/c/")
        table = extract_embeddings(FRAME, source=source, years=[2022, 2024], on_error="collect")
        status = table.set_index(["site_id", "year"])["status"]
        assert status["field", 2024] == "error"
        assert status["field", 2022] == status["outside", 2024] == "no_data"
        assert len(table.attrs["errors"]) >= 1


def test_metadata_that_can_t_be_read_is_an_error(tmp_path):
    MOSAIC.write(tmp_path / "m.zarr")
    with serve(tmp_path, faults=Faults(error=1.0)) as server:
        with pytest.raises(ReadError, match="503"):
            over_http(server, attempts=2).years()
        with pytest.raises(InputFileError, match="no Zarr v3 array or group"):
            over_http(server, "nothing.zarr").years()


def test_coordinates_are_retried_too(tmp_path):
    path = MOSAIC.but(time=None).write(tmp_path / "m.zarr")
    group = zarr.open_group(path, mode="r+")
    group.create_array("time", data=np.array([2023, 2024]), chunks=(1,), shards=(2,), dimension_names=["time"])
    for seed in range(6):
        with serve(tmp_path, faults=Faults(error=0.3, drop=0.1, truncate=0.1, seed=seed)) as server:
            assert over_http(server).years() == [2023, 2024]
            assert len(server.statuses) > 1
    time = path / "time" / "c" / "0"
    time.write_bytes(time.read_bytes()[:-8])
    with pytest.raises(ReadError, match="coordinate 'time' can't be read"):
        MosaicSource(path).years()


def test_forbidden_is_not_missing(tmp_path):
    MOSAIC.but(shard=None).write(tmp_path / "m.zarr")
    faults = Faults(error=1.0, status=403, only="embeddings/c/")
    with serve(tmp_path, faults=faults) as server, pytest.raises(ReadError, match="403"):
        extract_embeddings(FRAME[:1], source=over_http(server), years=[2024])


def test_a_mirror_is_read_instead(tmp_path, expected):
    MOSAIC.write(tmp_path / "m.zarr")
    with serve(tmp_path) as server:
        mirror = Network(url_rewrite={"s3://bucket/": f"{server.url}/"})
        source = MosaicSource("s3://bucket/m.zarr", network=mirror)
        same(extract_embeddings(FRAME, source=source, years=[2023, 2024], statistics=SOME), expected)


def test_a_folder_behind_a_url_is_looked_at(tmp_path, expected):
    MOSAIC.write(tmp_path / "mosaic")
    with serve(tmp_path) as server:
        assert isinstance(open_source(f"{server.url}/mosaic/"), MosaicSource)
        assert isinstance(open_source(f"{server.url}/mosaic/embeddings"), MosaicSource)
        with pytest.raises(InputFileError):
            open_source(f"{server.url}/archive")


# --- damage


def damaged(tmp_path, change, **how):
    """Write a mosaic, and change the bytes of one of its objects."""
    path = MOSAIC.but(**how).write(tmp_path / "m.zarr")
    victim = sorted((path / "embeddings" / "c" / "1").rglob("*/0/0"))[0]
    data = bytearray(victim.read_bytes())
    change(data)
    victim.write_bytes(data)
    return path


def cut(data):
    del data[len(data) // 2 :]


def scramble(data):
    data[100:4000] = bytes(3900)


def spoil_index(data):
    data[-60] ^= 1


@pytest.mark.parametrize(
    ("change", "how", "words"),
    [
        (cut, {"shard": None}, "damaged"),
        (cut, {"shard": None, "codecs": (BytesCodec(),)}, "damaged: decodes to"),
        (cut, {"shard": None, "codecs": (BytesCodec(), GzipCodec())}, "damaged"),
        (scramble, {"shard": None, "codecs": (BytesCodec(), ZstdCodec(checksum=True))}, "damaged"),
        (scramble, {"shard": None, "codecs": (BytesCodec(), Crc32cCodec())}, "damaged"),
        (spoil_index, {}, "shard index: damaged"),
        (cut, {}, "shard index: damaged"),
        (lambda data: data.clear(), {}, "truncated|damaged"),
        (lambda data: data.clear(), {"shard": None}, "damaged"),
    ],
)
def test_damage_is_named(change, how, words, tmp_path):
    path = damaged(tmp_path, change, **how)
    with pytest.raises(ReadError, match=words) as caught:
        extract_embeddings(FRAME, source=path, years=[2024])
    assert one_line(caught.value)
    assert "/embeddings/c/1/0/0/0" in str(caught.value)
    table = extract_embeddings(FRAME, source=path, on_error="collect").set_index(["site_id", "year"])["status"]
    assert table["corner", 2024] == "error"
    assert table["corner", 2023] == "ok"


# --- refusals


def rewritten(tmp_path, where, **changes):
    path = MOSAIC.write(tmp_path / "m.zarr")
    file = path / where / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path


EMPTY_CHUNKS = {
    "codecs": [{"name": "bytes"}],
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 64, 0, 16]}},
}


@pytest.mark.parametrize(
    ("where", "changes", "words"),
    [
        ("embeddings", {"codecs": [{"name": "bytes"}, {"name": "brotli9"}]}, "zarr can't use its metadata.*brotli9"),
        ("embeddings", {"data_type": "int16"}, "holds int16"),
        ("embeddings", {"zarr_format": 2}, "zarr"),
        ("embeddings", {"dimension_names": ["a", "b", "c", "d"]}, "expected time, band, y and x"),
        ("embeddings", {"storage_transformers": [{"name": "x"}]}, "storage transformers"),
        (".", {"attributes": {"spatial:transform": MOSAIC.transform}}, "has no CRS"),
        (".", {"attributes": {"proj:code": "EPSG:4326"}}, "its place is unknown"),
        (".", {"attributes": {"proj:code": "EPSG:0", "spatial:transform": MOSAIC.transform}}, "isn't a CRS"),
        ("embeddings", EMPTY_CHUNKS, "metadata are damaged: chunks"),
        (".", {"attributes": {"proj:code": "EPSG:4326", "spatial:transform": [1, 2]}}, "six numbers"),
        (".", {"attributes": {"proj:code": "EPSG:4326", "spatial:transform": [[0.1] * 500]}}, "six numbers"),
        (".", {"attributes": {"proj:code": "EPSG:4326", "spatial:transform": [1, 0.1, 0, 0.1, 1, 0]}}, "rotated"),
        (".", {"attributes": {"proj:code": "EPSG:4326", "spatial:transform_type": "rpc"}}, "only affine"),
    ],
)  # fmt: skip
def test_what_isn_t_supported_is_refused_by_name(where, changes, words, tmp_path):
    path = rewritten(tmp_path, where, **changes)
    with pytest.raises(GeePolygonsError, match=words) as caught:
        MosaicSource(path).years()
    assert one_line(caught.value)


def test_stores_that_aren_t_there(tmp_path):
    with pytest.raises(InputFileError, match="no such folder"):
        open_source("mosaic:/nowhere/at.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputFileError, match=r"no zarr\.json"):
        MosaicSource(tmp_path / "empty.zarr").years()
    zarr.create_group(tmp_path / "hollow.zarr", zarr_format=3)
    with pytest.raises(TileError, match="no array 'embeddings'"):
        MosaicSource(tmp_path / "hollow.zarr").years()
    bands = make((32, 32), n_years=1).but(
        codes=MOSAIC.codes[:1, :12, :32, :32], years=(2024,), chunk=(1, 12, 16, 16), shard=None
    )
    with pytest.raises(TileError, match="12 bands without the names"):
        MosaicSource(bands.write(tmp_path / "few")).years()


def test_times_that_make_no_sense(tmp_path):
    twice = MOSAIC.but(years=(2024, 2024)).write(tmp_path / "twice")
    with pytest.raises(TileError, match="2024 is there twice"):
        MosaicSource(twice).years()
    odd = MOSAIC.but(time=(np.array([0, 1]), {})).write(tmp_path / "odd")
    with pytest.raises(TileError, match=r"isn't in years"):
        MosaicSource(odd).years()


def test_unknown_bands_are_refused_before_any_request(store):
    with pytest.raises(UsageError, match="unknown band 'B04'"):
        MosaicSource(store).image(shapely.box(-48.05, -22.331, -48.049, -22.33), 2024, ["B04"])


# --- the source


def test_a_source_by_its_names(store):
    assert open_source("mosaic").archive == MOSAIC_URL
    assert repr(open_source("mosaic")) == f"MosaicSource('{MOSAIC_URL}')"
    assert open_source(f"mosaic:{store}").archive == str(store)
    assert open_source("mosaic:https://example.org/x").archive == "https://example.org/x"


def test_a_plan_and_a_source_can_be_pickled(store, expected):
    import pickle

    source = MosaicSource(store)
    plan = source.plan(FRAME.geometry.to_numpy(), [2023, 2024])
    copy, again = pickle.loads(pickle.dumps(plan)), pickle.loads(pickle.dumps(source))
    assert copy == plan
    assert hash(copy) == hash(plan)
    assert plan.by_area
    assert "48 blocks, 48 requests" in repr(plan)
    blocks = list(again.read([ref for job in copy.jobs for ref in job.reads], BANDS))
    assert len(blocks) == 48


def test_provenance_says_how_pixels_weigh(store):
    table = extract_embeddings(FRAME[:1], source=store, years=2024)
    assert "true area" in table.attrs["provenance"]["weights"]
    assert table.attrs["provenance"]["source"] == "mosaic"


def test_a_mosaic_in_a_projected_crs_weighs_by_coverage(tmp_path):
    said = {"proj:code": "EPSG:32722", "spatial:transform": [10.0, 0, 800_000.0, 0, -10.0, 7_520_000.0]}
    path = MOSAIC.but(attributes=said).write(tmp_path / "m.zarr")
    from gee_polygons.sources.raster import RasterSource
    from gee_polygons.zonal.grid import Grid

    grid = Grid(crs="EPSG:32722", transform=tuple(said["spatial:transform"]), shape=(HEIGHT, WIDTH))
    polygon = star(4, (800_480, 7_519_680), 250)
    frame = frame_of(geopandas.GeoSeries([polygon, star(5, (0, 0), 3)], crs=32722).to_crs(4326))
    raster = extract_embeddings(
        frame, source=RasterSource(MOSAIC.codes[1], grid=grid, year=2024), statistics=EVERYTHING
    )
    same(extract_embeddings(frame, source=path, years=2024, statistics=EVERYTHING), raster)


@pytest.mark.parametrize("layout", ["one chunk a band", "bands in four chunks", "unsharded"])
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_medoids_of_long_vectors_whose_bands_lie_in_any_order(layout, tmp_path):
    """A pixel's codes may be any, not only a unit vector's, and its first band may be stored last."""
    rng = np.random.default_rng(3)
    codes = rng.integers(100, 128, MOSAIC.codes.shape).astype(np.int8) * rng.choice([-1, 1], (1, 64, 1, 1))
    order = rng.permutation(64)
    mosaic = MOSAIC.but(codes=codes.astype(np.int8))
    path = mosaic.but(codes=mosaic.codes[:, order], **LAYOUTS[layout]).write(tmp_path / "m.zarr")
    names = np.array([BANDS[i] for i in order])
    zarr.open_group(path, mode="r+").create_array("band", data=names, dimension_names=["band"])
    table = extract_embeddings(FRAME, source=path, years=[2024], statistics=EVERYTHING)
    for _, row in table.iterrows():
        assert_truth(row, mosaic.truth(to_degrees(SHAPES[row["site_id"]]), 2024))

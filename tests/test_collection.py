"""Collections: built once, a table to any tool, and pixels that are the truth."""

import gc
import json
import shutil
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import shapely
from rangeserver import Faults, serve

from gee_polygons.alphaearth import BANDS, NODATA
from gee_polygons.audit import audit
from gee_polygons.collection import Dataset, as_collection, build, build_from_table, datasets, load, register
from gee_polygons.collection.table import within
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import (
    ArchiveError,
    GeePolygonsError,
    InputFileError,
    ReadError,
    SiteError,
    TileError,
    UsageError,
)
from gee_polygons.extract import extract_embeddings
from gee_polygons.network.request import Network
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.opening import open_source
from gee_polygons.sources.sample import truth_codes, write_tile
from gee_polygons.zonal.grid import Grid

QUICK = Network(attempts=8, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=10)
SAMPLE = "gee-polygons/sample"
BOX = (-48.02, -22.36, -48.012, -22.355)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch, sample_archive):
    """Collections and registered datasets of these tests go to a folder of their own; the sample stays."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / sample_archive.parents[2].name).symlink_to(sample_archive.parents[2])
    monkeypatch.setenv("GEE_POLYGONS_CACHE", str(cache))


@pytest.fixture
def built(tmp_path):
    return build(SAMPLE, path=tmp_path / "all.parquet")


def truth_of(patch_grid, year):
    return truth_codes(patch_grid.crs, patch_grid.window, year)


# --- building


def test_a_built_collection_gives_the_same_numbers_and_asks_for_no_header(sample_archive, sample_sites, tmp_path):
    root = sample_archive.parents[2]
    local = extract_embeddings(sample_sites, source=str(sample_archive), years=[2021, 2022])
    with serve(root) as server:
        index = f"{server.url}/v1/annual/aef_index.parquet"
        collection = build(SAMPLE, source=index, path=tmp_path / "c.parquet", network=QUICK)
        headers = [path for path, first, *_ in server.log if path.endswith(".tiff")]
        assert len(headers) == len(set(headers)) == len(collection) == 20  # one request a tile
        for source in (str(tmp_path / "c.parquet"), collection, load(tmp_path / "c.parquet")):
            server.reset()
            table = extract_embeddings(sample_sites, source=source, years=[2021, 2022])
            pd.testing.assert_frame_equal(local, table, check_exact=True)
            assert all(first > 0 for path, first, *_ in server.log)
            assert not any(path.endswith(".parquet") for path, *_ in server.log)


def test_bbox_and_dates_choose_tiles(tmp_path):
    west = build(SAMPLE, bbox=(-48.045, -22.4, -48.035, -22.3), path=tmp_path / "west.parquet")
    assert set(west.to_table()["utm_zone"].to_pylist()) == {"22S"}
    assert len(west) == 6  # tile A has no 2020
    dated = build(SAMPLE, date_range=("2021-06-01", "2022-01-01"), path=tmp_path / "dated.parquet")
    assert dated.years == [2021, 2022]
    with pytest.raises(ArchiveError, match="lists no tile in bbox"):
        build(SAMPLE, bbox=(0, 0, 1, 1), path=tmp_path / "none.parquet")


def test_building_again_reopens_and_other_parameters_are_refused(tmp_path):
    path = tmp_path / "c.parquet"
    build(SAMPLE, bbox=(-48.045, -22.4, -48.035, -22.3), path=path)
    before = path.stat().st_mtime_ns
    assert len(build(SAMPLE, bbox=(-48.045, -22.4, -48.035, -22.3), path=path)) == 6
    assert path.stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="was built with bbox="):
        build(SAMPLE, path=path)
    assert len(build(SAMPLE, path=path, force=True)) == 20
    again = path.read_bytes()
    build(SAMPLE, path=path, force=True)
    assert path.read_bytes() == again


def test_labels_are_kept_in_the_cache(tmp_path):
    build(SAMPLE, name="my demo", date_range=(2023, 2023))
    assert load("my demo").years == [2023]
    assert str(tmp_path / "cache") in load("my demo").place


def test_the_file_is_geoparquet_with_shared_fields_once(built):
    frame = geopandas.read_parquet(built.place)
    assert frame.crs.to_epsg() in (4326, None) or frame.crs.to_string() == "OGC:CRS84"
    assert len(frame) == 20
    header = frame["header"].iloc[0]
    assert len(header["offsets"]) == 64 * 9 == len(header["lengths"])
    metadata = json.loads(pq.read_schema(built.place).metadata[b"gee_polygons"])
    assert metadata["dataset"]["id"] == SAMPLE
    size = Path(built.place).stat().st_size
    assert size < 20 * 64 * 9 * 6  # a position and a length: less than six bytes a block


@pytest.mark.parametrize("suffix", ["csv", "gpkg", "stac.parquet"])
def test_every_form_of_index_gives_the_same_numbers(suffix, sample_archive, sample_sites, tmp_path):
    table = pq.read_table(sample_archive)
    frame = geopandas.read_parquet(sample_archive)
    frame["path"] = [str(sample_archive.parent / path) for path in frame["path"]]
    path = tmp_path / f"index.{suffix}"
    if suffix == "csv":
        pd.DataFrame(frame.drop(columns="geom")).assign(geom=frame.geometry.to_wkt()).to_csv(path, index=False)
    elif suffix == "gpkg":
        frame.to_file(path, driver="GPKG")
    else:
        bounds = frame.geometry.bounds
        items = pa.table(
            {
                "id": [f"t{i}" for i in range(len(frame))],
                "datetime": pa.array([pd.Timestamp(f"{y}-01-01") for y in frame["year"]], pa.timestamp("us", "UTC")),
                "proj:epsg": pa.array([int(crs[5:]) for crs in frame["crs"]]),
                "bbox": pa.array(
                    [dict(zip(("xmin", "ymin", "xmax", "ymax"), row, strict=True)) for row in bounds.to_numpy()]
                ),
                "assets": pa.array([{"data": {"href": p}} for p in frame["path"]]),
                "geometry": table["geom"],
            }
        )
        pq.write_table(items, path)
    local = extract_embeddings(sample_sites, source=str(sample_archive), years=[2021])
    pd.testing.assert_frame_equal(local, extract_embeddings(sample_sites, source=str(path), years=[2021]))
    collection = build(SAMPLE, source=path, path=tmp_path / "c.parquet")
    pd.testing.assert_frame_equal(local, extract_embeddings(sample_sites, source=collection, years=[2021]))


def test_of_a_far_index_only_what_is_needed_is_read(sample_archive, sample_sites, tmp_path):
    """A published index is 78 MB: row groups elsewhere and columns that nobody needs stay where they are."""
    table = pq.read_table(sample_archive)
    n = 20_000
    far = pa.table(
        {
            name: pa.array(
                np.random.default_rng(0).uniform(10, 60, n) if name.endswith(("west", "south", "east", "north")) else
                [f"far/{i}.tiff" for i in range(n)] if name == "path" else [b"x" * 93] * n if name == "geom" else
                ["EPSG:32632"] * n if name == "crs" else ["32N"] * n if name == "utm_zone" else [2020] * n,
                table.schema.field(name).type,
            )
            for name in table.column_names
        }
    )  # fmt: skip
    root = tmp_path / "archive"
    shutil.copytree(sample_archive.parent, root)
    with pq.ParquetWriter(root / "aef_index.parquet", table.schema) as writer:
        for start in range(0, n, 2000):
            writer.write_table(far.slice(start, 2000))
        writer.write_table(table)
    size = (root / "aef_index.parquet").stat().st_size
    with serve(root) as server:
        url = f"{server.url}/aef_index.parquet"
        source = CogSource(url, network=QUICK)
        local = extract_embeddings(sample_sites[:3], source=str(sample_archive), years=[2021])
        remote = extract_embeddings(sample_sites[:3], source=source, years=[2021])
        pd.testing.assert_frame_equal(local, remote)
        sent = sum(last - first + 1 for path, first, last, _ in server.log if path.endswith(".parquet"))
        assert sent < size / 5
        server.reset()
        collection = build(SAMPLE, source=url, bbox=BOX, path=tmp_path / "c.parquet", network=QUICK)
        sent = sum(last - first + 1 for path, first, last, _ in server.log if path.endswith(".parquet"))
        assert sent < size / 5
        assert set(collection.to_table()["crs"].to_pylist()) <= {"EPSG:32722", "EPSG:32723"}


def test_of_a_far_index_only_the_years_asked_for_are_read(sample_archive, tmp_path):
    table = pq.read_table(sample_archive)
    root = tmp_path / "archive"
    shutil.copytree(sample_archive.parent, root)
    noise = np.random.default_rng(0)
    with pq.ParquetWriter(
        root / "aef_index.parquet", table.append_column("note", pa.array([b""] * 20)).schema
    ) as writer:
        for year in range(2018, 2025):
            rows = table.filter(pc.field("year") == year)
            writer.write_table(rows.append_column("note", pa.array([noise.bytes(60_000) for _ in range(len(rows))])))
    with serve(root) as server:
        url = f"{server.url}/aef_index.parquet"
        some = build(
            SAMPLE, source=url, date_range=("2022-03-01", "2023-02-01"), path=tmp_path / "a.parquet", network=QUICK
        )
        sent = sum(last - first + 1 for path, first, last, _ in server.log if path.endswith(".parquet"))
        assert some.years == [2022, 2023]
        assert len(some) == 6
        assert sent < (root / "aef_index.parquet").stat().st_size * 0.45


def test_a_header_that_fails_names_the_tile(sample_archive, tmp_path):
    faults = Faults(error=1.0, status=403, only="2023")
    says = r"http.*/2023/.*\.tiff: .*403.* more of 20 tiles"
    with serve(sample_archive.parent, faults=faults) as server, pytest.raises(ReadError, match=says):
        build(SAMPLE, source=f"{server.url}/aef_index.parquet", path=tmp_path / "c.parquet", network=QUICK)
    assert not (tmp_path / "c.parquet").exists()


def rewritten(path, out, metadata=None, header=None):
    """Copy a collection's file with other metadata of this package, or other values in its column of headers."""
    table = pq.read_table(path)
    if header is not None:
        rows = [{**row, **header} for row in table["header"].to_pylist()]
        table = table.set_column(table.column_names.index("header"), "header", pa.array(rows))
    found = dict(table.schema.metadata)
    if metadata is not None:
        found[b"gee_polygons"] = metadata
    pq.write_table(table.replace_schema_metadata(found), out)
    return out


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        (b'{"dataset": {"id"', "isn't JSON"),
        (b"\xff\xfe", "isn't JSON"),
        (b"[1, 2]", "isn't a JSON object"),
        (b'{"dataset": 3}', "describes no dataset"),
        (b'{"dataset": {"id": "x", "colour": "red"}}', "describes no dataset.*colour"),
        (b'{"dataset": {"id": "x", "bands": 3}}', "describes no dataset"),
        (b'{"dataset": {"id": "x", "dtype": "int7"}}', "describes no dataset.*int7"),
        (b'{"dataset": {"id": 3}}', "describes no dataset.*id is 3"),
    ],
)
def test_damaged_metadata_is_told_in_a_line(built, tmp_path, metadata, says):
    path = rewritten(built.place, tmp_path / "damaged.parquet", metadata)
    for use in (load, as_collection, lambda place: build(SAMPLE, path=place)):
        with pytest.raises(ArchiveError, match=f"damaged.parquet: .*{says}") as caught:
            use(path)
        assert "\n" not in str(caught.value)
    if "JSON" in says:
        with pytest.raises(ArchiveError, match=says):
            open_source(str(path))
    with pytest.raises(ArchiveError, match="describes no dataset"):  # metadata without a dataset
        build(SAMPLE, path=rewritten(built.place, tmp_path / "none.parquet", b"{}"))


@pytest.mark.parametrize("header", [{"offsets": [1, 2]}, {"transform": [1.0]}, {"block_height": 0}, {"width": None}])
def test_a_damaged_header_is_told_in_a_line(built, tmp_path, header):
    collection = load(rewritten(built.place, tmp_path / "damaged.parquet", header=header))
    with pytest.raises(TileError, match=r"\.tiff: its header in the collection is damaged"):
        collection.get_numpy(BOX, years=[2023])
    other = pq.read_table(built.place).drop_columns(["header"]).append_column("header", pa.array(["x"] * 20))
    with pytest.raises(ArchiveError, match="column 'header' isn't what build"):
        as_collection(other)


def test_a_damaged_file_is_told_in_a_line(built, tmp_path):
    """Whatever bytes are damaged: an error of this package, or the numbers."""
    raw, chance = Path(built.place).read_bytes(), np.random.default_rng(0)
    path = tmp_path / "damaged.parquet"
    told = []
    for i in range(60):
        data = bytearray(raw)
        for place in chance.integers(0 if i % 3 else len(raw) // 2, len(raw), 3):
            data[place] = chance.integers(256)
        path.write_bytes(data)
        try:
            collection = load(path)
            assert collection.years
            assert len(collection.bands)
        except GeePolygonsError as error:
            told.append(str(error))
    assert len(told) > 20
    assert not any("\n" in text for text in told)


def test_a_footer_with_another_type_than_its_column_ends_no_process(built, tmp_path):
    # pyarrow's statistics of such a chunk abort the process: it runs in another one
    code = """
import sys
from pathlib import Path
import numpy as np
from gee_polygons.collection import load
from gee_polygons.errors import GeePolygonsError
raw, path, chance = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), np.random.default_rng(0)
footer = int.from_bytes(raw[-8:-4], "little") + 8
for _ in range(400):
    data = bytearray(raw)
    data[chance.integers(len(raw) - footer, len(raw) - 8)] = chance.integers(256)
    path.write_bytes(data)
    try:
        load(path).years
    except GeePolygonsError:
        pass
print("alive")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, built.place, str(tmp_path / "damaged.parquet")], capture_output=True, text=True
    )
    assert done.stdout.strip() == "alive", done.stderr[-500:]


# --- as a table


def test_duckdb_polars_and_pyarrow_read_it(built):
    assert pa.table(built).num_rows == 20
    assert polars.DataFrame(built).height == 20
    assert duckdb.sql("SELECT count(*), min(year) FROM built").fetchall() == [(20, 2018)]


def test_duckdb_filters_the_index_and_feeds_build_from_table(sample_archive, sample_sites, tmp_path):
    found = duckdb.sql(
        f"SELECT * FROM read_parquet('{sample_archive}') WHERE year = 2023 AND utm_zone = '22S'"
    ).to_arrow_table()
    collection = build_from_table(
        found,
        "duck",
        column_map={"fid": "id", "geom": "geometry", "year": "datetime"},
        href_column="path",
        band_index_map={band: i for i, band in enumerate(BANDS)},
        base=sample_archive.parent,
    )
    assert len(collection) == 2
    assert collection.years == [2023]
    mine = extract_embeddings(sample_sites, source=collection, years=[2023])
    local = extract_embeddings(sample_sites, source=str(sample_archive), years=[2023])
    both = (mine["status"] == "ok") & (mine["valid_fraction"] == local["valid_fraction"])
    assert both.sum() > 10
    pd.testing.assert_frame_equal(mine[both], local[both])


KINDS = {
    "arrow": pq.read_table,
    "record batches": lambda path: pq.read_table(path).to_reader(),
    "dataset": pads.dataset,
    "duckdb relation": lambda path: duckdb.sql(f"SELECT * FROM read_parquet('{path}')"),
    "duckdb arrow table": lambda path: duckdb.sql(f"SELECT * FROM read_parquet('{path}')").to_arrow_table(),
    "polars": polars.read_parquet,
    "polars lazy": polars.scan_parquet,
    "pandas": lambda path: pq.read_table(path).drop_columns(["geom"]).to_pandas(),
    "geopandas": geopandas.read_parquet,
    "path": lambda path: path,
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_table_will_do(kind, sample_archive, tmp_path):
    table = KINDS[kind](sample_archive)
    collection = build_from_table(table, base=sample_archive.parent, path=tmp_path / "c.parquet")
    assert collection.bands == BANDS
    expected = build(SAMPLE, path=tmp_path / "all.parquet").to_table()
    for name in ("year", "crs", "header", "wgs84_west", "utm_north"):
        assert collection.to_table()[name].to_pylist() == expected[name].to_pylist()


def test_what_duckdb_joins_goes_in_and_out_as_arrow(sample_archive, sample_sites, built, tmp_path):
    """Filter the index with the sites that somebody has, in SQL; read the pixels; look at them with SQL again."""
    plots = sample_sites.to_geodataframe()[:6].bounds.assign(plot=range(6))  # noqa: F841 - DuckDB sees it
    found = duckdb.sql(
        f"""SELECT DISTINCT tiles.* FROM read_parquet('{sample_archive}') AS tiles, plots
        WHERE year BETWEEN 2022 AND 2023 AND wgs84_west <= maxx AND wgs84_east >= minx AND wgs84_south <= maxy
        AND wgs84_north >= miny"""
    )
    collection = build_from_table(found, base=sample_archive.parent, path=tmp_path / "c.parquet")
    assert 0 < len(collection) < 6
    mine = extract_embeddings(sample_sites[:6], source=collection, years=[2022, 2023])
    pd.testing.assert_frame_equal(mine, extract_embeddings(sample_sites[:6], source="sample", years=[2022, 2023]))
    counts = duckdb.sql("SELECT year, count(*) FROM collection GROUP BY year ORDER BY year").fetchall()
    assert [year for year, _ in counts] == [2022, 2023]
    samples = collection.sample_points(sample_sites.to_geodataframe()[:6].representative_point(), years=[2023])
    taken = polars.DataFrame(samples.drop(columns="geometry"))
    assert taken.filter(polars.col("A00").is_not_null()).height == 6


def buffers_of(table, name):
    return [buffer.address for chunk in table[name].chunks for buffer in chunk.buffers() if buffer is not None]


def test_handing_a_collection_over_copies_nothing(built):
    table = built.to_table()
    again = pa.table(built)
    for name in table.column_names:
        if name != "header":  # a struct's own buffers are its validity; its children are below
            assert buffers_of(again, name) == buffers_of(table, name) != []
    frame = polars.DataFrame(built)
    assert frame["wgs84_west"].to_arrow().buffers()[1].address == buffers_of(table, "wgs84_west")[-1]
    mine, theirs = (found["header"].chunk(0).field("offsets").flatten().buffers()[1] for found in (again, table))
    assert mine.address == theirs.address


def test_tiles_across_the_antimeridian_are_found_by_boxes_and_geometries_alike():
    sides = {"wgs84_west": [-180.0, 179.0, -10.0], "wgs84_east": [-179.0, 180.0, -9.0]}
    table = pa.table({"fid": [1, 2, 3], **sides, "wgs84_south": [0.0] * 3, "wgs84_north": [1.0] * 3})
    past, both, none = (180.2, 0.1, 180.4, 0.2), (179.5, 0.1, -179.5, 0.2), (181.5, 0.1, 181.6, 0.2)
    shapes = {past: shapely.box(*past), both: shapely.box(179.5, 0.1, 180.5, 0.2), none: shapely.box(*none)}
    for box, expected in ((past, [1]), (both, [1, 2]), (none, [])):
        assert within(table, bbox=box)["fid"].to_pylist() == expected
        assert within(table, geometries=[shapes[box]])["fid"].to_pylist() == expected


def test_subset_and_as_collection_read_nothing(built):
    some = built.subset(bbox=BOX, date_range=(2022, 2023), where="utm_zone = '22S'")
    assert some.years == [2022, 2023]
    assert len(some) == 2  # tile B's
    assert len(built.subset(where=pc.field("year") == 2020)) == 2
    assert len(built.subset(geometries=shapely.box(*BOX))) == len(built.subset(bbox=BOX))
    wrapped = as_collection(duckdb.sql("SELECT * FROM built WHERE year = 2019"))
    assert wrapped.years == [2019]
    assert np.ma.allequal(wrapped.get_numpy(BOX, years=[2019]), built.get_numpy(BOX, years=[2019]))
    with pytest.raises(UsageError, match="where="):
        built.subset(where="no_such_column > 1")
    with pytest.raises(ArchiveError, match="no column 'header'"):
        as_collection(load(SAMPLE).to_table())


def test_saved_and_loaded_is_the_same(built, tmp_path):
    path = built.subset(date_range=(2024, 2024)).save(tmp_path / "some.parquet")
    assert load(path).years == [2024]
    assert open_source(path).years() == [2024]


# --- pixels


def test_get_numpy_is_the_truth_in_codes_and_vectors(built):
    array = built.get_numpy(BOX, years=[2022, 2023], decode=False)
    data = built.get_xarray(BOX, years=[2022, 2023], decode=False)
    grid = Grid(crs=data.attrs["crs"], transform=data.attrs["transform"], shape=array.shape[2:])
    for i, year in enumerate((2022, 2023)):
        assert np.array_equal(array.data[i], truth_of(grid, year))
        assert np.array_equal(data.sel(year=year).to_array(), truth_of(grid, year))
    assert array.dtype == data["A00"].dtype == np.int8
    assert data["A00"].attrs == {"units": "code", "nodata": NODATA}
    vectors = built.get_numpy(BOX, years=[2023], bands=["A05", "A63"])
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors.data[0], codes_to_vectors(truth_of(grid, 2023))[[5, 63]], equal_nan=True)


def test_geometries_of_any_kind_and_crs_give_the_same_pixels(built):
    shape = shapely.box(*BOX)
    frame = geopandas.GeoDataFrame({"name": ["a"]}, geometry=[shape], crs=4326)
    expected = built.get_numpy(shape, years=[2023], bands=["A00"])
    wkb = pa.array([shapely.to_wkb(shape)], pa.binary())
    for kind, geometries in {
        "list": [shape],
        "GeoDataFrame": frame,
        "GeoSeries": frame.geometry,
        "arrow array": wkb,
        "arrow table": pa.table({"geometry": wkb, "name": ["a"]}),
        "polars": polars.DataFrame({"geometry": [shapely.to_wkb(shape)]}),
        "wkb": [shapely.to_wkb(shape)],
    }.items():
        (array,) = built.get_numpy(geometries, years=[2023], bands=["A00"])
        assert np.array_equal(array.data, expected.data, equal_nan=True), kind
        assert np.array_equal(array.mask, expected.mask), kind
    projected = frame.to_crs(5880)
    (array,) = built.get_numpy(projected, years=[2023], bands=["A00"])
    assert array.shape == expected.shape
    (array,) = built.get_numpy(list(projected.geometry), geometry_crs="EPSG:5880", years=[2023], bands=["A00"])
    assert array.shape == expected.shape


def test_a_bounding_box_may_be_an_array(built, sample_sites):
    box = sample_sites.to_geodataframe()[:1].total_bounds
    array = built.get_numpy(box, years=2023, bands="A00")
    assert np.ma.allequal(array, built.get_numpy(tuple(box), years=2023, bands="A00"))


@pytest.mark.parametrize("given", ["a.geojson", 5, None, {"type": "Point", "coordinates": [-48.0, -22.3]}])
def test_what_is_no_geometry_is_told_so(built, given):
    """The message was about tables."""
    with pytest.raises(UsageError, match=f"geometries are a bounding box .*found {type(given).__name__}"):
        built.get_numpy(given)


def test_geometries_of_different_sizes_and_below_a_pixel(built, sample_sites):
    tiny = shapely.Point(-48.0151, -22.3571).buffer(1e-6)
    arrays = built.get_numpy([*sample_sites.polygons[:5], tiny, shapely.Point(-48.0151, -22.3571)], years=[2023])
    assert len({array.shape for array in arrays}) > 3
    assert arrays[5].shape == arrays[6].shape == (1, 64, 1, 1)
    assert not arrays[5].mask.any()
    assert np.array_equal(arrays[5].data, arrays[6].data, equal_nan=True)


def test_masked_pixels_match_the_count_of_the_extraction(built, sample_sites):
    table = extract_embeddings(sample_sites, source=built, years=[2023], statistics=["count"])
    counts = dict(zip(table["site_id"], table["A00"].fillna(0), strict=True))
    sites = [site for site in sample_sites if site.site_id != "zone-seam-long"]  # which needs both zones: see below
    arrays = built.get_numpy([site.polygon for site in sites], years=[2023], bands=["A00"])
    assert [array.count() for array in arrays] == [counts[site.site_id] for site in sites]


def test_tiles_of_a_zone_are_joined_and_zones_never_mixed(built):
    across = (-48.005, -22.36, -47.995, -22.355)  # over 48 W, where 22S and 23S overlap
    array = built.get_numpy(across, years=[2023], bands=["A00"], decode=False)
    data = built.get_xarray(across, years=[2023], bands=["A00"])
    grid = Grid(crs=data.attrs["crs"], transform=data.attrs["transform"], shape=array.shape[2:])
    assert np.array_equal(array.data[0], truth_of(grid, 2023)[:1])
    both = [shapely.Point(-48.01, -22.36).buffer(0.001), shapely.Point(-47.98, -22.36).buffer(0.001)]
    with pytest.raises(UsageError, match="the geometries lie in EPSG:32722, EPSG:32723, a grid each; choose one"):
        built.get_xarray(both, years=[2023])
    one = built.get_xarray(both, years=[2023], crs="EPSG:32723")
    assert one.attrs["crs"] == "EPSG:32723"
    with pytest.raises(UsageError, match="no geometry lies in EPSG:32721; they lie in EPSG:32722, EPSG:32723"):
        built.get_xarray(both, years=[2023], crs="EPSG:32721")
    assert [a.shape[1] for a in built.get_numpy(both, years=[2023])] == [64, 64]


def test_lazy_xarray_reads_the_same(built):
    eager = built.get_xarray(BOX, years=[2022, 2023], bands=["A00", "A01"])
    lazy = built.get_xarray(BOX, years=[2022, 2023], bands=["A00", "A01"], chunks={"y": 20, "x": 30})
    assert lazy["A00"].chunks is not None
    assert lazy.compute().equals(eager)
    assert eager["A00"].dims == ("year", "y", "x")
    assert float(eager.y[0]) > float(eager.y[-1])


def test_get_gdf_keeps_columns_and_mask_apart(built, sample_sites):
    frame = sample_sites.to_geodataframe()
    found = built.get_gdf(frame.iloc[:4], years=[2019, 2020], bands=["A00", "A01", "A02"], decode=False)
    assert len(found) == 8
    assert found["site_id"].tolist() == [s for s in frame["site_id"].iloc[:4] for _ in range(2)]
    for row in found.itertuples():
        assert row.codes.dtype == np.int8
        assert row.codes.shape == (3, *row.valid.shape)
        grid = Grid(crs=row.crs, transform=row.transform, shape=row.valid.shape)
        truth = truth_of(grid, row.year)[:3]
        missing = (row.codes == NODATA) & ~row.valid
        assert np.array_equal(np.where(missing, truth, row.codes), truth)


@pytest.fixture(scope="module")
def fields():
    """240 squares of 300 m on the sample's western tiles, in no order; the pixels of 7 years are 110 MB."""
    lon, lat = np.meshgrid(np.linspace(-48.055, -48.005, 20), np.linspace(-22.378, -22.352, 12))
    points = shapely.points(np.column_stack([lon.ravel(), lat.ravel()]))
    return list(shapely.buffer(np.random.default_rng(0).permutation(points), 0.0015, cap_style="square"))


def memory_of(function):
    """Return what a function returns, what it leaves in memory, and how much more it held at its peak, in MB."""
    gc.collect()
    tracemalloc.start()
    found = function()
    gc.collect()
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found, left / 1e6, (peak - left) / 1e6


@pytest.mark.parametrize("read", ["get_numpy", "get_gdf"])
def test_reading_many_geometries_needs_little_more_memory_than_the_result(built, fields, read):
    getattr(built, read)(fields[:20])  # what is compiled or parsed once
    found, left, more = memory_of(lambda: getattr(built, read)(fields, decode=False))
    assert len(found) == (240 if read == "get_numpy" else 7 * 240)
    assert left > 100
    assert more < 50


@pytest.mark.parametrize("read", ["iter_numpy", "iter_gdf"])
def test_iterating_over_geometries_holds_a_few_of_them(built, fields, read):
    list(getattr(built, read)(fields[:20]))
    count, left, more = memory_of(
        lambda: sum(1 if type(f) is tuple else len(f) // 7 for f in getattr(built, read)(fields, decode=False))
    )
    assert count == 240
    assert left + more < 100


def test_iterating_gives_what_reading_at_once_gives(built, sample_sites):
    options = {"years": [2022, 2023], "bands": ["A00", "A07"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one site lies in two zones
        arrays, pairs = built.get_numpy(sample_sites, **options), dict(built.iter_numpy(sample_sites, **options))
    assert sorted(pairs) == list(range(len(sample_sites)))
    for i, array in enumerate(arrays):
        assert np.array_equal(pairs[i].mask, array.mask)
        assert np.array_equal(pairs[i].data, array.data, equal_nan=True)
    table = built.get_gdf(sample_sites, **options)
    tables = pd.concat(built.iter_gdf(sample_sites, **options))
    keys = ["site_id", "year", "crs"]
    one, other = (frame.sort_values(keys, kind="stable").reset_index(drop=True) for frame in (table, tables))
    assert one[keys].equals(other[keys])
    for mine, theirs in zip(one.itertuples(), other.itertuples(), strict=True):
        assert np.array_equal(mine.pixels, theirs.pixels, equal_nan=True)
        assert np.array_equal(mine.valid, theirs.valid)
    with pytest.raises(UsageError, match="unknown band"):  # at once, not when the first is taken
        built.iter_numpy(sample_sites, bands=["B1"])


def test_sample_points_are_the_truth_and_keep_columns(built):
    chance = np.random.default_rng(0)
    points = geopandas.GeoDataFrame(
        {"plot": range(200)},
        geometry=shapely.points(chance.uniform(-48.04, -47.975, 200), chance.uniform(-22.363, -22.338, 200)), crs=4326,
    )  # fmt: skip
    found = built.sample_points(points.to_crs(5880), years=[2019, 2023], decode=False)
    assert found.attrs == {"units": "code"}
    vectors = built.sample_points(points.to_crs(5880), years=[2019, 2023])
    in_codes = found[list(BANDS)].fillna(NODATA).to_numpy(np.int8)
    assert np.array_equal(vectors[list(BANDS)].to_numpy(), codes_to_vectors(in_codes), equal_nan=True)
    assert audit(found).vectors == "A00..A63 (int8 codes, decoded for the checks)"
    assert audit(vectors).vectors == "A00..A63"
    assert "raw_codes" not in audit(found).codes
    assert audit(found).codes == audit(vectors).codes
    assert list(found.columns) == ["plot", "year", *BANDS, "distance_px", "geometry"]
    assert found["plot"].tolist() == [i for i in range(200) for _ in range(2)]
    assert (found["distance_px"] == 0).sum() > 300
    for i in range(0, 200, 10):
        array = built.get_numpy(points.geometry[i], years=[2019, 2023], decode=False)
        rows = found[found["plot"] == i]
        for y in range(2):
            row = rows[list(BANDS)].iloc[y]
            if array.mask[y].any():
                assert row.isna().all()
            else:
                assert row.astype(int).tolist() == array.data[y, :, 0, 0].tolist()


def test_a_point_without_data_may_take_a_neighbour(built, sample_sites):
    import pyproj

    # just south of the tiles' southern edge
    to_degrees = pyproj.Transformer.from_crs(32722, 4326, always_xy=True)
    lon, lat = to_degrees.transform(805_005, 7_523_735)
    alone = built.sample_points(np.array([[lon, lat]]), years=[2023], bands=["A00"])
    assert alone["A00"].isna().all()
    near = built.sample_points(np.array([[lon, lat]]), years=[2023], bands=["A00"], max_distance_px=3)
    assert near["distance_px"].tolist() == [2]


def test_each_block_is_read_once_however_many_geometries(sample_archive, tmp_path):
    chance = np.random.default_rng(1)
    points = np.column_stack([chance.uniform(-48.02, -48.01, 100), chance.uniform(-22.36, -22.355, 100)])
    shapes = list(shapely.buffer(shapely.points(points), 0.0005))
    with serve(sample_archive.parent) as server:
        collection = build(SAMPLE, source=f"{server.url}/aef_index.parquet", date_range=(2023, 2023),
                           path=tmp_path / "c.parquet", network=QUICK)  # fmt: skip
        server.reset()
        collection.get_numpy(shapes, years=[2023])
        assert len(server.log) == len(set(server.log))
        most = 64 * 9  # a tile's blocks
        assert len(server.log) <= most
        server.reset()
        collection.sample_points(points, years=[2023], bands=["A07"])
        assert len(server.log) <= 9


def test_a_failed_read_names_url_and_geometry(sample_archive, tmp_path):
    with serve(sample_archive.parent) as server:
        collection = build(SAMPLE, source=f"{server.url}/aef_index.parquet", path=tmp_path / "c.parquet", network=QUICK)
        server.reset(Faults(error=1.0, status=404))
        for read in (collection.get_numpy, collection.get_gdf, collection.get_xarray):
            with pytest.raises(ReadError, match=r"geometry 0: http.*tiff: block .* band A00: .*no such file"):
                read(BOX, years=[2023])
        with pytest.raises(ReadError, match=r"point 0: http.*tiff: block .* band A03"):
            collection.sample_points(shapely.Point(-48.015, -22.357), years=[2023], bands=["A03"])


# --- wrong calls


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda c: c.get_numpy(BOX, bands=["B99"]), UsageError, "unknown band 'B99'"),
        (lambda c: c.get_numpy(BOX, decode="floats"), UsageError, "decode is True for vectors or False for codes"),
        (lambda c: c.get_numpy((1, 5, 2, 3)), UsageError, "south below north"),
        (lambda c: c.get_numpy(shapely.LineString([(0, 0), (1, 1)])), SiteError, "geometry 0 is a LineString"),
        (lambda c: c.get_numpy(shapely.box(800000, 1, 800100, 100)), SiteError, "aren't degrees"),
        (lambda c: c.get_numpy([shapely.Polygon()]), SiteError, "geometry 0 is empty"),
        (lambda c: c.get_numpy("sites"), UsageError, "geometries are a bounding box .* found str"),
        (lambda c: c.get_numpy(BOX, years=["2023"]), UsageError, "years are whole numbers"),
        (lambda c: c.sample_points(shapely.box(*BOX)), UsageError, "takes points"),
        (lambda c: c.get_xarray(BOX, chunks={"z": 1}), UsageError, "chunks name"),
        (lambda c: c.subset(date_range=(2024, 2020)), UsageError, "2020 is before start_date 2024"),
        (lambda c: load("no-such-collection"), InputFileError, "no such collection"),
        (lambda c: build("no/dataset"), UsageError, "unknown dataset"),
        (lambda c: build_from_table(pa.table({"a": [1]})), ArchiveError, "is missing"),
    ],
)  # fmt: skip
def test_wrong_calls_say_so_in_a_line(built, call, error, says):
    with pytest.raises(error, match=says) as caught:
        call(built)
    assert "\n" not in str(caught.value)


# --- other datasets


# rasterio's own use of affine
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture
def sentinel(tmp_path):
    """Three scenes of two days: one file a band, uint16, north-up; listed as STAC items."""
    import rasterio
    import rasterio.warp
    from rasterio.transform import from_origin

    rows = []
    for i, (day, west) in enumerate((("2024-01-05", 800_000), ("2024-01-05", 801_280), ("2024-01-15", 800_000))):
        assets = {}
        for band, name in enumerate(("B04", "B08")):
            path = tmp_path / f"{i}_{name}.tif"
            y, x = np.mgrid[0:128, 0:128]
            values = (1000 * (i + 1) + 500 * band + y + x).astype(np.uint16)
            options = {"driver": "GTiff", "width": 128, "height": 128, "count": 1, "dtype": "uint16",
                       "crs": "EPSG:32722", "tiled": True, "blockxsize": 64, "blockysize": 64, "nodata": 0,
                       "compress": "deflate", "predictor": 2}  # fmt: skip
            with rasterio.open(path, "w", transform=from_origin(west, 7_525_000, 10, 10), **options) as file:
                file.write(values, 1)
            assets[name] = {"href": str(path)}
        left, bottom, right, top = rasterio.warp.transform_bounds(
            32722, 4326, west, 7_525_000 - 1280, west + 1280, 7_525_000
        )
        rows.append({"id": str(i), "datetime": pd.Timestamp(day, tz="UTC"), "assets": assets, "proj:epsg": 32722,
                     "bbox": {"xmin": left, "ymin": bottom, "xmax": right, "ymax": top},
                     "eo:cloud_cover": 10.0 * i})  # fmt: skip
    path = tmp_path / "items.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_sentinel_like_items_of_one_file_a_band(sentinel, tmp_path):
    collection = build_from_table(sentinel, path=tmp_path / "s2.parquet")
    assert collection.bands == ("B04", "B08")
    assert collection.years == [20240105, 20240115]
    assert len(collection) == 6
    bounds = pq.read_table(sentinel)["bbox"].to_pylist()[:2]
    box = (bounds[0]["xmax"] - 0.001, bounds[0]["ymin"] + 0.004, bounds[0]["xmax"] + 0.001, bounds[0]["ymin"] + 0.005)
    array = collection.get_numpy(box)
    assert array.dtype == np.uint16
    assert array.shape[:2] == (2, 2)
    assert not array.mask[0].any()  # the scenes of a day are joined
    assert array.mask[1].any()  # the second day has one of them
    assert np.array_equal(array.data[0, 1], array.data[0, 0] + 500)
    assert len(collection.subset(where='"eo:cloud_cover" < 5')) == 2
    assert collection.subset(date_range=("2024-01-10", "2024-01-20")).years == [20240115]
    assert "units" not in collection.get_xarray(box)["B04"].attrs


@pytest.mark.parametrize(("dtype", "predictor"), [("float32", 3), ("float32", 1), ("int16", 2), ("uint8", 1)])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_other_types_and_layouts(tmp_path, dtype, predictor, interleave):
    import rasterio
    import rasterio.warp
    from rasterio.transform import from_origin

    values = np.random.default_rng(0).integers(1, 100, (3, 100, 90)).astype(dtype)
    path = tmp_path / "t.tif"
    options = {"driver": "GTiff", "width": 90, "height": 100, "count": 3, "dtype": dtype, "crs": "EPSG:32722",
               "tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "predictor": predictor,
               "interleave": interleave}  # fmt: skip
    with rasterio.open(path, "w", transform=from_origin(800_000, 7_525_000, 10, 10), **options) as file:
        file.write(values)
    box = rasterio.warp.transform_bounds(32722, 4326, 800_000, 7_524_000, 800_900, 7_525_000)
    table = pa.table({"path": [str(path)], "year": [2020], "crs": ["EPSG:32722"], "bbox": [list(box)]})
    collection = build_from_table(table, path=tmp_path / "c.parquet", band_index_map={"red": 0, "green": 1, "blue": 2})
    data = collection.get_numpy(shapely.box(*box).buffer(-6e-4), bands=["blue", "red"])
    grid = collection.get_xarray(shapely.box(*box).buffer(-6e-4), bands=["red"]).attrs["transform"]
    row, col = round((7_525_000 - grid[5]) / 10), round((grid[2] - 800_000) / 10)
    height, width = data.shape[2:]
    assert np.array_equal(data.data[0], values[[2, 0], row : row + height, col : col + width])


def test_a_registered_dataset_is_in_the_catalogue(sample_archive, tmp_path):
    assert list(datasets()) == ["aef/v1-annual", SAMPLE]
    register(Dataset(id="mine", title="my tiles", index=str(sample_archive), bands=BANDS, dtype="int8", nodata=-128))
    assert "mine" in datasets()
    assert build("mine", date_range=(2023, 2023)).years == [2023]
    assert load("mine").years == list(range(2018, 2025))
    with pytest.raises(UsageError, match="can't be registered"):
        register(Dataset(id=SAMPLE))
    with pytest.raises(InputFileError, match="no such index"):
        register(Dataset(id="other", index=str(tmp_path / "none.parquet")))


def test_the_published_index_is_opened_without_a_request():
    collection = load("aef/v1-annual")
    assert "read as needed" in repr(collection)
    assert collection.bands == BANDS


def test_a_hundred_tiles_take_at_most_two_requests_each(tmp_path):
    root = tmp_path / "many"
    root.mkdir()
    grid = Grid(crs="EPSG:32722", transform=(10, 0, 800_000, 0, 10, 7_520_000), shape=(16, 16))
    codes = np.full((64, 16, 16), 16, np.int8)
    first = write_tile(root / "0.tiff", grid, codes, block=16)
    for i in range(1, 30):
        shutil.copy(first, root / f"{i}.tiff")
    table = pa.table({"path": [f"{i}.tiff" for i in range(30)], "year": [2020] * 30, "crs": ["EPSG:32722"] * 30,
                      "bbox": [[-48.1, -22.4, -48.0, -22.3]] * 30})  # fmt: skip
    with serve(root, latency_s=0.02) as server:
        build_from_table(table, base=server.url, path=tmp_path / "c.parquet", network=QUICK)
        assert server.requests <= 60
        assert server.most_at_once > 10

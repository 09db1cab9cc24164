from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from gee_polygons import __version__, tables
from gee_polygons.alphaearth import ATTRIBUTION, BANDS
from gee_polygons.errors import InputFileError, OutputError, UsageError
from gee_polygons.probe import cross_validate
from gee_polygons.site import SiteCollection
from gee_polygons.tables import check_output, columns, keep_columns, provenance, read_table, write_table

SUFFIXES = (".parquet", ".csv")
FORMATS = (*SUFFIXES, ".gpkg", ".geojson")
YEARS = (2023, 2024)


def polygons():
    square = shapely.box(-89.5, 43.0, -89.4, 43.1)
    hole = square.difference(shapely.box(-89.48, 43.02, -89.45, 43.05))
    return np.array([square, hole, shapely.MultiPolygon([square, shapely.box(10, -5, 11, -4)])], dtype=object)


@pytest.fixture
def sites():
    # what a table takes from a SiteCollection; ids that a careless CSV reader would change
    return SimpleNamespace(site_ids=["007", "NA", 'zürich, "north"'], polygons=polygons())


@pytest.fixture
def table(sites):
    rng = np.random.default_rng(7)
    rows = [(site_id, year) for site_id in sites.site_ids for year in YEARS]
    values = rng.uniform(-1, 1, (len(rows), 64)) / 3  # thirds: no short decimal form
    values[2] = np.nan
    frame = pd.DataFrame(values, columns=list(BANDS))
    frame.insert(0, "site_id", [site_id for site_id, _ in rows])
    frame.insert(1, "year", [year for _, year in rows])
    frame["Rbar"] = rng.uniform(0.5, 1, len(rows))
    frame["status"] = ["ok", "ok", "no_data", "ok", "ok", "ok"]
    frame.attrs["provenance"] = provenance(
        source="sample", archive="sample", years=YEARS, statistics=["mean"], bands=BANDS
    )
    return frame


# --- columns and provenance ---


def test_columns_of_one_statistic_are_the_bands():
    assert columns(BANDS, ["median"]) == list(BANDS)


def test_columns_of_several_are_ordered_by_statistic_then_band():
    names = columns(BANDS, ["mean", "std", "p10"])
    assert len(names) == 192
    assert names[:2] == ["A00_mean", "A01_mean"]
    assert names[64:66] == ["A00_std", "A01_std"]
    assert names[-1] == "A63_p10"


@pytest.mark.parametrize(
    ("bands", "statistics"), [([], ["mean"]), (["A00"], []), (["A00", "A00"], ["mean"]), ("A00", "mean")]
)
def test_columns_refuses_nothing_and_twice_the_same(bands, statistics):
    with pytest.raises(UsageError):
        columns(bands, statistics)


def test_provenance_says_everything_needed_to_cite_and_repeat():
    found = provenance(
        source="cog", archive="s3://bucket/v1", years=range(2018, 2021), statistics=["mean", "p90"], bands=["A01"]
    )
    assert found["package_version"] == __version__
    assert found["years"] == "2018,2019,2020"
    assert found["statistics"] == "mean,p90"
    assert found["bands"] == "A01"
    assert "127.5" in found["formula"]
    assert found["attribution"] == ATTRIBUTION
    assert "produced by Google and Google DeepMind" in ATTRIBUTION
    assert found["synthetic"] == "false"
    assert "note" not in found
    assert all(isinstance(v, str) for v in found.values())


def test_the_folder_of_the_sample_is_nobodys_business(tmp_path):
    found = provenance(source="sample", archive=str(tmp_path), years=[2020], statistics=["mean"], bands=BANDS)
    assert found["archive"] == f"gee_polygons sample {__version__}"
    found = provenance(source="cog", archive="tiles/index.parquet", years=[2020], statistics=["mean"], bands=BANDS)
    assert found["archive"] == "tiles/index.parquet"


def test_synthetic_values_are_called_so(sample_archive):
    for source, archive in (("sample", "anything"), ("cog", str(sample_archive))):
        found = provenance(source=source, archive=archive, years=[2020], statistics=["mean"], bands=BANDS)
        assert found["synthetic"] == "true"
        assert "not AlphaEarth data" in found["note"]


# --- round trips ---


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_table_comes_back_bit_for_bit(table, sites, tmp_path, suffix):
    path = write_table(table, tmp_path / f"t{suffix}", sites=sites)
    back = read_table(path)
    pd.testing.assert_frame_equal(back, table, check_exact=True)
    assert back.attrs["provenance"] == table.attrs["provenance"]


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_qgis_finds_the_polygons_and_the_credit(table, sites, tmp_path, suffix):
    table["fid"] = 7  # GDAL's name of the row number
    path = write_table(table, tmp_path / f"t{suffix}", sites=sites)
    frame = gpd.read_file(path)
    assert frame.crs == "EPSG:4326"
    assert shapely.equals(frame.geometry.to_numpy(), np.repeat(sites.polygons, 2)).all()
    assert frame["fid"].tolist() == [7] * len(table)
    assert b"CC" in path.read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", FORMATS)
def test_columns_of_the_sites_come_along_and_probe_finds_the_places(tmp_path, suffix):
    corners = [(x, y) for x in range(8) for y in range(5)]
    frame = gpd.GeoDataFrame(
        {
            "name": [f"n{i}" for i in range(40)],
            "start_year": pd.array([2016, None] * 20, "Int64"),
            "kind": ["wood", "field"] * 20,
            "planted": pd.array([True, None] * 20, "boolean"),
            "count": pd.array([None, 3] * 20, "Int64"),
            "tags": [["a", "b"], None] * 20,
            "status": "theirs",
        },
        geometry=[shapely.box(x, y, x + 0.002, y + 0.001) for x, y in corners],
        crs=4326,
    )
    given = SiteCollection.from_geodataframe(frame, id_column="name")
    vectors = np.eye(64)[[0, 1] * 20] * 0.9
    bare = pd.DataFrame({"site_id": frame["name"], "year": 2024}).join(pd.DataFrame(vectors, columns=list(BANDS)))
    bare = bare.assign(status="ok")
    bare.attrs["provenance"] = {"source": "cog"}
    assert keep_columns(bare, given, False) is bare
    kept = keep_columns(bare, given, True)
    own = ["start_year", "kind", "planted", "count", "tags", "status_in_file", "lon", "lat"]
    assert list(kept.columns) == ["site_id", "year", *own, *BANDS, "status"]
    np.testing.assert_allclose(kept[["lon", "lat"]], np.array(corners) + np.array([0.001, 0.0005]), atol=1e-12)
    assert list(keep_columns(bare, given, ["kind"]).columns[:6]) == [
        "site_id",
        "year",
        "start_year",
        "kind",
        "lon",
        "lat",
    ]
    with pytest.raises(UsageError, match="no column 'knid', named in keep=; they have 'kind'"):
        keep_columns(bare, given, ["knid"])
    back = read_table(write_table(kept, tmp_path / f"t{suffix}", sites=given))
    assert list(back.columns) == list(kept.columns)
    assert back[own[1:2]].equals(kept[own[1:2]])
    assert "b" in str(back["tags"][0])  # as text; GDAL reads GeoJSON's as a list again
    assert back["tags"].isna().sum() == 20
    assert back["start_year"].dropna().tolist() == [2016] * 20
    assert back["count"].dropna().tolist() == [3] * 20
    assert back["planted"].dropna().tolist() == [True] * 20
    assert cross_validate(back, "kind", folds=5).balanced_accuracy == 1
    if suffix == ".parquet":  # places are also those of the geometries
        frame = gpd.read_parquet(tmp_path / "t.parquet").drop(columns=["lon", "lat"])
        assert cross_validate(frame, "kind", folds=5).balanced_accuracy == 1


@pytest.mark.parametrize("suffix", FORMATS)
def test_integer_ids_stay_integers(table, tmp_path, suffix):
    table["site_id"] = np.arange(len(table))
    back = read_table(write_table(table, tmp_path / f"t{suffix}"))
    assert back["site_id"].dtype == np.int64
    pd.testing.assert_frame_equal(back, table, check_exact=True)


@pytest.mark.parametrize("suffix", FORMATS)
def test_numbers_and_names_as_ids_become_names(table, tmp_path, suffix):
    table["site_id"] = pd.Series([7, 7, "x", "x", "NA", "NA"], dtype=object)
    back = read_table(write_table(table, tmp_path / f"t{suffix}"))
    assert back["site_id"].tolist() == ["7", "7", "x", "x", "NA", "NA"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_table_comes_back(table, sites, tmp_path, suffix):
    back = read_table(write_table(table.iloc[:0], tmp_path / f"t{suffix}", sites=sites))
    assert len(back) == 0
    assert list(back.columns) == list(table.columns)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_double_survives(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 2**64, 2000, dtype=np.uint64).view(np.float64)
    values = np.concatenate([values[np.isfinite(values)], [5e-324, -0.0, 1.7976931348623157e308, 0.1]])
    frame = pd.DataFrame({"site_id": [str(i) for i in range(len(values))], "year": 2024, "A00": values})
    back = read_table(write_table(frame, tmp_path / f"t{suffix}"))["A00"].to_numpy()
    np.testing.assert_array_equal(back.view(np.uint64), values.view(np.uint64))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_table_same_bytes(table, sites, tmp_path, suffix):
    (tmp_path / "later").mkdir()
    first = write_table(table, tmp_path / f"t{suffix}", sites=sites)
    second = write_table(table.copy(), tmp_path / "later" / f"t{suffix}", sites=sites)
    for a, b in zip(tables._outputs(first), tables._outputs(second), strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_same_bytes_from_another_process(table, tmp_path):
    path = write_table(table, tmp_path / "t.parquet")
    code = "import sys; from gee_polygons.tables import *; write_table(read_table(sys.argv[1]), sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "u.parquet")], check=True)
    assert path.read_bytes() == (tmp_path / "u.parquet").read_bytes()


# --- GeoParquet ---


def test_geopandas_reads_the_geometries_and_the_crs(table, sites, tmp_path):
    frame = gpd.read_parquet(write_table(table, tmp_path / "t.parquet", sites=sites))
    assert frame.crs == "EPSG:4326"
    expected = sites.polygons[[0, 0, 1, 1, 2, 2]]
    assert shapely.equals_exact(frame.geometry.to_numpy(), expected).all()
    assert "bbox" not in frame.columns  # known as the covering, not as data


def test_the_covering_box_selects_rows(table, sites, tmp_path):
    path = write_table(table, tmp_path / "t.parquet", sites=sites)
    frame = gpd.read_parquet(path, bbox=(9, -6, 12, -3))
    assert frame["site_id"].tolist() == [sites.site_ids[2]] * 2


def test_geo_metadata_is_version_1_1_with_a_covering(table, sites, tmp_path):
    schema = pq.read_schema(write_table(table, tmp_path / "t.parquet", sites=sites))
    geo = json.loads(schema.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert column["bbox"] == [-89.5, -5.0, 11.0, 43.1]
    assert column["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]
    assert json.loads(schema.metadata[b"gee_polygons"]) == table.attrs["provenance"]


def test_missing_values_are_null_so_that_sql_averages_skip_them(table, sites, tmp_path):
    column = pq.read_table(write_table(table, tmp_path / "t.parquet", sites=sites))["A00"]
    assert column.null_count == 1


def test_a_filtered_geodataframe_can_be_written_again(table, sites, tmp_path):
    path = write_table(table, tmp_path / "t.parquet", sites=sites)
    frame = gpd.read_parquet(path)
    frame.attrs["provenance"] = read_table(path).attrs["provenance"]
    assert write_table(frame, tmp_path / "u.parquet").read_bytes() == path.read_bytes()
    with pytest.raises(UsageError, match="EPSG:4326"):
        write_table(frame.to_crs("EPSG:3857"), tmp_path / "v.parquet")


def test_without_sites_it_is_plain_parquet(table, tmp_path):
    schema = pq.read_schema(write_table(table, tmp_path / "t.parquet"))
    assert b"geo" not in schema.metadata
    assert schema.names == list(table.columns)


def test_row_groups_do_not_change_what_is_read(table, sites, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 4)
    path = write_table(table, tmp_path / "t.parquet", sites=sites)
    assert pq.ParquetFile(path).num_row_groups == 2
    pd.testing.assert_frame_equal(read_table(path), table, check_exact=True)
    assert shapely.equals_exact(gpd.read_parquet(path).geometry.to_numpy(), sites.polygons[[0, 0, 1, 1, 2, 2]]).all()


def test_a_site_that_is_not_given_is_named(table, sites, tmp_path):
    sites.site_ids = sites.site_ids[:2]
    sites.polygons = sites.polygons[:2]
    with pytest.raises(UsageError, match="zürich"):
        write_table(table, tmp_path / "t.parquet", sites=sites)
    assert list(tmp_path.iterdir()) == []


# --- CSV ---


def test_the_description_beside_a_csv_has_types_and_provenance(table, tmp_path):
    write_table(table, tmp_path / "t.csv")
    described = json.loads((tmp_path / "t.csv-metadata.json").read_text(encoding="utf-8"))
    assert described["@context"] == "http://www.w3.org/ns/csvw"
    assert described["url"] == "t.csv"
    assert described["dc:rights"] == ATTRIBUTION
    assert described["tableSchema"]["primaryKey"] == ["site_id", "year"]
    types = {c["name"]: c["datatype"] for c in described["tableSchema"]["columns"]}
    assert list(types) == list(table.columns)
    assert (types["site_id"], types["year"], types["A00"]) == ("string", "integer", "double")


def test_a_csv_whose_description_was_lost_is_still_read(table, tmp_path):
    path = write_table(table, tmp_path / "t.csv")
    (tmp_path / "t.csv-metadata.json").unlink()
    back = read_table(path)
    assert back["site_id"].tolist() == table["site_id"].tolist()
    assert back.attrs["provenance"] == {}
    pd.testing.assert_frame_equal(back, table, check_exact=True)


# --- whole or not at all ---


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_existing_output_is_refused_and_untouched(table, tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_table(table, path)
    assert path.read_text() == "mine"
    write_table(table, path, overwrite=True)
    assert len(read_table(path)) == len(table)


def test_an_existing_description_is_refused_too(table, tmp_path):
    (tmp_path / "t.csv-metadata.json").write_text("mine")
    with pytest.raises(OutputError, match="metadata"):
        write_table(table, tmp_path / "t.csv")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
def test_nothing_half_written_remains(table, sites, tmp_path, monkeypatch, suffix, fault):
    path = tmp_path / f"t{suffix}"
    write_table(table, path, sites=sites)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 2)

    def fail(*args, **kwargs):
        raise fault

    # half-way: after bytes have been written
    monkeypatch.setattr(tables, "_csvw", fail)
    written = pq.ParquetWriter.write_table

    def write_some(self, part, *args, **kwargs):
        written(self, part, *args, **kwargs)
        fail()

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_some)
    expected = OutputError if isinstance(fault, OSError) else fault
    with pytest.raises(expected):
        write_table(table.iloc[::-1], path, sites=sites, overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.parquet.gz", ".parquet"])
def test_other_suffixes_are_refused(name, tmp_path):
    with pytest.raises(UsageError, match=r"\.gpkg or \.geojson"):
        check_output(tmp_path / name)


def test_a_folder_that_is_missing_or_not_one_is_said(tmp_path):
    with pytest.raises(OutputError, match="no folder"):
        check_output(tmp_path / "no" / "t.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="no folder"):
        check_output(tmp_path / "file" / "t.csv")
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path / "t.csv", overwrite=True)


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    if os.geteuid() == 0:  # permission bits don't stop root: let the file system's answer stand in
        monkeypatch.setattr(Path, "touch", refuse)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            check_output(tmp_path / "t.csv")
    finally:
        tmp_path.chmod(0o755)


def test_checking_leaves_nothing_behind(tmp_path):
    assert check_output(str(tmp_path / "t.csv")) == tmp_path / "t.csv"
    assert list(tmp_path.iterdir()) == []


# --- reading what isn't a table ---


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reading_says_what_is_wrong(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    with pytest.raises(InputFileError, match="there is no file"):
        read_table(path)
    path.write_bytes(b"")
    with pytest.raises(InputFileError, match="not a readable table"):
        read_table(path)


def test_a_damaged_description_is_said(table, tmp_path):
    path = write_table(table, tmp_path / "t.csv")
    (tmp_path / "t.csv-metadata.json").write_text('{"notes": []}')
    with pytest.raises(InputFileError, match="not a readable table"):
        read_table(path)
    with pytest.raises(UsageError, match=r"\.gpkg or \.geojson"):
        read_table(tmp_path / "t.xlsx")


def test_a_csv_for_spreadsheets_holds_no_formula(tmp_path):
    ids = ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx", "plain", "a=b"]
    table = pd.DataFrame({"site_id": ids, "year": range(7), "A00": np.linspace(-1, 1, 7), "=b": ["-"] * 7})
    path = write_table(table, tmp_path / "t.csv", spreadsheet=True)
    found = read_table(path)
    assert found["site_id"].tolist() == [f"'{name}" for name in ids[:5]] + ids[5:]
    assert list(found) == ["site_id", "year", "A00", "'=b"]
    assert found["A00"].equals(table["A00"])
    exact = read_table(write_table(table, tmp_path / "exact.csv"))
    assert exact["site_id"].tolist() == ids


def test_columns_of_any_type_are_written_as_they_are(tmp_path):
    table = pd.DataFrame({"site_id": ["a", "b", "c"], "year": 2024})
    cells = {
        "lists": [[1.0, 2.0], None, []],
        "arrays": [np.arange(3), np.arange(2), None],
        "texts": [["a", None], [], None],
        "when": pd.to_datetime(["2024-05-01", None, "2020-01-01"]),
        "day": [datetime.date(2024, 5, 1), None, None],
        "nothing": [None, None, None],
        "mixed": [1, "x", None],
        "kind": pd.Categorical(["u", None, "u"]),
    }
    schema = pq.read_schema(write_table(table.assign(**cells), tmp_path / "t.parquet"))
    kinds = {name: str(schema.field(name).type).split("[")[0] for name in cells}
    assert kinds == {
        "lists": "list<element: double>", "arrays": "list<element: int64>", "texts": "list<element: string>",
        "when": "timestamp", "day": "date32", "nothing": "string", "mixed": "string", "kind": "string",
    }  # fmt: skip
    back = read_table(tmp_path / "t.parquet")
    assert [None if c is None else list(c) for c in back["arrays"]] == [[0, 1, 2], [0, 1], None]
    assert back["when"].equals(pd.Series(cells["when"]).astype(back["when"].dtype))
    for bad in ([[1], "x", None], [{"a": 1}, 3, None]):
        with pytest.raises(UsageError, match="'odd'"):
            write_table(table.assign(odd=bad), tmp_path / "u.parquet")
    assert not (tmp_path / "u.parquet").exists()

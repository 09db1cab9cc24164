"""Sites: the door (files, ids, polygons), one site, many sites, Earth Engine objects, HTML."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import re
import socket
import sys
import zipfile
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import ee
import ee.apitestcase
import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from gee_polygons.errors import CrsError, EarthEngineError, InputFileError, SiteError, UsageError
from gee_polygons.layers import ContinuousLayer
from gee_polygons.site import (
    Site,
    SiteCollection,
    SiteRefusedWarning,
    SiteRepairWarning,
    UnknownSiteError,
    load_sites,
    sites_from_geodataframe,
)

SHARED = Path(__file__).parents[2] / "shared" / "data"
RESTORATION = SHARED / "restoration_sites_epsg5880.geojson"
needs_restoration = pytest.mark.skipif(not RESTORATION.exists(), reason=f"real sites are not at {RESTORATION}")

BOX = shapely.box(-50, -10, -49.99, -9.99)
HOLED = shapely.Polygon(BOX.exterior.coords, [shapely.box(-49.997, -9.997, -49.993, -9.993).exterior.coords])
SMALL = shapely.box(-50, -10, -49.995, -9.995)  # edges below 1 km: reprojecting adds no vertices
TWO_PARTS = shapely.MultiPolygon([BOX, shapely.box(-49.98, -10, -49.97, -9.99)])
BOW_TIE = shapely.Polygon([(-50, -10), (-49.99, -9.99), (-49.99, -10), (-50, -9.99)])


def frame(*geometries, crs="EPSG:4326", **columns):
    return geopandas.GeoDataFrame(columns or {"n": range(len(geometries))}, geometry=list(geometries), crs=crs)


def write_geojson(folder, *geometries, ids=None, properties=None, name="sites.geojson", **members):
    features = [
        {
            "type": "Feature",
            **({"id": ids[i]} if ids else {}),
            "properties": properties[i] if properties else {"n": i},
            "geometry": g if g is None or isinstance(g, dict) else shapely.geometry.mapping(g),
        }
        for i, g in enumerate(geometries)
    ]
    path = folder / name
    path.write_text(json.dumps({"type": "FeatureCollection", **members, "features": features}), encoding="utf-8")
    return path


def crs_member(name):
    return {"type": "name", "properties": {"name": name}}


def assert_one_line(error):
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def same_area(a, b):
    """Whether two polygons cover the same ground, whatever ring they start with."""
    return shapely.area(shapely.symmetric_difference(a, b)) < 1e-12


# the real sites ------------------------------------------------------------------------------------------------------


@needs_restoration
def test_real_sites_come_to_the_right_place():
    sites = load_sites(RESTORATION)
    assert len(sites) == 10
    site = sites["3107"]
    assert site is sites[0]
    assert repr(site) == "Site(id=3107, start_year=2016)"
    assert site.site_id == 3107
    assert isinstance(site.site_id, int)
    assert site.area_ha == pytest.approx(37.09, rel=0.005)
    centre = site.polygon.centroid
    assert (centre.x, centre.y) == (pytest.approx(-51.0816, abs=1e-3), pytest.approx(-6.5001, abs=1e-3))
    for other in sites:  # Brazil
        west, south, east, north = other.polygon.bounds
        assert -74 < west < east < -34
        assert -34 < south < north < 6
        # the file's area_hectares is the providers' geodesic area, area_ha that of the projection
        assert other.area_ha == pytest.approx(other.properties["area_hectares"], rel=1e-4)
    assert sites.repaired == ()


@needs_restoration
def test_real_sites_keep_their_properties_and_years():
    sites = load_sites(RESTORATION)
    assert sites.start_years == (2016, 2022, 2021, 2019, 2023, 2021, 2015, 2023, 2012, 2021)
    properties = sites[0].properties
    assert "rid" not in properties
    assert "start_year" not in properties
    assert properties["strategy"] == "Regeneração Natural com Manejo"
    assert properties["completion_date"] is None
    assert properties["start_date"] == datetime(2016, 1, 1)
    assert type(properties["project_n_sites"]) is int


# files ---------------------------------------------------------------------------------------------------------------


def write(gdf, path):
    gdf.to_parquet(path) if path.suffix == ".parquet" else gdf.to_file(path)
    return path


FORMATS = [".geojson", ".gpkg", ".shp", ".fgb", ".parquet"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_sites(tmp_path, suffix):
    sites = SiteCollection(
        [
            Site(polygon=BOX, site_id=3107, start_year=2016, properties={"kind": "planting", "ha": 1.5}),
            Site(polygon=HOLED, site_id=12, properties={"kind": None, "ha": 2.5}),
            Site(polygon=TWO_PARTS, site_id=7, start_year=2020, properties={"kind": "São João", "ha": 3.5}),
        ]
    )
    back = load_sites(write(sites.to_geodataframe(), tmp_path / f"sites{suffix}"))
    assert back.site_ids == (3107, 12, 7)
    assert back.start_years == (2016, None, 2020)
    assert [dict(s.properties) for s in back] == [dict(s.properties) for s in sites]
    assert shapely.equals(shapely.normalize(back.polygons), shapely.normalize(sites.polygons)).all()
    assert [s.polygon.geom_type for s in back] == ["Polygon", "Polygon", "MultiPolygon"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_states_its_crs(tmp_path, suffix):
    two = shapely.union_all([SMALL, shapely.box(-49.98, -10, -49.975, -9.995)])
    gdf = frame(SMALL, two, site_id=["a", "b"])
    back = load_sites(write(gdf.to_crs("EPSG:5880"), tmp_path / f"sites{suffix}"))
    assert shapely.hausdorff_distance(back[0].polygon.exterior, SMALL.exterior) < 1e-8
    assert back[1].area_ha == pytest.approx(2 * back[0].area_ha, rel=1e-6)


@pytest.mark.parametrize("suffix", [s for s in FORMATS if s != ".geojson"])
# pyogrio remarks that no CRS was given, which is the point
@pytest.mark.filterwarnings("ignore:'crs' was not provided:UserWarning")
def test_a_file_without_crs_is_refused_unless_it_is_stated(tmp_path, suffix):
    path = write(frame(BOX, crs=None, site_id=[1]), tmp_path / f"sites{suffix}")
    with pytest.raises(CrsError, match=r"doesn't say .* crs=") as error:
        load_sites(path)
    assert_one_line(error)
    assert path.name in str(error.value)
    assert same_area(load_sites(path, crs="EPSG:4326")[0].polygon, BOX)


def test_geojson_without_crs_member_is_wgs84_by_its_standard(tmp_path):
    path = write_geojson(tmp_path, BOX)
    assert same_area(load_sites(path)[0].polygon, BOX)
    moved = shapely.geometry.box(5322801, 9280290, 5323801, 9281290)
    path = write_geojson(tmp_path, moved)
    with pytest.raises(SiteError, match="metres labelled as degrees"):
        load_sites(path)
    assert load_sites(path, crs="EPSG:5880")[0].area_ha == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("late", [False, True])
def test_geojson_with_null_crs_is_refused_unless_it_is_stated(tmp_path, late):
    path = write_geojson(tmp_path, BOX, crs=None)
    if late:  # the member may also stand behind the features
        content = json.loads(path.read_text())
        content["crs"] = content.pop("crs")
        path.write_text(json.dumps(content))
    with pytest.raises(CrsError, match=r"doesn't say .* crs=") as error:
        load_sites(path)
    assert_one_line(error)
    assert error.value.exit_status == 1
    assert same_area(load_sites(path, crs="EPSG:4326")[0].polygon, BOX)


def test_a_property_called_crs_is_not_the_files_crs(tmp_path):
    path = write_geojson(tmp_path, BOX, BOX, properties=[{"crs": None}, {"crs": "EPSG:5880"}])
    assert same_area(load_sites(path)[0].polygon, BOX)


@pytest.mark.parametrize("name", ["EPSG:5880", "urn:ogc:def:crs:EPSG::5880"])
def test_geojson_with_the_old_crs_member(tmp_path, name):
    moved = frame(SMALL).to_crs("EPSG:5880").geometry[0]
    sites = load_sites(write_geojson(tmp_path, moved, crs=crs_member(name)))
    assert shapely.equals_exact(sites[0].polygon, SMALL, tolerance=1e-9)


@pytest.mark.parametrize("member", [{}, "EPSG:5880", crs_member("EPSG:999999"), {"type": "link"}])
def test_a_crs_member_that_gdal_takes_for_wgs84_in_silence_is_refused(tmp_path, member):
    path = write_geojson(tmp_path, BOX, crs=member)
    with pytest.raises(CrsError, match="names no known coordinate reference system") as error:
        load_sites(path)
    assert_one_line(error)
    assert len(load_sites(path, crs="EPSG:4326")) == 1


def test_a_crs_that_contradicts_the_file_is_refused(tmp_path):
    path = write_geojson(tmp_path, BOX, crs=crs_member("urn:ogc:def:crs:OGC:1.3:CRS84"))
    assert len(load_sites(path, crs="EPSG:4326")) == 1
    with pytest.raises(UsageError, match="crs= is for data that doesn't say") as error:
        load_sites(path, crs="EPSG:5880")
    assert_one_line(error)
    with pytest.raises(UsageError, match="unknown coordinate reference system"):
        load_sites(path, crs="EPSG:nope")


def test_a_missing_file(tmp_path):
    with pytest.raises(InputFileError, match="no such file") as error:
        load_sites(tmp_path / "nothing.geojson")
    assert error.value.exit_status == 2
    assert isinstance(error.value, OSError)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.geojson", b"hello"),
        ("nothing.geojson", b""),
        ("other.json", b'{"a": 1}'),
        ("cut.geojson", b'{"type": "FeatureCollection", "features": [{"type": "Feature", "prop'),
        ("text.parquet", b"hello"),
        ("cut.parquet", b"PAR1xxxx"),
        ("text.gpkg", b"hello"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 100),
        ("table.csv", b"a,b\n1,2\n"),
    ],
)
def test_a_file_that_is_no_vector_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputFileError, match=re.escape(name)) as error:
        load_sites(tmp_path / name)
    assert_one_line(error)


def test_a_parquet_table_without_geometry_and_a_folder(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    for path in (tmp_path / "plain.parquet", tmp_path):
        with pytest.raises(InputFileError) as error:
            load_sites(path)
        assert_one_line(error)


def test_a_file_without_features(tmp_path):
    for path in (write_geojson(tmp_path), write(frame(BOX).iloc[:0], tmp_path / "empty.parquet")):
        with pytest.raises(SiteError, match="holds no features"):
            load_sites(path)


def test_a_file_with_layers(tmp_path):
    path = tmp_path / "sites.gpkg"
    frame(BOX, site_id=[1]).to_file(path, layer="old")
    assert load_sites(path).site_ids == (1,)
    frame(BOX, site_id=[2]).to_file(path, layer="new")
    with pytest.raises(UsageError, match=r"2 layers, 'old', 'new'; choose one with layer="):
        load_sites(path)
    assert load_sites(path, layer="new").site_ids == (2,)
    with pytest.raises(UsageError, match="no layer 'nwe'; it has 'new', 'old'"):
        load_sites(path, layer="nwe")


def test_bare_geojson_and_a_home_folder(tmp_path, monkeypatch):
    (tmp_path / "one.geojson").write_text(json.dumps(shapely.geometry.mapping(BOX)))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_sites("~/one.geojson").site_ids == (0,)


KML = """<?xml version="1.0" encoding="UTF-8"?>
<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{}</Document></kml>"""
PLACEMARK = """<Placemark><name>{}</name><Polygon><outerBoundaryIs><LinearRing><coordinates>{}</coordinates>
</LinearRing></outerBoundaryIs></Polygon></Placemark>"""


@pytest.mark.parametrize("suffix", [".kml", ".kmz"])
def test_a_google_earth_file_opens_by_folder_and_says_that_ids_are_made_up(tmp_path, caplog, suffix):
    ring = " ".join(f"{x},{y},0" for x, y in BOX.exterior.coords)
    folders = [
        f"<Folder><name>{name}</name>{''.join(PLACEMARK.format(site, ring) for site in sites)}</Folder>"
        for name, sites in {"Plots": ("North", "South"), "Controls": ("East",)}.items()
    ]
    text, path = KML.format("".join(folders)), tmp_path / f"earth{suffix}"
    if suffix == ".kml":
        path.write_text(text)
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("doc.kml", text)
    (tmp_path / "empty.kml").write_text(KML.format(""))
    with pytest.raises(InputFileError, match="has no layers"):
        load_sites(tmp_path / "empty.kml")
    with pytest.raises(UsageError, match="2 layers, 'Plots', 'Controls'; choose one with layer="):
        load_sites(path)
    assert load_sites(path, layer="Plots").site_ids == (0, 1)  # the empty id column of KML isn't taken
    assert "no id column: sites are numbered 0..1; name one with id_column= ('Name')" in caplog.text
    assert load_sites(path, layer="Plots", id_column="Name")["South"].polygon.equals(BOX)


def test_a_zip_file_with_a_folder_and_two_shapefiles(tmp_path):
    for name, site_id in (("first", 1), ("second", 2)):
        frame(BOX, site_id=[site_id]).to_file(tmp_path / f"{name}.shp")
    for name, stems in (("one.zip", ["first"]), ("two.zip", ["first", "second"])):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for part in (part for stem in stems for part in tmp_path.glob(f"{stem}.*")):
                file.write(part, f"data 1/{part.name}")
            file.writestr("__MACOSX/data 1/._first.shp", b"")
            file.writestr("readme.txt", b"")
    assert load_sites(tmp_path / "one.zip").site_ids == (1,)
    with pytest.raises(UsageError, match="2 layers, 'first', 'second'; choose one with layer="):
        load_sites(tmp_path / "two.zip")
    assert load_sites(tmp_path / "two.zip", layer="second").site_ids == (2,)


def test_a_csv_file_as_geopandas_writes_it(tmp_path):
    path = tmp_path / "sites.csv"
    frame(BOX, BOX, site_id=["017", "018"], ano_plantio=[2016, -9999], share=[0.5, 0.25]).to_csv(path, index=False)
    with pytest.raises(CrsError, match="state it with crs="):
        load_sites(path)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        InputFileError, match=r"table without geometry.*WKT is looked for in columns called geometry,wkt"
    ):
        load_sites(tmp_path / "table.csv", crs=4326)
    sites = load_sites(path, crs=4326, start_year_column="ano_plantio")
    assert (sites.site_ids, sites.start_years) == (("017", "018"), (2016, None))
    assert sites[0].polygon.equals(BOX)
    assert sites[1].properties == {"share": 0.25}


def test_rows_that_cannot_be_sites_are_left_out_on_request(tmp_path):
    path = tmp_path / "sites.geojson"
    bow = [(10, 0), (-171, 1), (10, 1), (10, 0)]
    shapes = [BOX, None, shapely.Point(0, 0), BOX, BOX, BOX, shapely.Polygon(bow), BOX]
    ids = [1, 2, 3, 4, 4, None, 7, 8]
    years = ["2016", None, None, "2017", None, None, None, "soon"]
    frame(*shapes, site_id=pd.array(ids, "Int64"), start_year=years).to_file(path)
    with pytest.raises(SiteError):
        load_sites(path)
    with pytest.warns(
        SiteRefusedWarning, match="left out 7 rows: row 1 has no geometry, or .*; row 2 is a Point"
    ) as caught:
        sites = load_sites(path, skip_invalid=True)
    assert (sites.site_ids, sites.start_years) == ((1,), (2016,))
    assert {row: (i, why.split(":")[0]) for row, (i, why) in caught[0].message.refused.items()} == {
        1: (2, "has no geometry, or one with a coordinate that isn't a number"),
        2: (3, "is a Point, not a polygon"),
        3: (4, "has the id of another row"),
        4: (4, "has the id of another row"),
        5: (None, "has no id"),
        6: (7, "has an edge across 181 degrees of longitude"),
        7: (8, "column 'start_year'"),
    }
    frame(BOX, None, BOX).to_file(path)
    with pytest.warns(SiteRefusedWarning):
        assert load_sites(path, skip_invalid=True).site_ids == (0, 2)  # the file's row numbers stay


# ids and years -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "ids"),
    [
        ({"fid": [1], "id": [2], "rid": [3], "site_id": [4]}, (4,)),
        ({"fid": [1], "id": [2], "RID": [3]}, (3,)),
        ({"FID": [1], "Id": ["x"]}, ("x",)),
        ({"fid": [1.0]}, (1,)),
        ({"Site_ID": [9.0], "id": [2]}, (9,)),
        ({"name": ["a"]}, (0,)),
    ],
)
def test_where_ids_come_from(columns, ids):
    sites = sites_from_geodataframe(frame(BOX, **columns))
    assert sites.site_ids == ids
    assert type(sites.site_ids[0]) is type(ids[0])


def test_an_id_column_may_be_named():
    gdf = frame(BOX, TWO_PARTS, site_id=[1, 1], Parcel=["a", "b"])
    sites = sites_from_geodataframe(gdf, id_column="parcel")
    assert sites.site_ids == ("a", "b")
    assert sites[0].properties == {"site_id": 1}
    with pytest.raises(UsageError, match=r"no column 'parcle', asked for with id_column=; it has 'Parcel', 'site_id'"):
        sites_from_geodataframe(gdf, id_column="parcle")


def test_ids_stay_readable():
    values = [3107.0, "3108", 3109, "n 7", 1.5, np.int16(4), 10**20]
    sites = sites_from_geodataframe(frame(*[BOX] * 7, id=pd.Series(values, dtype=object)))
    assert sites.site_ids == (3107, "3108", 3109, "n 7", "1.5", 4, 10**20)
    assert sites["3107"].site_id == 3107
    assert sites["3108"].site_id == "3108"
    assert sites["1.5"] == sites[4]


def test_ids_of_geojson_features_and_of_a_geopackage(tmp_path):
    assert load_sites(write_geojson(tmp_path, BOX, BOX, ids=[7, 9])).site_ids == (7, 9)
    assert load_sites(write_geojson(tmp_path, BOX, BOX, ids=[7, 9]), id_column="id").site_ids == (7, 9)
    assert load_sites(write_geojson(tmp_path, BOX, BOX, ids=["a", "b"])).site_ids == ("a", "b")
    assert load_sites(write_geojson(tmp_path, BOX, ids=[7], properties=[{"rid": 5}])).site_ids == (5,)
    path = write(frame(BOX, BOX, name=["a", "b"]), tmp_path / "sites.gpkg")
    assert load_sites(path).site_ids == (0, 1)
    assert load_sites(path, id_column="fid").site_ids == (1, 2)


def test_a_named_index_counts_as_a_column():
    gdf = frame(BOX, BOX, site_id=["a", "b"], v=[1, 2]).set_index("site_id")
    assert sites_from_geodataframe(gdf).site_ids == ("a", "b")
    picked = frame(BOX, BOX, BOX, v=[1, 2, 3]).iloc[[2, 0]]  # an unnamed index doesn't
    assert sites_from_geodataframe(picked).site_ids == (0, 1)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([5, 7, 5, 7.0], r"'site_id' has duplicates: 5 \(rows 0, 2\), 7 \(rows 1, 3\)"),
        (["5", 5, "a", "b"], r"duplicates: 5 \(rows 0, 1\)"),
        ([1, None, 3, None], r"'site_id' is empty in rows 1, 3"),
        (["a", "b", " ", "c"], r"is empty in row 2;"),
        ([1.0, math.nan, 2.0, math.inf], r"is empty in rows 1, 3"),
    ],
)
def test_double_and_missing_ids_are_refused_by_name(ids, said):
    with pytest.raises(SiteError, match=said) as error:
        sites_from_geodataframe(frame(BOX, BOX, BOX, BOX, site_id=pd.Series(ids, dtype=object)))
    assert_one_line(error)
    assert "id_column=" in str(error.value)


def test_many_faults_are_counted_not_listed():
    with pytest.raises(SiteError, match=r"rows 0, 1, 2, 3, 4 and 95 more") as error:
        sites_from_geodataframe(frame(*[BOX] * 101, site_id=[None] * 100 + [7]))
    assert_one_line(error)


@pytest.mark.parametrize(
    ("value", "year"),
    [
        (2016.0, 2016),
        (2016, 2016),
        ("2016", 2016),
        ("2016.0", 2016),
        ("2016-05-01T00:00:00", 2016),
        ("01/05/2016", 2016),
        (20160501, 2016),
        (pd.Timestamp("2016-05-01"), 2016),
        (datetime(2016, 5, 1, tzinfo=UTC), 2016),
        (-9999, None),  # codes for no year
        ("-9999", None),
        (0, None),
        (9999.0, None),
        ("9999-12-31", None),
        (datetime(1, 1, 1), None),
        (None, None),
        (math.nan, None),
        (pd.NaT, None),
        ("", None),
    ],
)
def test_start_years(value, year):
    column = pd.Series([value], dtype=object)
    for name in ("start_year", "Start_Year", "start_date"):
        site = sites_from_geodataframe(frame(BOX, id=[1], **{name: column}))[0]
        assert site.start_year == year
        assert ("start_date" in site.properties) == (name == "start_date")
    assert sites_from_geodataframe(frame(BOX, id=[1], since=column), start_year_column="since")[0].start_year == year


def test_start_year_goes_before_start_date():
    gdf = frame(BOX, id=[1], start_date=["2010-01-01"], start_year=[2016])
    assert sites_from_geodataframe(gdf)[0].start_year == 2016


@pytest.mark.parametrize("value", ["then", 16, 2016.5, "2016-2018"])
def test_a_start_year_that_is_none_is_refused_by_name(value):
    gdf = frame(BOX, BOX, id=[1, 2], start_year=pd.Series([2016, value], dtype=object))
    with pytest.raises(SiteError, match=r"site 2 \(row 1\): column 'start_year': .* is not a year") as error:
        sites_from_geodataframe(gdf)
    assert_one_line(error)
    # a date column that happens to be there is not a promise
    assert sites_from_geodataframe(gdf.rename(columns={"start_year": "start_date"}))[1].start_year is None


# polygons ------------------------------------------------------------------------------------------------------------


def triangle(x):
    with np.errstate(invalid="ignore"):  # GEOS flags a NaN; numpy says so
        return shapely.Polygon([(0, 0), (x, 0), (1, 1)])


@pytest.mark.parametrize(
    ("geometry", "said"),
    [
        (shapely.Point(-50, -10), "is a Point, not a polygon"),
        (shapely.MultiPoint([(0, 0), (1, 1)]), "is a MultiPoint, not a polygon"),
        (shapely.LineString([(0, 0), (1, 1)]), "is a LineString, not a polygon"),
        (shapely.GeometryCollection([BOX, shapely.Point(0, 0)]), "is a GeometryCollection with a Point"),
        (shapely.Polygon(), "has an empty geometry"),
        (shapely.MultiPolygon(), "has an empty geometry"),
        (shapely.GeometryCollection(), "has an empty geometry"),
        (None, "has no geometry"),
        (triangle(math.nan), "has a coordinate that is NaN or infinite"),
        (triangle(math.inf), "has a coordinate that is NaN or infinite"),
        (shapely.Polygon([(0, 0), (1, 1), (2, 2)]), "has no area"),
        (shapely.box(0, 89, 1, 91), "isn't longitude and latitude"),
        (shapely.box(-190, 0, -189, 1), "isn't longitude and latitude"),
    ],
)
def test_what_is_no_polygon_is_refused_by_id_and_row(geometry, said):
    gdf = frame(BOX, geometry, TWO_PARTS, site_id=[5, 6, 7])
    with pytest.raises(SiteError, match=rf"site 6 \(row 1\) .*{said}") as error:
        sites_from_geodataframe(gdf)
    assert_one_line(error)
    assert error.value.exit_status == 1
    with pytest.raises(SiteError, match=rf"GeoDataFrame: row 1 .*{said}"):
        sites_from_geodataframe(gdf.drop(columns="site_id"))


def test_holes_without_points_are_left_out_and_crash_nothing():
    """They are valid, but GEOS ends the process when it adds vertices to them."""
    for crs, d in (("EPSG:4326", 1), ("EPSG:32722", 5000)):
        hollow = shapely.from_wkt(f"POLYGON ((0 0, {d} 0, {d} {d}, 0 0), EMPTY)")
        assert shapely.is_valid(hollow)
        two = shapely.MultiPolygon([hollow, shapely.box(2 * d, 0, 3 * d, d)])
        sites = sites_from_geodataframe(frame(hollow, two, crs=crs))
        assert [shapely.get_num_interior_rings(shapely.get_parts(site.polygon)).sum() for site in sites] == [0, 0]
        assert sites[0].area_ha > 0
    with pytest.raises(SiteError, match="has a hole without points"):
        Site(polygon=hollow, site_id=1)


def test_texts_of_a_parquet_file_that_are_not_utf8_are_said_in_one_line(tmp_path):
    frame(BOX, name=["unlikely"]).to_parquet(tmp_path / "sites.parquet", compression=None)
    damaged = (tmp_path / "sites.parquet").read_bytes().replace(b"unlikely", b"unlik\xff\xfe\xff")
    (tmp_path / "sites.parquet").write_bytes(damaged)
    with pytest.raises(InputFileError, match="can't be read as a vector file: Invalid UTF8") as error:
        load_sites(tmp_path / "sites.parquet")
    assert_one_line(error)


@pytest.mark.parametrize(
    ("rings", "said"),
    [
        ([[[0, 0], [1, 0], [math.nan, 1], [0, 0]]], "NaN"),
        ([[[0, 0], [1, 0], [None, 1], [0, 0]]], "coordinate that isn't a number"),
        ([[[0, 0], [1, 0], [1, 1]]], "ring that isn't closed"),
        ([], "empty geometry"),
    ],
)
def test_damaged_geojson_is_refused_by_row(tmp_path, rings, said):
    path = write_geojson(tmp_path, BOX, {"type": "Polygon", "coordinates": rings})
    with pytest.raises(SiteError, match=f"row 1 .*{said}") as error:
        load_sites(path)
    assert_one_line(error)


def test_a_file_of_points(tmp_path):
    path = write_geojson(tmp_path, shapely.Point(-50, -10), properties=[{"site_id": "well"}])
    with pytest.raises(SiteError, match=r"site well \(row 0\) is a Point") as error:
        load_sites(path)
    assert path.name in str(error.value)


def test_invalid_rings_are_repaired_and_said():
    gdf = frame(BOX, BOW_TIE, HOLED, site_id=["good", "bow tie", "holed"])
    with pytest.warns(SiteRepairWarning, match=r"bow tie \(row 1: self-intersection at -49.995 -9.995\)") as caught:
        sites = sites_from_geodataframe(gdf)
    assert caught[0].message.site_ids == ("bow tie",)
    assert caught[0].filename == __file__
    assert sites.repaired == ("bow tie",)
    assert sites[1].polygon.is_valid
    assert sites[1].polygon.area == pytest.approx(BOX.area / 2)
    assert sites[0].polygon == BOX
    assert (sites[:1].repaired, sites[1:].repaired) == ((), ("bow tie",))
    assert pickle.loads(pickle.dumps(sites)).repaired == ("bow tie",)


def test_load_sites_says_repairs_too(tmp_path):
    with pytest.warns(SiteRepairWarning, match="self-intersection") as caught:
        sites = load_sites(write_geojson(tmp_path, BOW_TIE))
    assert caught[0].filename == __file__
    assert sites.repaired == (0,)


def test_a_repair_keeps_overlaps_as_area_and_drops_spikes():
    overlapping = shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(1, 1, 3, 3)])
    spike = shapely.Polygon([(0, 0), (1, 0), (1, 1), (1, 2), (1, 1), (0, 1)])
    with pytest.warns(SiteRepairWarning):
        sites = sites_from_geodataframe(frame(overlapping, spike))
    assert sites[0].polygon.area == pytest.approx(7)
    assert sites[1].polygon.equals(shapely.box(0, 0, 1, 1))


def test_z_is_dropped_and_holes_and_parts_are_kept():
    nested = shapely.GeometryCollection([BOX, shapely.GeometryCollection([TWO_PARTS.geoms[1], shapely.Polygon()])])
    sites = sites_from_geodataframe(frame(shapely.force_3d(HOLED, 7.0), TWO_PARTS, nested, shapely.MultiPolygon([BOX])))
    assert not any(p.has_z for p in sites.polygons)
    assert sites[0].polygon == HOLED
    assert sites[1].polygon == TWO_PARTS
    assert sites[2].polygon == TWO_PARTS
    assert sites[3].polygon == BOX  # so that every format gives the same


def test_the_given_geodataframe_is_not_changed():
    gdf = frame(shapely.force_3d(BOX), BOW_TIE, site_id=[1, 2]).to_crs("EPSG:5880")
    before = gdf.copy(deep=True)
    with pytest.warns(SiteRepairWarning):
        sites_from_geodataframe(gdf)
    assert gdf.equals(before)
    assert gdf.crs == before.crs


def test_long_straight_edges_stay_where_they_were():
    """The middle of a 200 km edge, straight in the polyconic projection, is far from the straight line in degrees."""
    field = shapely.box(5_300_000, 7_400_000, 5_500_000, 7_401_000)
    polygon = sites_from_geodataframe(frame(field, crs="EPSG:5880"))[0].polygon
    back = pyproj.Transformer.from_crs(5880, 4326, always_xy=True)
    middle = shapely.Point(back.transform(5_400_000, 7_400_000))
    assert polygon.exterior.distance(middle) < 1e-6  # 0.1 m
    corners = shapely.Polygon(np.column_stack(back.transform(*shapely.get_coordinates(field).T)))
    assert corners.exterior.distance(middle) > 2e-4  # 20 m, without the additional vertices
    assert sites_from_geodataframe(frame(BOX))[0].polygon == BOX  # degrees get none


def test_feet_are_feet():
    in_metres = frame(shapely.box(2_000_000, 500_000, 2_010_000, 500_100), crs="EPSG:26915")
    feet = frame(shapely.box(1_500_000, 500_000, 1_510_000, 500_100), crs="EPSG:2264")
    spacing = [
        shapely.get_num_points(sites_from_geodataframe(g)[0].polygon.exterior)
        for g in (in_metres.set_crs("EPSG:2264", allow_override=True), feet)
    ]
    assert spacing == [11, 11]  # 10,000 ft = 3.05 km: four pieces on each long side


@pytest.mark.parametrize(
    ("geometry", "crs", "said"),
    [
        (shapely.box(5322801, 9280290, 5323801, 9281290), "EPSG:4326", "metres labelled as degrees"),
        (shapely.box(5322801, 9280290, 5323801, 9281290), "EPSG:4674", "metres labelled as degrees"),
        (BOX, "EPSG:32722", "degrees labelled as metres"),
        (shapely.box(5e7, 5e7, 5.1e7, 5.1e7), "EPSG:32722", "don't exist in WGS 84 / UTM zone 22S"),
        (shapely.box(-1e12, -1e12, 1e12, 1e12), "EPSG:3857", "is that the right CRS"),
        (BOX, 'LOCAL_CS["site grid",UNIT["metre",1],AXIS["E",EAST],AXIS["N",NORTH]]', "has no transformation"),
    ],
)
def test_coordinates_that_the_crs_cannot_have(geometry, crs, said):
    with pytest.raises(SiteError, match=said) as error:
        sites_from_geodataframe(frame(geometry, crs=crs, site_id=[5]))
    assert_one_line(error)


def test_a_site_across_the_antimeridian_is_one_piece():
    whole = shapely.box(179.95, 10, 180.05, 10.1)
    utm = frame(whole).to_crs("EPSG:32601")
    split = shapely.MultiPolygon([shapely.box(179.95, 10, 180, 10.1), shapely.box(-180, 10, -179.95, 10.1)])
    for gdf in (utm, frame(split), frame(whole)):
        site = sites_from_geodataframe(gdf)[0]
        assert site.polygon.geom_type == "Polygon"
        assert shapely.equals_exact(shapely.box(*site.polygon.bounds), whole, tolerance=1e-5)
        assert site.area_ha == pytest.approx(12125.14, rel=1e-4)
        west, _, east, _ = site.region(1000).bounds
        assert (west, east) == (pytest.approx(179.94, abs=2e-3), pytest.approx(180.06, abs=2e-3))


def test_longitudes_up_to_360_are_brought_home():
    assert sites_from_geodataframe(frame(shapely.box(230, 10, 230.5, 11)))[0].polygon == shapely.box(
        -130, 10, -129.5, 11
    )
    far_apart = shapely.MultiPolygon([shapely.box(-60, 0, -59, 1), shapely.box(130, 0, 131, 1)])
    assert sites_from_geodataframe(frame(far_apart))[0].polygon == far_apart


def test_an_edge_the_wrong_way_around_the_world_is_refused():
    with pytest.raises(SiteError, match=r"across 359.8 degrees .* count on past 180"):
        sites_from_geodataframe(frame(shapely.box(-179.9, 0, 179.9, 1)))


def test_what_is_no_geodataframe():
    with pytest.raises(UsageError, match="found DataFrame"):
        sites_from_geodataframe(pd.DataFrame({"a": [1]}))
    with pytest.raises(UsageError, match="no geometry column"):
        sites_from_geodataframe(geopandas.GeoDataFrame({"a": [1]}))
    with pytest.raises(CrsError, match=r"crs="):
        sites_from_geodataframe(frame(BOX, crs=None))
    assert len(sites_from_geodataframe(frame(BOX, crs=None), crs=4326)) == 1
    double = frame(BOX, a=[1], b=[2]).rename(columns={"b": "a"})
    with pytest.raises(UsageError, match="two columns are called 'a'"):
        sites_from_geodataframe(double)


# one site ------------------------------------------------------------------------------------------------------------


def test_a_site_cannot_be_changed():
    site = Site(polygon=BOX, site_id=1, properties={"tags": ["a"]})
    with pytest.raises(dataclasses.FrozenInstanceError):
        site.site_id = 2
    with pytest.raises(TypeError):
        site.properties["a"] = 1


def test_a_site_is_checked_when_it_is_made():
    for polygon, said in [
        (BOW_TIE, "is not valid: self-intersection"),
        (shapely.Point(0, 0), "is a Point"),
        (shapely.GeometryCollection([BOX]), "is a GeometryCollection"),
        (shapely.box(0, 0, 1000, 1000), "longitude and latitude"),
        ("POLYGON EMPTY", "is a str"),
    ]:
        with pytest.raises(SiteError, match=rf"site 5: its polygon .*{said}"):
            Site(polygon=polygon, site_id=5)
    with pytest.raises(SiteError, match="needs an id"):
        Site(polygon=BOX, site_id=None)
    site = Site(
        polygon=shapely.force_3d(BOX), site_id=5.0, start_year=2016.0, properties={"a": np.nan, "b": np.int8(3)}
    )
    assert site == Site(polygon=BOX, site_id=5, start_year=2016, properties={"a": None, "b": 3})


def test_properties_are_plain_python(tmp_path):
    gdf = frame(
        BOX,
        site_id=[1],
        n=np.array([3], np.int16),
        flag=[True],
        missing=[pd.NA],
        when=[pd.Timestamp("2020-05-01")],
        tags=[np.array(["a", "b"])],
        more=[{"x": np.float32(0.5)}],
        point=geopandas.GeoSeries([shapely.Point(1, 2)], crs=4326),
    )
    site = sites_from_geodataframe(gdf)[0]
    assert dict(site.properties) == {
        "n": 3,
        "flag": True,
        "missing": None,
        "when": datetime(2020, 5, 1),
        "tags": ["a", "b"],
        "more": {"x": 0.5},
        "point": "POINT (1 2)",
    }
    assert [type(v) for v in site.properties.values()] == [int, bool, type(None), datetime, list, dict, str]
    json.dumps({k: v for k, v in site.properties.items() if k != "when"})


def test_sites_are_equal_by_value_and_hashable():
    one, other = (Site(polygon=BOX, site_id=1, properties={"a": [1]}) for _ in range(2))
    assert one == other
    assert len({one, other, Site(polygon=BOX, site_id=2)}) == 2
    assert one != Site(polygon=BOX, site_id=1, properties={"a": [2]})
    assert dataclasses.replace(one, start_year=2020).start_year == 2020


def test_area_of_a_degree_at_the_equator():
    # 1 degree x 1 degree on WGS 84: 12,308.778 km2 by the authalic formula
    assert Site(polygon=shapely.box(0, 0, 1, 1), site_id=1).area_ha == pytest.approx(1_230_877.8, rel=1e-4)


def authalic_ha(west, south, east, north):
    """Area of a box of longitudes and latitudes on WGS 84, in closed form (Snyder 1987, equation 3-12)."""
    a, f = 6378137.0, 1 / 298.257223563
    e = math.sqrt(f * (2 - f))

    def q(lat):
        s = math.sin(math.radians(lat))
        return s / (1 - (e * s) ** 2) + math.log((1 + e * s) / (1 - e * s)) / (2 * e)

    return a**2 * (1 - e**2) / 2 * math.radians(east - west) * (q(north) - q(south)) / 1e4


@given(
    west=st.floats(-170, 170),
    south=st.floats(-80, 80),
    width=st.floats(1e-3, 3.0),
    height=st.floats(1e-3, 3.0),
    reverse=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_area_is_that_of_the_box_on_the_ellipsoid(west, south, width, height, reverse):
    box = shapely.box(west, south, west + width, south + height)
    site = Site(polygon=box.reverse() if reverse else box, site_id=1)
    assert site.area_ha == pytest.approx(authalic_ha(*box.bounds), rel=1e-6)


def test_area_subtracts_holes_and_adds_parts():
    geod = pyproj.Geod(ellps="WGS84")
    for polygon in (BOX, HOLED, TWO_PARTS):
        for turned in (polygon, polygon.reverse()):
            expected = abs(geod.geometry_area_perimeter(shapely.orient_polygons(polygon))[0]) / 1e4
            assert Site(polygon=turned, site_id=1).area_ha == pytest.approx(expected, rel=1e-9)
    assert Site(polygon=HOLED, site_id=1).area_ha < Site(polygon=BOX, site_id=1).area_ha


@pytest.mark.parametrize("centre", [(-51.08, -6.5), (24.9, 69.9), (-88.8, 44.3), (179.999, -17.0), (0.0, 0.0)])
def test_buffer_and_region_are_metric(centre):
    lon, lat = centre
    site = Site(polygon=shapely.box(lon - 0.003, lat - 0.002, lon + 0.003, lat + 0.002), site_id=1)
    grown = site.buffer(500)
    assert grown.contains(site.polygon)
    geod = pyproj.Geod(ellps="WGS84")
    west, south, east, north = site.polygon.bounds
    for region in (grown, site.region(500), site.region()):
        w, s, e, n = region.bounds
        assert geod.inv(west, lat, w, lat)[2] == pytest.approx(500, rel=0.02)
        assert geod.inv(east, lat, e, lat)[2] == pytest.approx(500, rel=0.02)
        assert geod.inv(lon, south, lon, s)[2] == pytest.approx(500, rel=0.02)
        assert geod.inv(lon, north, lon, n)[2] == pytest.approx(500, rel=0.02)
    assert site.region().equals(shapely.box(*grown.bounds))


def test_a_buffer_may_shrink_but_not_to_nothing():
    site = Site(polygon=BOX, site_id=7)
    assert site.polygon.contains(site.buffer(-100))
    with pytest.raises(SiteError, match="site 7: nothing is left after a buffer of -5000 m"):
        site.buffer(-5000)
    assert same_area(site.buffer(0), BOX)


@pytest.mark.parametrize("value", [math.nan, math.inf, "far", None])
def test_a_buffer_is_a_number(value):
    for method in (Site(polygon=BOX, site_id=7).buffer, Site(polygon=BOX, site_id=7).region):
        with pytest.raises(UsageError, match="buffer_m must be a number of metres"):
            method(value)


def test_a_region_does_not_shrink():
    with pytest.raises(UsageError, match="0 or more"):
        Site(polygon=BOX, site_id=7).region(-1)
    assert Site(polygon=HOLED, site_id=7).region(0) == shapely.box(*BOX.bounds)


def test_years_are_those_published_before_and_after_the_start():
    assert Site(polygon=BOX, site_id=7, start_year=2021).years() == list(range(2017, 2026))


@pytest.mark.parametrize("make", [lambda s: pickle.loads(pickle.dumps(s)), copy.copy, copy.deepcopy])
def test_sites_travel(make):
    site = Site(polygon=TWO_PARTS, site_id="a", start_year=2016, properties={"tags": ["x"], "n": None})
    sites = SiteCollection([site, Site(polygon=BOX, site_id="b")])
    assert make(site) == site
    assert make(sites) == sites
    assert hash(make(sites)) == hash(sites)


# many sites ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sites():
    return SiteCollection(
        Site(
            polygon=shapely.box(i, 0, i + 0.5, 0.5),
            site_id=100 + i,
            start_year=2015 + i,
            properties={"even": i % 2 == 0},
        )
        for i in range(5)
    )


def test_a_collection_is_a_sequence(sites):
    assert len(sites) == 5
    assert [s.site_id for s in sites] == list(sites.site_ids) == [100, 101, 102, 103, 104]
    assert sites[-1].site_id == 104
    assert sites[np.int64(2)].site_id == 102
    assert [s.site_id for s in reversed(sites)] == [104, 103, 102, 101, 100]
    assert sites.index(sites[3]) == 3
    assert sites[3] in sites
    assert "103" in sites
    assert "3" not in sites
    assert Site(polygon=BOX, site_id=103) not in sites


def test_slices_are_collections(sites):
    assert isinstance(sites[1:3], SiteCollection)
    assert sites[1:3].site_ids == (101, 102)
    assert sites[::-2].site_ids == (104, 102, 100)
    assert sites[::-2]["102"] == sites[2]
    assert len(sites[7:]) == 0
    assert list(sites[7:]) == []


def test_by_id(sites):
    assert sites["103"] is sites[3]
    with pytest.raises(UnknownSiteError, match=r"no site has the id '13'; there are '103'") as error:
        sites["13"]
    assert isinstance(error.value, KeyError)
    assert isinstance(error.value, UsageError)
    assert str(error.value).startswith("no site")  # not quoted, as KeyError would


def test_by_position(sites):
    for position in (5, -6, 103):
        with pytest.raises(IndexError, match=rf"no site at position {position}: there are 5"):
            sites[position]
    with pytest.raises(UsageError, match=r"position .*found float"):
        sites[1.0]


def test_filter(sites):
    assert sites.filter(even=True).site_ids == (100, 102, 104)
    assert sites.filter(lambda s: s.start_year > 2017).site_ids == (103, 104)
    assert sites.filter(lambda s: s.start_year > 2016, even=True).site_ids == (102, 104)
    assert sites.filter(start_year=2016, site_id=101).site_ids == (101,)
    assert sites.filter(site_id=7) == SiteCollection()
    assert sites.filter() == sites
    assert sites.filter(even=True)["104"].start_year == 2019
    with pytest.raises(UsageError, match="no property 'evn'; they have 'even'"):
        sites.filter(evn=True)
    with pytest.raises(UsageError, match="takes a function"):
        sites.filter({"even": True})
    gaps = SiteCollection([Site(polygon=BOX, site_id=1, properties={"a": 1}), Site(polygon=BOX, site_id=2)])
    assert gaps.filter(a=None).site_ids == (2,)


def test_a_collection_cannot_be_changed(sites):
    with pytest.raises(TypeError):
        sites[0] = sites[1]
    with pytest.raises(AttributeError):
        sites.polygons = []
    with pytest.raises(AttributeError):
        sites.note = "x"
    with pytest.raises(ValueError, match="read-only"):
        sites.polygons[0] = BOX
    table = sites.to_geodataframe()
    table.loc[0, "even"] = None
    table.loc[0, "geometry"] = None
    assert sites[0].properties["even"] is True
    assert sites.polygons[0] is not None


def test_polygons_are_an_array_for_sources(sites):
    assert sites.polygons.dtype == object
    assert sites.polygons.shape == (5,)
    assert shapely.area(sites.polygons) == pytest.approx(0.25)
    assert SiteCollection().polygons.shape == (0,)


def test_what_a_collection_is_made_of():
    with pytest.raises(SiteError, match=r"ids must be unique, found more than once: 1$"):
        SiteCollection([Site(polygon=BOX, site_id=1), Site(polygon=BOX, site_id="1")])
    with pytest.raises(UsageError, match="made of Site objects, found Polygon"):
        SiteCollection([BOX])


def test_equality_of_collections(sites):
    assert sites == SiteCollection(list(sites))
    assert sites != sites[:4]
    assert sites != list(sites)
    assert len({sites, SiteCollection(list(sites))}) == 1


def test_reprs(sites):
    assert repr(sites) == "SiteCollection(5 sites: 100, 101, 102, 103, 104)"
    assert repr(sites[:1]) == "SiteCollection(1 site: 100)"
    assert repr(SiteCollection()) == "SiteCollection(0 sites)"
    assert repr(Site(polygon=BOX, site_id="a")) == "Site(id='a', start_year=None)"


# to a table and back -------------------------------------------------------------------------------------------------

names = st.text("abcdefgh_", min_size=1, max_size=8).filter(lambda n: n not in ("site_id", "start_year", "geometry"))
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.lists(st.integers(0, 9), max_size=3),
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)),
)


@st.composite
def polygons(draw):
    west, south = draw(st.floats(-179, 178)), draw(st.floats(-89, 88))
    box = shapely.box(west, south, west + 0.3, south + 0.3)
    shape = draw(st.sampled_from(["box", "hole", "parts"]))
    if shape == "hole":
        return box.difference(shapely.box(west + 0.1, south + 0.1, west + 0.2, south + 0.2))
    return (
        shapely.MultiPolygon([box, shapely.box(west + 0.5, south, west + 0.6, south + 0.1)])
        if shape == "parts"
        else box
    )


@st.composite
def collections(draw):
    ids = draw(
        st.lists(
            st.one_of(st.integers(0, 2**40), st.text("xyz-", min_size=1, max_size=4)),
            min_size=1,
            max_size=5,
            unique_by=str,
        )
    )
    keys = draw(st.lists(names, max_size=3, unique_by=str.lower))
    return SiteCollection(
        Site(
            polygon=draw(polygons()),
            site_id=site_id,
            start_year=draw(st.one_of(st.none(), st.integers(1900, 2100))),
            properties={key: draw(values) for key in keys},
        )
        for site_id in ids
    )


@given(collections())
@settings(deadline=None, max_examples=60)
def test_to_a_geodataframe_and_back(sites):
    gdf = sites.to_geodataframe()
    assert gdf.crs == "EPSG:4326"
    assert list(gdf.columns[:2]) == ["site_id", "start_year"]
    assert SiteCollection.from_geodataframe(gdf) == sites
    assert sites_from_geodataframe(gdf).site_ids == sites.site_ids
    assert SiteCollection(list(sites)) == sites


def test_own_columns_win_over_properties_of_the_same_name():
    gdf = frame(BOX, rid=[3107], site_id=["old"])
    table = sites_from_geodataframe(gdf, id_column="rid").to_geodataframe()
    assert list(table.columns) == ["site_id", "start_year", "site_id_in_file", "geometry"]
    assert table["site_id"].tolist() == [3107]
    assert table["start_year"].dtype == "Int64"


def test_an_empty_collection_has_a_table():
    table = SiteCollection().to_geodataframe()
    assert len(table) == 0
    assert table.crs == "EPSG:4326"


# Earth Engine --------------------------------------------------------------------------------------------------------


@pytest.fixture
def earth_engine(monkeypatch):
    """An initialised client, as Google's own tests have it, for which every request is a failure."""

    def refuse(*args, **kwargs):
        raise AssertionError("a request was made")

    # setUp replaces it for good
    monkeypatch.setattr(ee.data, "_install_cloud_api_resource", ee.data._install_cloud_api_resource)
    case = ee.apitestcase.ApiTestCase()
    case.setUp()
    monkeypatch.setattr(ee.data, "computeValue", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield ee
    monkeypatch.undo()
    case.tearDown()


def arguments(serialised):
    values = json.loads(serialised)["values"]
    assert list(values) == ["0"]  # nothing is sent twice
    call = values["0"]["functionInvocationValue"]
    return call["functionName"], {k: v.get("constantValue", v) for k, v in call["arguments"].items()}


@pytest.mark.parametrize(("polygon", "kind"), [(BOX, "Polygon"), (HOLED, "Polygon"), (TWO_PARTS, "MultiPolygon")])
def test_geometry_is_small_and_planar(earth_engine, polygon, kind):
    site = Site(polygon=polygon, site_id=3107)
    name, given_arguments = arguments(site.geometry.serialize())
    assert name == f"GeometryConstructors.{kind}"
    assert set(given_arguments) == {"coordinates", "geodesic"}
    assert given_arguments["geodesic"] is False
    parts = given_arguments["coordinates"] if kind == "MultiPolygon" else [given_arguments["coordinates"]]
    for part in parts:
        for ring in part:
            assert ring[0] != ring[-1]
    assert shapely.MultiPolygon([(p[0], p[1:]) for p in parts]).equals(polygon)
    assert site.geometry is site.geometry


def test_geometry_has_centimetres(earth_engine):
    site = Site(polygon=shapely.box(-50.123456789012, -10, -49.98765432109, -9.99).segmentize(0.001), site_id=1)
    text = site.geometry.serialize()
    assert not re.search(r"\d\.\d{8}", text)
    n_vertices = shapely.get_num_coordinates(site.polygon) - 1
    assert len(text) / n_vertices < 41


def test_vertices_that_rounding_makes_equal_are_sent_once(earth_engine):
    dense = shapely.Polygon(
        [(0, 0), (1, 0), (1, 1e-9), (1, 1), (0, 1)], [[(0.5, 0.5), (0.5 + 1e-9, 0.5), (0.5, 0.5 + 1e-9)]]
    )
    _, sent = arguments(Site(polygon=dense, site_id=1).geometry.serialize())
    # one ring of four vertices: the hole is smaller than a centimetre
    assert sent["coordinates"] == [[[0, 0], [1, 0], [1, 1], [0, 1]]]
    speck = Site(polygon=shapely.box(0, 0, 1e-9, 1e-9), site_id=1).geometry
    assert len(arguments(speck.serialize())[1]["coordinates"][0]) == 4


def test_what_the_reference_does_with_a_geometry(earth_engine):
    region = Site(polygon=BOX, site_id=3107).geometry.buffer(500).bounds()
    assert isinstance(region, ee.Geometry)
    assert "Geometry.bounds" in region.serialize()


def test_feature_has_id_year_and_properties(earth_engine):
    site = Site(
        polygon=BOX,
        site_id=3107,
        start_year=2016,
        properties={
            "kind": "planting",
            "ha": 1.5,
            "none": None,
            "tags": ["a", "b"],
            "mixed": [1, None],
            "inf": math.inf,
            "more": {"x": 1},
            "site_id": "other",
        },
    )
    name, given_arguments = arguments(site.feature.serialize())
    assert name == "Feature"
    assert given_arguments["metadata"] == {
        "site_id": 3107,
        "start_year": 2016,
        "kind": "planting",
        "ha": 1.5,
        "tags": ["a", "b"],
    }
    assert site.feature is site.feature
    dated = Site(polygon=BOX, site_id=1, properties={"when": datetime(2016, 1, 1, tzinfo=UTC)}).feature.serialize()
    assert '"Date"' in dated
    assert "start_year" not in dated


def test_cached_objects_do_not_travel(earth_engine):
    site = Site(polygon=BOX, site_id=1)
    assert site.geometry is not None
    assert "geometry" not in vars(pickle.loads(pickle.dumps(site)))


@pytest.mark.parametrize("attribute", ["geometry", "feature"])
def test_without_a_client_one_line_names_the_two_calls(attribute):
    assert not ee.data.is_initialized()
    with pytest.raises(EarthEngineError) as error:
        getattr(Site(polygon=BOX, site_id=1), attribute)
    assert_one_line(error)
    assert "ee.Authenticate()" in str(error.value)
    assert 'ee.Initialize(project="your-project")' in str(error.value)


def test_everything_else_works_without_a_client():
    site = Site(polygon=BOX, site_id=1, start_year=2016)
    assert all([repr(site), site._repr_html_(), site.area_ha, site.years(), site.buffer(10), site.region()])


# HTML ----------------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Tags that are open, all tags seen and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


EVIL = '<script>alert("x")</script>&amp;'


def test_html_escapes_what_comes_from_the_file():
    site = Site(polygon=TWO_PARTS, site_id=EVIL, properties={EVIL: EVIL, "<b>": "'\""})
    for text in (site._repr_html_(), SiteCollection([site])._repr_html_()):
        tags = Tags(text)
        assert tags.open == []
        assert "script" not in tags.seen
        assert EVIL in tags.text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # offline


def test_html_of_a_site_shows_what_matters():
    properties = {f"p{i}": i for i in range(15)} | {"p1": "x" * 500}
    tags = Tags(Site(polygon=HOLED, site_id=3107, start_year=2016, properties=properties)._repr_html_())
    assert tags.seen.count("svg") == 1
    for shown in ("3107", "2016", "ha", "p9", "and 5 more properties", "x" * 70 + "x"):
        assert shown in tags.text
    assert "x" * 100 not in tags.text


def test_html_shows_the_site_s_id_beside_a_property_of_that_name():
    site = Site(polygon=BOX, site_id=3107, properties={"id": "other", "site_id": "third", "start_year": 1999})
    for text in (site._repr_html_(), SiteCollection([site])._repr_html_()):
        tags = Tags(text)
        for shown in ("3107", "other", "third", "1999", "site_id (property)"):
            assert shown in tags.text


def test_html_of_a_collection_is_short(sites):
    tags = Tags(sites._repr_html_())
    assert tags.open == []
    assert tags.seen.count("svg") == 5
    many = SiteCollection(Site(polygon=BOX, site_id=i) for i in range(30))
    tags = Tags(many._repr_html_())
    assert tags.seen.count("svg") == 10
    assert "30 sites" in tags.text
    assert "and 20 more sites" in tags.text
    assert Tags(SiteCollection()._repr_html_()).open == []


def test_outline_is_drawn_north_up_in_proportion():
    # twice as wide as high in degrees at 60 degrees north: a square on the ground
    html = Site(polygon=shapely.Polygon([(10, 60), (12, 60), (12, 61), (10, 61)]), site_id=1)._repr_html_()
    path = re.search(r'<path d="M([^Z]*)Z"', html)[1]
    x, y = np.array([[float(v) for v in p.split(",")] for p in path.split()]).T
    assert np.ptp(x) == pytest.approx(np.ptp(y), rel=0.03)
    assert min(x.min(), y.min()) >= 0
    assert max(x.max(), y.max()) <= 120
    south = Site(polygon=shapely.Polygon([(0, 0), (2, 0), (1, 2)]), site_id=1)._repr_html_()
    path = re.search(r'<path d="M([^Z]*)Z"', south)[1]
    points = [[float(v) for v in p.split(",")] for p in path.split()]
    assert points[2][1] < points[0][1]  # the northern tip is drawn higher, where y is smaller


# handing over --------------------------------------------------------------------------------------------------------


def test_extract_continuous_hands_everything_on(monkeypatch, sites):
    layer = ContinuousLayer(name="x", collection_id="X", bands=("A",), scale_m=10, first_year=2017)
    calls = []
    fake = ModuleType("gee_polygons.extract")
    fake.extract_continuous = lambda *args, **options: calls.append((args, options)) or "table"
    monkeypatch.setitem(sys.modules, "gee_polygons.extract", fake)
    dates = {"start_date": "2018-01-01", "end_date": "2024-12-31"}
    assert sites[1].extract_continuous(layer, **dates) == "table"
    assert sites.extract_continuous(layer, **dates, source="sample", progress=True, reducer="mean") == "table"
    (one, one_options), (many, many_options) = calls
    assert one == (sites[1], layer)
    assert one_options == {
        **dates,
        "reducer": "mean",
        "frequency": "yearly",
        "source": None,
        "on_error": "raise",
        "keep": False,
        "progress": False,
    }
    assert many == (sites, layer)
    assert many_options == {**one_options, "source": "sample", "progress": True}

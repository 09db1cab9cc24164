"""The expression language: dates, numbers, lists, dictionaries, functions, filters and collections."""

import datetime as dt

import ee
import pytest

from .registry import registered, signatures, snake

DAY = 86_400_000
Y2020 = 1_577_836_800_000  # 2020-01-01T00:00:00Z
AEF = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"


@pytest.fixture(autouse=True)
def _server(ee_server):
    return ee_server


def test_registered_functions_are_documented_ones():
    known = signatures()
    for name, parameters in registered().items():
        documented = {snake(a["argumentName"]) for a in known[name].get("arguments", [])}
        assert parameters - {"ctx"} <= documented, name


def test_numbers():
    assert ee.Number(7).divide(2).getInfo() == 3.5
    assert ee.Number(7).divide(0).getInfo() == 0
    assert ee.Number(2).pow(10).add(1).getInfo() == 1025
    assert ee.Number(300).toInt8().getInfo() == 127  # documented: clamped
    assert ee.Number(1.7).toInt8().getInfo() == 1  # documented: fractions are lost
    assert ee.Number(3).format("%04d").getInfo() == "0003"
    assert ee.Number(3).gt(2).And(ee.Number(1).lt(0)).getInfo() == 0


def test_dates():
    assert ee.Date("2020-01-01").millis().getInfo() == Y2020
    assert ee.Date("2020").millis().getInfo() == Y2020
    assert ee.Date(Y2020).format("YYYY-MM-dd'T'HH:mm").getInfo() == "2020-01-01T00:00"
    assert ee.Date("2019-12-31").advance(1, "day").millis().getInfo() == Y2020
    assert ee.Date("2020-01-31").advance(1, "month").format("YYYY-MM-dd").getInfo() == "2020-02-29"
    assert ee.Date("2019-11-30").advance(14, "month").format("YYYY-MM-dd").getInfo() == "2021-01-30"
    assert ee.Date("2020-12-31").get("year").getInfo() == 2020
    assert ee.Date("2020-12-31").getRelative("day", "year").getInfo() == 365
    assert ee.Date("2021-01-01").difference(ee.Date("2020-01-01"), "day").getInfo() == 366
    assert ee.Date.fromYMD(2020, 1, 1).getInfo() == {"type": "Date", "value": Y2020}
    assert ee.Date(dt.datetime(2020, 1, 1)).millis().getInfo() == Y2020


def test_ranges_do_not_contain_their_end():
    year = ee.Date("2020-06-15").getRange("year")
    assert year.getInfo() == {"type": "DateRange", "dates": [Y2020, Y2020 + 366 * DAY]}
    assert year.contains(ee.Date("2020-01-01")).getInfo() is True
    assert year.contains(ee.Date("2020-12-31T23:59:59")).getInfo() is True
    assert year.contains(ee.Date("2021-01-01")).getInfo() is False
    # documented: a range without an end lasts one millisecond
    assert ee.DateRange("2020-01-01").getInfo()["dates"] == [Y2020, Y2020 + 1]


def test_lists_strings_dictionaries():
    numbers = ee.List.sequence(1, 9, 2)
    assert numbers.getInfo() == [1, 3, 5, 7, 9]
    assert ee.List.sequence(0, 1, count=3).getInfo() == [0, 0.5, 1]
    assert numbers.slice(-2).getInfo() == [7, 9]
    assert numbers.zip(ee.List(["a", "b"])).getInfo() == [[1, "a"], [3, "b"]]
    assert numbers.reduce(ee.Reducer.mean()).getInfo() == 5
    assert ee.List([1, 2, 3, 4]).reduce(ee.Reducer.median()).getInfo() == 2.5
    assert ee.List([3, 1, 2]).sort().reverse().getInfo() == [3, 2, 1]
    assert ee.List([[1, [2]], 3]).flatten().getInfo() == [1, 2, 3]
    assert ee.String("A").cat(ee.Number(7).format("%02d")).getInfo() == "A07"
    assert ee.String("a_b_c").split("_").getInfo() == ["a", "b", "c"]
    pair = ee.Dictionary({"x": 1, "y": None})
    assert pair.get("y").getInfo() is None
    assert pair.get("z", 5).getInfo() == 5
    assert pair.combine({"x": 2}).getInfo() == {"x": 2}  # documented: nulls are removed
    assert pair.combine({"x": 2}, False).getInfo() == {"x": 1}
    assert ee.Dictionary.fromLists(["a", "b"], [1, 2]).keys().getInfo() == ["a", "b"]
    with pytest.raises(ee.EEException, match=r"Dictionary\.get: Dictionary does not contain key: 'z'\."):
        pair.get("z").getInfo()


def test_functions_close_over_their_arguments():
    table = ee.List([1, 2]).map(lambda i: ee.List([10, 20]).map(lambda j: ee.Number(i).add(j)))
    assert table.getInfo() == [[11, 21], [12, 22]]
    total = ee.List([1, 2, 3]).iterate(lambda v, state: ee.Number(state).multiply(10).add(v), 0)
    assert total.getInfo() == 123
    assert ee.Algorithms.If(0, "yes", "no").getInfo() == "no"
    # the branch not taken may be one that fails
    assert ee.Algorithms.If(1, "yes", ee.Dictionary({}).get("missing")).getInfo() == "yes"


def test_equal_parts_are_evaluated_once(ee_server):
    shared = ee.ImageCollection(AEF).filterDate("2020-01-01", "2021-01-01").size()
    assert ee.List([shared, shared.add(1), shared.add(shared)]).getInfo() == [3, 4, 6]
    assert "Collection.size" in ee_server.log.entries()[-1].functions


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2020-01-01", "2021-01-01", 3),  # 2021-01-01 is not part of it
        ("2020-01-01", "2021-01-02", 5),
        ("2019-12-31", "2020-01-01", 0),
        ("2020-12-31", "2021-01-01", 0),
        (dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 2), 3),
    ],
)
def test_filter_date_is_end_exclusive(start, end, expected):
    assert ee.ImageCollection(AEF).filterDate(start, end).size().getInfo() == expected


def test_filter_date_without_an_end_is_one_millisecond():
    assert ee.ImageCollection(AEF).filterDate("2020-01-01").size().getInfo() == 3
    assert ee.ImageCollection(AEF).filterDate("2019-12-31").size().getInfo() == 0


def test_filters_on_properties():
    images = ee.ImageCollection(AEF)

    def count(condition):
        return images.filter(condition).size().getInfo()

    assert count(ee.Filter.eq("UTM_ZONE", "22S")) == 5
    assert count(ee.Filter.neq("UTM_ZONE", "22S")) == 3
    assert count(ee.Filter.inList("UTM_ZONE", ["22S", "23S"])) == 8
    assert count(ee.Filter.calendarRange(2020, 2021, "year")) == 5
    assert count(ee.Filter.gte("system:time_start", Y2020)) == 5
    assert count(ee.Filter.eq("year", 2020)) == 0  # there is no such property
    assert count(ee.Filter.notNull(["year"])) == 0
    assert count(ee.Filter.Or(ee.Filter.eq("UTM_ZONE", "23S"), ee.Filter.lt("system:time_start", Y2020))) == 5
    assert count(ee.Filter.And(ee.Filter.eq("UTM_ZONE", "23S"), ee.Filter.lt("system:time_start", Y2020))) == 1
    assert count(ee.Filter.eq("UTM_ZONE", "23S").Not()) == 5
    assert count(ee.Filter.stringStartsWith("system:index", "east")) == 2


def test_filter_bounds_uses_footprints():
    def names(x0, x1):
        region = ee.Geometry.Rectangle([x0, 7_500_100, x1, 7_500_200], "EPSG:32722", False)
        found = ee.ImageCollection(AEF).filterDate("2020-01-01", "2021-01-01").filterBounds(region)
        return found.aggregate_array("system:index").getInfo()

    assert names(700_100, 700_200) == ["west_2020_22S"]
    assert names(700_900, 701_000) == ["east_2020_22S", "west_2020_22S"]
    assert names(690_000, 690_100) == []


def test_image_properties_are_those_of_the_collection():
    image = ee.ImageCollection(AEF).filter(ee.Filter.eq("system:index", "west_2020_22S")).first()
    assert image.date().millis().getInfo() == Y2020
    assert image.get("UTM_ZONE").getInfo() == "22S"
    assert image.get("system:time_end").getInfo() == Y2020 + 366 * DAY
    assert image.get("year").getInfo() is None
    assert image.bandNames().length().getInfo() == 64
    info = ee.Image(f"{AEF}/west_2020_22S").select("A00").getInfo()
    assert info["bands"][0]["crs"] == "EPSG:32722"
    assert info["bands"][0]["crs_transform"] == [10, 0, 700_000, 0, -10, 7_500_960]
    assert info["bands"][0]["data_type"]["precision"] == "float"


def test_collections_of_features():
    features = ee.FeatureCollection([ee.Feature(None, {"n": i, "odd": i % 2}) for i in range(5)])
    assert features.size().getInfo() == 5
    assert features.aggregate_sum("n").getInfo() == 10
    assert features.filter(ee.Filter.eq("odd", 1)).aggregate_array("n").getInfo() == [1, 3]
    assert features.sort("n", False).first().get("n").getInfo() == 4
    assert features.limit(2).aggregate_array("system:index").getInfo() == ["0", "1"]
    doubled = features.map(lambda f: f.set("twice", ee.Number(f.get("n")).multiply(2)).copyProperties(f))
    assert doubled.aggregate_array("twice").getInfo() == [0, 2, 4, 6, 8]
    merged = features.limit(1).merge(features.limit(1))
    assert merged.aggregate_array("system:index").getInfo() == ["1_0", "2_0"]
    years = ee.FeatureCollection(
        ee.List([2019, 2020]).map(lambda y: features.limit(2).map(lambda f: f.set("year", y)))
    ).flatten()
    assert years.aggregate_array("year").getInfo() == [2019, 2019, 2020, 2020]
    assert years.aggregate_array("system:index").getInfo() == ["0_0", "0_1", "1_0", "1_1"]
    assert features.reduceColumns(ee.Reducer.mean(), ["n"]).getInfo() == {"mean": 2}
    assert features.first().toDictionary().getInfo() == {"n": 0, "odd": 0}


def test_ids_of_elements():
    point = ee.Geometry.Point([0, 0])
    named = ee.FeatureCollection([ee.Feature(point, {"system:index": "a"}), ee.Feature(point)])
    assert [f["id"] for f in named.getInfo()["features"]] == ["a", "1"]
    # a mapped function's new feature takes the id of the element that it was made from
    new = named.map(lambda f: ee.Feature(None, {"x": 1}))
    assert new.aggregate_array("system:index").getInfo() == ["a", "1"]
    assert new.map(lambda f: f.set("system:index", "z")).aggregate_array("system:index").getInfo() == ["z", "z"]


def test_arithmetic_loses_properties():
    image = ee.ImageCollection(AEF).filter(ee.Filter.eq("system:index", "west_2020_22S")).first()
    assert image.select("A00").updateMask(1).get("UTM_ZONE").getInfo() == "22S"
    half = image.divide(2)
    assert half.get("UTM_ZONE").getInfo() is None
    assert half.get("system:index").getInfo() == "west_2020_22S"
    kept = ee.Image(half.copyProperties(image, ["system:time_start"])).copyProperties(image)
    assert kept.get("UTM_ZONE").getInfo() == "22S"
    assert kept.get("system:time_start").getInfo() == Y2020


def test_a_first_of_nothing_is_null():
    assert ee.ImageCollection([]).first().getInfo() is None
    message = r"Image\.select: Parameter 'input' is required and may not be null"
    with pytest.raises(ee.EEException, match=message):
        ee.ImageCollection([]).first().select("A00").getInfo()


def test_geometries():
    square = ee.Geometry.Polygon([[[0, 0], [0.01, 0], [0.01, 0.01], [0, 0.01]]], None, False)
    assert square.type().getInfo() == "Polygon"
    assert square.getInfo()["geodesic"] is False
    ring = square.bounds().coordinates().getInfo()[0]
    assert sorted(map(tuple, ring[:-1])) == [(0, 0), (0, 0.01), (0.01, 0), (0.01, 0.01)]
    assert square.intersects(ee.Geometry.Point([0.005, 0.005]), 1).getInfo() is True
    # 500 m around a point: a box of 1,000 m, that is 0.00898 of a degree of longitude on the equator
    west, east = (
        f(x for x, _ in ee.Geometry.Point([0, 0]).buffer(500).bounds().coordinates().getInfo()[0]) for f in (min, max)
    )
    assert east - west == pytest.approx(1000 / 111_319.49079, rel=1e-6)


def test_what_is_unknown_is_answered_with_501(ee_server):
    with pytest.raises(ee.EEException, match=r"does not implement Image\.rgbToHsv\."):
        ee.Image([1, 2, 3]).rgbToHsv().bandNames().getInfo()
    with pytest.raises(ee.EEException, match=r"Date\.format with the pattern 'EEE'"):
        ee.Date("2020-01-01").format("EEE").getInfo()
    assert [e.status for e in ee_server.log.errors] == [501, 501]
    assert ee_server.unimplemented == ["Image.rgbToHsv", "Date.format with the pattern 'EEE' (EEE)"]
    ee_server.unimplemented.clear()

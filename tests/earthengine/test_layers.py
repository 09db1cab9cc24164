"""Other layers: composites by year, month and day; classes and their areas."""

import time

import numpy as np
import pandas as pd
import pytest

from gee_polygons.datasets.dynamicworld import DYNAMIC_WORLD
from gee_polygons.errors import EarthEngineError, UsageError
from gee_polygons.layers import CategoricalLayer, ContinuousLayer
from gee_polygons.site import SiteCollection
from gee_polygons.sources.earthengine import EarthEngineSource

from .places import site_at
from .synthetic import Catalogue

NDVI = ContinuousLayer(
    name="ndvi", collection_id="X/NDVI", bands=("NDVI",), scale_m=10, first_year=2019, composite="mean"
)
BOTH = ContinuousLayer(
    name="both", collection_id="X/BOTH", bands=("a", "b"), scale_m=10, first_year=2019, composite="median"
)
COVER = CategoricalLayer(
    name="cover", collection_id="X/COVER", band="classification_{year}", scale_m=30, first_year=2019, last_year=2021,
    class_names={3: "Forest", 15: "Pasture"},
)  # fmt: skip
PLACE = {"west": 700_000, "north": 7_500_960, "epsg": 32722}


def layer_catalogue(folder):
    """Scenes of 96 x 96 px: NDVI 0.1 for each month, in two tiles a day; classes in two halves."""
    catalogue = Catalogue(folder)
    for month in (1, 2, 12):
        for side, west in enumerate((700_000, 700_480)):
            values = np.full((96, 48), month / 10, np.float32)
            catalogue.add(
                "X/NDVI",
                {"NDVI": values},
                west=west,
                north=7_500_960,
                epsg=32722,
                index=f"m{month}_{side}",
                start=f"2020-{month:02d}-{28:02d}",
            )
    for day, value in ((10, 1.0), (20, 3.0), (30, 8.0)):
        bands = {"a": np.full((96, 96), value, np.float32), "b": np.full((96, 96), -value, np.float32)}
        catalogue.add("X/BOTH", bands, index=f"d{day}", start=f"2020-04-{day}", **PLACE)
    halves = np.full((32, 32), 3, np.uint8)
    halves[:, 16:] = 15
    layers = {f"classification_{year}": halves for year in (2019, 2020, 2021)}
    catalogue.add("X/COVER", layers, step=30, **PLACE)
    for i, label in enumerate((1, 1, 4)):
        catalogue.add(
            "GOOGLE/DYNAMICWORLD/V1",
            {"label": np.full((96, 96), label, np.uint8)},
            index=f"s{i}",
            start=f"2020-03-0{i + 1}",
            **PLACE,
        )
    return catalogue.save()


@pytest.fixture
def server(earth, tmp_path):
    return earth(None, layer_catalogue(tmp_path / "c"))


def square():
    return SiteCollection(
        [site_at("a", 700_480, 7_500_480), site_at("b", 700_200, 7_500_480), site_at("far", 740_000, 7e6)]
    )


def test_years_and_months(server):
    sites = square()
    yearly = sites.extract_continuous(NDVI, start_date="2019-01-01", end_date="2020-12-31")
    assert list(yearly) == ["site_id", "year", "NDVI"]
    assert yearly[["site_id", "year"]].to_numpy().tolist() == [["a", 2020], ["b", 2020]]
    assert yearly["NDVI"].to_numpy() == pytest.approx(0.5, abs=1e-6)
    monthly = sites.extract_continuous(NDVI, start_date="2020-02-01", end_date="2020-12-31", frequency="monthly")
    assert list(monthly) == ["site_id", "year", "month", "NDVI"]
    assert monthly[["site_id", "month"]].to_numpy().tolist() == [["a", 2], ["a", 12], ["b", 2], ["b", 12]]
    assert monthly["NDVI"].to_numpy() == pytest.approx([0.2, 1.2, 0.2, 1.2], abs=1e-6)
    part = sites[:1].extract_continuous(NDVI, start_date="2020-01-15", end_date="2020-02-28")
    assert part["NDVI"].to_numpy() == pytest.approx([0.15], abs=1e-6)  # the last day counts, later ones don't


def test_integers_are_years(server):
    sites = square()
    dates = {"start_date": "2019-01-01", "end_date": "2020-12-31"}
    for frequency in ("yearly", "monthly", "all"):
        found = sites.extract_continuous(NDVI, start_date=2019, end_date=np.int64(2020), frequency=frequency)
        assert len(found)
        pd.testing.assert_frame_equal(found, sites.extract_continuous(NDVI, **dates, frequency=frequency))
    pd.testing.assert_frame_equal(
        sites.extract_categorical(COVER, start_date=2019, end_date=2020), sites.extract_categorical(COVER, **dates)
    )
    exports = [
        sites.export_continuous(NDVI, **given, bucket="b") for given in ({"start_date": 2019, "end_date": 2020}, dates)
    ]
    assert exports[0].ids == exports[1].ids
    with pytest.raises(UsageError, match="start_date is a year such as 2024, found 20190101"):
        sites.extract_continuous(NDVI, start_date=20190101, end_date=20201231)


def test_years_and_months_given_as_text_are_whole(server):
    """The end was taken for their first day: a composite of the one image of that day, or of none."""
    for text, dates in [("2020", ("2020-01-01", "2020-12-31")), ("2020-02", ("2020-02-01", "2020-02-29"))]:
        found = square().extract_continuous(NDVI, start_date=text, end_date=text)
        assert len(found)
        expected = square().extract_continuous(NDVI, start_date=dates[0], end_date=dates[1])
        pd.testing.assert_frame_equal(found, expected)


def test_days_have_one_row_also_across_a_tile_border(server):
    daily = square().extract_continuous(NDVI, start_date="2020-01-01", end_date="2020-12-31", frequency="all")
    assert list(daily) == ["site_id", "date", "NDVI"]
    of_a = daily[daily["site_id"] == "a"]
    assert of_a["date"].tolist() == [pd.Timestamp(f"2020-{m:02d}-28") for m in (1, 2, 12)]
    assert of_a["NDVI"].to_numpy() == pytest.approx([0.1, 0.2, 1.2], abs=1e-6)
    assert set(daily["site_id"]) == {"a", "b"}


@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Pacific/Auckland"])
def test_days_are_those_of_utc_wherever_the_machine_is(earth, tmp_path, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        catalogue = Catalogue(tmp_path / "c")
        moments = ["2020-05-10T00:00:00", "2020-05-10T23:59:59", "2020-05-11T00:00:00", "2020-12-31T23:30:00"]
        for i, moment in enumerate(moments):
            bands = {"NDVI": np.full((96, 96), i + 1, np.float32)}
            catalogue.add("X/NDVI", bands, index=f"i{i}", start=moment, **PLACE)
        earth(None, catalogue.save())
        asked = {"start_date": "2020-05-10", "end_date": "2020-12-31"}
        daily = square()[:1].extract_continuous(NDVI, **asked, frequency="all")
        # the later of two images of a day lies on top
        assert [(d.strftime("%m-%d"), v) for d, v in zip(daily["date"], daily["NDVI"], strict=True)] == [
            ("05-10", pytest.approx(2)),
            ("05-11", pytest.approx(3)),
            ("12-31", pytest.approx(4)),
        ]
        monthly = square()[:1].extract_continuous(NDVI, **asked, frequency="monthly")
        assert monthly["NDVI"].tolist() == [pytest.approx(2), pytest.approx(4)]
        assert monthly["month"].tolist() == [5, 12]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("reducer", ["mean", "median", "min", "max", "stdDev"])
def test_reducers_of_several_bands(server, reducer):
    found = square()[:2].extract_continuous(BOTH, start_date="2020-01-01", end_date="2020-12-31", reducer=reducer)
    expected = [0.0, 0.0] if reducer == "stdDev" else [3.0, -3.0]
    assert found[["a", "b"]].to_numpy() == pytest.approx(np.array([expected] * 2), abs=1e-6)


def test_classes_and_their_areas(server):
    sites = square()
    found = sites.extract_categorical(COVER, start_date="2018-01-01", end_date="2022-12-31")
    assert list(found) == ["site_id", "year", "class", "class_name", "count", "area_ha"]
    of_a = found[(found["site_id"] == "a") & (found["year"] == 2020)]
    assert of_a["class_name"].tolist() == ["Forest", "Pasture"]
    assert of_a["area_ha"].to_numpy() == pytest.approx([2.0, 2.0], rel=0.01)
    assert of_a["count"].to_numpy() * 0.09 == pytest.approx(of_a["area_ha"].to_numpy())
    assert found.groupby("site_id")["year"].unique().map(list).to_dict() == {
        "a": [2019, 2020, 2021],
        "b": [2019, 2020, 2021],
    }
    server.log.clear()
    pd.testing.assert_frame_equal(found, sites.extract_categorical(COVER, years=range(2018, 2023)))
    assert not [e for e in server.log.entries() if e.method == "POST"]


def test_the_commonest_class_of_a_collection(server):
    found = square()[0].extract_categorical(DYNAMIC_WORLD, start_date="2020-01-01", end_date="2020-12-31")
    assert found[["class", "class_name"]].to_numpy().tolist() == [[1, "trees"]]
    assert found["area_ha"].to_numpy() == pytest.approx([4.0], rel=0.01)


def test_what_can_not_be_is_refused(server):
    sites = square()
    dates = {"start_date": "2020-01-01", "end_date": "2020-12-31"}
    for wrong in ({"reducer": "mode"}, {"frequency": "weekly"}, {"source": "sample"}):
        with pytest.raises(UsageError):
            sites.extract_continuous(NDVI, **dates, **wrong)
    for wrong in ({}, {"years": [2020], **dates}, {"start_date": 2020}, {"years": []}):
        with pytest.raises(UsageError, match="years"):
            sites.extract_categorical(COVER, **wrong)
    server.faults.poison("X/NDVI", "Image.load: no access.")
    with pytest.raises(EarthEngineError, match=r"'ndvi': .* site .*no access"):
        sites.extract_continuous(NDVI, **dates, source=EarthEngineSource(cache=False))
    table = sites.extract_continuous(NDVI, **dates, source=EarthEngineSource(cache=False), on_error="collect")
    assert len(table) == 0
    assert len(table.attrs["errors"]) == 3

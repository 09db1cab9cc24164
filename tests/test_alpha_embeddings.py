"""The AlphaEarth layer, its looks, and the image of a year."""

from __future__ import annotations

import ee
import ee.apitestcase
import numpy as np
import pandas as pd
import pytest
import shapely

from gee_polygons.datasets.alpha_embeddings import (
    ALPHA_EMBEDDINGS,
    EMBEDDING_BANDS,
    EMBEDDING_VIS_ALT1,
    EMBEDDING_VIS_ALT2,
    EMBEDDING_VIS_DEFAULT,
    get_embedding_image,
)
from gee_polygons.errors import EarthEngineError, UsageError
from gee_polygons.layers import ContinuousLayer

BOX = shapely.box(-50, -10, -49.99, -9.99)


class RecordingSource:
    name = "recording"

    def years(self):
        return [2018, 2019, 2021]

    def image(self, region, year, bands=None):
        return region, year, bands


@pytest.fixture
def opened(monkeypatch):
    """Specs that were opened; each gives a `RecordingSource`."""
    specs = []

    def open_source(spec=None):
        specs.append(spec)
        return RecordingSource()

    monkeypatch.setattr("gee_polygons.sources.opening.open_source", open_source)
    return specs


@pytest.fixture
def ee_geometry(monkeypatch):
    monkeypatch.setattr(ee.data, "_install_cloud_api_resource", ee.data._install_cloud_api_resource)
    case = ee.apitestcase.ApiTestCase()
    case.setUp()
    yield ee.Geometry.Rectangle([-50, -10, -49.99, -9.99])
    case.tearDown()


def test_layer_is_what_earth_engine_publishes():
    assert isinstance(ALPHA_EMBEDDINGS, ContinuousLayer)
    assert ALPHA_EMBEDDINGS.collection_id == "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
    assert (ALPHA_EMBEDDINGS.n_bands, ALPHA_EMBEDDINGS.scale_m) == (64, 10)
    assert (ALPHA_EMBEDDINGS.first_year, ALPHA_EMBEDDINGS.last_year) == (2017, 2025)
    assert ALPHA_EMBEDDINGS.attribution.startswith(
        "The AlphaEarth Foundations Satellite Embedding dataset is produced by Google and Google DeepMind."
    )


def test_bands_select_columns_of_a_table():
    assert EMBEDDING_BANDS[0] == "A00"
    assert EMBEDDING_BANDS[63] == "A63"
    assert tuple(EMBEDDING_BANDS) == ALPHA_EMBEDDINGS.bands
    table = pd.DataFrame(np.zeros((2, 65)), columns=["year", *EMBEDDING_BANDS])
    assert table[EMBEDDING_BANDS].to_numpy().shape == (2, 64)


@pytest.mark.parametrize(
    ("vis", "bands"),
    [
        (EMBEDDING_VIS_DEFAULT, ["A01", "A16", "A09"]),
        (EMBEDDING_VIS_ALT1, ["A00", "A32", "A63"]),
        (EMBEDDING_VIS_ALT2, ["A05", "A25", "A45"]),
    ],
)
def test_looks_are_those_of_the_reference(vis, bands):
    assert vis == {"min": -0.3, "max": 0.3, "bands": bands}


def test_image_of_a_shapely_geometry_comes_from_the_source(opened):
    assert get_embedding_image(BOX, 2019, source="sample") == (BOX, 2019, None)
    assert get_embedding_image(BOX, np.int64(2021), ["A01", "A16", "A09"]) == (BOX, 2021, ["A01", "A16", "A09"])
    assert opened == ["sample", None]


def test_bands_keep_their_order_and_may_repeat(opened):
    assert get_embedding_image(BOX, 2019, ("A09", "A01", "A01"))[2] == ["A09", "A01", "A01"]
    assert get_embedding_image(BOX, 2019, "A09")[2] == ["A09"]


@pytest.mark.parametrize(
    ("year", "bands", "said"),
    [
        (2016, None, "begin with 2017, asked for 2016"),
        (2020, None, r"'recording' has no year 2020; it has 2018..2021 without 2020"),
        (2022, None, "no year 2022"),
        ("2019", None, "must be an int"),
        (2019.0, None, "must be an int"),
        (2019, ["A64"], r"unknown band 'A64'; there are A00..A63"),
        (2019, ["A01", 3], "unknown band 3"),
        (2019, [], r"found \[\]"),
    ],
)
def test_what_is_not_there_is_refused_by_name(opened, year, bands, said):
    with pytest.raises(UsageError, match=said):
        get_embedding_image(BOX, year, bands)


def test_bad_bands_are_refused_before_a_source_is_opened(opened):
    with pytest.raises(UsageError):
        get_embedding_image(BOX, 2019, ["B4"])
    assert opened == []


def test_an_earth_engine_geometry_needs_a_session(ee_geometry, monkeypatch):
    import ee

    monkeypatch.setattr(ee.data, "is_initialized", lambda: False)
    for geometry in (ee_geometry, ee_geometry.buffer(500).bounds()):
        with pytest.raises(EarthEngineError, match=r"ee\.Initialize\(project=") as error:
            get_embedding_image(geometry, 2023, ["A01", "A16", "A09"])
        assert "\n" not in str(error.value)


def test_an_earth_engine_geometry_is_checked_before(ee_geometry):
    with pytest.raises(UsageError, match=r"2017\.\.2025"):
        get_embedding_image(ee_geometry, 2031)
    with pytest.raises(UsageError, match=r"source='sample'"):
        get_embedding_image(ee_geometry, 2023, source="sample")


@pytest.mark.parametrize("geometry", [None, "POINT (0 0)", (0, 0, 1, 1)])
def test_another_geometry_is_refused(geometry, opened):
    with pytest.raises(UsageError, match=type(geometry).__name__):
        get_embedding_image(geometry, 2019)

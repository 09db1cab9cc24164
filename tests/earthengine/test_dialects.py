"""The same journeys against servers that say the same in other ways: other words, statuses, orders, pages, forms."""

import numpy as np
import pandas as pd
import pytest

from gee_polygons import extract_embeddings
from gee_polygons.alphaearth import ALPHA_EMBEDDINGS
from gee_polygons.datasets.alpha_embeddings import EMBEDDING_BANDS
from gee_polygons.errors import EarthEngineError
from gee_polygons.sources.earthengine import EarthEngineSource, transport
from gee_polygons.sources.earthengine import exports as exporting
from gee_polygons.sources.earthengine.batches import SiteShapes
from gee_polygons.sources.earthengine.exports import read_exports, resume_exports

from .dialect import DIALECTS
from .places import fields
from .test_layers import NDVI, layer_catalogue, square

YEARS = [2019, 2020, 2021, 2022]
DATES = {"start_date": "2019-01-01", "end_date": "2022-12-31"}


@pytest.fixture(params=list(DIALECTS))
def server(request, earth, standard_archive, layers, tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "FIRST_WAIT_S", 0.01)
    options = {"dialect": DIALECTS[request.param], "null_properties": "null"}
    return earth(standard_archive, layers, tmp_path / "out", **options)


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    return layer_catalogue(tmp_path_factory.mktemp("layers"))


@pytest.fixture(scope="module")
def plain(standard_archive, tmp_path_factory):
    """What a server that speaks plainly answers."""
    from .client import connected
    from .server import EarthEngineServer

    with EarthEngineServer(standard_archive) as server, connected(server.url):
        source = EarthEngineSource(cache=False)
        return extract_embeddings(fields(5), years=YEARS, source=source)


def test_the_table_is_the_same(server, plain):
    table = extract_embeddings(fields(5), years=YEARS, source=EarthEngineSource(cache=False))
    pd.testing.assert_frame_equal(table, plain)
    assert table["status"].value_counts().to_dict() == {"ok": 15, "no_data": 5}
    pixels = extract_embeddings(fields(5)[:3], years=2020, statistics=["mean", "max"])
    means = plain[(plain["year"] == 2020)].head(3)[EMBEDDING_BANDS].to_numpy()
    assert np.abs(pixels[[f"{b}_mean" for b in EMBEDDING_BANDS]].to_numpy() - means).max() < 2e-4


def test_faults_are_met_as_they_should_be(server, plain):
    for kind in ("rate", "aggregations", "unavailable", "internal", "memory", "timeout", "drop"):
        server.faults.fail_next(kind, 1, "computeFeatures")
    table = extract_embeddings(fields(5), years=YEARS, source=EarthEngineSource(cache=False))
    pd.testing.assert_frame_equal(table, plain)
    assert len(server.log.errors) == 7
    # 1 request; those for memory and time are halved, the others are sent again
    asked = server.log.entries("computeFeatures")
    assert len(asked) <= 7 + 5 * (1 if not server.dialect.page else 4)


def test_limits_are_met_with_smaller_requests(server, plain):
    server.faults.memory_limit = 66 * 2_500
    table = extract_embeddings(fields(5), years=YEARS, source=EarthEngineSource(cache=False))
    pd.testing.assert_frame_equal(table, plain)
    server.faults.clear()
    server.faults.fail_next("elements", 4, "computeFeatures")
    table = extract_embeddings(fields(5), years=YEARS, source=EarthEngineSource(cache=False))
    pd.testing.assert_frame_equal(table, plain)
    server.faults.fail_next("elements", 2, "value:compute")  # of the days' list
    daily = square().extract_continuous(NDVI, start_date="2020-01-01", end_date="2020-12-31", frequency="all")
    assert daily["date"].dt.strftime("%m-%d").tolist() == ["01-28", "02-28", "12-28"] * 2


def test_one_bad_site_is_one_row(server):
    sites = fields(24)
    server.faults.poison(SiteShapes(sites.polygons).texts[17][60:100], "Geometry has a strange edge.")
    table = extract_embeddings(sites, years=2020, on_error="collect")
    assert table.loc[table["status"] == "error", "site_id"].tolist() == [17]
    (error,) = table.attrs["errors"]
    assert "strange edge" in error["message"]
    assert "<" not in error["message"]
    with pytest.raises(EarthEngineError, match="strange edge") as raised:
        extract_embeddings(sites, years=2020)
    assert "\n" not in str(raised.value)


def test_exports_come_back_as_the_table(server, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "SITES_PER_TASK", 4)
    sites = fields(6)
    exports = sites.export_continuous(ALPHA_EMBEDDINGS, **DATES, drive_folder="d")
    again = sites.export_continuous(ALPHA_EMBEDDINGS, **DATES, drive_folder="d")
    assert [i.rpartition("/")[2] for i in again.ids] == [i.rpartition("/")[2] for i in exports.ids]
    assert exports.wait(progress=False, poll_s=0.05)["state"].tolist() == ["SUCCEEDED", "SUCCEEDED"]
    assert resume_exports(exports.ids).status()["state"].tolist() == ["SUCCEEDED", "SUCCEEDED"]
    found = read_exports(tmp_path / "out" / "drive" / "d")
    pd.testing.assert_frame_equal(found, sites.extract_continuous(ALPHA_EMBEDDINGS, **DATES), check_exact=False)

"""What must hold whatever happens: no wrong number, no lost chunk, no needless request."""

import datetime as dt
import re
import signal
import threading

import ee
import numpy as np
import pandas as pd
import pytest

from gee_polygons import extract_embeddings
from gee_polygons.alphaearth import ALPHA_EMBEDDINGS
from gee_polygons.datasets.alpha_embeddings import EMBEDDING_BANDS, get_embedding_image
from gee_polygons.errors import DependencyError, EarthEngineError, UsageError
from gee_polygons.site import Site, SiteCollection
from gee_polygons.sources import opening
from gee_polygons.sources.earthengine import EarthEngineSource, batches, cache, fetch_pixels, session, transport
from gee_polygons.sources.earthengine.batches import SiteShapes
from gee_polygons.sources.earthengine.transport import Refusal
from gee_polygons.sources.opening import open_source

from .places import blob, fields, lonlat, site_at
from .synthetic import position_codes, write_aef_tile

YEARS = range(2019, 2022)


def posts(server):
    return [e for e in server.log.entries() if e.method == "POST"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transport, "FIRST_WAIT_S", 0.01)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (429, "Too Many Requests", "transient"),
        (400, "Too many concurrent aggregations.", "transient"),
        (403, "Rate Limit Exceeded", "transient"),
        (503, "", "transient"),
        (500, "An internal error has occurred", "transient"),
        (400, "User memory limit exceeded.", "too_big"),
        (500, "Execution failed; out of memory.", "too_big"),
        (503, "Computation timed out.", "too_big"),
        (429, "User memory limit exceeded.", "too_big"),
        (400, "Collection query aborted after accumulating over 5000 elements.", "too_big"),
        (400, "Image.reduceRegion: Too many pixels in the region. Found 12, but maxPixels allows only 10.", "too_big"),
        (400, "Total request size (60 bytes) must be less than or equal to 50 bytes.", "too_big"),
        (400, "Request payload size exceeds the limit: 10485760 bytes.", "too_long"),
        (413, "", "too_long"),
        (403, "Caller does not have required permission", "fatal"),
        (400, "Geometry has a strange edge.", "other"),
    ],
)
def test_a_refusal_is_known_by_its_words_and_else_by_its_status(status, message, kind):
    assert Refusal.classify(status, message).kind == kind


def test_errors_are_read_whatever_form_they_have():
    for content in (
        b'{"error": {"code": 400, "message": "No\\n such  band", "status": "INVALID_ARGUMENT"}}',
        b'[{"error": {"message": "No such band"}}]',
        b'{"error": "No such band"}',
        b"<html><h1>No such</h1><p>band</p></html>",
        b'"No such band"',
    ):
        assert Refusal.parse(400, content).message == "No such band"
    for content in (b"", b"[]", b"{}", b'{"error": null}', b"\xff\xfe"):
        assert Refusal.parse(502, content).kind == "transient"
        assert Refusal.parse(502, content).message
    assert len(Refusal.parse(400, b"x" * 100_000).message) < 1_000


def test_an_answer_that_is_none_is_an_error_and_not_a_number(ee_server):
    sites = fields(2)
    ee_server.faults.fail_next("garbage", 50)
    for method in ("server", "pixels"):
        with pytest.raises(EarthEngineError, match="the answer is not a") as error:
            extract_embeddings(sites, years=2020, source=EarthEngineSource(method=method))
        assert "\n" not in str(error.value)
    table = extract_embeddings(sites, years=2020, on_error="collect")
    assert set(table["status"]) == {"error"}
    assert table[[*EMBEDDING_BANDS, "n_pixels"]].isna().to_numpy().all()
    ee_server.faults.clear()
    assert set(extract_embeddings(sites, years=2020)["status"]) == {"ok"}  # nothing of it was kept


def test_bands_that_an_answer_lacks_are_an_error(ee_server, monkeypatch):
    read = batches.Batch.read

    def lacking(self, features, reduction):
        return read(self, [{k: v for k, v in f.items() if not k.endswith("_A05")} for f in features], reduction)

    monkeypatch.setattr(batches.Batch, "read", lacking)
    table = extract_embeddings(fields(2), years=[2020, 2018], on_error="collect")
    assert table["status"].tolist() == ["no_data", "error"] * 2
    assert "lacks some of the bands" in table.attrs["errors"][0]["message"]


def test_many_bad_sites_do_not_condemn_the_others(ee_server, monkeypatch):
    """Every request of the first wave has a bad site in it, and all are refused in the same words."""
    monkeypatch.setattr(batches, "SITES_PER_REQUEST", 8)
    sites = fields(104)
    shapes = SiteShapes(sites.polygons)
    bad = {shapes.order[start + 3] for start in range(0, 104, batches.SITES_PER_REQUEST)}
    for site in bad:
        ee_server.faults.poison(shapes.texts[site][30:80], "Geometry has a strange edge.")
    table = extract_embeddings(sites, years=2020, on_error="collect", source=EarthEngineSource(max_concurrent=40))
    assert set(table.loc[table["status"] == "error", "site_id"]) == bad
    assert (table["status"] == "ok").sum() == 104 - len(bad)


def test_a_service_that_is_gone_is_given_up_soon(ee_server):
    ee_server.faults.fail_randomly(1.0, ("drop",))
    table = extract_embeddings(fields(200), years=YEARS, on_error="collect", source=EarthEngineSource(max_concurrent=2))
    assert set(table["status"]) == {"error"}
    assert len(posts(ee_server)) <= 60
    (message,) = {error["message"].partition(" (20")[0] for error in table.attrs["errors"]}
    assert message.startswith("the connection failed")
    assert "0x" not in message


@pytest.mark.parametrize("kind", ["Quota of the month is used up.", "memory", "elements"])
def test_what_fails_for_good_in_the_middle_isn_t_repeated_for_every_site(ee_server, kind):
    """The first answers come, then everything is refused."""
    asked = []

    def spoil(done, total):
        if not asked:
            ee_server.faults.poison("reduceRegions", kind)
        asked.append(done)

    source = EarthEngineSource(max_concurrent=1)
    table = extract_embeddings(fields(400), years=YEARS, on_error="collect", source=source, progress=spoil)
    assert 75 <= (table["status"] == "ok").sum() < 300
    assert (table["status"] == "error").sum() > 900
    assert len(posts(ee_server)) < 250


# --- sessions -----------------------------------------------------------------------------------------------------


def test_no_property_or_repr_makes_a_request(ee_server):
    before = len(ee_server.log.entries(setup=True))
    sites = fields(3)
    for thing in (sites, sites[0], open_source(None), EarthEngineSource(), ALPHA_EMBEDDINGS):
        for name in dir(thing):
            if not name.startswith("_"):
                getattr(thing, name, None)  # names of 0.0.4 that are gone raise
        assert repr(thing)
        assert str(thing)
        if hasattr(thing, "_repr_html_"):
            assert thing._repr_html_()
    assert sites[0].feature is not None
    assert sites[0].region(100).area > 0
    assert sites[0].years()
    assert EarthEngineSource().cost(sites.polygons, YEARS).requests == 1
    assert get_embedding_image(sites[0].geometry, 2020) is not None
    assert len(ee_server.log.entries(setup=True)) == before


def test_the_source_that_nobody_named(monkeypatch, ee_server, sample_archive):
    assert open_source(None).name == "earthengine"  # the user has started a session
    monkeypatch.setenv("GEE_POLYGONS_SOURCE", str(sample_archive))
    assert open_source(None).name == "cog"  # a setting is more than a session
    monkeypatch.delenv("GEE_POLYGONS_SOURCE")
    monkeypatch.setattr(ee.data, "is_initialized", lambda: False)
    started = []
    monkeypatch.setattr(ee, "Initialize", lambda *args, **more: started.append(args))
    assert opening._default_source() == "source-coop"
    with pytest.raises(EarthEngineError, match="not initialised"):
        open_source("earthengine")
    assert not started


@pytest.mark.parametrize("part", ["_get_cloud_projects_raw", "_get_projects_path"])
def test_a_client_that_is_made_differently_is_met_with_one_line(ee_server, monkeypatch, part):
    monkeypatch.delattr(ee.data, part)
    with pytest.raises(DependencyError, match=rf"earthengine-api {ee.__version__} .*{part}.*pip install") as error:
        extract_embeddings(fields(1), years=2020)
    assert "\n" not in str(error.value)


def test_a_serializer_that_hides_outlines_is_met_with_one_line(ee_server, monkeypatch):
    monkeypatch.setattr(batches, "_PLACEHOLDER", re.compile(b"never"))
    with pytest.raises(DependencyError, match="outlines are written in another way"):
        extract_embeddings(fields(1), years=2020)
    assert not posts(ee_server)


def test_a_users_transport_and_tag_are_kept(ee_server, monkeypatch):
    class Transport:
        """The user's own, as of `ee.Initialize(http_transport=...)`."""

        calls = 0

        def request(self, *args, **more):
            Transport.calls += 1
            return theirs.request(*args, **more)

    request = session.build_request("value", "compute")
    theirs = request.http
    service = transport.Service()
    assert service._transport(request.http) is not theirs
    own = Transport()
    assert service._transport(own) is own
    service.close()
    monkeypatch.setattr(
        transport, "build_request", lambda *args, **more: _with(session.build_request(*args, **more), own)
    )
    with ee.data.workloadTagContext("my-tag"):
        assert b'"workloadTag":"my-tag"' in transport.payload(ee.Number(1))
        table = extract_embeddings(fields(1), years=2020)
    assert table["status"].tolist() == ["ok"]
    assert Transport.calls == 1


def _with(request, http):
    request.http = http
    return request


# --- time ---------------------------------------------------------------------------------------------------------


def test_a_year_published_since_is_asked_for(earth, tmp_path):
    this_year = dt.datetime.now(dt.UTC).year
    server = earth(tmp_path)
    write_aef_tile(tmp_path, this_year, 32722, 700_000, 7_500_960, (96, 96))
    server = earth(tmp_path)
    table = extract_embeddings(fields(2), years=[2016, this_year, this_year + 1])
    assert table["status"].tolist() == ["no_data", "ok", "no_data"] * 2
    assert len(posts(server)) == 1
    site = fields(1)[0]
    found = fetch_pixels(get_embedding_image(site.geometry, this_year), site.polygon, ["A00"], 64)
    assert found.valid.all()
    with pytest.raises(UsageError, match="no embeddings are published for"):
        get_embedding_image(site.geometry, this_year + 1)


def test_no_data_is_asked_again_the_next_day_and_values_never(earth, tmp_path, monkeypatch):
    write_aef_tile(tmp_path, 2019, 32722, 700_000, 7_500_960, (96, 96))
    server = earth(tmp_path)
    now = [1e9]
    monkeypatch.setattr(cache.time, "time", lambda: now[0])
    for method in ("server", "pixels"):
        source = EarthEngineSource(method=method)
        statuses = extract_embeddings(fields(2), years=[2019, 2020], source=source)["status"].tolist()
        assert statuses == ["ok", "no_data"] * 2
        server.log.clear()
        now[0] += cache.EXPIRES_AFTER_S - 1
        assert extract_embeddings(fields(2), years=[2019, 2020], source=source)["status"].tolist() == statuses
        assert not posts(server)
        now[0] += 2
        assert EarthEngineSource().cost(fields(2).polygons, [2019, 2020]).known == 2
        extract_embeddings(fields(2), years=[2019, 2020], source=source)
        assert posts(server)
        server.log.clear()


def test_embeddings_by_date(ee_server):
    sites = SiteCollection([site_at(0, 700_960, 7_500_480)])  # across two tiles
    found = sites.extract_continuous(
        ALPHA_EMBEDDINGS, start_date="2019-06-01", end_date="2021-01-01", frequency="all", on_error="collect"
    )
    assert list(found) == ["site_id", "date", *EMBEDDING_BANDS]
    assert found["date"].tolist() == [pd.Timestamp("2020-01-01"), pd.Timestamp("2021-01-01")]
    yearly = sites.extract_continuous(ALPHA_EMBEDDINGS, start_date="2020-01-01", end_date="2021-01-01")
    assert np.array_equal(found[EMBEDDING_BANDS], yearly[EMBEDDING_BANDS])
    for wrong in ({"frequency": "monthly"}, {"frequency": "all", "start_date": "2019-01-02"}):
        asked = {"start_date": "2019-01-01", "end_date": "2019-12-31", **wrong}
        with pytest.raises(UsageError, match=r"one image a year|1 January only"):
            sites.extract_continuous(ALPHA_EMBEDDINGS, **asked)


def test_dates_with_a_zone_are_days_in_utc(ee_server):
    found = fields(1).extract_continuous(
        ALPHA_EMBEDDINGS, start_date="2020-12-31T23:30-03:00", end_date="2021-12-31T20:00-03:00"
    )
    assert found["year"].tolist() == [2021]


# --- numbers ------------------------------------------------------------------------------------------------------


def test_statistics_of_both_methods_do_not_contradict_each_other(earth, tmp_path):
    codes = position_codes(700_000, 7_500_960, 96, 96, 2020)
    codes[:, 20:30, 40:60] = -128
    write_aef_tile(tmp_path, 2020, 32722, 700_000, 7_500_960, codes)
    earth(tmp_path)
    thin = Site(polygon=lonlat(_thin()), site_id=100)
    sites = SiteCollection([*fields(20, seed=4), site_at(101, 700_505, 7_500_405, half=2), thin])
    asked = ["mean", "min", "max", "median", "p10", "p90", "std", "count"]
    together = extract_embeddings(sites, years=2020, statistics=asked)
    alone = extract_embeddings(sites, years=2020, source=EarthEngineSource(method="server"))
    for band in EMBEDDING_BANDS:
        low, high = together[f"{band}_min"], together[f"{band}_max"]
        for name in ("mean", "p10", "median", "p90"):
            assert (together[f"{band}_{name}"].between(low - 1e-12, high + 1e-12)).all()
        assert (together[f"{band}_p10"] <= together[f"{band}_p90"]).all()
        assert (together[f"{band}_std"] <= (high - low) / 2 + 1e-12).all()
        # the mean that was asked for alone lies between the extremes of the same pixels, too
        assert alone[band].between(low - 1e-6, high + 1e-6).all()
    assert np.allclose(together["A00_count"] >= together["n_pixels"] - 1e-9, True)
    assert np.allclose(alone["n_pixels"], together["n_pixels"], rtol=5e-3)
    assert np.allclose(alone["valid_fraction"], together["valid_fraction"], atol=2e-3)
    assert together["status"].tolist() == alone["status"].tolist()
    one = extract_embeddings(sites, years=2020, statistics=["mean"], source=EarthEngineSource(method="pixels"))
    assert np.array_equal(one["n_pixels"], together["n_pixels"])


def test_means_of_small_sites_are_as_good_as_those_of_large_ones(ee_server):
    """From 4 to 400 pixels; the service's shares of 8 bits alone would be wrong by 6e-4."""
    rng = np.random.default_rng(8)
    sizes = np.exp(rng.uniform(np.log(4), np.log(400), 80))
    sites = SiteCollection(
        Site(polygon=lonlat(blob(*rng.uniform((700_160, 7_500_160), (700_800, 7_500_800)), r, seed=i)), site_id=i)
        for i, r in enumerate(np.sqrt(sizes * 100 / np.pi))
    )
    server = extract_embeddings(sites, years=2020, source=EarthEngineSource(method="server"))
    exact = extract_embeddings(sites, years=2020, source=EarthEngineSource(method="pixels"))
    assert np.abs(server[EMBEDDING_BANDS].to_numpy() - exact[EMBEDDING_BANDS].to_numpy()).max() < 1e-4


def _thin():
    """A strip 400 m long and 20 cm wide: 0.02 of each pixel."""
    import shapely

    return shapely.box(700_302.3, 7_500_304.1, 700_702.3, 7_500_304.3)


def test_a_sliver_is_read_once(ee_server):
    sliver = site_at(0, 700_505, 7_500_405, half=0.02)
    first = extract_embeddings(sliver, years=2020)
    assert first["status"].tolist() == ["ok"]
    ee_server.log.clear()
    pd.testing.assert_frame_equal(extract_embeddings(sliver, years=2020), first)
    assert not posts(ee_server)


# --- stopping -----------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_at_once_and_the_next_call_goes_on(ee_server):
    sites = fields(100)

    def interrupt(done, total):
        ee_server.faults.fail_next("hang:0.7", 9)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        extract_embeddings(sites, years=YEARS, source=EarthEngineSource(max_concurrent=1), progress=interrupt)
    known = EarthEngineSource().cost(sites.polygons, YEARS).known
    assert known >= 75
    ee_server.faults.clear()
    for thread in [t for t in threading.enumerate() if t.name.startswith("earthengine")]:
        thread.join(timeout=10)
    ee_server.log.clear()
    table = extract_embeddings(sites, years=YEARS)
    assert (table["status"] == "ok").sum() == 300
    assert len(posts(ee_server)) <= 3


def test_progress_is_told_by_both_methods(ee_server, capsys):
    for method in ("server", "pixels"):
        told = []
        source = EarthEngineSource(method=method, cache=False)
        extract_embeddings(fields(3), years=YEARS, source=source, progress=lambda *pair: told.append(pair))  # noqa: B023
        assert told[-1] == (9, 9)
        extract_embeddings(fields(3), years=YEARS, source=source, progress=True)
        assert "9/9" in capsys.readouterr().err


def test_a_refusal_that_waits_says_how_long():
    assert transport._seconds("7") == 7
    assert transport._seconds(None) == transport._seconds("Wed, 21 Oct 2026 07:28:00 GMT") == 0

"""Embeddings through Earth Engine: the same table as from anywhere else, in few requests."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import exactextract
import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from gee_polygons import extract_embeddings
from gee_polygons.alphaearth import ALPHA_EMBEDDINGS
from gee_polygons.datasets.alpha_embeddings import EMBEDDING_BANDS
from gee_polygons.errors import EarthEngineError, UsageError
from gee_polygons.site import Site, SiteCollection, load_sites
from gee_polygons.sources.earthengine import EarthEngineSource, transport
from gee_polygons.sources.earthengine.batches import SITES_PER_REQUEST, SiteShapes, make_batches
from gee_polygons.sources.earthengine.reductions import embedding_reduction
from gee_polygons.sources.opening import open_source

from .places import CODES, blob, fields, lonlat, site_at
from .synthetic import position_codes, write_aef_tile, write_raster

YEARS = range(2019, 2022)


def posts(server):
    return [e for e in server.log.entries() if e.method == "POST"]


def oracle(server_tiles, sites, year, epsg):
    """exactextract on the same tiles, as float64 vectors."""
    frame = geopandas.GeoDataFrame({"site_id": list(sites.site_ids)}, geometry=list(sites.polygons), crs=4326)
    return exactextract.exact_extract(
        str(server_tiles), frame.to_crs(epsg), "mean", include_cols=["site_id"], output="pandas"
    )


def vector_raster(path, codes, west, north, epsg):
    k = codes.astype(np.float64)
    values = np.where(codes == -128, np.nan, np.sign(k) * (k / 127.5) ** 2)
    return write_raster(path, values, west, north, epsg, nodata=float("nan"))


@pytest.mark.parametrize(("method", "tolerance"), [("server", 2e-4), ("pixels", 1e-6)])
def test_means_are_those_of_exactextract_on_the_same_tile(ee_server, tmp_path, method, tolerance):
    sites = fields(12, seed=1)
    raster = vector_raster(
        tmp_path / "v.tif", position_codes(700_000, 7_500_960, 96, 96, 2020), 700_000, 7_500_960, 32722
    )
    truth = oracle(raster, sites, 2020, 32722)
    table = extract_embeddings(sites, years=2020, source=EarthEngineSource(method=method))
    found = table[EMBEDDING_BANDS].to_numpy()
    assert np.abs(found - truth.iloc[:, 1:].to_numpy()).max() < tolerance
    assert set(table["status"]) == {"ok"}
    assert table["valid_fraction"].to_numpy() == pytest.approx(1.0, abs=1e-6)
    assert table["n_pixels"].to_numpy() == pytest.approx(shapely.area(CODES.utm(sites)) / 100, rel=1e-4)


def test_the_table_is_that_of_the_open_archives(ee_server):
    sites = fields(3)
    table = extract_embeddings(sites, years=YEARS, source="earthengine")
    assert list(table) == ["site_id", "year", *EMBEDDING_BANDS, "Rbar", "n_pixels", "valid_fraction", "status"]
    assert len(table) == 9
    vectors = table[EMBEDDING_BANDS].to_numpy()
    assert table["Rbar"].to_numpy() == pytest.approx(np.linalg.norm(vectors, axis=1))
    assert table.attrs["provenance"]["source"] == "earthengine"
    assert table.attrs["provenance"]["archive"] == ALPHA_EMBEDDINGS.collection_id


def test_what_is_missing_has_a_row_that_says_so(earth, tmp_path):
    codes = position_codes(700_000, 7_500_960, 96, 96, 2020)
    codes[:, :48] = -128  # the northern half
    write_aef_tile(tmp_path / "t", 2020, 32722, 700_000, 7_500_960, codes)
    earth(tmp_path / "t")
    sites = SiteCollection(
        [
            site_at(i, *xy)
            for i, xy in enumerate(
                [(700_300, 7_500_200), (700_300, 7_500_800), (700_300, 7_500_480), (740_000, 7_500_200)]
            )
        ]
    )
    for method in ("server", "pixels"):
        table = extract_embeddings(sites, years=[2019, 2020], source=EarthEngineSource(method=method, cache=False))
        of_2020 = table[table["year"] == 2020].set_index("site_id")
        assert of_2020["status"].tolist() == ["ok", "masked", "ok", "no_data"]
        assert of_2020["valid_fraction"].to_numpy() == pytest.approx([1, 0, 0.5, 0], abs=0.01)
        assert set(table.loc[table["year"] == 2019, "status"]) == {"no_data"}
        assert table.loc[table["status"] != "ok", EMBEDDING_BANDS].isna().to_numpy().all()
        assert (table.loc[table["status"] != "ok", "n_pixels"] == 0).all()


def test_extract_continuous_goes_to_earth_engine_by_itself(ee_server):
    sites = fields(2)
    frame = sites.extract_continuous(ALPHA_EMBEDDINGS, start_date="2018-06-01", end_date="2021-12-31")
    assert list(frame) == ["site_id", "year", *EMBEDDING_BANDS]
    assert frame["year"].tolist() == [2019, 2020, 2021] * 2  # 2018 has no tile: no row; 31 December counts
    one = sites[0].extract_continuous(ALPHA_EMBEDDINGS, start_date="2020-12-31", end_date="2020-12-31")
    pd.testing.assert_frame_equal(one, frame[(frame["site_id"] == 0) & (frame["year"] == 2020)].reset_index(drop=True))


def test_other_statistics_come_from_pixels_and_do_not_contradict_the_mean(ee_server):
    sites = fields(4)
    several = extract_embeddings(sites, years=[2019, 2020], statistics=["mean", "min", "p90", "medoid"])
    again = extract_embeddings(sites, years=[2019, 2020], source=EarthEngineSource(method="pixels"))
    assert np.array_equal(several[[f"{b}_mean" for b in EMBEDDING_BANDS]], again[EMBEDDING_BANDS])
    assert (several["A00_min"] <= several["A00_mean"]).all()
    assert not ee_server.log.entries("computeFeatures")
    ee_server.log.clear()
    pd.testing.assert_frame_equal(
        several, extract_embeddings(sites, years=[2019, 2020], statistics=["mean", "min", "p90", "medoid"])
    )
    assert not posts(ee_server)
    with pytest.raises(UsageError, match="method='server' computes the mean only"):
        extract_embeddings(sites, years=2019, statistics=["std"], source=EarthEngineSource(method="server"))


def test_a_large_site_is_cut_into_windows(earth, tmp_path, monkeypatch):
    from gee_polygons.sources.earthengine import pixels

    monkeypatch.setattr(pixels, "WINDOW_PX", 40)
    write_aef_tile(tmp_path / "t", 2020, 32722, 700_000, 7_502_000, (200, 200))
    server = earth(tmp_path / "t")
    site = Site(polygon=lonlat(blob(701_000, 7_501_000, 800)), site_id=1)
    pieces = extract_embeddings(site, years=2020, statistics=["median"], source=EarthEngineSource(cache=False))
    assert len(server.log.entries("computePixels")) > 10
    monkeypatch.setattr(pixels, "WINDOW_PX", 512)
    whole = extract_embeddings(site, years=2020, statistics=["median"], source=EarthEngineSource(cache=False))
    pd.testing.assert_frame_equal(pieces, whole)


def test_zones_are_measured_on_their_own_pixels_and_share_a_request(ee_server):
    there = SiteCollection([site_at(0, 700_500, 7_500_400), site_at(1, 300_500, 7_500_400, epsg=32723)])
    table = extract_embeddings(there, years=2020)
    assert len(posts(ee_server)) == 1
    assert table["status"].tolist() == ["ok", "ok"]
    for row, west, x in ((0, 700_000, 700_500), (1, 300_000, 300_500)):
        codes = position_codes(west, 7_500_960, 96, 96, 2020)
        column, line = (x - west) // 10 - 10, (7_500_960 - 7_500_400) // 10 - 10
        k = codes[:, line : line + 20, column : column + 20].astype(np.float64)
        expected = (np.sign(k) * (k / 127.5) ** 2).mean(axis=(1, 2))
        assert table.loc[row, EMBEDDING_BANDS].to_numpy(float) == pytest.approx(expected, abs=2e-4)


def test_a_polygon_smaller_than_a_pixel_has_its_value(ee_server):
    site = site_at(0, 700_505, 7_500_405, half=2)
    table = extract_embeddings(site, years=2020)
    k = position_codes(700_000, 7_500_960, 96, 96, 2020)[:, 55, 50].astype(float)
    assert table.loc[0, EMBEDDING_BANDS].to_numpy(float) == pytest.approx(np.sign(k) * (k / 127.5) ** 2, abs=1e-6)
    assert table.loc[0, "n_pixels"] == pytest.approx(0.16, rel=1e-3)
    sliver = site_at(0, 700_505, 7_500_405, half=0.2)  # 0.16 of 100 m2: the server's 8 bits lose it
    table = extract_embeddings(sliver, years=2020)
    assert table.loc[0, EMBEDDING_BANDS].to_numpy(float) == pytest.approx(np.sign(k) * (k / 127.5) ** 2, abs=1e-6)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_fifty_sites_and_seven_years_take_few_requests(ee_server):
    sites = fields(50)
    extract_embeddings(sites, years=range(2018, 2025), source="earthengine")
    assert len(posts(ee_server)) <= 7
    assert not ee_server.log.errors
    ee_server.log.clear()
    table = extract_embeddings(sites, years=range(2018, 2025), source="earthengine")
    assert not posts(ee_server)  # years without data are remembered too
    assert table["status"].value_counts().to_dict() == {"no_data": 200, "ok": 150}


def test_the_cache_can_be_left_out(ee_server):
    for _ in range(2):
        ee_server.log.clear()
        extract_embeddings(fields(2), years=2020, source=EarthEngineSource(cache=False))
        assert len(posts(ee_server)) == 1


def test_another_geometry_year_or_band_is_another_entry(ee_server):
    sites = fields(2)
    extract_embeddings(sites, years=2020)
    for again in (
        lambda: extract_embeddings(sites, years=2019),
        lambda: extract_embeddings(SiteCollection([Site(polygon=sites[0].buffer(-5), site_id=0)]), years=2020),
        lambda: extract_embeddings(sites, years=2020, bands=["A03"]),
    ):
        ee_server.log.clear()
        again()
        assert len(posts(ee_server)) == 1


def test_real_sized_sites_stay_below_the_payload_limit():
    sites = [blob(700_000 + 50 * i, 7_500_500, 400, vertices=1_500) for i in range(190)]
    shapes = SiteShapes(np.array([lonlat(p) for p in sites], object))
    reduction = embedding_reduction(EMBEDDING_BANDS)
    years = [str(y) for y in range(2018, 2025)]
    batches = make_batches(shapes, reduction, dict.fromkeys(range(190), years))
    assert sorted(pair for b in batches for pair in b.pairs) == [(i, y) for i in range(190) for y in years]
    sizes = [sum(len(shapes.texts[i]) for i in batch.sites) for batch in batches]
    assert max(sizes) < 4_000_000
    assert len(max((b.sites for b in batches), key=len)) <= SITES_PER_REQUEST


def test_a_site_of_many_megabytes_is_simplified_just_enough():
    shapes = SiteShapes(np.array([lonlat(blob(700_500, 7_500_500, 5_000, vertices=600_000))], object))
    assert len(shapes.texts[0]) < transport.MAX_PAYLOAD_BYTES
    assert shapes.area_m2[0] == pytest.approx(np.pi * 25e6, rel=0.05)


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(transport, "FIRST_WAIT_S", 0.01)


@pytest.mark.parametrize("kind", ["rate", "unavailable", "internal", "drop", "aggregations"])
def test_what_passes_is_tried_again(ee_server, quick, kind):
    ee_server.faults.fail_next(kind, 3, "computeFeatures")
    table = extract_embeddings(fields(3), years=2020)
    assert set(table["status"]) == {"ok"}
    assert len(posts(ee_server)) == 4


def test_a_shaky_service_is_outlasted(ee_server, quick):
    ee_server.faults.fail_randomly(0.3, seed=3)
    table = extract_embeddings(fields(60), years=YEARS)
    assert (table["status"] == "ok").sum() == 180


def test_the_memory_limit_is_met_with_smaller_parts(ee_server, quick):
    sites = fields(8)
    free = extract_embeddings(sites, years=YEARS, source=EarthEngineSource(cache=False))
    ee_server.faults.memory_limit = 66 * 2_500
    table = extract_embeddings(sites, years=YEARS, source=EarthEngineSource(cache=False))
    pd.testing.assert_frame_equal(table, free)
    ee_server.faults.memory_limit = 66 * 150  # less than one site: only a larger tileScale helps
    table = extract_embeddings(sites[:1], years=2020, source=EarthEngineSource(cache=False))
    assert table["status"].tolist() == ["ok"]


@pytest.mark.parametrize("kind", ["memory", "timeout", "elements", "Geometry has a strange edge.", "internal"])
def test_a_poisoned_site_costs_only_itself(ee_server, quick, kind):
    sites = fields(30)
    marked = SiteShapes(sites.polygons).texts[17][60:100]
    ee_server.faults.poison(marked, kind)
    table = extract_embeddings(sites, years=2020, on_error="collect")
    assert table.loc[table["status"] == "error", "site_id"].tolist() == [17]
    assert (table["status"] == "ok").sum() == 29
    (error,) = table.attrs["errors"]
    assert error["site_ids"] == [17]
    assert error["year"] == 2020
    with pytest.raises(EarthEngineError, match=r"1 of 30 site-years .* 2020: .*on_error="):
        extract_embeddings(sites, years=2020)


def test_a_refused_project_is_not_asked_a_thousand_times(ee_server, quick):
    ee_server.faults.poison("reduceRegions", "Image.load: this asset can not be used.")
    table = extract_embeddings(fields(200), years=YEARS, on_error="collect")
    assert set(table["status"]) == {"error"}
    assert len(posts(ee_server)) < 60


def test_a_silent_service_is_given_up(ee_server, quick):
    ee_server.faults.fail_next("hang:3", 1)
    began = time.monotonic()
    table = extract_embeddings(fields(1), years=2020, source=EarthEngineSource(deadline_s=0.5))
    assert table["status"].tolist() == ["ok"]
    assert time.monotonic() - began < 3


def test_never_more_at_once_than_allowed(ee_server):
    ee_server.faults.latency_s = 0.05
    extract_embeddings(fields(120), years=YEARS, source=EarthEngineSource(max_concurrent=3))
    assert ee_server.log.max_at_once <= 3


def test_a_run_that_is_killed_goes_on_where_it_was(ee_server, quick):
    sites = fields(100)

    class Killed(BaseException):
        pass

    def kill(done, total):
        if done >= total // 3:
            raise Killed

    source = EarthEngineSource(max_concurrent=1)
    with pytest.raises(Killed):
        extract_embeddings(sites, years=YEARS, source=source, progress=kill)
    time.sleep(0.3)  # what was under way ends
    before = len(posts(ee_server))
    table = extract_embeddings(sites, years=YEARS, source=source)
    assert (table["status"] == "ok").sum() == 300
    assert before >= 1
    assert len(posts(ee_server)) <= 5  # 4 requests in all, and at most the one that was under way again
    assert not ee_server.log.errors


def test_a_process_that_is_killed_loses_only_what_was_under_way(ee_server, tmp_path):
    sites = fields(100)
    sites.to_geodataframe().to_file(tmp_path / "s.geojson", driver="GeoJSON")
    script = f"""
from earthengine.client import connect
connect({ee_server.url!r})
from gee_polygons import extract_embeddings, load_sites
from gee_polygons.sources.earthengine.source import EarthEngineSource
source = EarthEngineSource(max_concurrent=1)
extract_embeddings(load_sites({str(tmp_path / "s.geojson")!r}), years=range(2019, 2022), source=source,
                   progress=lambda done, total: print(done, flush=True))
"""
    places = os.pathsep.join(str(Path(__file__).parents[i]) for i in (1, 2))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([places, os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "75"
        ee_server.faults.latency_s = 0.5
        process.kill()
    ee_server.faults.latency_s = 0
    time.sleep(0.7)  # what was under way ends
    ee_server.log.clear()
    again = load_sites(tmp_path / "s.geojson")
    left = EarthEngineSource().cost(again.polygons, YEARS)
    assert 75 <= left.known < 300
    told = []
    table = extract_embeddings(again, years=YEARS, progress=lambda *pair: told.append(pair))
    assert (table["status"] == "ok").sum() == 300
    assert len(posts(ee_server)) == left.requests == (300 - left.known) // 75  # what was finished isn't asked again
    assert told[0][0] > left.known
    whole = extract_embeddings(again, years=YEARS, source=EarthEngineSource(cache=False))
    pd.testing.assert_frame_equal(table, whole)


def test_the_cache_is_safe_under_threads(tmp_path):
    from gee_polygons.sources.earthengine.cache import Cache, digest

    caches = [Cache(tmp_path / "c.sqlite") for _ in range(2)]

    def write(n):
        caches[n % 2].put({digest(str(n), str(i)): [float(n), None, i] for i in range(50)})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [digest(str(n), str(i)) for n in range(8) for i in range(50)]
    found = caches[0].get(keys)
    assert [found[k] for k in keys] == [[n, None, i] for n in range(8) for i in range(50)]
    for cache in caches:
        cache.close()


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_without_a_session_one_line_says_what_to_do():
    for call in (lambda: open_source("earthengine"), lambda: EarthEngineSource()):
        with pytest.raises(EarthEngineError, match=r"ee\.Authenticate\(\) and then ee\.Initialize\(project=") as error:
            call()
        assert "\n" not in str(error.value)


def test_nothing_is_asked_before_it_is_needed(ee_server):
    source = open_source(None)
    assert source.name == "earthengine"
    assert source.years()[0] == 2017
    assert "EarthEngineSource" in repr(source)
    assert not posts(ee_server)


def test_the_users_session_is_left_as_it_is(ee_server):
    import ee

    session, resource = ee.data._get_state().requests_session, ee.data._get_state().cloud_api_resource
    extract_embeddings(fields(1), years=2020, source=EarthEngineSource(deadline_s=1))
    assert ee.data._get_state().requests_session is session
    assert ee.data._get_state().cloud_api_resource is resource
    assert ee.data._get_state().deadline_ms == 0
    assert len(ee_server.log.entries("discovery", setup=True)) == 2


def test_impossible_options_are_refused(ee_server):
    for options in ({"method": "magic"}, {"max_concurrent": 41}, {"max_concurrent": 0}, {"deadline_s": 0}):
        with pytest.raises(UsageError):
            EarthEngineSource(**options)


def test_requests_are_counted_beforehand(ee_server):
    sites = fields(30)
    cost = EarthEngineSource().cost(sites.polygons, YEARS)
    assert not posts(ee_server)
    extract_embeddings(sites, years=YEARS)
    assert cost.requests == len(posts(ee_server))
    assert cost.bytes == sum(e.bytes_in for e in posts(ee_server))
    assert cost.site_years == 90
    assert EarthEngineSource().cost(sites.polygons, YEARS).requests == 0

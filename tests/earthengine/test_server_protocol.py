"""Requests, pages, limits, the log, faults and control."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import ee
import pytest

from .client import connected
from .faults import PAYLOAD_LIMIT

AEF = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
CRS = "EPSG:32722"


def features(count):
    return ee.FeatureCollection([ee.Feature(None, {"n": i}) for i in range(count)])


def many(count):
    """A short expression for many features."""
    return ee.FeatureCollection(ee.List.sequence(0, count - 1).map(lambda n: ee.Feature(None, {"n": n})))


def square(x=700_100, y=7_500_100, side=100):
    return ee.Geometry.Rectangle([x, y, x + side, y + side], CRS, False)


def year_mean(scale=10, **more):
    image = ee.ImageCollection(AEF).filterDate("2020-01-01", "2021-01-01").mosaic()
    return image.reduceRegions(ee.FeatureCollection([ee.Feature(square())]), ee.Reducer.mean(), scale, CRS, **more)


def test_initialisation_is_three_requests(ee_server):
    setup = [e.endpoint for e in ee_server.log.entries(setup=True)]
    assert setup == ["discovery", "discovery", "algorithms"]
    assert len(ee_server.log) == 0


def test_the_log_says_what_was_asked(ee_server):
    features(3).size().getInfo()
    (entry,) = ee_server.log
    assert (entry.method, entry.path, entry.status) == ("POST", "/v1/projects/test/value:compute", 200)
    assert (entry.endpoint, entry.project, entry.at_once) == ("value:compute", "test", 1)
    assert entry.functions == ("Collection", "Collection.size", "Feature")
    assert entry.bytes_in > 100
    assert entry.bytes_out == len('{"result":3}')
    assert 0 < entry.seconds < 5


def test_pages(ee_server):
    request = {"expression": features(7), "pageSize": 3}
    seen, token = [], None
    while True:
        page = ee.data.computeFeatures({**request, "pageToken": token} if token else dict(request))
        seen.append([f["properties"]["n"] for f in page["features"]])
        token = page.get("nextPageToken")
        if not token:
            break
    assert seen == [[0, 1, 2], [3, 4, 5], [6]]
    assert page["type"] == "FeatureCollection"
    with pytest.raises(ee.EEException, match="Invalid page token"):
        ee.data.computeFeatures({**request, "pageToken": "nonsense.3"})


def test_a_page_has_a_thousand_features_by_default(ee_server):
    page = ee.data.computeFeatures({"expression": many(1001)})
    assert len(page["features"]) == 1000
    assert "nextPageToken" in page
    assert len(ee.data.computeFeatures({"expression": many(2500), "pageSize": 2500})["features"]) == 2500


def test_all_pages_through_the_client(ee_server):
    frame = ee.data.computeFeatures({"expression": many(2500), "fileFormat": "PANDAS_DATAFRAME"})
    assert len(frame) == 2500
    assert len(ee_server.log.entries("computeFeatures")) == 3


def test_compute_features_answers_plain_geojson(ee_server):
    (feature,) = ee.data.computeFeatures({"expression": year_mean()})["features"]
    assert feature["geometry"]["type"] == "Polygon"
    assert "crs" not in feature["geometry"]
    assert all(-180 < x < 0 > y > -90 for x, y in feature["geometry"]["coordinates"][0])
    assert len(feature["properties"]) == 64
    bare = year_mean().map(lambda f: f.setGeometry(None))
    assert ee.data.computeFeatures({"expression": bare})["features"][0]["geometry"] is None


def test_five_thousand_elements(ee_server):
    assert len(many(5000).getInfo()["features"]) == 5000
    with pytest.raises(ee.EEException, match="Collection query aborted after accumulating over 5000 elements"):
        many(5001).getInfo()
    assert many(5001).size().getInfo() == 5001  # a number is one element
    assert len(ee.data.computeFeatures({"expression": many(5001), "pageSize": 6000})["features"]) == 5001


def test_payload_limit(ee_server):
    with pytest.raises(ee.EEException, match=f"Request payload size exceeds the limit: {PAYLOAD_LIMIT} bytes"):
        ee.String("x" * PAYLOAD_LIMIT).length().getInfo()
    assert ee.String("x" * (PAYLOAD_LIMIT - 1000)).length().getInfo() == PAYLOAD_LIMIT - 1000
    assert [e.status for e in ee_server.log] == [400, 200]


def test_invalid_requests(ee_server):
    with pytest.raises(ee.EEException, match=r"asset 'no/such' not found"):
        ee.ImageCollection("no/such").size().getInfo()
    request = Request(f"{ee_server.url}/v1/projects/test/value:compute", b"{not json", method="POST")
    from urllib.error import HTTPError

    with pytest.raises(HTTPError, match="400") as caught:
        urlopen(request, timeout=10)
    assert json.load(caught.value)["error"]["status"] == "INVALID_ARGUMENT"
    caught.value.close()


def test_assets_can_be_looked_up(ee_server):
    assert ee.data.getAsset(AEF)["type"] == "IMAGE_COLLECTION"
    with pytest.raises(ee.EEException, match="not found"):
        ee.data.getAsset("projects/test-project/assets/none")


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("rate", "Too Many Requests"),
        ("unavailable", "currently unavailable"),
        ("internal", "internal error"),
        ("memory", "User memory limit exceeded"),
        ("timeout", "Computation timed out"),
        ("aggregations", "Too many concurrent aggregations"),
        ("Some text of your own.", "Some text of your own"),
    ],
)
def test_a_queued_fault_happens_once(ee_server, kind, message):
    ee.data.setMaxRetries(0)
    ee_server.faults.fail_next(kind)
    with pytest.raises(ee.EEException, match=message):
        features(1).size().getInfo()
    assert features(1).size().getInfo() == 1


def test_the_client_tries_transient_faults_again_and_no_others(ee_server, monkeypatch):
    monkeypatch.setattr("googleapiclient.http.time.sleep", lambda s: None)
    monkeypatch.setattr("googleapiclient.http.random.random", lambda: 0)
    ee_server.faults.fail_next("rate", 2)
    ee_server.faults.fail_next("drop", 2)
    assert features(1).size().getInfo() == 1
    assert [e.status for e in ee_server.log] == [429, 429, 0, 0, 200]
    ee_server.log.clear()
    ee_server.faults.fail_next("memory")
    with pytest.raises(ee.EEException, match="memory"):
        features(1).size().getInfo()
    assert [e.status for e in ee_server.log] == [400]


def test_a_dropped_connection(ee_server):
    ee.data.setMaxRetries(0)
    ee_server.faults.fail_next("drop", match="value:compute")
    with pytest.raises(ConnectionError):
        features(1).size().getInfo()
    ee_server.faults.fail_next("hang:0.3")
    start = time.monotonic()
    with pytest.raises(ConnectionError):
        features(1).size().getInfo()
    assert time.monotonic() - start > 0.3


def test_a_deadline_ends_a_silence(ee_server):
    ee.data.setMaxRetries(0)
    ee.data.setDeadline(200)
    ee_server.faults.fail_next("hang:1")
    with pytest.raises(TimeoutError):
        features(1).size().getInfo()


def test_faults_can_be_aimed(ee_server):
    ee_server.faults.fail_next("memory", match="computeFeatures")
    assert features(1).size().getInfo() == 1
    with pytest.raises(ee.EEException, match="memory"):
        ee.data.computeFeatures({"expression": features(1)})
    ee_server.faults.poison("bad-site", "timeout")
    for name, fails in (("good-site", False), ("bad-site", True)):
        expression = ee.FeatureCollection([ee.Feature(None, {"site": name})]).size()
        if fails:
            with pytest.raises(ee.EEException, match="Computation timed out"):
                expression.getInfo()
        else:
            assert expression.getInfo() == 1
    ee_server.faults.clear()
    assert ee.FeatureCollection([ee.Feature(None, {"site": "bad-site"})]).size().getInfo() == 1


def test_memory_limit_is_in_pixel_bands_and_eased_by_tile_scale(ee_server):
    """10 x 10 pixels x 64 bands are 6,400 pixel-bands."""
    year_mean().getInfo()
    assert ee_server.log.entries()[-1].pixel_bands == 6400
    ee_server.faults.memory_limit = 6399
    with pytest.raises(ee.EEException, match="User memory limit exceeded"):
        year_mean().getInfo()
    year_mean(tileScale=2).getInfo()
    ee_server.faults.memory_limit = 6400
    year_mean().getInfo()
    ee_server.faults.timeout_limit = 6399
    with pytest.raises(ee.EEException, match="Computation timed out"):
        year_mean(tileScale=16).getInfo()


def test_concurrency_limit(ee_server):
    ee.data.setMaxRetries(0)
    ee_server.faults.latency_s = 0.3
    ee_server.faults.concurrency_limit = 3
    barrier = threading.Barrier(5)

    def ask(_):
        barrier.wait()
        try:
            return features(1).size().getInfo()
        except ee.EEException as error:
            return str(error)[:17]

    with ThreadPoolExecutor(5) as pool:
        found = sorted(pool.map(ask, range(5)), key=str)
    assert found == [1, 1, 1, "Too Many Requests", "Too Many Requests"]
    assert ee_server.log.max_at_once > 3


def test_rate_limit(ee_server):
    ee.data.setMaxRetries(0)
    ee_server.faults.rate_limit = 2
    assert [features(1).size().getInfo() for _ in range(2)] == [1, 1]
    with pytest.raises(ee.EEException, match="Too Many Requests"):
        features(1).size().getInfo()


def test_random_faults_are_reproducible(ee_server):
    ee.data.setMaxRetries(0)

    def outcomes():
        ee_server.faults.fail_randomly(0.5, ("rate",), seed=7)
        ee_server.log.clear()
        for _ in range(12):
            try:
                features(1).size().getInfo()
            except ee.EEException:
                continue
        return [e.status for e in ee_server.log]

    first = outcomes()
    assert set(first) == {200, 429}
    assert outcomes() == first


def test_latency(ee_server):
    ee_server.faults.latency_s = 0.2
    start = time.monotonic()
    features(1).size().getInfo()
    assert 0.2 <= time.monotonic() - start < 2


# --- another process --------------------------------------------------------------------------------------------------


def control(url, path, orders=None):
    body = None if orders is None else json.dumps(orders).encode()
    with urlopen(Request(url + path, body, method="GET" if body is None else "POST"), timeout=10) as answer:
        return json.load(answer)


def test_as_a_process_with_control_over_http(standard_archive):
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "earthengine", "--tiles", str(standard_archive)]
    with subprocess.Popen(command, cwd=tests, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with connected(url):
                assert ee.ImageCollection(AEF).size().getInfo() == 8
                control(url, "/control", {"fail_next": {"kind": "memory", "count": 1}, "latency_s": 0.0})
                with pytest.raises(ee.EEException, match="memory"):
                    ee.ImageCollection(AEF).size().getInfo()
            log = control(url, "/control/log")
            assert [e["status"] for e in log if e["endpoint"] == "value:compute"] == [200, 400]
            assert control(url, "/control/unimplemented") == {"unimplemented": [], "failures": []}
            control(url, "/control/clear-log", {})
            assert control(url, "/control/log") == []
        finally:
            process.terminate()
            process.wait(10)
    assert process.returncode == 0

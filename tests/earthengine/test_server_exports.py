"""Batch tasks: states, files, names, failures, cancelling, and starting twice."""

import csv
import json
import threading
import time

import ee
import pytest
import rasterio

AEF = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
CRS = "EPSG:32722"


@pytest.fixture
def server(earth, standard_archive, tmp_path):
    return earth(standard_archive, None, tmp_path)


def table():
    square = ee.Geometry.Rectangle([700_100, 7_500_100, 700_200, 7_500_200], CRS, False)
    features = [ee.Feature(square, {"site": "a,b", "n": 1.5}), ee.Feature(None, {"site": "c", "n": None})]
    return ee.FeatureCollection(features)


def wait(task, *states, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if task.status()["state"] in states:
            return task.status()
        time.sleep(0.02)
    raise AssertionError(task.status())


def test_a_table_to_drive(server, tmp_path):
    task = ee.batch.Export.table.toDrive(table(), description="first", folder="out", fileNamePrefix="rows")
    assert task.status()["state"] == "UNSUBMITTED"
    task.start()
    status = wait(task, "COMPLETED")
    assert (status["description"], status["task_type"]) == ("first", "EXPORT_FEATURES")
    rows = list(csv.DictReader((tmp_path / "drive/out/rows.csv").read_text().splitlines()))
    assert list(rows[0]) == ["system:index", "n", "site", ".geo"]
    assert (rows[0]["system:index"], rows[0]["site"], rows[0]["n"]) == ("0", "a,b", "1.5")
    assert json.loads(rows[0][".geo"])["type"] == "Polygon"
    assert (rows[1]["n"], rows[1][".geo"]) == ("", "")
    assert [o["metadata"]["state"] for o in ee.data.listOperations()] == ["SUCCEEDED"]


def test_selectors_are_the_columns(server, tmp_path):
    task = ee.batch.Export.table.toCloudStorage(
        table(), bucket="bucket", fileNamePrefix="a/b", selectors=["site", "n"], fileFormat="CSV"
    )
    task.start()
    wait(task, "COMPLETED")
    assert (tmp_path / "storage/bucket/a/b.csv").read_text() == 'site,n\n"a,b",1.5\nc,\n'


def test_geojson(server, tmp_path):
    task = ee.batch.Export.table.toDrive(table(), description="geo", fileFormat="GeoJSON")
    task.start()
    wait(task, "COMPLETED")
    found = json.loads((tmp_path / "drive/geo.geojson").read_text())
    assert [f["properties"]["site"] for f in found["features"]] == ["a,b", "c"]
    west, north = found["features"][0]["geometry"]["coordinates"][0][0]
    assert -180 < west < 0
    assert -23 < north < -22


def test_an_image(server, tmp_path):
    image = ee.ImageCollection(AEF).filterDate("2020-01-01", "2021-01-01").mosaic().select(["A00", "A01"])
    region = ee.Geometry.Rectangle([700_100, 7_500_100, 700_140, 7_500_130], CRS, False)
    task = ee.batch.Export.image.toDrive(image, "picture", region=region, crs=CRS, scale=10)
    task.start()
    wait(task, "COMPLETED")
    with rasterio.open(tmp_path / "drive/picture.tif") as source:
        assert source.shape == (3, 4)
        assert source.descriptions == ("A00", "A01")
        assert source.transform[:6] == (10, 0, 700_100, 0, -10, 7_500_130)


def test_two_run_and_the_third_waits(server):
    server.faults.export_seconds = 0.5
    tasks = [ee.batch.Export.table.toDrive(table(), description=f"t{i}") for i in range(3)]
    for task in tasks:
        task.start()
        time.sleep(0.05)
    assert [t.status()["state"] for t in tasks] == ["RUNNING", "RUNNING", "READY"]
    tasks[2].cancel()
    assert wait(tasks[2], "CANCELLED")["error_message"] == "Cancelled."
    assert wait(tasks[0], "COMPLETED")["state"] == "COMPLETED"
    wait(tasks[1], "COMPLETED")


def test_a_running_task_can_be_cancelled(server, tmp_path):
    server.faults.export_seconds = 30
    task = ee.batch.Export.table.toDrive(table(), description="long")
    task.start()
    wait(task, "RUNNING")
    task.cancel()
    wait(task, "CANCELLED")
    assert not list(tmp_path.rglob("*.csv"))


def test_a_task_that_fails(server):
    server.faults.export_error = "Computation timed out."
    task = ee.batch.Export.table.toDrive(table(), description="bad")
    task.start()
    assert wait(task, "FAILED")["error_message"] == "Computation timed out."
    server.faults.clear()
    missing = ee.batch.Export.table.toDrive(
        ee.FeatureCollection([ee.Feature(None, {"a": ee.Dictionary({}).get("x")})]), description="worse"
    )
    missing.start()
    assert "does not contain key: 'x'" in wait(missing, "FAILED")["error_message"]


def test_starting_the_same_request_again_gives_the_same_task(server):
    request = {
        "expression": table(),
        "description": "once",
        "fileExportOptions": {"fileFormat": "CSV", "driveDestination": {"filenamePrefix": "once"}},
    }
    names = {ee.data.exportTable("same-id", dict(request))["name"] for _ in range(3)}
    assert len(names) == 1
    assert ee.data.getOperation(names.pop())["metadata"]["description"] == "once"
    with pytest.raises(ee.EEException, match="not found"):
        ee.data.getOperation("projects/test/operations/NONE")


def test_batch_tasks_are_not_held_to_the_interactive_limits(server):
    server.faults.memory_limit = 10
    threads = threading.active_count()  # those of other tests' servers may still be ending
    region = ee.Geometry.Rectangle([700_100, 7_500_100, 700_200, 7_500_200], CRS, False)
    image = ee.ImageCollection(AEF).filterDate("2020-01-01", "2021-01-01").mosaic()
    reduced = image.reduceRegions(ee.FeatureCollection([ee.Feature(region)]), ee.Reducer.mean(), 10, CRS)
    with pytest.raises(ee.EEException, match="User memory limit exceeded"):
        reduced.getInfo()
    task = ee.batch.Export.table.toDrive(reduced, description="batch")
    task.start()
    wait(task, "COMPLETED")
    assert threading.active_count() < threads + 50

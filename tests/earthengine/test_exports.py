"""Batch exports: chunks, how many at once, taking over, cancelling, and the table that comes of their files."""

import pandas as pd
import pytest

from gee_polygons.alphaearth import ALPHA_EMBEDDINGS
from gee_polygons.errors import EarthEngineError, InputFileError, UsageError
from gee_polygons.site import SiteCollection
from gee_polygons.sources.earthengine import exports as exporting
from gee_polygons.sources.earthengine.exports import read_exports, resume_exports

from .places import fields, site_at
from .test_layers import COVER, NDVI, square
from .test_layers import server as layers_server

DATES = {"start_date": "2019-01-01", "end_date": "2021-12-31"}
layers = layers_server


@pytest.fixture
def server(earth, standard_archive, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "SITES_PER_TASK", 3)
    return earth(standard_archive, None, tmp_path / "out")


def test_the_files_are_the_table_of_the_extraction(server, tmp_path):
    sites = fields(8)
    exports = sites.export_continuous(ALPHA_EMBEDDINGS, **DATES, drive_folder="gee")
    assert [task.state for task in exports.tasks].count("WAITING") == 1  # two at once
    table = exports.wait(progress=False, poll_s=0.05)
    assert table["state"].tolist() == ["SUCCEEDED"] * 3
    found = read_exports(tmp_path / "out" / "drive" / "gee")
    pd.testing.assert_frame_equal(found, sites.extract_continuous(ALPHA_EMBEDDINGS, **DATES), check_exact=False)


def test_the_same_call_again_takes_over_what_is_there(server):
    sites = fields(8)
    server.faults.export_seconds = 0.2
    first = sites.export_continuous(ALPHA_EMBEDDINGS, **DATES, bucket="b")
    again = sites.export_continuous(ALPHA_EMBEDDINGS, **DATES, bucket="b")
    assert again.ids[:2] == first.ids
    again.wait(progress=False, poll_s=0.05)
    third = sites.export_continuous(ALPHA_EMBEDDINGS, **DATES, bucket="b")
    assert third.done
    assert len(server.log.entries("table:export")) == 3
    resumed = resume_exports(again.ids)
    assert resumed.status()["state"].tolist() == ["SUCCEEDED"] * 3
    assert resume_exports([again.ids[0].rpartition("/")[2]]).done  # as the Code Editor shows it
    for unknown in ("projects/test/operations/NONE", "NONE", "a/b"):
        with pytest.raises(UsageError, match="task"):
            resume_exports([unknown])


def test_what_failed_is_repeated_and_what_runs_can_be_cancelled(server):
    sites = fields(2)
    server.faults.export_error = "Computation timed out."
    exports = sites.export_continuous(ALPHA_EMBEDDINGS, **DATES, bucket="b")
    with pytest.raises(EarthEngineError, match=r"1 of 1 exports failed.*timed out"):
        exports.wait(progress=False, poll_s=0.05)
    server.faults.clear()
    server.faults.export_seconds = 30
    exports = sites.export_continuous(ALPHA_EMBEDDINGS, **DATES, bucket="b")
    exports.cancel()
    assert exports.status()["state"].tolist() == ["CANCELLED"]


def test_classes_come_back_as_areas(layers, tmp_path):
    exports = square().export_categorical(COVER, **DATES, drive_folder="d")
    exports.wait(progress=False, poll_s=0.05)
    folder = layers.exports.folder / "drive" / "d"
    found = read_exports(folder, COVER)
    pd.testing.assert_frame_equal(found, square().extract_categorical(COVER, **DATES), check_exact=False)
    with pytest.raises(UsageError, match="'cover'"):
        read_exports(folder)
    text = next(folder.glob("*.csv")).read_text().replace('""', "").replace(": ", "=")
    assert "{" in text  # Earth Engine writes {3=12.5} where JSON has {"3": 12.5}
    assert exporting._histogram("{3=12.5, 15=4}") == exporting._histogram('{"3": 12.5, "15": 4}')


@pytest.mark.parametrize("frequency", ["yearly", "monthly", "all"])
@pytest.mark.parametrize("reducer", ["mean", "max"])
def test_other_layers_by_year_month_and_date(layers, monkeypatch, frequency, reducer):
    monkeypatch.setattr(exporting, "PERIODS_PER_TASK", 2)
    dates = {"start_date": "2020-01-01", "end_date": "2020-12-31", "frequency": frequency, "reducer": reducer}
    exports = square().export_continuous(NDVI, **dates, drive_folder="d", prefix=f"ndvi_{frequency}_{reducer}")
    assert len(exports.tasks) == {"yearly": 1, "monthly": 6, "all": 2}[frequency]
    exports.wait(progress=False, poll_s=0.05)
    found = read_exports(layers.exports.folder / "drive" / "d")
    pd.testing.assert_frame_equal(found, square().extract_continuous(NDVI, **dates), check_exact=False)


def test_small_sites_are_measured_as_finely_as_by_extraction(server, tmp_path):
    sites = SiteCollection([site_at(0, 700_505, 7_500_405, half=2), *fields(2)[1:]])
    sites.export_continuous(ALPHA_EMBEDDINGS, **DATES, bucket="b", prefix="a/small").wait(progress=False, poll_s=0.05)
    (path,) = (tmp_path / "out" / "storage" / "b" / "a").glob("small_*.csv")
    found = read_exports(path.parent)
    pd.testing.assert_frame_equal(found, sites.extract_continuous(ALPHA_EMBEDDINGS, **DATES), check_exact=False)


def test_tasks_of_the_older_interface_are_understood():
    assert exporting._state({"name": "x", "metadata": {"state": "COMPLETED"}}) == ("SUCCEEDED", "")
    assert exporting._state({"name": "x", "done": True}) == ("SUCCEEDED", "")
    assert exporting._state({"name": "x", "done": True, "error": {"message": "m"}}) == ("FAILED", "m")
    assert exporting._state({"name": "x"}) == ("RUNNING", "")


def test_wrong_calls_and_folders_are_refused(server, tmp_path):
    sites = fields(1)
    for wrong in (
        {},
        {"bucket": "b", "drive_folder": "d"},
        {"bucket": "b", "frequency": "all"},
        {"bucket": "b", "frequency": "monthly"},
        {"bucket": "b", "frequency": "weekly"},
        {"bucket": "b", "prefix": "my sites"},
        {"bucket": "b", "reducer": "median"},
        {"bucket": "b", "reducer": "mode"},
    ):
        with pytest.raises(UsageError):
            sites.export_continuous(ALPHA_EMBEDDINGS, **DATES, **wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputFileError, match="no CSV"):
        read_exports(tmp_path / "empty")
    (tmp_path / "empty" / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputFileError, match="no column 'row'"):
        read_exports(tmp_path / "empty")

"""The cache of Earth Engine results: what is kept for good, what expires, what another entry is."""

import datetime as dt
import functools
import pickle
import sqlite3
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gee_polygons import extract_embeddings
from gee_polygons.errors import DataWarning
from gee_polygons.layers import ContinuousLayer
from gee_polygons.site import SiteCollection
from gee_polygons.sources.earthengine import EarthEngineSource, cache, exports, reductions
from gee_polygons.sources.earthengine.transport import Refusal, RequestFailedError

from .archive import Archive
from .places import fields, site_at
from .synthetic import Catalogue, write_aef_tile

PLACE = {"west": 700_000, "north": 7_500_960, "epsg": 32722}
DATES = {"start_date": "2020-01-01", "end_date": "2020-12-31"}


def posts(server):
    return [e for e in server.log.entries() if e.method == "POST"]


@pytest.fixture
def clock(monkeypatch):
    """A list whose only item is the time that the cache reads."""
    now = [1e9]
    monkeypatch.setattr(cache.time, "time", lambda: now[0])
    return now


def scenes(folder, *days):
    """A catalogue of one collection, each of whose images is 0.1 times its month."""
    catalogue = Catalogue(folder)
    for day in days:
        values = np.full((96, 96), day.month / 10, np.float32)
        catalogue.add("X/NDVI", {"NDVI": values}, index=f"d{day:%Y%m%d}", start=day.isoformat(), **PLACE)
    return catalogue.save()


def ndvi(prepare=None, composite="mean"):
    return ContinuousLayer(
        name="ndvi", collection_id="X/NDVI", bands=("NDVI",), scale_m=10, first_year=2019, composite=composite,
        prepare=prepare,
    )  # fmt: skip


def one_site():
    return SiteCollection([site_at("a", 700_480, 7_500_480)])


# --- values of periods that aren't over, and of missing tiles -----------------------------------------------------


def test_values_of_a_period_that_is_not_over_expire(earth, tmp_path, clock):
    today = dt.datetime.now(dt.UTC).date()
    year = today.year
    server = earth(None, scenes(tmp_path / "c", dt.date(year, 1, 1), dt.date(year - 1, 6, 1)))
    asked = {"start_date": f"{year - 1}-01-01", "end_date": f"{year}-12-31"}
    for frequency, n_unfinished in (("yearly", 1), ("monthly", 13 - today.month)):
        first = one_site().extract_continuous(ndvi(), **asked, frequency=frequency)
        assert (year, pytest.approx(0.1)) in zip(first["year"], first["NDVI"], strict=True)
        server.log.clear()
        one_site().extract_continuous(ndvi(), **asked, frequency=frequency)
        assert not posts(server)
        clock[0] += cache.EXPIRES_AFTER_S + 1
        one_site().extract_continuous(ndvi(), **asked, frequency=frequency)
        assert len(posts(server)) >= 1
        assert n_unfinished >= 1
    # a new scene shows a day later
    server.archive = Archive(None, scenes(tmp_path / "d", dt.date(year, 1, 1), dt.date(year, 2, 1)))
    clock[0] += cache.EXPIRES_AFTER_S + 1
    again = one_site().extract_continuous(ndvi(), start_date=f"{year}-01-01", end_date=f"{year}-12-31")
    assert again["NDVI"].tolist() == [pytest.approx(0.15)]


@pytest.mark.parametrize(("days_ago", "kept"), [(1, False), (29, False), (31, True)])
def test_values_of_a_period_that_is_over_are_kept_for_good(earth, tmp_path, clock, days_ago, kept):
    """Images are published days after they were taken, so a period that ended yesterday may still change."""
    last = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=days_ago)
    server = earth(None, scenes(tmp_path / "c", dt.date(last.year, 1, 1), last))
    # a composite of the scenes until that day only
    asked = {"start_date": f"{last.year}-01-01", "end_date": last.isoformat()}
    one_site().extract_continuous(ndvi(), **asked)
    clock[0] += 1e9
    server.log.clear()
    one_site().extract_continuous(ndvi(), **asked)
    assert bool(posts(server)) is not kept


def test_what_a_clock_that_was_ahead_took_for_final_is_computed_again(earth, tmp_path, clock, monkeypatch):
    """A year ahead this year was over, and its values so far were kept for good."""
    today = dt.datetime.now(dt.UTC).date()
    year = today.year
    server = earth(None, scenes(tmp_path / "c", dt.date(year, 1, 1)))
    asked = {"start_date": f"{year}-01-01", "end_date": f"{year}-12-31"}
    with monkeypatch.context() as ahead:
        ahead.setattr(reductions, "today", lambda: today + dt.timedelta(400))
        clock[0] += 400 * 86_400
        assert one_site().extract_continuous(ndvi(), **asked)["NDVI"].tolist() == [pytest.approx(0.1)]
        server.log.clear()
        one_site().extract_continuous(ndvi(), **asked)
        assert not posts(server)
    clock[0] -= 400 * 86_400
    server.archive = Archive(None, scenes(tmp_path / "d", dt.date(year, 1, 1), dt.date(year, 2, 1)))
    for _ in range(2):
        assert one_site().extract_continuous(ndvi(), **asked)["NDVI"].tolist() == [pytest.approx(0.15)]


def test_a_mosaic_stands_for_its_whole_period_whatever_days_are_asked_for(earth, tmp_path, clock):
    today = dt.datetime.now(dt.UTC).date()
    last = today - dt.timedelta(days=31)
    if last.year != today.year:
        pytest.skip("in January the year of that day is over")
    server = earth(None, scenes(tmp_path / "c", dt.date(today.year, 1, 1)))
    asked = {"start_date": f"{today.year}-01-01", "end_date": last.isoformat()}
    one_site().extract_continuous(ndvi(composite="mosaic"), **asked)
    clock[0] += cache.EXPIRES_AFTER_S + 1
    server.log.clear()
    one_site().extract_continuous(ndvi(composite="mosaic"), **asked)
    assert posts(server)


@pytest.mark.parametrize("method", ["server", "pixels"])
def test_half_published_embeddings_expire_and_whole_ones_never(earth, tmp_path, clock, method):
    """One of the two tiles under a site is published later than the other."""
    write_aef_tile(tmp_path / "t", 2020, 32722, 700_000, 7_500_960, (96, 96), name="west")
    server = earth(tmp_path / "t")
    across, inside = site_at(0, 700_960, 7_500_480), site_at(1, 700_480, 7_500_480)
    sites, source = SiteCollection([across, inside]), EarthEngineSource(method=method)
    half = extract_embeddings(sites, years=2020, source=source)
    assert half["status"].tolist() == ["ok", "ok"]
    assert half["valid_fraction"].tolist() == pytest.approx([0.5, 1.0], abs=0.01)
    server.log.clear()
    pd.testing.assert_frame_equal(extract_embeddings(sites, years=2020, source=source), half)
    assert not posts(server)

    write_aef_tile(tmp_path / "t", 2020, 32722, 700_960, 7_500_960, (96, 96), name="east")
    server.archive = Archive(tmp_path / "t")
    clock[0] += cache.EXPIRES_AFTER_S + 1
    extract_embeddings(SiteCollection([inside]), years=2020, source=source)
    assert not posts(server)
    whole = extract_embeddings(sites, years=2020, source=source)
    assert whole["valid_fraction"].tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    clock[0] += 1e9
    server.log.clear()
    pd.testing.assert_frame_equal(extract_embeddings(sites, years=2020, source=source), whole)
    assert not posts(server)


@pytest.mark.parametrize("method", ["server", "pixels"])
def test_masked_pixels_of_a_published_tile_are_kept_for_good(earth, tmp_path, clock, method):
    from .synthetic import position_codes

    codes = position_codes(700_000, 7_500_960, 96, 96, 2020)
    codes[:, :, :48] = -128
    write_aef_tile(tmp_path / "t", 2020, 32722, 700_000, 7_500_960, codes)
    server = earth(tmp_path / "t")
    source = EarthEngineSource(method=method)
    table = extract_embeddings(site_at(0, 700_480, 7_500_480), years=2020, source=source)
    assert table["valid_fraction"].tolist() == pytest.approx([0.5], abs=0.01)
    clock[0] += 1e9
    server.log.clear()
    extract_embeddings(site_at(0, 700_480, 7_500_480), years=2020, source=source)
    assert not posts(server)


# --- a layer's own code -------------------------------------------------------------------------------------------


def scaled(image, factor):
    return image.multiply(factor)


def closure(factor):
    def prepare(image):
        return image.multiply(factor)

    return prepare


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, image):
        return image.multiply(self.factor)


def redefined(factor):
    """What a notebook does: the same name, other code."""
    names = {}
    exec(f"def prepare(image):\n    return image.multiply({factor})\n", names)
    return names["prepare"]


@pytest.mark.parametrize(
    "make",
    [
        closure,
        Scaled,
        redefined,
        lambda factor: functools.partial(scaled, factor=factor),
        lambda factor: lambda image: image.multiply(factor),
        lambda factor: Scaled(factor).__call__,
    ],
    ids=["closure", "object", "redefined", "partial", "lambda", "method"],
)
def test_a_layer_prepared_in_another_way_is_another_entry(earth, tmp_path, make):
    server = earth(None, scenes(tmp_path / "c", dt.date(2020, 5, 1)))
    for factor, expected in ((1, 0.5), (2, 1.0), (3, 1.5)):
        found = one_site().extract_continuous(ndvi(make(factor)), **DATES)
        assert found["NDVI"].tolist() == [pytest.approx(expected, abs=1e-6)]
    server.log.clear()
    again = one_site().extract_continuous(ndvi(make(2)), **DATES)  # the same in a new object: known
    assert again["NDVI"].tolist() == [pytest.approx(1.0, abs=1e-6)]
    assert not posts(server)


def test_a_variable_that_a_function_reads_counts_too(earth, tmp_path, monkeypatch):
    earth(None, scenes(tmp_path / "c", dt.date(2020, 5, 1)))
    layer = ndvi(_by_global)
    assert one_site().extract_continuous(layer, **DATES)["NDVI"].tolist() == [pytest.approx(0.5)]
    monkeypatch.setitem(globals(), "FACTOR", 2)
    assert one_site().extract_continuous(layer, **DATES)["NDVI"].tolist() == [pytest.approx(1.0)]


FACTOR = 1


def _by_global(image):
    return image.multiply(FACTOR)


def test_what_differs_each_time_is_not_kept_and_said_once(earth, tmp_path):
    server = earth(None, scenes(tmp_path / "c", dt.date(2020, 5, 1)))
    calls = []

    def unsteady(image):
        calls.append(image)
        return image.multiply(1).set("call", len(calls))

    with pytest.warns(DataWarning, match="'ndvi'.*not kept.*prepare"):
        first = one_site().extract_continuous(ndvi(unsteady), **DATES)
    assert len(posts(server)) == 1
    pd.testing.assert_frame_equal(one_site().extract_continuous(ndvi(unsteady), **DATES), first)  # said only once
    assert len(posts(server)) == 2
    one_site().export_continuous(ndvi(unsteady), **DATES, bucket="b")
    one_site().export_continuous(ndvi(unsteady), **DATES, bucket="b")
    assert len(server.log.entries("table:export")) == 2  # no task is taken over either


def test_an_error_in_a_layers_function_is_raised_as_it_is(earth, tmp_path):
    earth(None, scenes(tmp_path / "c", dt.date(2020, 5, 1)))

    def wrong(image):
        raise LookupError("of the user")

    with pytest.raises(LookupError, match="of the user"):
        one_site().extract_continuous(ndvi(wrong), **DATES)


def test_a_changed_composite_or_band_is_another_entry(earth, tmp_path):
    earth(None, scenes(tmp_path / "c", dt.date(2020, 1, 1), dt.date(2020, 2, 1), dt.date(2020, 12, 1)))
    mean = one_site().extract_continuous(ndvi(), **DATES)["NDVI"].tolist()
    median = one_site().extract_continuous(replace(ndvi(), composite="median"), **DATES)["NDVI"].tolist()
    assert mean == [pytest.approx(0.5)]
    assert median == [pytest.approx(0.2)]


# --- exports ------------------------------------------------------------------------------------------------------


def test_an_export_of_an_unfinished_year_is_taken_over_on_the_same_day_only(earth, tmp_path, monkeypatch):
    today = dt.datetime.now(dt.UTC).date()
    server = earth(None, scenes(tmp_path / "c", dt.date(today.year, 1, 1)), tmp_path / "out")
    asked = {"start_date": f"{today.year - 1}-01-01", "end_date": f"{today.year}-12-31"}
    for expected in (1, 1):
        one_site().export_continuous(ndvi(), **asked, bucket="b")
        assert len(server.log.entries("table:export")) == expected
    monkeypatch.setattr(exports, "today", lambda: today + dt.timedelta(days=1))
    one_site().export_continuous(ndvi(), **asked, bucket="b")
    assert len(server.log.entries("table:export")) == 2


# --- damage -------------------------------------------------------------------------------------------------------


def filled_cache(folder, n=3_000):
    path = folder / cache.FILE_NAME
    found = cache.Cache(path)
    keys = [cache.digest(str(i)) for i in range(n)]
    found.put({key: [float(i)] * 20 for i, key in enumerate(keys)}, ())
    found.close()
    assert not path.with_name(path.name + "-wal").exists()
    return path, keys


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.99])
def test_a_truncated_cache_is_moved_aside(ee_server, tmp_path, monkeypatch, share):
    monkeypatch.setenv("GEE_POLYGONS_CACHE", str(tmp_path))
    path, keys = filled_cache(tmp_path)
    content = path.read_bytes()
    damaged = content[: int(len(content) * share)]
    path.write_bytes(damaged)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        opened = cache.open_cache(True)
        opened.get(keys)
        opened.put({key: [1.0] for key in keys}, ())
    (one,) = told
    assert one.category is DataWarning
    assert "earthengine.sqlite, is damaged" in str(one.message)
    assert opened.get(keys[:2]) == {key: [1.0] for key in keys[:2]}
    opened.close()
    assert path.with_name(path.name + ".damaged").read_bytes() == damaged
    table = extract_embeddings(fields(2), years=2020)
    assert table["status"].tolist() == ["ok", "ok"]
    assert EarthEngineSource().cost(fields(2).polygons, [2020]).known == 2


@pytest.mark.parametrize("kind", ["text", "foreign", "overwritten"])
def test_a_file_that_is_no_cache_is_moved_aside(ee_server, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("GEE_POLYGONS_CACHE", str(tmp_path))
    path = tmp_path / cache.FILE_NAME
    if kind == "text":
        path.write_text("no database at all, but text that is long enough to be refused")
    elif kind == "foreign":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE site_periods (a, b)")
        other.close()
    else:
        filled_cache(tmp_path)
        content = bytearray(path.read_bytes())
        content[4096:] = bytes(len(content) - 4096)
        path.write_bytes(content)
    with pytest.warns(DataWarning, match=r"damaged.*\.damaged"):
        table = extract_embeddings(fields(2), years=2020)
    assert table["status"].tolist() == ["ok", "ok"]
    assert path.with_name(path.name + ".damaged").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ee_server.log.clear()
        pd.testing.assert_frame_equal(extract_embeddings(fields(2), years=2020), table)
    assert not posts(ee_server)


@pytest.mark.parametrize("value", ["text", 3.5, b"d123", b"j{"])
def test_a_cache_with_a_damaged_value_is_moved_aside(tmp_path, value):
    """A damaged byte can turn a value's type in SQLite too."""
    path, keys = filled_cache(tmp_path, 2)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE site_periods SET value = ?", [value])
    other.close()
    found = cache.Cache(path)
    with pytest.warns(DataWarning, match=r"damaged.*\.damaged"):
        assert found.get(keys) == {}
    found.put({keys[0]: [1.0]})
    assert found.get(keys) == {keys[0]: [1.0]}
    found.close()


def test_a_cache_that_can_not_be_written_is_done_without(ee_server, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("where a folder should be")
    monkeypatch.setenv("GEE_POLYGONS_CACHE", str(tmp_path / "file"))
    assert extract_embeddings(fields(1), years=2020)["status"].tolist() == ["ok"]
    assert "no cache" in caplog.text


# --- errors -------------------------------------------------------------------------------------------------------


def test_a_failed_request_can_be_pickled():
    error = RequestFailedError(Refusal.classify(400, "User memory limit exceeded."))
    again = pickle.loads(pickle.dumps(error))
    assert again.refusal == error.refusal
    assert str(again) == str(error)

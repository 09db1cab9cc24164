"""What each source would cost, and which one `source="auto"` takes: with real servers, counted."""

from types import SimpleNamespace

import ee
import pandas as pd
import pytest
import shapely
from click.testing import CliRunner
from rangeserver import Faults, serve

from gee_polygons.cli.main import main
from gee_polygons.collection import Dataset, build, register
from gee_polygons.collection.download import download
from gee_polygons.costs import Offer, choose_source, compare_sources, price_source, ranked
from gee_polygons.errors import ReadError, UsageError
from gee_polygons.extract import extract_embeddings
from gee_polygons.sources.opening import open_source
from gee_polygons.sources.sample import write_sample_sites

YEARS = [2022, 2023]
ARCHIVE, MOSAIC = "https://data.source.coop/tge-labs/aef/", "s3://us-west-2.opendata.source.coop/tge-labs/"


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch, sample_archive):
    """Registered datasets of these tests go to a folder of their own; nobody's account is used."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / sample_archive.parents[2].name).symlink_to(sample_archive.parents[2])
    monkeypatch.setenv("GEE_POLYGONS_CACHE", str(cache))
    monkeypatch.delenv("EE_PROJECT", raising=False)
    monkeypatch.setattr(ee.data, "is_initialized", lambda: False)


@pytest.fixture
def inside(sample_sites):
    """Sites whose home zone has all of their tiles."""
    return sample_sites[:4]


@pytest.fixture
def open_archive(sample_archive, monkeypatch):
    """The open archive's mirror: a server on this machine."""
    with serve(sample_archive.parents[2]) as server:
        monkeypatch.setenv("GEE_POLYGONS_MIRROR", f"{ARCHIVE}={server.url}/ {MOSAIC}={server.url}/none/")
        yield server


@pytest.fixture
def nowhere(monkeypatch):
    """No server listens at the mirrors of the open archive and the mosaic."""
    with serve(".") as server:
        url = server.url
    monkeypatch.setenv("GEE_POLYGONS_MIRROR", f"{ARCHIVE}={url}/ {MOSAIC}={url}/")


def by_name(offers):
    return {offer.source: offer for offer in offers}


def test_requests_bytes_and_blocks_are_those_that_the_server_counts(open_archive, inside):
    offer = price_source(inside, YEARS, "source-coop")
    headers = {path for path, *_ in open_archive.log if path.endswith(".tiff")}
    open_archive.reset()
    extract_embeddings(inside, years=YEARS, source=offer.opened)
    data = [(path, last - first + 1) for path, first, last, _ in open_archive.log if path.endswith(".tiff")]
    assert offer.requests == len(data) + len(headers)
    assert offer.bytes == sum(size for _, size in data) + len(headers) * 96 * 1024
    assert offer.blocks == offer.opened.plan(inside.polygons, YEARS).blocks
    assert offer.site_years == offer.asked == 8


def test_a_collection_spares_the_headers(open_archive, inside, tmp_path):
    collection = build("gee-polygons/sample", source=f"{open_archive.url}/v1/annual/aef_index.parquet",
                       path=tmp_path / "c.parquet")  # fmt: skip
    open_archive.reset()
    kept, bare = price_source(inside, YEARS, collection), price_source(inside, YEARS, "source-coop")
    assert 0 < bare.requests - kept.requests == len({path for path, *_ in open_archive.log if path.endswith(".tiff")})


def test_the_estimate_follows_bandwidth_and_latency(open_archive, inside):
    def seconds(mbit, latency):
        return price_source(inside, YEARS, "source-coop", bandwidth_mbit_s=mbit, latency_s=latency).seconds

    offer = price_source(inside, YEARS, "source-coop")
    assert seconds(1, 0) - seconds(2, 0) == pytest.approx(offer.bytes * 8e-6 / 2)
    waves = -(-(offer.requests - 4) // 128) + 1  # four tiles' headers are one wave
    assert seconds(1e9, 10) - seconds(1e9, 5) == pytest.approx((2 + waves) * 5, rel=0.01)


def test_every_source_has_its_line_and_none_raises(nowhere, inside, tmp_path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not a table")
    offers = by_name(compare_sources(inside, YEARS, local=["sample", str(broken), str(tmp_path / "none.parquet")]))
    assert set(offers) == {
        "sample",
        str(broken),
        str(tmp_path / "none.parquet"),
        "source-coop",
        "mosaic",
        "earthengine",
    }
    assert [name for name, offer in offers.items() if offer.available] == ["sample"]
    assert offers["sample"].seconds < 1
    assert "can't be read" in offers["source-coop"].reason
    assert "ot a Parquet file" in offers[str(broken)].reason
    assert "no such index" in offers[str(tmp_path / "none.parquet")].reason
    assert "nitiali" in offers["earthengine"].reason
    for offer in offers.values():
        assert "\n" not in offer.reason
        assert offer.available != bool(offer.reason)


def test_auto_takes_what_lies_here_and_asks_nobody_else(open_archive, inside, tmp_path):
    index = download(inside, YEARS, tmp_path / "copy", source=open_source("sample"))
    register(Dataset(id="mine", index=str(index), bands=tuple(f"A{i:02d}" for i in range(64)), dtype="int8"))
    assert choose_source(inside, YEARS).source == str(index)
    table = extract_embeddings(inside, years=YEARS, source="auto")
    pd.testing.assert_frame_equal(table, extract_embeddings(inside, years=YEARS, source="sample"), check_exact=True)
    assert table.attrs["provenance"]["archive"] == str(index)
    assert open_archive.requests == 0


def test_a_copy_that_lacks_sites_or_years_is_not_taken(open_archive, inside, tmp_path):
    index = str(download(inside[:1], [2023], tmp_path / "copy", source=open_source("sample")))
    register(Dataset(id="mine", index=index, bands=tuple(f"A{i:02d}" for i in range(64)), dtype="int8"))
    assert choose_source(inside[:1], [2023]).source == index
    assert choose_source(inside[:1], YEARS).source == "source-coop"
    offers = by_name(compare_sources(inside, [2023]))
    assert offers[index].site_years < offers["source-coop"].site_years == 4
    assert any("of 4 site-years whole" in note for note in offers[index].notes)
    assert choose_source(inside, [2023]).source == "source-coop"
    assert any("has no 2022" in note for note in by_name(compare_sources(inside[:1], YEARS))[index].notes)


def test_auto_from_the_setting_and_far_away(open_archive, inside, monkeypatch):
    monkeypatch.setenv("GEE_POLYGONS_SOURCE", "auto")
    table = extract_embeddings(inside, years=2023)
    assert table.attrs["provenance"]["source"] == "source-coop"
    pd.testing.assert_frame_equal(table, extract_embeddings(inside, years=2023, source="sample"), check_exact=True)
    # planned with little patience, read with the usual one
    open_archive.reset(Faults(error=0.2, seed=5, headers=False))
    again = extract_embeddings(inside, years=2023, source="auto")
    pd.testing.assert_frame_equal(table, again, check_exact=True)
    assert open_archive.statuses[503] > 0


def test_without_any_source_auto_says_why_of_each(nowhere, inside):
    with pytest.raises(UsageError, match=r"no source is available: .*source-coop: .*mosaic: .*earthengine: ") as caught:
        extract_embeddings(inside, years=2023, source="auto")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="needs years"):
        extract_embeddings(inside, source="auto")
    with pytest.raises(UsageError, match="depends on sites and years"):
        open_source("auto")


def test_a_tile_that_cannot_be_opened_is_told(open_archive, inside):
    open_archive.reset(Faults(error=1.0, status=403, only="/2022/"))
    (offer,) = compare_sources(inside, YEARS, sources=["source-coop"])
    assert offer.site_years == 4
    assert any("can't be opened" in note and "403" in note for note in offer.notes)
    with pytest.raises(ReadError, match="403"):
        extract_embeddings(inside, years=YEARS, source=offer.opened)


def test_offers_are_ranked_by_what_they_serve_then_by_time():
    def offer(name, served, seconds, available=True):
        return Offer(source=name, available=available, site_years=served, asked=10, seconds=seconds)

    offers = [
        offer("gone", 0, 0.1, False), offer("earthengine", 10, 5.0), offer("fast, lacking", 3, 1.0),
        offer("slow", 9, 90.0), offer("quick", 9, 2.0),
    ]  # fmt: skip
    # the archives agree that the tenth has no tile: Earth Engine's claim to it doesn't count
    assert [o.source for o in ranked(offers)] == ["quick", "earthengine", "slow", "fast, lacking", "gone"]


@pytest.mark.parametrize(("mbit", "latency"), [(0, 0.1), (-1, 0.1), (100, -1), (float("nan"), 0)])
def test_impossible_connections_are_refused(inside, mbit, latency):
    with pytest.raises(UsageError, match="bandwidth is above 0"):
        compare_sources(inside, YEARS, sources=["sample"], bandwidth_mbit_s=mbit, latency_s=latency)


def test_a_mirror_setting_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("GEE_POLYGONS_MIRROR", "https://mirror.example/")
    with pytest.raises(UsageError, match="GEE_POLYGONS_MIRROR holds pairs FROM=TO"):
        open_source("source-coop")


# --- the command


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def sites(tmp_path):
    return write_sample_sites(tmp_path / "sites.geojson")


def test_plan_all_shows_each_source(open_archive, sites, inside, tmp_path):
    copy = tmp_path / "copy"
    download(inside[:1], [2023], copy, source=open_source("sample"))
    done = run("plan", sites, "--years", "2022-2023", "--source", "all", "--local", copy, "--bandwidth", 50)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) < 200
    (best,) = [line for line in lines if line.startswith("* ") and "auto" not in line]
    assert best.split()[1] == "source-coop"
    assert any(line.split()[:1] == [str(copy)] for line in lines)
    assert "50 Mbit/s and 50 ms" in lines[0]
    for name in ("mosaic", "earthengine"):
        assert sum(line.startswith(f"{name}: not available: ") for line in lines) == 1
    assert not any(entry[0].endswith(".tiff") and entry[1] > 0 for entry in open_archive.log)  # no pixels


def test_plan_of_one_source_tells_a_time(sites):
    done = run("plan", sites, "--years", "2023", "--source", "sample")
    assert done.exit_code == 0, done.output
    assert "without a network" in done.stdout  # what it reads lies here


def test_the_time_of_a_remote_source_adds_up_with_its_bytes(open_archive, sites):
    args = ("plan", sites, "--years", "2023", "--source", "source-coop", "--latency", 0, "--bandwidth")
    lines = dict(line.split(maxsplit=1) for line in run(*args, 5).stdout.splitlines())
    seconds = float(lines["MB"]) * 8 / 5
    assert f", {seconds:.0f} s of it for requests and bytes at 5 Mbit/s and 0 ms" in lines["time"]
    assert float(lines["time"].split()[0]) == pytest.approx(seconds, abs=2)


def test_plan_says_whether_one_is_signed_in(sites, nowhere, monkeypatch):
    for name in ("EE_PROJECT", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)

    def earthengine(*args):
        return [line for line in run(*args).stdout.splitlines() if line.startswith("earthengine: ")]

    def none():
        raise ee.EEException("Please authorize access")

    monkeypatch.setattr(ee.data, "get_persistent_credentials", none)
    plan = ("plan", sites, "--years", "2023", "--source", "all", "--local", "sample")
    how = "not signed in: run `earthengine authenticate` once, and set EE_PROJECT to your project"
    assert earthengine(*plan) == [f"earthengine: not available: {how}"]
    assert earthengine("sources") == [f"earthengine: {how}"]
    monkeypatch.setattr(ee.data, "get_persistent_credentials", lambda: SimpleNamespace(quota_project_id="mine"))
    assert earthengine(*plan) == [
        "earthengine: not available: signed in, project mine; set EE_PROJECT to have it compared"
    ]
    assert earthengine("sources") == ["earthengine: signed in, project mine"]
    monkeypatch.setattr(ee.data, "get_persistent_credentials", lambda: SimpleNamespace(quota_project_id=None))
    assert earthengine("sources") == ["earthengine: signed in, but no project: set EE_PROJECT to yours"]


def test_extract_takes_auto(open_archive, sites, tmp_path):
    done = run("extract", sites, "--years", "2023", "--source", "auto", "-o", tmp_path / "t.csv")
    assert done.exit_code == 0, done.output
    assert "source-coop" in (tmp_path / "t.csv-metadata.json").read_text()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--source", "all", "--bandwidth", "0"], "bandwidth is above 0"),
        (["--source", "sample", "--local", "x"], "--local goes with --source all"),
        (["--source", "none.parquet"], "no such index"),
    ],
)
def test_wrong_calls_are_one_line(sites, args, says):
    done = run("plan", sites, "--years", "2023", *args)
    assert done.exit_code == 2
    assert says in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_sites_where_no_archive_has_tiles_are_no_error(open_archive):
    import geopandas

    frame = geopandas.GeoDataFrame({"site_id": ["sea"]}, geometry=[shapely.box(10, 10, 10.01, 10.01)], crs=4326)
    (offer,) = compare_sources(frame, YEARS, sources=["source-coop"])
    assert offer.available
    assert (offer.site_years, offer.blocks, offer.requests) == (0, 0, 0)


def test_the_mosaic_is_one_of_them(tmp_path, monkeypatch):
    import geopandas
    from mosaics import make

    mosaic = make()
    mosaic.write(tmp_path / "aef-mosaic")
    shape = shapely.box(10.3, 12.6, 40.2, 30.1)  # in its pixels
    shape = shapely.transform(shape, lambda xy: xy * (mosaic.step, -mosaic.step) + (mosaic.west, mosaic.north))
    frame = geopandas.GeoDataFrame({"site_id": ["a"]}, geometry=[shape], crs=4326)
    with serve(tmp_path) as server:
        monkeypatch.setenv("GEE_POLYGONS_MIRROR", f"{ARCHIVE}={server.url}/none/ {MOSAIC}={server.url}/")
        offers = by_name(compare_sources(frame, [2023, 2024]))
        assert [name for name, offer in offers.items() if offer.available] == ["mosaic"]
        offer = offers["mosaic"]
        assert offer.site_years == offer.asked == 2
        assert any("nearest-resampled" in note for note in offer.notes)
        server.reset()
        table = extract_embeddings(frame, source=offer.opened, years=[2023, 2024])
        assert 0 < server.requests <= offer.requests  # neighbours are merged
        auto = extract_embeddings(frame, source="auto", years=[2023, 2024])
        assert auto.attrs["provenance"]["source"] == "mosaic"
    pd.testing.assert_frame_equal(auto, table, check_exact=True)

"""Signed URLs are read, and their signatures never shown."""

import logging
import pickle
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rangeserver import Faults, serve

from gee_polygons.alphaearth import BANDS
from gee_polygons.cli.main import main
from gee_polygons.collection import Dataset, build_from_table, load, register
from gee_polygons.costs import compare_sources
from gee_polygons.errors import ArchiveError, GeePolygonsError, InputFileError, ReadError, UsageError
from gee_polygons.extract import extract_embeddings
from gee_polygons.network.places import hide_query, http_url, rewrite, without_query
from gee_polygons.network.request import Network, fetch
from gee_polygons.reduction.plan import BlockRef
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.mosaic import MosaicSource
from gee_polygons.sources.opening import open_source
from gee_polygons.sources.raster import RasterSource

SECRET = "f00d5ecret%2Fcafe"
QUERY = f"X-Amz-Credential=k/20260101/us-west-2&X-Amz-Signature={SECRET}"
QUICK = Network(attempts=3, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=10)


@pytest.fixture
def server(sample_archive):
    with serve(sample_archive.parent, query=QUERY) as server:
        yield server


@pytest.fixture
def signed(sample_archive, server, tmp_path):
    """An index whose tiles are signed."""
    table = pq.read_table(sample_archive).drop_columns(["geom"]).to_pandas()
    table["path"] = [f"{server.url}/{path}?{QUERY}" for path in table["path"]]
    table.to_parquet(tmp_path / "aef_index.parquet")
    return tmp_path / "aef_index.parquet"


def texts_of(*things):
    """All texts of objects that somebody might print or keep."""
    found = []
    for thing in things:
        found += [str(thing), repr(thing)]
        if isinstance(thing, Exception):
            found += texts_of(*thing.args, thing.__cause__, thing.__context__, getattr(thing, "url", ""))
    return found


def assert_hidden(*things):
    for text in texts_of(*things):
        assert SECRET not in text
        assert "X-Amz" not in text


def test_signed_tiles_give_the_same_numbers(signed, sample_sites, server, caplog):
    caplog.set_level(logging.DEBUG)
    server.reset(Faults(error=0.1, seed=1))
    source = CogSource(signed, network=replace(QUICK, attempts=12))
    table = extract_embeddings(sample_sites[:4], source=source, years=[2022, 2023])
    expected = extract_embeddings(sample_sites[:4], source="sample", years=[2022, 2023])
    pd.testing.assert_frame_equal(table, expected, check_exact=True)
    assert server.statuses[403] == 0
    plan = source.plan(sample_sites.polygons[:4], [2023])
    assert plan.blocks > 0
    assert "try 2 follows" in caplog.text
    tiles = list(source._tiles.values())
    assert_hidden(
        source,
        plan,
        plan.jobs,
        tiles,
        table.attrs,
        caplog.text,
        compare_sources(sample_sites[:1], [2023], sources=[source]),
    )
    assert SECRET.encode() not in pickle.dumps(plan)


def test_errors_show_which_tile_and_no_signature(signed, sample_sites, server):
    source = CogSource(signed, network=QUICK)
    source.plan(sample_sites.polygons[:1], [2023])
    for status in (403, 404, 503):
        server.reset(Faults(error=1.0, status=status))
        with pytest.raises(
            ReadError, match=rf"{server.url}/2023/\S+\.tiff\?hidden-\w{{16}}: block .*band A00"
        ) as caught:
            extract_embeddings(sample_sites[:1], source=source, years=[2023])
        assert_hidden(caught.value)
    for kind in ("drop", "truncate", "lie", "wrong_length"):
        server.reset(Faults(**{kind: 1.0}))
        table = extract_embeddings(sample_sites[:1], source=source, years=[2023], on_error="collect")
        assert table["status"].tolist() == ["error"]
        assert_hidden(table.attrs)
        with pytest.raises(ReadError) as caught:
            CogSource(signed, network=QUICK).image(sample_sites[0].polygon, 2023)
        assert_hidden(caught.value)


def test_a_signed_index_is_read_and_not_shown(server, sample_archive, sample_sites, tmp_path, monkeypatch):
    url = f"{server.url}/aef_index.parquet?{QUERY}"
    source = CogSource(url, network=QUICK)
    assert source.years() == list(range(2018, 2025))
    collection = load(url, network=QUICK)
    assert_hidden(source, source.archive, collection, collection.place)
    server.reset(Faults(error=1.0, status=403))
    for again in (lambda: CogSource(url, network=QUICK), lambda: load(url, network=QUICK)):
        with pytest.raises(
            GeePolygonsError, match=r"aef_index\.parquet\?hidden-\w+: the index can't be read"
        ) as caught:
            again()
        assert_hidden(caught.value)
    monkeypatch.setenv("GEE_POLYGONS_CACHE", str(tmp_path))
    entry = register(Dataset(id="mine", index=url, bands=BANDS, dtype="int8", nodata=-128))
    shown = CliRunner().invoke(main, ["datasets", "info", "mine"])
    assert_hidden(entry, shown.output)
    assert "aef_index.parquet?hidden-" in shown.output


def test_a_collection_of_signed_tiles_is_kept_and_read_again(signed, server, tmp_path):
    collection = build_from_table(signed, path=tmp_path / "c.parquet", network=QUICK)
    assert_hidden(collection, collection.dataset)
    again = load(tmp_path / "c.parquet", network=QUICK)
    box = (-48.02, -22.36, -48.018, -22.359)
    assert np.array_equal(again.get_numpy(box, years=[2023]), load("gee-polygons/sample").get_numpy(box, years=[2023]))
    metadata = pq.read_schema(tmp_path / "c.parquet").metadata
    assert SECRET.encode() not in metadata[b"gee_polygons"]


def test_without_the_signature_it_is_forbidden(server):
    with pytest.raises(ReadError, match="403"):
        fetch(f"{server.url}/aef_index.parquet", 0, 10, QUICK)
    assert len(fetch(f"{server.url}/aef_index.parquet?{QUERY}", 0, 10, QUICK)) == 10


def test_encoded_paths_are_read_as_they_are_written(tmp_path):
    (tmp_path / "my tiles").mkdir()
    (tmp_path / "my tiles" / "a+b=é 50%.bin").write_bytes(b"0123456789")
    with serve(tmp_path) as server:
        url = f"{server.url}/my%20tiles/a+b=%C3%A9%2050%25.bin"
        assert bytes(fetch(url, 2, 3, QUICK)) == b"234"


def test_what_differs_by_its_query_alone_is_not_one_file():
    one, other = (hide_query(f"https://host/get?file={name}.tiff") for name in "ab")
    assert one != other
    assert hide_query(one) == one
    with pytest.raises(ReadError, match="was hidden by another process"):
        http_url("https://host/a.tiff?hidden-00000000")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a.tiff", "https://host/a.tiff"),
        ("s3://bucket/a?b.tiff", "s3://bucket/a?b.tiff"),
        ("/data/a?b.tiff", "/data/a?b.tiff"),
    ],
)
def test_what_has_no_secret_is_shown_as_it_is(url, shown):
    assert hide_query(url) == shown


def test_passwords_are_hidden_too():
    shown = hide_query("https://me:word@host/a.tiff")
    assert shown.startswith("https://host/a.tiff?hidden-")
    assert (
        without_query("GET http://me:word@host/x?a=b failed (http://h/y?c)")
        == "GET http://host/x?... failed (http://h/y?...)"
    )


@contextmanager
def served_by_another_process(root):
    code = (
        f"from rangeserver import *\nwith serve({str(root)!r}, query={QUERY!r}) as s: print(s.url, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate("\n", timeout=60)


def test_single_rasters_and_mosaics_hide_their_secrets(sample_archive, tmp_path):
    tile = next((sample_archive.parent / "2023").rglob("*.tiff"))
    with served_by_another_process(tile.parent) as address:  # rasterio lets no other thread run while it opens a URL
        url = f"{address}/{tile.name}?{QUERY}"
        source = open_source(url, year=2023)
        assert isinstance(source, RasterSource)
        assert_hidden(source, source.archive, pickle.dumps(source))
        assert next(source.read([BlockRef.at(source, 0, 0)], ["A00"])).decode(0).any()
        with pytest.raises(InputFileError) as caught:
            open_source(url.replace("22S", "x").replace(".tiff", "-none.tiff"), year=2023)
        assert_hidden(caught.value)
    for secret in (f"https://host/m.zarr?{QUERY}", f"https://me:{SECRET}@host/m.zarr"):
        with pytest.raises(UsageError, match="neither a query nor a password") as caught:
            MosaicSource(secret)
        assert_hidden(caught.value)


@pytest.mark.parametrize("path", ["file:///etc/hostname", "/etc/hostname", "../other/a.tiff", "%2e%2e/other/a.tiff"])
def test_a_remote_index_names_no_files_outside_its_folder(path, sample_archive, tmp_path):
    table = pq.read_table(sample_archive).drop_columns(["geom"]).to_pandas()
    table["path"] = path
    table.to_parquet(tmp_path / "aef_index.parquet")
    with serve(tmp_path) as server:
        url = f"{server.url}/aef_index.parquet"
        for read in (lambda: CogSource(url).index.whole(), lambda: build_from_table(url, path=tmp_path / "c.parquet")):
            with pytest.raises(ArchiveError, match="which lies outside"):
                read()


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{SECRET}@host/a.tiff",
        f"https://me:ab/{SECRET}@host:80/a.tiff",
        f"s3://KEY:{SECRET}@bucket/a.tiff",
        f"gs://KEY:ab/{SECRET}@bucket/a.tiff",
    ],
)
def test_passwords_are_hidden_in_every_kind_of_url(url):
    """Keys of an S3 URL were sent to Amazon as the name of a bucket, and shown."""
    shown = hide_query(url)
    assert SECRET not in shown + without_query(f"no: {url}")
    assert shown.endswith(f"{url.rpartition('@')[2]}?{shown.partition('?')[2]}")
    for read in (CogSource, load, open_source, lambda url: fetch(url, 0, 1)):
        if url.startswith("http"):
            continue  # that would be a request
        by_gdal = read is open_source  # a single raster
        with pytest.raises(GeePolygonsError, match=None if by_gdal else "read anonymously") as caught:
            read(url)
        assert_hidden(caught.value)
    network = Network(url_rewrite={"s3://bucket/": url})
    assert_hidden(network, network.url_rewrite, pickle.dumps(network))
    assert rewrite("s3://bucket/x", network.url_rewrite) == f"{url}x"
    assert_hidden(Dataset(id="mine", url_rewrite={"s3://bucket/": url}))


def test_a_mirror_with_a_password_gives_the_numbers_and_hides_it(sample_archive, sample_sites, server, tmp_path):
    table = pq.read_table(sample_archive).drop_columns(["geom"]).to_pandas()
    table["path"] = [f"s3://nowhere/{path}" for path in table["path"]]
    table.to_parquet(tmp_path / "aef_index.parquet")
    server.query = ""
    mirror = {"s3://nowhere/": server.url.replace("://", f"://me:{SECRET}@") + "/"}
    network = replace(QUICK, url_rewrite=mirror)
    source = CogSource(tmp_path / "aef_index.parquet", network=network)
    found = extract_embeddings(sample_sites[:2], source=source, years=[2023])
    expected = extract_embeddings(sample_sites[:2], source="sample", years=[2023])
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    plan = source.plan(sample_sites.polygons[:2], [2023])
    assert_hidden(source, source.archive, network, plan, plan.jobs, found.attrs, pickle.dumps([source, plan]))
    build_from_table(tmp_path / "aef_index.parquet", url_rewrite_patterns=mirror, path=tmp_path / "c.parquet",
                     network=QUICK)  # fmt: skip
    assert_hidden(pq.read_schema(tmp_path / "c.parquet").metadata)
    server.reset(Faults(error=1.0, status=403))
    with pytest.raises(ReadError, match="403") as caught:
        extract_embeddings(sample_sites[:1], source=CogSource(source.archive, network=network), years=[2022])
    assert_hidden(caught.value)

"""Local copies: the same bits without a network, and a file for each site."""

import json
import tracemalloc

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from rangeserver import Faults, serve

from gee_polygons.alphaearth import SYNTHETIC_NOTE
from gee_polygons.collection import as_collection, load
from gee_polygons.collection.download import FORMATS, download
from gee_polygons.errors import OutputError, ReadError, UsageError
from gee_polygons.extract import extract_embeddings
from gee_polygons.network.request import Network
from gee_polygons.site import sites_from_geodataframe
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog.index_file import index_row, write_index
from gee_polygons.sources.opening import open_source
from gee_polygons.sources.sample import truth_codes, write_tile
from gee_polygons.zonal.grid import Grid

QUICK = Network(attempts=8, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=10)


def test_a_local_archive_gives_the_same_bits(sample_archive, sample_sites, tmp_path):
    years = [2020, 2021, 2022]
    with serve(sample_archive.parent) as server:
        source = CogSource(f"{server.url}/aef_index.parquet", network=QUICK)
        index = download(sample_sites, years, tmp_path / "copy", source=source)
        far = extract_embeddings(sample_sites, source=source, years=years, statistics=["mean", "std", "p50", "medoid"])
    here = extract_embeddings(
        sample_sites, source=str(tmp_path / "copy"), years=years, statistics=["mean", "std", "p50", "medoid"]
    )
    pd.testing.assert_frame_equal(far, here, check_exact=True)
    assert index.name == "aef_index.parquet"
    for path in index.parent.rglob("*.tiff"):
        with rasterio.open(path) as file:  # another program reads it
            assert file.count == 64


def test_only_what_sites_need_is_kept(sample_archive, sample_sites, tmp_path):
    index = download(sample_sites[:1], [2023], tmp_path / "copy", source=open_source("sample"))
    size = sum(path.stat().st_size for path in index.parent.rglob("*.tiff"))
    whole = sum(path.stat().st_size for path in (sample_archive.parent / "2023").rglob("*.tiff"))
    assert size < whole / 2


def test_an_interrupted_download_goes_on(sample_archive, sample_sites, tmp_path):
    with serve(sample_archive.parent) as server:
        source = CogSource(f"{server.url}/aef_index.parquet", network=QUICK)
        server.reset(Faults(error=1.0, status=404, only="2022", headers=False))
        with pytest.raises(ReadError, match=r"http.*2022.*band A00"):
            download(sample_sites, [2021, 2022], tmp_path / "copy", source=source)
        done = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*.tiff")}
        assert 0 < len(done) < 6
        assert not list((tmp_path / "copy").rglob("*.parquet"))
        server.reset(Faults())
        download(sample_sites, [2021, 2022], tmp_path / "copy", source=source)
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())
        assert not any("/2021/" in path and first > 0 for path, first, *_ in server.log)
        server.reset()
        download(sample_sites, [2021, 2022], tmp_path / "copy", source=source)
        assert not any(first > 0 for _, first, *_ in server.log)


@pytest.mark.parametrize("format", ["tif", "npy"])
def test_a_file_for_each_site(sample_sites, tmp_path, format):
    sites = sample_sites[:3]
    download(sites, [2022, 2023], tmp_path / "files", source=open_source("sample"), format=format)
    for site in sites:
        if format == "npy":
            assert np.load(tmp_path / "files" / f"{site.site_id}.npy").shape[:2] == (2, 64)
            continue
        path = tmp_path / "files" / f"{site.site_id}_2023.tif"
        with rasterio.open(path) as file:
            grid = Grid(crs=file.crs.to_string(), transform=tuple(file.transform)[:6], shape=file.shape)
            assert np.array_equal(file.read(), truth_codes(grid.crs, grid.window, 2023))
            assert file.tags()["TIFFTAG_COPYRIGHT"] == SYNTHETIC_NOTE
    assert json.loads((tmp_path / "files" / "download.json").read_text())["attribution"] == SYNTHETIC_NOTE
    index = pq.read_schema(tmp_path / "files" / "aef_index.parquet")
    assert index.metadata[b"attribution"].decode() == SYNTHETIC_NOTE
    if format == "tif":
        one = extract_embeddings(sites[:1], source=str(path.with_name(f"{sites[0].site_id}_2023.tif")), years=[2023])
        expected = extract_embeddings(sites[:1], source="sample", years=[2023])
        pd.testing.assert_frame_equal(one, expected)


# one year has other names of GeoTIFFs, and else nothing of its own
@pytest.mark.parametrize(("format", "years"), [*((format, [2021, 2022]) for format in FORMATS), ("tif", [2023])])
def test_what_was_downloaded_gives_the_same_numbers(sample_sites, tmp_path, format, years):
    download(sample_sites, years, tmp_path / "copy", source=open_source("sample"), format=format)
    moved = (tmp_path / "copy").rename(tmp_path / "moved")
    options = {"years": years, "statistics": ["mean", "std", "p50", "count"]}
    expected = extract_embeddings(sample_sites, source="sample", **options)
    index = next(moved.rglob("aef_index.parquet"))
    for source in (open_source(str(moved)), as_collection(index), load(index)):
        found = extract_embeddings(sample_sites, source=source, **options)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert "synthetic" in open_source(str(moved)).image(sample_sites[0].polygon, years[0]).source


def test_one_downloaded_numpy_file_is_a_source(sample_sites, tmp_path):
    sites = sample_sites[:3]
    download(sites, [2022, 2023], tmp_path / "files", source=open_source("sample"), format="npy")
    for site in sites:
        source = open_source(str(tmp_path / "files" / f"{site.site_id}.npy"))
        assert source.years() == [2022, 2023]
        expected = extract_embeddings([site], source="sample", years=[2022, 2023])
        pd.testing.assert_frame_equal(extract_embeddings([site], source=source, years=[2022, 2023]), expected)
    alone = extract_embeddings(sites[1:2], source=str(tmp_path / "files" / f"{sites[0].site_id}.npy"), years=[2022])
    assert alone["status"].tolist() == ["no_data"]  # the other sites' pixels are in other files


def test_downloading_holds_a_strip_of_a_tile_at_a_time(tmp_path):
    """A tile of 1024 x 1024 pixels, of which a polygon needs all: 67 MB."""
    grid = Grid(crs="EPSG:32722", transform=(10, 0, 800_000, 0, 10, 7_500_000), shape=(1024, 1024))
    write_tile(tmp_path / "a.tiff", grid, lambda w: np.full((64, w.height, w.width), 16, np.int8), block=256)
    polygon = geopandas.GeoSeries([shapely.box(*grid.bounds).buffer(-5)], crs=grid.crs).to_crs(4326)
    write_index(
        tmp_path / "aef_index.parquet", [index_row(grid.crs, 2024, grid.bounds, polygon.total_bounds, "a.tiff")], {}
    )
    sites = sites_from_geodataframe(geopandas.GeoDataFrame({"site_id": [1]}, geometry=polygon))
    source = CogSource(str(tmp_path))
    tracemalloc.start()
    download(sites, [2024], tmp_path / "copy", source=source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
    options = {"years": [2024], "statistics": ["mean", "count"]}
    pd.testing.assert_frame_equal(
        extract_embeddings(sites, source=str(tmp_path / "copy"), **options),
        extract_embeddings(sites, source=source, **options),
    )


def test_wrong_folders_and_formats_are_refused(sample_sites, tmp_path):
    source = open_source("sample")
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(OutputError, match="other files"):
        download(sample_sites[:1], [2023], tmp_path, source=source)
    download(sample_sites[:1], [2023], tmp_path / "a", source=source, format="npy")
    with pytest.raises(OutputError, match="another value of 'years'"):
        download(sample_sites[:1], [2022], tmp_path / "a", source=source, format="npy")
    with pytest.raises(OutputError, match=r"other\.txt is a file"):
        download(sample_sites[:1], [2023], tmp_path / "other.txt", source=source)
    (tmp_path / "c").mkdir()
    for text in ("[]", "{", '{"what": "another program"}'):
        (tmp_path / "c" / "download.json").write_text(text)
        with pytest.raises(OutputError, match=r"download\.json is damaged or isn't a download's"):
            download(sample_sites[:1], 2023, tmp_path / "c", source=source)
    with pytest.raises(UsageError, match="format is one of"):
        download(sample_sites[:1], [2023], tmp_path / "b", source=source, format="zip")
    with pytest.raises(UsageError, match="none of the years"):
        download(sample_sites[:1], [1999], tmp_path / "b", source=source)


def test_a_site_in_two_zones_is_named(sample_sites, tmp_path, caplog):
    sites = [sample_sites["zone-seam"], sample_sites["zone-seam-long"]]
    download(type(sample_sites)(sites), [2023], tmp_path, source=open_source("sample"), format="npy")
    assert [record.getMessage() for record in caplog.records] == [
        "site 'zone-seam-long' lies in EPSG:32722, EPSG:32723; each zone has a file of its own"
    ]
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == [
        "zone-seam-long.23S.npy", "zone-seam-long.npy", "zone-seam.npy",
    ]  # fmt: skip

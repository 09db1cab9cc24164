"""The archive over HTTP: the same numbers as from disk, with counted requests, and faults that never go unseen."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from rangeserver import Faults, serve

from gee_polygons.errors import InputFileError, ReadError
from gee_polygons.extract import extract_embeddings
from gee_polygons.sources._fetch import Network
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.sample import truth_codes

QUICK = Network(first_wait_s=0.001, longest_wait_s=0.01, timeout_s=10)


@pytest.fixture(scope="module")
def archive(sample_archive):
    return sample_archive.parents[2]


def over_http(server, network=QUICK):
    return CogSource(f"{server.url}/v1/annual/aef_index.parquet", network=network)


def data_requests(server):
    return [entry for entry in server.log if entry[0].endswith(".tiff") and entry[1] > 0]


def test_numbers_are_those_from_disk(archive, sample_sites):
    statistics = ("mean", "std", "p50", "medoid")
    local = extract_embeddings(sample_sites, source=str(archive), years=[2020, 2023], statistics=statistics)
    with serve(archive) as server:
        remote = extract_embeddings(sample_sites, source=over_http(server), years=[2020, 2023], statistics=statistics)
    pd.testing.assert_frame_equal(local, remote, check_exact=True)


def test_each_range_is_asked_for_once_and_neighbours_together(archive, sample_sites):
    with serve(archive) as server:
        source = over_http(server)
        plan = source.plan(sample_sites.polygons, [2024])
        assert {first for path, first, *_ in server.log if path.endswith(".tiff")} == {0}  # headers: one each
        server.reset()
        extract_embeddings(sample_sites, source=source, years=[2024])
        data = data_requests(server)
        assert len(data) == len(set(data)) < plan.requests
        assert data == [entry for entry in server.log if entry[0].endswith(".tiff")]  # no header twice
        wanted = sum(source._tiles[ref.tile, ref.year].cost(ref)[1] for job in plan.jobs for ref in job.reads)
        assert wanted <= server.sent <= wanted * 1.25  # gaps are fetched too, and zones are looked at again


def test_every_pixel_is_the_truth(archive):
    # across tiles A and B of one zone
    region = shapely.box(-48.026, -22.360, -47.997, -22.350)
    with serve(archive) as server:
        image = over_http(server).image(region, 2023)
    assert np.array_equal(image.codes, truth_codes(image.grid.crs, image.grid.window, 2023))


@pytest.mark.parametrize(
    "faults",
    [Faults(error=0.2, seed=1), Faults(truncate=0.15, seed=2), Faults(drop=0.2, seed=3), Faults(lie=0.02, seed=4)],
    ids=["503", "truncated", "dropped", "lies"],
)
def test_faults_change_no_number(archive, sample_sites, faults):
    sites = sample_sites[:6]
    local = extract_embeddings(sites, source=str(archive), years=[2024])
    with serve(archive, faults=faults) as server:
        remote = extract_embeddings(sites, source=over_http(server), years=[2024])
    pd.testing.assert_frame_equal(local, remote, check_exact=True)


@pytest.mark.parametrize("kind", ["error", "truncate", "drop", "wrong_length", "lie"])
def test_what_stays_broken_names_tile_block_and_band(archive, sample_sites, kind):
    faults = Faults(**{kind: 1.0}, only=".tiff", headers=False)
    with serve(archive, faults=faults) as server:
        source = over_http(server)
        with pytest.raises(ReadError, match=r"http://.*\.tiff: block \(row \d, column \d\), band A\d\d: ") as caught:
            extract_embeddings(sample_sites[:1], source=source, years=[2024])
        assert caught.value.url.startswith(server.url)
        table = extract_embeddings(sample_sites[:2], source=source, years=[2024], on_error="collect")
        assert set(table["status"]) == {"error"}
        assert len(table.attrs["errors"]) >= 1


def test_a_broken_band_is_the_one_that_is_named(archive, sample_sites, tmp_path):
    copy = tmp_path / "archive"
    shutil.copytree(archive, copy)
    source = CogSource(copy)
    ref = source.plan(sample_sites.polygons[:1], [2024]).jobs[0].reads[0]
    tile = source._tiles[ref.tile, ref.year]
    first = int(tile.offsets[(17, *ref.index)])
    with Path(ref.tile).open("r+b") as file:
        file.truncate(first + 10)
    with pytest.raises(ReadError, match=r"band A17: .*truncated"):
        extract_embeddings(sample_sites[:1], source=source, years=[2024])


def test_a_missing_tile_and_a_missing_index_are_named(archive, sample_sites, tmp_path):
    copy = tmp_path / "archive"
    shutil.copytree(archive, copy)
    for tile in copy.rglob("2024/**/*.tiff"):
        tile.unlink()
    with serve(copy) as server:
        with pytest.raises(ReadError, match=r"http://.*2024.*\.tiff: the tile is missing; the index names it"):
            extract_embeddings(sample_sites[:1], source=over_http(server), years=[2024])
        with pytest.raises(InputFileError, match=r"none\.parquet: no such index"):
            CogSource(f"{server.url}/none.parquet", network=QUICK)


def test_a_mirror_is_read_instead(archive, sample_sites):
    with serve(archive) as server:
        mirror = Network(url_rewrite={str(archive): server.url})
        source = CogSource(archive, network=mirror)  # the index from disk, tiles from the mirror
        table = extract_embeddings(sample_sites[:2], source=source, years=[2024])
        assert len(data_requests(server)) > 0
    assert table.equals(extract_embeddings(sample_sites[:2], source=str(archive), years=[2024]))


def test_an_index_that_fails_for_a_while_is_read(archive):
    with serve(archive, faults=Faults(error=0.5, seed=3)) as server:
        assert over_http(server).years() == list(range(2018, 2025))

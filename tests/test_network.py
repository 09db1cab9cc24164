"""The archive over HTTP: the same numbers as from disk, with counted requests; faults are retried or reported."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from rangeserver import Faults, serve

from gee_polygons.alphaearth import NODATA
from gee_polygons.errors import InputFileError, ReadError
from gee_polygons.extract import extract_embeddings
from gee_polygons.network.ranges import stream
from gee_polygons.network.request import Network
from gee_polygons.reduction.windows import paste, refs_in
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog import tile as _tile
from gee_polygons.sources.cog.header import Content, open_tiles
from gee_polygons.sources.sample import truth_codes, write_tile
from gee_polygons.zonal.grid import Grid, Window

QUICK = Network(attempts=8, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=10)


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


def test_each_range_is_requested_once_and_neighbours_together(archive, sample_sites):
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
    [Faults(error=0.2, seed=1), Faults(truncate=0.15, seed=2), Faults(drop=0.2, seed=3), Faults(lie=0.01, seed=4)],
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


# --- blocks of which only the first rows are read


@pytest.fixture(scope="module")
def one_tile(tmp_path_factory):
    """A tile of 2 x 2 blocks of 512 px, whose blocks hold two steps of ZSTD's each, and its index."""
    folder = tmp_path_factory.mktemp("prefix")
    grid = Grid(crs="EPSG:32722", transform=(10, 0, 800_000, 0, 10, 7_520_000), shape=(1024, 1024))
    rng = np.random.default_rng(0)
    codes = np.repeat(rng.integers(-90, 90, (8, 1024, 128)).astype(np.int8), 8, axis=2)
    codes[:, 300:400] = rng.integers(-90, 90, (8, 100, 1024))  # rows that compress worse than others
    path = write_tile(folder / "t.tiff", grid, codes, block=512, bands=[f"A{i:02d}" for i in range(8)])
    return path, codes


@pytest.mark.parametrize("rows", [(0, 40), (200, 260), (290, 420), (1000, 1024), (500, 1000)])
@pytest.mark.parametrize("margin", [0.05, -0.2], ids=["enough", "too-short"])
def test_a_prefix_gives_the_same_pixels_with_fewer_bytes(one_tile, rows, margin, monkeypatch):
    path, codes = one_tile
    monkeypatch.setattr(_tile, "PREFIX_MARGIN", margin)
    with serve(path.parent) as server:
        content = Content(bands=tuple(f"A{i:02d}" for i in range(8)))
        tile = open_tiles([(f"{server.url}/t.tiff", 2024)], QUICK, content)[0]
        window = Window(tile.grid.window.row + rows[0], tile.grid.window.col + 100, rows[1] - rows[0], 700)
        refs = list(refs_in(tile, window))
        server.reset()
        values = np.full((3, window.height, window.width), NODATA, np.int8)
        for ref in refs:
            fetched = next(stream([tile.ranges(ref, [1, 4, 6])], QUICK))
            paste(values, window, tile.block(ref, [1, 4, 6], fetched, QUICK))
        assert np.array_equal(values, codes[[1, 4, 6], rows[0] : rows[1], 100:800])
        whole = sum(int(tile.lengths[[1, 4, 6], *ref.index].sum()) for ref in refs)
        if rows == (1000, 1024) and margin > 0:  # south-up: these are the first of the stored rows
            assert server.sent < 0.8 * whole
        assert server.sent <= whole

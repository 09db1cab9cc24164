"""All kinds of requests and faults, with many seeds: results are right, or an error names what can't be read."""

import numpy as np
import pandas as pd
import pytest
import shapely
from rangeserver import Faults, serve

from gee_polygons.collection import build, load
from gee_polygons.collection.download import download
from gee_polygons.errors import GeePolygonsError, ReadError
from gee_polygons.extract import extract_embeddings
from gee_polygons.network.request import Network
from gee_polygons.reduction.polygons import Polygons
from gee_polygons.sources.cog import CogSource

INDEX = "v1/annual/aef_index.parquet"
PATIENT = Network(attempts=16, first_wait_s=0.0005, longest_wait_s=0.002, timeout_s=20)
HASTY = Network(attempts=2, first_wait_s=0.0005, longest_wait_s=0.001, timeout_s=20)
YEARS = [2022, 2023]
HOW = {"years": YEARS, "bands": ["A00", "A40"]}


@pytest.fixture(scope="module")
def root(sample_archive):
    return sample_archive.parents[2]


@pytest.fixture(scope="module")
def expected(root, sample_sites):
    sites = sample_sites[:5]
    collection = load("gee-polygons/sample")
    return {
        "table": extract_embeddings(sites, source=str(root), years=YEARS),
        "frame": collection.get_gdf(sites, **HOW),
        "points": collection.sample_points(points(sites), **HOW),
    }


def points(sites):
    return [site.polygon.representative_point() for site in sites]


def outcome(work):
    """What comes of it: a result, or the package's own error."""
    try:
        return work()
    except GeePolygonsError as error:
        return error


def same_pixels(found, expected):
    assert len(found) == len(expected)
    for mine, theirs in zip(found.itertuples(), expected.itertuples(), strict=True):
        assert (mine.site_id, mine.year, mine.crs) == (theirs.site_id, theirs.year, theirs.crs)
        assert np.array_equal(mine.pixels, theirs.pixels, equal_nan=True)
        assert np.array_equal(mine.valid, theirs.valid)


def all_kinds(seed, share, wrong_lengths=None):
    """A mixture of faults, drawn anew for each seed: on the index, on headers and on blocks."""
    weights = np.random.default_rng(seed).dirichlet(np.ones(5)) * share
    if wrong_lengths is not None:
        weights[3:] = wrong_lengths / 2
    names = ("error", "truncate", "drop", "wrong_length", "lie")
    return Faults(**dict(zip(names, weights.tolist(), strict=True)), status=(503, 500, 429)[seed % 3], seed=seed)


@pytest.mark.parametrize("seed", range(6))
def test_with_many_attempts_everything_is_right(root, sample_sites, expected, tmp_path, seed):
    sites = sample_sites[:5]
    # a wrong length is tried three times only: with 1 % of them, one request in a million is given up
    with serve(root, faults=all_kinds(seed, 0.3, wrong_lengths=0.01)) as server:
        source = CogSource(f"{server.url}/{INDEX}", network=PATIENT)
        pd.testing.assert_frame_equal(
            extract_embeddings(sites, source=source, years=YEARS), expected["table"], check_exact=True
        )
        collection = build("gee-polygons/sample", source=f"{server.url}/{INDEX}", network=PATIENT,
                           path=tmp_path / "c.parquet")  # fmt: skip
        same_pixels(collection.get_gdf(sites, **HOW), expected["frame"])
        found = collection.sample_points(points(sites), **HOW)
        assert found.equals(expected["points"])
        assert sum(n for status, n in server.statuses.items() if status not in (200, 206)) > 0


@pytest.mark.parametrize("kind", ["error", "truncate", "drop"])
@pytest.mark.parametrize("only", ["aef_index.parquet", ".tiff"], ids=["index", "tiles"])
def test_a_fifth_of_all_requests_failing_changes_nothing(root, sample_sites, expected, kind, only):
    with serve(root, faults=Faults(**{kind: 0.2}, seed=7, only=only)) as server:
        source = CogSource(f"{server.url}/{INDEX}", network=PATIENT)
        table = extract_embeddings(sample_sites[:5], source=source, years=YEARS)
        pd.testing.assert_frame_equal(table, expected["table"], check_exact=True)


@pytest.mark.parametrize("seed", range(8))
def test_with_few_attempts_what_cannot_be_read_is_an_error_that_names_it(root, sample_sites, expected, seed):
    sites = sample_sites[:5]
    share = (0.02, 0.3, 0.6, 0.9)[seed % 4]
    with serve(root, faults=Faults()) as server:
        source = CogSource(f"{server.url}/{INDEX}", network=HASTY)
        source.near(Polygons(sites.polygons))  # the index: without it there is no table at all
        server.reset(all_kinds(100 + seed, share))
        table = extract_embeddings(sites, source=source, years=YEARS, on_error="collect")
        truth = expected["table"]
        failed = (table["status"] == "error").to_numpy()
        pd.testing.assert_frame_equal(table[~failed], truth[~failed], check_exact=True)
        named = {(i, error["year"]) for error in table.attrs["errors"] for i in error["site_ids"]}
        assert named == set(zip(table["site_id"][failed], table["year"][failed], strict=True))
        assert table.loc[failed, "A00":"valid_fraction"].isna().all(axis=None)
        for error in table.attrs["errors"]:
            assert error["url"].startswith(server.url)
            assert error["url"] in error["message"]
        if share > 0.5:
            assert failed.any()
        found = outcome(lambda: load(f"{server.url}/{INDEX}", network=HASTY).get_gdf(sites, **HOW))
        if isinstance(found, Exception):
            assert server.url in str(found)
            assert "geometry " in str(found) or "aef_index.parquet" in str(found)
        else:
            same_pixels(found, expected["frame"])


def test_an_extraction_that_stops_names_the_site(root, sample_sites):
    with serve(root, faults=Faults(error=1.0, only=".tiff", headers=False)) as server:
        source = CogSource(f"{server.url}/{INDEX}", network=HASTY)
        with pytest.raises(ReadError, match=rf"^site '{sample_sites[0].site_id}'.*: http.*band A00.*503") as caught:
            extract_embeddings(sample_sites[:1], source=source, years=YEARS)
        assert caught.value.url.startswith(server.url)
        assert caught.value.year in YEARS


@pytest.mark.parametrize("suffix", ["csv", "gpkg"])
@pytest.mark.parametrize("kind", ["error", "truncate", "drop", "wrong_length", "lie"])
def test_an_index_of_another_kind_is_whole_or_an_error(root, tmp_path, suffix, kind):
    import geopandas

    frame = geopandas.read_parquet(root / INDEX)
    if suffix == "csv":
        pd.DataFrame(frame.drop(columns="geom")).assign(note="x" * 3000).to_csv(tmp_path / "i.csv", index=False)
    else:
        frame.assign(note="x" * 3000).to_file(tmp_path / "i.gpkg", driver="GPKG")
    for share, network in ((0.3, PATIENT), (1.0, HASTY)):
        with serve(tmp_path, faults=Faults(**{kind: share}, seed=3)) as server:
            url = f"{server.url}/i.{suffix}"
            found = outcome(lambda: CogSource(url, network=network).years())  # noqa: B023 - called at once
            if isinstance(found, Exception):
                assert url in str(found)
                assert share == 1.0 or kind in ("wrong_length", "lie")
            else:
                assert share < 1.0
                assert found == list(range(2018, 2025))


def test_a_download_of_a_faulty_server_is_whole(root, sample_sites, expected, tmp_path):
    with serve(root, faults=all_kinds(3, 0.3, wrong_lengths=0.01)) as server:
        source = CogSource(f"{server.url}/{INDEX}", network=PATIENT)
        index = download(sample_sites[:5], YEARS, tmp_path / "copy", source=source)
    table = extract_embeddings(sample_sites[:5], source=str(index), years=YEARS)
    pd.testing.assert_frame_equal(table, expected["table"], check_exact=True)


def test_a_lazy_array_raises_when_it_is_computed(root):
    with serve(root) as server:
        collection = load(f"{server.url}/{INDEX}", network=HASTY)
        data = collection.get_xarray(shapely.box(-48.02, -22.36, -48.018, -22.358), years=[2023], bands=["A00"],
                                     chunks="auto")  # fmt: skip
        server.reset(Faults(error=1.0, headers=False))
        with pytest.raises(ReadError, match=r"geometry 0: http.*band A00.*503"):
            data.compute()

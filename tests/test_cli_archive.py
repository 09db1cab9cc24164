"""`gee-polygons index`, `datasets` and `download`."""

import pandas as pd
import pytest
from click.testing import CliRunner

from gee_polygons.cli.main import main
from gee_polygons.sources.sample import write_sample_sites
from gee_polygons.tables import read_table


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def sites(tmp_path):
    return write_sample_sites(tmp_path / "sites.geojson")


def test_an_index_is_built_and_is_a_source(tmp_path, sites, sample_archive):
    path = tmp_path / "c.parquet"
    built = run("index", "build", "gee-polygons/sample", "--from", 2022, "--to", 2023, "-o", path)
    assert built.exit_code == 0, built.output
    assert "tiles    6" in built.output
    assert "headers  included" in run("index", "info", path).output
    for source, table in ((path, "a.csv"), ("sample", "b.csv")):
        done = run("extract", sites, "--years", "2022-2023", "--source", source, "-o", tmp_path / table)
        assert done.exit_code == 0, done.output
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.csv"), read_table(tmp_path / "b.csv"))


def test_a_download_is_a_source(tmp_path, sites, sample_archive):
    done = run("download", sites, "--years", 2023, "--source", "sample", "-o", tmp_path / "copy")
    assert done.exit_code == 0, done.output
    assert "aef_index.parquet: " in done.output
    for source, table in ((tmp_path / "copy", "a.csv"), ("sample", "b.csv")):
        assert run("extract", sites, "--years", 2023, "--source", source, "-o", tmp_path / table).exit_code == 0
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.csv"), read_table(tmp_path / "b.csv"))


def test_datasets_are_listed(sample_archive):
    assert "aef/v1-annual" in run("datasets", "list").output
    assert "CC BY 4.0" in run("datasets", "info", "aef/v1-annual").output


@pytest.fixture
def own_cache(tmp_path, monkeypatch, sample_archive):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / sample_archive.parents[2].name).symlink_to(sample_archive.parents[2])
    monkeypatch.setenv("GEE_POLYGONS_CACHE", str(cache))


def test_a_dataset_is_registered_listed_shown_and_built(own_cache, sample_archive, sites, tmp_path):
    done = run("datasets", "register", "mine", "--index", sample_archive, "--embeddings", "--title", "my tiles",
               "--licence", "CC0", "--attribution", "me")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.output == run("datasets", "info", "mine").output
    facts = dict(line.split(maxsplit=1) for line in done.output.splitlines())
    assert facts["index"] == str(sample_archive)
    assert facts["bands"] == "A00..A63 (64)"
    assert (facts["type"], facts["nodata"], facts["licence"], facts["credit"]) == ("int8", "-128", "CC0", "me")
    assert "mine " in run("datasets", "list").output
    built = run("index", "build", "mine", "--from", 2023, "--to", 2023, "-o", tmp_path / "c.parquet")
    assert built.exit_code == 0, built.output
    assert "dataset  mine" in built.output
    for source, table in ((tmp_path / "c.parquet", "a.csv"), ("sample", "b.csv")):
        assert run("extract", sites, "--years", 2023, "--source", source, "-o", tmp_path / table).exit_code == 0
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.csv"), read_table(tmp_path / "b.csv"))


def test_a_list_with_names_of_its_own_is_registered(own_cache, sample_archive, tmp_path):
    table = pd.read_parquet(sample_archive).drop(columns="geom").rename(columns={"path": "where", "year": "when"})
    table["where"] = [str(sample_archive.parent / path) for path in table["where"]]
    table.to_csv(tmp_path / "list.csv", index=False)
    args = ("datasets", "register", "other", "--index", tmp_path / "list.csv", "--embeddings")
    refused = run(*args)
    assert refused.exit_code == 1
    assert "list.csv: not an archive index, column" in refused.output
    assert "other" not in run("datasets", "list").output
    done = run(*args, "--href-column", "where", "--column", "when=year")
    assert done.exit_code == 0, done.output
    built = run("index", "build", "other", "-o", tmp_path / "c.parquet")
    assert "tiles    20" in built.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["mine"], "Missing option '--index'"),
        (["mine", "--index", "none.parquet"], "none.parquet: no such index"),
        (["aef/v1-annual", "--index", "INDEX", "--embeddings"], "can't be registered: choose a name of your own"),
        (["mine", "--index", "INDEX", "--embeddings", "--dtype", "int8"], "leave --bands, --dtype and --nodata out"),
        (["mine", "--index", "INDEX", "--dtype", "colour"], "'colour' is not a pixel type"),
        (["mine", "--index", "INDEX", "--bands", "a,b,a"], "names each band once"),
        (["mine", "--index", "INDEX", "--column", "year"], "write THEIRS=OURS"),
        (["mine", "--index", "INDEX", "--column", "nothing=year"], "column_map names 'nothing'"),
        (["mine", "--index", "INDEX", "--href-column", "nothing"], "href_column names 'nothing'"),
        (["mine", "--index", __file__], "not a Parquet file"),
    ],
)
def test_what_cannot_be_registered_is_one_line(own_cache, sample_archive, args, says):
    done = run("datasets", "register", *[str(sample_archive) if arg == "INDEX" else arg for arg in args])
    assert done.exit_code in (1, 2)
    assert says in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert "mine" not in run("datasets", "list").output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["datasets", "info", "nothing"], "unknown dataset 'nothing'"),
        (["index", "info", "none.parquet"], "no such collection"),
        (["index", "build", "gee-polygons/sample", "--bbox", "1,2"], "is not WEST,SOUTH,EAST,NORTH"),
        (["index", "build", "gee-polygons/sample", "--url-rewrite", "abc"], "write FROM=TO"),
        (
            ["index", "build", "gee-polygons/sample", "--from", "2024", "--to", "2020"],
            "--to 2020 is before --from 2024",
        ),
    ],
)
def test_wrong_calls_are_one_line_and_status_2(args, says, sample_archive):
    done = run(*args)
    assert done.exit_code == 2
    assert says in done.output
    assert len(done.output.strip().splitlines()) == 1

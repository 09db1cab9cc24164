"""`gee-polygons index`, `datasets` and `download`."""

import pandas as pd
import pytest
from click.testing import CliRunner

from gee_polygons.cli import main
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
    assert "kept" in run("index", "info", path).output
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


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["datasets", "info", "nothing"], "unknown dataset 'nothing'"),
        (["index", "info", "none.parquet"], "no such collection"),
        (["index", "build", "gee-polygons/sample", "--bbox", "1,2"], "is not WEST,SOUTH,EAST,NORTH"),
        (["index", "build", "gee-polygons/sample", "--url-rewrite", "abc"], "write FROM=TO"),
        (["index", "build", "gee-polygons/sample", "--from", "2024", "--to", "2020"], "runs backwards"),
    ],
)
def test_wrong_calls_are_one_line_and_status_2(args, says, sample_archive):
    done = run(*args)
    assert done.exit_code == 2
    assert says in done.output
    assert len(done.output.strip().splitlines()) == 1

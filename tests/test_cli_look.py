"""The commands render, similarity and audit."""

from __future__ import annotations

import sys

import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from gee_polygons.alphaearth import BANDS
from gee_polygons.cli.main import main
from gee_polygons.tables import read_table


def run(*args):
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="gee-polygons")


def refused(done, status, *said):
    assert done.exit_code == status, f"{done.output} {done.exception!r}"
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    for words in ("error: ", *said):
        assert words in lines[0]


@pytest.fixture
def desk(tmp_path, monkeypatch, sample_archive, sample_sites):
    """A folder to work in, with two sites and the sample as source."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEE_POLYGONS_SOURCE", str(sample_archive))
    frame = sample_sites.to_geodataframe().set_index("site_id", drop=False)
    frame.loc[["hole", "pasture-fast"]].reset_index(drop=True).to_file(tmp_path / "sites.geojson", driver="GeoJSON")
    return tmp_path


@pytest.fixture
def table(desk):
    done = run("extract", "sites.geojson", "--years", "2018-2021", "-o", "t.parquet")
    assert done.exit_code == 0, done.output
    return desk / "t.parquet"


def test_a_site_is_drawn_into_outputs_and_nowhere_else(desk):
    draw = ("render", "sites.geojson", "--years", "2018-2020", "--site", "hole", "--dimensions", 60)
    done = run(*draw)
    assert done.exit_code == 0, done.output
    assert done.stdout == "outputs/hole.png\n"
    with Image.open("outputs/hole.png") as strip:
        assert strip.width > 3 * 50
        assert "Synthetic" in strip.info["Attribution"]
    first = (desk / "outputs/hole.pca.json").read_bytes()
    assert {p.name for p in desk.rglob("*") if p.is_file()} == {"sites.geojson", "hole.png", "hole.pca.json"}
    # a picture without a name gets a new one; a name that was given is replaced only if asked for
    assert run(*draw, "--columns", 2).stdout == "outputs/hole-2.png\n"
    refused(run(*draw, "-o", "outputs/hole.png"), 1, "exists already", "--overwrite")
    refused(run(*draw, "-o", "outputs/hole.gif"), 1, "--colors outputs/hole.pca.json", "--overwrite")
    same = run(*draw, "--colors", "outputs/hole.pca.json", "-o", "outputs/hole.gif")
    assert (same.exit_code, (desk / "outputs/hole.pca.json").read_bytes()) == (0, first)
    assert run(*draw, "--overwrite", "--bands", "A01,A16,A09").stdout == "outputs/hole.png\n"
    assert not (desk / "outputs/hole.pca.json").exists()  # it was of the picture before


def test_a_film_in_colours_of_pca_and_of_likeness(desk):
    for colours, name in (((), "a.gif"), (("--similarity-to", "hole"), "b.webp")):
        done = run(
            "render",
            "sites.geojson",
            "--years",
            "2018-2020",
            "--site",
            "hole",
            *colours,
            "--dimensions",
            80,
            "-o",
            name,
        )
        assert done.exit_code == 0, done.output
        with Image.open(name) as film:
            assert film.n_frames == 3
    assert (desk / "a.pca.json").is_file()


def test_several_sites_make_a_sheet(desk):
    done = run(
        "render", "sites.geojson", "--years", "2018,2020", "--bands", "A05,A25,A45", "--max", 0.2, "--dimensions", 60
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == "outputs/sites.png\n"
    done = run(
        "render", "sites.geojson", "--years", "2018", "--columns", 2, "--width-mm", 90, "--dpi", 100, "-o", "a.pdf"
    )
    assert done.exit_code == 0, done.output
    assert b"Synthetic values" in (desk / "a.pdf").read_bytes()


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--bands", "A01", "--pca"), 2, "exclude each other"),
        (("--pca", "--min", "0"), 2, "--min and --max are for --bands"),
        (("--site", "nowhere"), 2, "nowhere"),
        (("--similarity-to", "nowhere"), 2, "nowhere"),
        (("--bands", "A99"), 2, "A99"),
        (("--reference-year", "2018"), 2, "goes with --similarity-to"),
        (("-o", "x.tif"), 2, ".png"),
        (("-o", "x.gif"), 2, ".png"),  # of two sites
        (("--boundary-color", "whitish"), 2, "whitish"),
        (
            ("--site", "pasture-fast", "--similarity-to", "pasture-fast", "--reference-year", "2020"),
            2,
            "no data in 2020",
        ),
    ],
)
def test_what_cant_be_drawn_gets_one_line(desk, options, status, said):
    done = run("render", "sites.geojson", "--years", "2018", *options)
    refused(done, status, said)
    assert not (desk / "outputs").exists()


def test_similarity_of_a_table_and_of_sites(table):
    done = run("similarity", table, "--site", "hole")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["2018", "2019", "2020", "2021"]
    assert lines[1].split()[:2] == ["2018", "1.000"]
    assert lines[-1] == "outputs/similarity-hole.png"
    assert (table.parent / lines[-1]).is_file()
    assert run("similarity", table, "--site", "hole").stdout.endswith("\noutputs/similarity-hole-2.png\n")
    done = run("similarity", "sites.geojson", "--years", "2018", "--by", "site", "-o", "m.csv")
    assert done.exit_code == 0, done.output
    matrix = pd.read_csv("m.csv", index_col=0)
    assert list(matrix.columns) == ["hole", "pasture-fast"]
    assert matrix.iloc[0, 0] == 1
    assert "Synthetic values" in (table.parent / "m.csv-metadata.json").read_text()  # the credit of a CSV
    done = run("similarity", table, "--site", "hole", "--kind", "dot", "-o", "d.csv")
    assert pd.read_csv("d.csv", index_col=0).iloc[0, 0] < 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("t.parquet",), "choose one with --site"),
        (("t.parquet", "--by", "site"), "choose one with --year"),
        (("t.parquet", "--by", "site", "--year", "2018", "--site", "hole"), "--site goes with --by year"),
        (("t.parquet", "--site", "nowhere"), "nowhere"),
        (("sites.geojson",), "--years is needed"),
        (("t.parquet", "--site", "hole", "-o", "m.gif"), ".png"),
        (("nothing.parquet",), "there is no file"),
    ],
)
def test_what_cant_be_compared_gets_one_line(table, args, said):
    refused(run("similarity", *args), 2, said)


def test_audit_ends_with_0_or_1_or_2(table):
    done = run("audit", table)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("clean: nothing found\n")
    wrong = read_table(table)
    wrong[list(BANDS)] *= 2.5
    wrong.to_csv("wrong.csv", index=False)
    done = run("audit", "wrong.csv", "--reference", table)
    assert done.exit_code == 1
    assert "[linear_dequantisation]" in done.stdout
    assert "compared with a reference by site and year: 8 rows" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80  # a terminal
    refused(run("audit", "nothing.csv"), 2, "there is no file nothing.csv")
    refused(run("audit", "sites.shp"), 2, ".csv, .gpkg or .geojson")
    pd.DataFrame({"a": [1]}).to_csv("empty.csv")
    refused(run("audit", "empty.csv"), 2, "no embedding vectors")


def test_help_fits_a_terminal():
    for command in ("render", "similarity", "audit"):
        done = run(command, "--help")
        assert done.exit_code == 0
        assert max(map(len, done.stdout.splitlines())) <= 80, command
        assert "Example:" in done.stdout


def test_a_film_that_cant_be_written_is_refused_before_anything_is_read(desk, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    done = run("render", "sites.geojson", "--years", "2018", "--site", "hole", "--pca", "-o", "x.mp4")
    refused(done, 2, "pip install imageio-ffmpeg")
    assert {p.name for p in desk.iterdir()} == {"sites.geojson"}

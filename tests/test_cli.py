from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from click.testing import CliRunner
from PIL import Image

import gee_polygons
from gee_polygons.alphaearth import BANDS
from gee_polygons.cli.main import main
from gee_polygons.tables import read_table

README_PICTURE = Path(__file__).parents[1] / "docs" / "images" / "strip.jpg"
COMMANDS = ("extract", "plan", "render", "similarity", "audit", "sample", "sources", "demo")


def run(*args):
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="gee-polygons")


def refused(done, status, *said):
    """One line on standard error that says all of `said`, the exit status, no traceback."""
    assert done.exit_code == status, f"{done.output} {done.exception!r}"
    assert isinstance(done.exception, SystemExit)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for words in said:
        assert words in lines[0]


@pytest.fixture(scope="module")
def year_archive(tmp_path_factory):
    """The folder of an archive of one year that is small enough to copy and damage."""
    from gee_polygons.sources.sample import build_sample_archive

    folder = tmp_path_factory.mktemp("archive") / "sample"
    build_sample_archive(folder, years=[2024])
    return folder


@pytest.fixture
def sites_path(sample_sites, tmp_path):
    """Three sites in one tile."""
    folder = tmp_path / "in"
    folder.mkdir()
    frame = sample_sites.to_geodataframe().set_index("site_id", drop=False)
    path = folder / "sites.geojson"
    frame.loc[["pasture-fast", "pasture-slow", "hole"]].reset_index(drop=True).to_file(path, driver="GeoJSON")
    return path


@pytest.fixture
def out(tmp_path):
    """An empty folder for outputs."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


# --- help ---


def test_without_a_command_the_help_is_shown():
    done = run()
    assert done.exit_code == 0
    assert all(command in done.output for command in COMMANDS)
    assert done.output == run("--help").output


def test_version():
    assert gee_polygons.__version__ in run("--version").output


# --- years ---


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("2019", [2019]),
        ("2018-2020", [2018, 2019, 2020]),
        ("2018,2020", [2018, 2020]),
        ("2024, 2018-2019 ,2018", [2018, 2019, 2024]),
        ("2020-2020", [2020]),
    ],
)
def test_years_are_read(text, years, monkeypatch, sites_path, out):
    asked = []

    def record(sites, **options):
        asked.extend(options["years"])
        return pd.DataFrame({"site_id": ["a"], "year": [2020], "status": ["ok"]}).iloc[:0]

    monkeypatch.setattr("gee_polygons.extract.extract_embeddings", record)
    assert run("extract", sites_path, "--years", text, "-o", out / "t.csv").exit_code == 0
    assert asked == years


@pytest.mark.parametrize(
    "text", ["2020-2018", "18", "2018-", "-2018", "", "2018..2020", "2018-2019-2020", "0001-9999", "२०१८"]
)
def test_years_that_make_no_sense_are_a_usage_error(text, sites_path, out):
    refused(run("extract", sites_path, "--years", text, "-o", out / "t.csv"), 2, "--years")
    assert list(out.iterdir()) == []


def test_reversed_years_are_told_the_right_way_round(sites_path, out):
    refused(run("extract", sites_path, "--years", "2024-2018", "-o", out / "t.csv"), 2, "2024-2018", "2018-2024")


# --- extract ---


def test_extract_writes_the_table_that_the_library_returns(sites_path, out):
    done = run(
        "extract", sites_path, "--years", "2023,2024", "--source", "sample", "-o", out / "t.parquet",
        "--statistics", "mean,p90", "--bands", "A01,A16",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{out / 't.parquet'}: 6 rows (3 sites x 2 years): 6 ok")
    assert done.stderr == ""
    expected = gee_polygons.extract_embeddings(
        gee_polygons.load_sites(sites_path),
        years=[2023, 2024],
        source="sample",
        statistics=["mean", "p90"],
        bands=["A01", "A16"],
    )
    back = read_table(out / "t.parquet")
    pd.testing.assert_frame_equal(back, expected, check_exact=True)
    assert [c for c in back if c.startswith("A")] == ["A01_mean", "A16_mean", "A01_p90", "A16_p90"]
    assert back.attrs["provenance"] == expected.attrs["provenance"]


def test_both_formats_hold_the_same_numbers_and_a_rerun_the_same_bytes(sites_path, out):
    for name in ("a.parquet", "b.parquet", "a.csv"):
        assert run("extract", sites_path, "--years", "2024", "--source", "sample", "-o", out / name).exit_code == 0
    assert (out / "a.parquet").read_bytes() == (out / "b.parquet").read_bytes()
    pd.testing.assert_frame_equal(read_table(out / "a.parquet"), read_table(out / "a.csv"), check_exact=True)
    assert list(gpd.read_parquet(out / "a.parquet").geometry.geom_type) == ["Polygon"] * 3
    assert set(BANDS) <= set(read_table(out / "a.csv"))


def test_provenance_of_sample_values_says_that_they_are_synthetic(sites_path, out):
    from gee_polygons.sources.sample import sample_archive_path

    for i, source in enumerate(["sample", sample_archive_path()]):
        assert run("extract", sites_path, "--years", "2024", "--source", source, "-o", out / f"{i}.csv").exit_code == 0
        found = read_table(out / f"{i}.csv").attrs["provenance"]
        assert found["synthetic"] == "true"
        assert "Google DeepMind" in found["attribution"]


def test_a_year_that_the_source_lacks_is_a_row(sites_path, out):
    done = run("extract", sites_path, "--years", "2024-2025", "--source", "sample", "-o", out / "t.csv")
    assert done.exit_code == 0
    assert "3 no_data, 3 ok" in done.stdout
    table = read_table(out / "t.csv")
    assert table.loc[table["year"] == 2025, "A00"].isna().all()


def test_the_id_column_can_be_named(sample_sites, tmp_path, out):
    frame = sample_sites.to_geodataframe().iloc[:2].assign(field=["x1", "x2"])
    frame.to_file(tmp_path / "sites.gpkg")
    args = ("--years", "2024", "--source", "sample", "--id-column", "field", "-o", out / "t.csv")
    assert run("extract", tmp_path / "sites.gpkg", *args).exit_code == 0
    assert read_table(out / "t.csv")["site_id"].tolist() == ["x1", "x2"]


def test_a_repaired_ring_is_said_in_one_line(tmp_path, out):
    bow_tie = shapely.Polygon([(-48.046, -22.342), (-48.044, -22.340), (-48.044, -22.342), (-48.046, -22.340)])
    gpd.GeoDataFrame({"site_id": ["bow-tie"]}, geometry=[bow_tie], crs=4326).to_file(tmp_path / "s.geojson")
    done = run("extract", tmp_path / "s.geojson", "--years", "2024", "--source", "sample", "-o", out / "t.csv")
    assert done.exit_code == 0, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: ")
    assert "bow-tie" in line


def test_an_existing_output_is_refused_before_any_work(sites_path, out, monkeypatch):
    monkeypatch.setattr("gee_polygons.site.load_sites", None)  # would fail if it came so far
    (out / "t.csv").write_text("mine")
    refused(run("extract", sites_path, "--years", "2024", "-o", out / "t.csv"), 1, "exists already", "--overwrite")
    assert (out / "t.csv").read_text() == "mine"


def test_overwrite(sites_path, out):
    (out / "t.csv").write_text("old")
    args = ("extract", sites_path, "--years", "2024", "--source", "sample", "-o", out / "t.csv", "--overwrite")
    assert run(*args).exit_code == 0
    assert len(read_table(out / "t.csv")) == 3


@pytest.mark.parametrize("name", ["t.xlsx", "no/t.csv"])
def test_an_output_that_cannot_be_written_is_refused(name, sites_path, out):
    refused(run("extract", sites_path, "--years", "2024", "-o", out / name), 2 if name == "t.xlsx" else 1, name)
    assert list(out.iterdir()) == []


# --- bad input ---


def geojson(path: Path, geometries, crs: object = "absent", ids=None) -> Path:
    features = [
        {"type": "Feature", "properties": {"site_id": ids[i] if ids else f"s{i}"}, "geometry": g}
        for i, g in enumerate(geometries)
    ]
    found = {"type": "FeatureCollection", "features": features}
    if crs != "absent":
        found["crs"] = crs
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


SQUARE = shapely.geometry.mapping(shapely.box(-48.046, -22.342, -48.044, -22.340))
POINT = {"type": "Point", "coordinates": [-48.045, -22.341]}
LINE = {"type": "LineString", "coordinates": [[-48.045, -22.341], [-48.044, -22.341]]}
NOT_A_NUMBER = {"type": "Polygon", "coordinates": [[[-48, -22], [float("nan"), -22], [-48, -21], [-48, -22]]]}


@pytest.mark.parametrize(
    ("case", "status", "words"),
    [
        ("missing file", 2, "sites.geojson"),
        ("not a vector file", 2, "sites.geojson"),
        ("crs null", 1, "--crs EPSG:4326"),
        ("empty file", None, "sites.geojson"),
        ("points", 1, "Point"),
        ("lines", 1, "Line"),
        ("nan coordinate", 1, "s0"),
        ("duplicate ids", 1, "s0"),
        ("unknown id column", 2, "nope"),
    ],
)
def test_sites_that_cannot_be_used_get_one_line(case, status, words, tmp_path, out):
    path, more = tmp_path / "sites.geojson", []
    match case:
        case "not a vector file":
            path.write_text("field,area\n1,2\n")
        case "crs null":
            geojson(path, [SQUARE], crs=None)
        case "empty file":
            geojson(path, [])
        case "points":
            geojson(path, [POINT])
        case "lines":
            geojson(path, [LINE])
        case "nan coordinate":
            geojson(path, [NOT_A_NUMBER])
        case "duplicate ids":
            geojson(path, [SQUARE, SQUARE], ids=["s0", "s0"])
        case "unknown id column":
            geojson(path, [SQUARE])
            more = ["--id-column", "nope"]
    done = run("extract", path, "--years", "2024", "--source", "sample", "-o", out / "t.parquet", *more)
    refused(done, status or done.exit_code, words)
    assert done.exit_code in (1, 2)
    assert list(out.iterdir()) == []
    refused(run("plan", path, "--years", "2024", "--source", "sample", *more), done.exit_code, words)


@pytest.mark.parametrize(
    "command", ["extract", "plan", "download", "render", "similarity", "change", "recovery", "report"]
)
def test_every_command_that_reads_sites_can_say_how(command):
    said = run(command, "--help").output
    for option in ("--layer", "--id-column", "--start-year", "--crs", "--skip-invalid"):
        assert option in said


def test_a_file_of_two_layers_with_a_row_that_is_no_site(sites_path, tmp_path, out):
    sites = gpd.read_file(sites_path).rename(columns={"site_id": "plot"}).assign(ano_plantio=[2016, -9999, 2018])
    sites.loc[1, "geometry"] = shapely.Point(0, 0)
    path = tmp_path / "two layers.gpkg"
    for layer in ("old", "new"):
        sites.to_file(path, layer=layer)
    extract = ("extract", path, "--years", "2024", "--source", "sample", "-o", out / "t.gpkg")
    refused(run(*extract), 2, "2 layers", "choose one with --layer")
    more = ("--layer", "new", "--id-column", "plot", "--start-year", "ano_plantio", "--skip-invalid")
    done = run(*extract, *more, "--keep", "knid")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("error: the sites have no column 'knid', named in --keep; they have")
    (out / "two layers.refused.csv").unlink()
    done = run(*extract, *more, "--keep", "name")
    assert done.exit_code == 1, done.output
    assert f"1 row left out, 2 sites kept: see {out / 'two layers.refused.csv'}" in done.stderr
    listed = pd.read_csv(out / "two layers.refused.csv").to_dict("records")
    assert listed == [{"row": 1, "site_id": sites["plot"][1], "reason": "is a Point, not a polygon"}]
    table = read_table(out / "t.gpkg")
    assert list(table.columns[:6]) == ["site_id", "year", "start_year", "name", "lon", "lat"]
    assert table["start_year"].tolist() == [2016, 2018]
    assert list(table["site_id"]) == list(sites["plot"][[0, 2]])
    assert run("similarity", out / "t.gpkg", "--by", "site", "-o", out / "s.csv").exit_code == 0


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--bands", "A01,A64", "A64"),
        ("--bands", "A01,,A02", "empty name"),
        ("--statistics", "mean,average", "average"),
        ("--statistics", "p101", "p101"),
        ("--source", "no-such-source", "no-such-source"),
        ("--on-error", "ignore", "ignore"),
        ("--max-workers", "0", "0"),
        ("--bogus", "1", "--bogus"),
    ],
)
def test_options_that_make_no_sense_are_a_usage_error(option, value, words, sites_path, out):
    options = {"--years": "2024", "--source": "sample", "-o": out / "t.parquet", option: value}
    done = run("extract", sites_path, *(word for pair in options.items() for word in pair))
    refused(done, 2, words)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.tif", b"not a tiff"), ("index.parquet", b"PAR1"), ("index.csv", b"a,b\n1,2\n"), ("x.npz", b"")],
)
def test_sources_that_are_not_what_they_seem_get_one_line(name, content, sites_path, tmp_path, out):
    (tmp_path / name).write_bytes(content)
    done = run("extract", sites_path, "--years", "2024", "--source", tmp_path / name, "-o", out / "t.csv")
    refused(done, done.exit_code, name)
    assert done.exit_code in (1, 2)
    assert list(out.iterdir()) == []


@pytest.fixture(params=["missing", "truncated"])
def damaged_archive(request, year_archive, tmp_path):
    """An archive whose tiles are gone or cut short."""
    folder = tmp_path / "damaged"
    shutil.copytree(year_archive, folder)
    for tile in folder.rglob("*.tiff"):
        if request.param == "missing":
            tile.unlink()
        else:
            with tile.open("r+b") as file:
                file.truncate(tile.stat().st_size // 2)
    return folder


def test_a_damaged_archive_stops_the_extraction(damaged_archive, sites_path, out):
    done = run("extract", sites_path, "--years", "2024", "--source", damaged_archive, "-o", out / "t.parquet")
    refused(done, 1, ".tiff")
    assert list(out.iterdir()) == []


def test_collecting_writes_what_could_be_read_and_exits_with_1(damaged_archive, sites_path, out):
    args = ("--years", "2024", "--source", damaged_archive, "-o", out / "t.parquet", "--on-error", "collect")
    done = run("extract", sites_path, *args)
    assert done.exit_code == 1, done.output
    lines = done.stderr.splitlines()
    assert lines
    assert any(".tiff" in line for line in lines)
    table = read_table(out / "t.parquet")
    assert len(table) == 3
    assert table.loc[table["status"] != "ok", "A00"].isna().all()


def test_an_unexpected_exception_is_not_hidden(sites_path, out, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("gee_polygons.extract.extract_embeddings", fail)
    done = run("extract", sites_path, "--years", "2024", "-o", out / "t.csv")
    assert isinstance(done.exception, RuntimeError)
    assert list(out.iterdir()) == []


# --- real processes ---


SAMPLE = ("--source", "sample")


def start(*args, **options):
    return subprocess.Popen([sys.executable, *map(str, args)], **options)


def test_in_a_pipe_only_the_result_is_said(sites_path, out):
    command = [
        "-m",
        "gee_polygons",
        "extract",
        sites_path,
        "--years",
        "2024",
        "--source",
        "sample",
        "-o",
        out / "t.csv",
    ]
    with start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert stderr == ""
    assert stdout.count("\n") == 1


def test_on_a_terminal_there_is_a_bar(sites_path, out):
    command = [
        "-m",
        "gee_polygons",
        "extract",
        sites_path,
        "--years",
        "2024",
        "--source",
        "sample",
        "-o",
        out / "t.csv",
    ]
    terminal, stderr = pty.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with start(*command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        os.close(stderr)
        shown = b""
        try:
            while chunk := os.read(terminal, 4096):
                shown += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
        process.communicate(timeout=120)
    os.close(terminal)
    assert process.returncode == 0, shown
    assert b"100%" in shown


SLOW = """
import sys, time
import gee_polygons.extract as extract
from gee_polygons.cli.main import main

def slow(sites, **options):
    print("started", flush=True)
    time.sleep(60)

extract.extract_embeddings = slow
main(sys.argv[1:], prog_name="gee-polygons")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_extraction_leaves_nothing(number, sites_path, out):
    command = ["-c", SLOW, "extract", sites_path, "--years", "2024", "-o", out / "t.parquet"]
    with start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines() == ["interrupted; no incomplete file was written"]
    assert list(out.iterdir()) == []


WRITING = """
import os, signal, sys
import pyarrow.parquet as pq
from gee_polygons.cli.main import main

write = pq.ParquetWriter.write_table

def write_then_interrupt(self, *args, **options):
    write(self, *args, **options)
    os.kill(os.getpid(), signal.SIGINT)

pq.ParquetWriter.write_table = write_then_interrupt
main(sys.argv[1:], prog_name="gee-polygons")
"""


def test_ctrl_c_while_writing_leaves_the_old_output(sites_path, out):
    (out / "t.parquet").write_text("old")
    command = ["-c", WRITING, "extract", sites_path, "--years", "2024", "--source", "sample", "--overwrite"]
    done = subprocess.run(
        [sys.executable, *map(str, command), "-o", str(out / "t.parquet")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines() == ["interrupted; no incomplete file was written"]
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [("t.parquet", "old")]


# --- plan, sources, sample, demo ---


def test_plan_tells_the_cost_and_reads_no_pixels(sites_path, monkeypatch):
    from gee_polygons import load_sites, open_source
    from gee_polygons.sources.cog import CogSource

    monkeypatch.setattr(CogSource, "read", None)
    done = run("plan", sites_path, "--years", "2023-2024", "--source", "sample")
    assert done.exit_code == 0, done.output
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    plan = open_source("sample").plan(np.asarray(load_sites(sites_path).polygons), (2023, 2024))
    assert facts["sites"] == "3"
    assert facts["years"] == "2023-2024"
    assert int(facts["blocks"].replace(",", "")) == plan.blocks > 0
    assert int(facts["requests"].replace(",", "")) == plan.requests > 0
    assert float(facts["MB"].replace(",", "")) == pytest.approx(plan.bytes / 1e6, abs=0.05)


def test_sources_lists_every_kind():
    done = run("sources")
    assert done.exit_code == 0, done.output
    for name in ("sample", "source-coop", "mosaic", "earthengine", "aef_index.parquet", "GeoTIFF", ".npz"):
        assert name in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_sources_says_what_is_taken_without_asking(monkeypatch):
    assert "without --source: source-coop" in run("sources").stdout
    monkeypatch.setenv("GEE_POLYGONS_SOURCE", "sample")
    assert "without --source: sample" in run("sources").stdout


def test_the_sample_can_be_built_again_with_other_years(tmp_path):
    """Its sites' file lies beside the archive, which was refused because of it."""
    folder = tmp_path / "sample"
    for year in ("2023", "2024"):
        assert run("sample", "--out", folder, "--years", year).exit_code == 0
    assert sorted(path.name for path in (folder / "v1" / "annual").iterdir()) == ["2024", "aef_index.parquet"]
    (folder / "sample_sites.geojson").write_text("edited")
    refused(run("sample", "--out", folder, "--years", "2023"), 1, "holds other files, such as sample_sites.geojson")
    assert (folder / "sample_sites.geojson").read_text() == "edited"


def test_sample_builds_what_extract_reads(out):
    folder = out / "sample"
    done = run("sample", "--out", folder, "--years", "2024")
    assert done.exit_code == 0, done.output
    paths = [Path(line.rpartition(": ")[0]) for line in done.stdout.splitlines()]
    assert all(path.is_file() for path in paths)
    index, sites = paths
    args = ("--years", "2024", "--source", index, "-o", out / "t.parquet")
    assert run("extract", sites, *args).exit_code == 0
    assert len(read_table(out / "t.parquet")) == 20


def test_sample_refuses_a_folder_with_something_else_in_it(out):
    (out / "thesis.txt").write_text("mine")
    refused(run("sample", "--out", out, "--years", "2024"), 1, str(out))
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]


def test_demo_twice(out):
    printed = []
    for _ in range(2):
        done = run("demo", "--out", out / "new")
        assert done.exit_code == 0, done.output
        paths = [Path(line.partition("-> ")[2]) for line in done.stdout.splitlines() if "-> " in line]
        assert all(path.is_file() for path in paths)
        assert {p.suffix for p in paths} == {".parquet", ".geojson", ".csv", ".jpg", ".gif", ".png", ".json", ".html"}
        printed.append({p.name: p.read_bytes() for p in paths if p.suffix != ".geojson"})
        assert " s  in all" in done.stdout
    following = [shlex.split(line) for line in done.stdout.partition(" s  in all")[2].splitlines() if line[:2] == "  "]
    assert [words[1] for words in following] == ["extract", "report", "render"]
    for words, more in zip(
        following, ([], ["--pictures", "none"], ["-o", str(out / "a.png"), "--dpi", "60"]), strict=True
    ):
        done = run(*words[1:], *more)
        assert done.exit_code == 0, done.output
    assert printed[0] == printed[1]
    # the README's picture is this one; JPEG decoders differ by a level or two
    with Image.open(out / "new" / "strip.jpg") as made, Image.open(README_PICTURE) as shown:
        assert made.size == shown.size, "make pictures"
        assert np.abs(np.asarray(made, int) - np.asarray(shown, int)).mean() < 2
    table = read_table(out / "new" / "embeddings.parquet")
    assert len(table) == 20 * 7
    assert {"ok", "no_data"} <= set(table["status"])
    assert table.attrs["provenance"]["synthetic"] == "true"


def test_demo_where_it_cannot_write(out):
    (out / "file").write_text("mine")
    refused(run("demo", "--out", out / "file"), 1, "file")

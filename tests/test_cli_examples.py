"""Every command's help has an example, and the examples run, in their order, against the sample archive."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner
from rangeserver import serve

from gee_polygons import extract_embeddings, sites_from_geodataframe
from gee_polygons.cli.main import main
from gee_polygons.tables import write_table

ARCHIVE = "https://data.source.coop/tge-labs/aef/"
IDS = [3107, "c1", "c2", "r1", "r2", *range(1, 10)]
FIRST = ("sample", "download", "index build", "extract", "probe")  # they write what others read
ELSEWHERE = ("demo",)  # run as a whole in test_cli.py


def commands(group=main, name=""):
    for key, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name}{key} ")
        else:
            yield f"{name}{key}", command


def examples():
    """The lines of all examples, with continued lines joined; those that write come first."""
    found = {}
    for name, command in commands():
        text = (command.help or "").replace("\\\n", " ")
        found[name] = re.findall(r"^ +(gee-polygons .*)$", text.partition("Example:")[2], re.MULTILINE)
    return found


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="gee-polygons")


def test_every_command_has_an_example_of_its_own():
    found = examples()
    assert len(found) > 15
    assert not [name for name, lines in found.items() if not any(f"gee-polygons {name}" in line for line in lines)]


def test_all_examples_run(tmp_path, sample_archive, sample_sites, monkeypatch):
    root = sample_archive.parents[2]
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / root.name).symlink_to(root)
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    (work / "outputs").mkdir()
    shutil.copytree(root, work / "sample")
    frame = sample_sites.to_geodataframe().iloc[: len(IDS)]
    frame["site_id"] = [str(name) for name in IDS]
    frame["kind"] = ["restoration", "control"] * (len(IDS) // 2)
    frame["start_year"] = 2019
    for path in ("sites.geojson", "data/sample_sites.geojson"):
        frame.to_file(work / path)
    frame.to_parquet(work / "fields.parquet")
    sites = sites_from_geodataframe(frame)
    table = extract_embeddings(sites, years=range(2018, 2025), source="sample", keep=["kind"])
    for path in ("outputs/embeddings.parquet", "theirs.csv", "ours.parquet"):
        write_table(table, work / path)
    shutil.copy(sample_archive, work / "items.parquet")
    monkeypatch.chdir(work)
    monkeypatch.setenv("GEE_POLYGONS_CACHE", str(cache))
    found = examples()
    lines = [line for name in FIRST for line in found.pop(name)]
    lines += [line for name, some in found.items() if name not in ELSEWHERE for line in some]
    with serve(root) as server:
        monkeypatch.setenv("GEE_POLYGONS_MIRROR", f"{ARCHIVE}={server.url}/")
        for line in dict.fromkeys(lines):
            mirror = ("--index", f"{server.url}/v1/annual/aef_index.parquet") if "index build" in line else ()
            done = run(*shlex.split(line)[1:], *mirror)
            assert done.exit_code == 0, f"{line}\n{done.output}"


# --- for programs


@pytest.fixture
def table(tmp_path, sample_sites):
    found = extract_embeddings(sample_sites[:2], years=2024, source="sample")
    return write_table(found, tmp_path / "t.parquet")


def test_json_says_what_the_text_says(tmp_path, sample_sites, table):
    path = tmp_path / "sites.geojson"
    sample_sites[:2].to_geodataframe().to_file(path)
    told = json.loads(run("plan", path, "--years", "2023-2024", "--source", "sample", "--json").stdout)
    assert (told["sites"], told["years"]) == (2, [2023, 2024])
    (offer,) = told["sources"]
    assert (offer["source"], offer["available"], offer["site_years"], offer["blocks"]) == ("sample", True, 4, 8)
    told = json.loads(run("sources", "--json").stdout)
    assert told["default"] == "source-coop"
    assert {"sample", "mosaic", "earthengine"} <= {entry["source"] for entry in told["sources"]}
    assert "aef/v1-annual" in json.loads(run("datasets", "list", "--json").stdout)
    assert json.loads(run("datasets", "info", "aef/v1-annual", "--json").stdout)["bands"][63] == "A63"
    told = json.loads(run("audit", table, "--json").stdout)
    assert (told["n_rows"], told["is_clean"], told["findings"]) == (2, True, [])
    wrong = pd.read_parquet(table).drop(columns=["geometry", "bbox"], errors="ignore")
    wrong.loc[:, "A00":"A63"] = (wrong.loc[:, "A00":"A63"] * 100).round()
    wrong.to_parquet(tmp_path / "wrong.parquet")
    done = run("audit", tmp_path / "wrong.parquet", "--json")
    assert done.exit_code == 1
    assert "raw_codes" in {finding["code"] for finding in json.loads(done.stdout)["findings"]}


def test_the_shell_completes_commands_and_options():
    def completed(*words):
        done = subprocess.run(
            [sys.executable, "-m", "gee_polygons"], capture_output=True, text=True, check=False,
            env={"_GEE_POLYGONS_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["gee-polygons", *words]),
                 "COMP_CWORD": str(len(words)), "PATH": "", "PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        return {line.partition(",")[2] for line in done.stdout.splitlines()}

    assert {"extract", "probe"} <= completed("")
    assert "--strict" in completed("extract", "--st")

"""Folders that two processes write to at once, that cannot be written, or on a full disk: all or nothing, one line."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from gee_polygons.extract import extract_embeddings

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="capabilities and limits as Linux has them")

# runs commands as they come in, so that two processes begin with each at the same time
WORKER = """
import contextlib, ctypes, io, json, os, resource, struct, sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout

with ExitStack() as stack:
    if url := os.environ.get("EARTH"):
        from earthengine.client import connected
        stack.enter_context(connected(url))
    from gee_polygons.cli.main import main
    import gee_polygons.extract
    for line in sys.stdin:
        if line == "powerless\\n":  # root may write anywhere otherwise
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0
        elif line.startswith("limit "):  # bytes of a file; more are an error, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(line[6:]), resource.RLIM_INFINITY))
        else:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as shown:
                try:
                    main(json.loads(line))
                except SystemExit as exit:
                    status = exit.code
            print(json.dumps([status, shown.getvalue()]), flush=True)
"""


class Worker:
    """A process that runs commands."""

    def __init__(self, **env):
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, **{name: str(value) for name, value in env.items()}},
        )  # fmt: skip

    def begin(self, *arguments):
        self.tell(json.dumps([str(a) for a in arguments]))

    def tell(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self):
        """Return the exit status and what was written to standard error."""
        return json.loads(self.process.stdout.readline())

    def run(self, *arguments):
        self.begin(*arguments)
        return self.end()

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def start():
    workers = []

    def start(**env):
        workers.append(Worker(**env))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture(scope="module")
def inputs(sample_archive, sample_sites, tmp_path_factory):
    """A file of sites and a table of theirs."""
    folder = tmp_path_factory.mktemp("inputs")
    sample_sites[:4].to_geodataframe().to_file(folder / "s.geojson")
    sample_sites.to_geodataframe().to_file(folder / "all.geojson")
    extract_embeddings(sample_sites, source="sample", years=[2021, 2022, 2023]).to_parquet(folder / "t.parquet")
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def digests(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files(folder)}


def test_two_processes_write_to_one_place(start, inputs, sample_archive, tmp_path):
    """Whatever two processes write at once: the bytes that one alone writes, no temporary file, nothing lost."""
    what = [inputs / "s.geojson", "--years", "2023", "--source", sample_archive]
    build = ["index", "build", "gee-polygons/sample", "--index", sample_archive]
    table = {  # command; what another process does in the same place, if it isn't the same
        "t.parquet": (["extract", *what], None),
        "t.csv": (["extract", *what], None),
        "other.parquet": (["extract", *what], ["extract", *what, "--statistics", "p90"]),
        "copy": (["download", *what], None),
        "npy": (["download", *what, "--format", "npy"], None),
        "other": (["download", *what, "--format", "npy"], ["download", *what, "--format", "tif"]),
        "c.parquet": (build, None),
    }
    two = [start(), start()]
    for name, (command, another) in table.items():
        alone, shared = tmp_path / "alone" / name, tmp_path / "shared" / name
        shared.mkdir(parents=True)
        commands = [command, another or command]
        for worker, arguments in zip(two, commands, strict=True):
            worker.begin(*arguments, "-o", shared / name)
        ends = [worker.end() for worker in two]
        done = [i for i in range(2) if ends[i][0] == 0]
        assert done, (name, ends)
        assert done == [0, 1] or len(ends[1 - done[0]][1].splitlines()) == 1, (name, ends)
        same = False
        for i in done[: 1 if another is None else 2]:
            mine = alone / str(i)
            mine.mkdir(parents=True)
            assert two[i].run(*commands[i], "-o", mine / name)[0] == 0
            same = same or digests(mine) == digests(shared)
        assert same, (name, ends)


@pytest.fixture(scope="module")
def earth(tmp_path_factory):
    from earthengine.server import EarthEngineServer
    from earthengine.synthetic import standard_tiles

    with EarthEngineServer(standard_tiles(tmp_path_factory.mktemp("aef"))) as server:
        yield server


def test_two_processes_share_the_cache_of_earth_engine(start, earth, tmp_path):
    from earthengine.places import fields

    fields(12).to_geodataframe().to_file(tmp_path / "s.geojson")
    env = {"EARTH": earth.url, "GEE_POLYGONS_CACHE": tmp_path / "cache", "GEE_POLYGONS_SOURCE": "earthengine"}
    command = ["extract", tmp_path / "s.geojson", "--years", "2019-2021", "-o"]
    two = [start(**env), start(**env)]
    for i, worker in enumerate(two):
        worker.begin(*command, tmp_path / f"{i}.parquet")
    assert [worker.end() for worker in two] == [[0, ""], [0, ""]]
    n_requests = sum(entry.method == "POST" for entry in earth.log.entries())
    assert two[0].run(*command, tmp_path / "2.parquet") == [0, ""]  # nothing is lost: all of it was kept
    assert sum(entry.method == "POST" for entry in earth.log.entries()) == n_requests
    tables = [pd.read_parquet(tmp_path / f"{i}.parquet") for i in range(3)]
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other, check_exact=True)


# --- folders that can't be written


def commands(inputs, source):
    """Every command that writes, by the name of what it writes."""
    what = [inputs / "s.geojson", "--years", "2022,2023", "--source", source]
    table, sites = inputs / "t.parquet", ["--sites", inputs / "all.geojson"]
    return {
        **{f"t.{suffix}": ["extract", *what] for suffix in ("csv", "parquet", "gpkg")},
        "copy": ["download", *what],
        "npy": ["download", *what, "--format", "npy"],
        "i.parquet": ["index", "build", "gee-polygons/sample", "--index", source],
        "m.csv": ["similarity", table, "--by", "site", "--year", "2023"],
        "m.png": ["similarity", table, "--by", "site", "--year", "2023"],
        "h.gif": ["render", *what, "--site", "pasture-fast"],
        "c.csv": ["change", table],
        "r.csv": ["recovery", table, *sites],
        "r.html": ["report", table, *sites],
    }


def test_where_nothing_can_be_written_it_is_one_line(start, inputs, sample_archive, tmp_path):
    """A folder that is a file, a full disk, a read-only folder, and a home and a TMPDIR that aren't there."""
    (tmp_path / "file").write_text("")
    full, closed, good = tmp_path / "full", tmp_path / "closed", tmp_path / "good"
    for folder in (full, closed, good):
        folder.mkdir()
    closed.chmod(0o555)
    worker = start(HOME=closed / "home", TMPDIR=closed / "tmp", MPLCONFIGDIR="", XDG_CACHE_HOME="")
    worker.tell("powerless")
    written = commands(inputs, sample_archive)
    for folder in (tmp_path / "file", closed, full, good):
        worker.tell(f"limit {300 if folder is full else 2**40}")
        for name, command in written.items():
            status, shown = worker.run(*command, "-o", folder / name)
            if folder is good:
                assert (status, shown) == (0, ""), (name, shown)
                continue
            assert status == 1, (folder, name, shown)
            assert shown.startswith("error: can't write "), (folder, name, shown)
            assert len(shown.splitlines()) == 1, (folder, name, shown)
            assert len(shown) < 400, (folder, name, shown)
    assert set(files(full)) <= {"copy/download.json", "npy/download.json"}  # what a rerun goes on from
    assert files(closed) == []
    assert {path.name for path in good.iterdir()} >= {*written}
    assert not [name for name in files(good) if Path(name).name.startswith(".")]

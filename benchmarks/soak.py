"""Stops commands at random moments, runs them again, and compares with a run that nothing stopped.

    python -m benchmarks.soak [--kills 40] [--seed 0] [--signals KILL,TERM,INT] [--only extract,download]

Commands: an extraction and a download over HTTP with latency, the building of an index, datasets in this process and in
several, of which the command or a worker is stopped, and an extraction from the local Earth Engine of
tests/earthengine. A stopped command must end within some seconds, must not have finished as if nothing had happened,
and the next run must give the same bytes and leave no temporary file.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
COMMAND = "from gee_polygons.cli.main import main; main()"
# the same command with datasets in many small chunks
IN_CHUNKS = f"""
from gee_polygons.bulk import layout, run
layout.SIDE_PX, run.CHUNK_SITES, run._SMALL = 512, 40, 0
{COMMAND}
"""
# the same command, in a session with the local Earth Engine
ON_EARTH_ENGINE = f"""
import os
from earthengine.client import connected
with connected(os.environ["SOAK_EARTH_ENGINE"]):
    {COMMAND}
"""
ENDS_WITHIN_S = 20.0  # after a signal
SWALLOWED_AFTER_S = 1.0  # a command that goes on for longer and succeeds hasn't noticed its signal


@dataclass(frozen=True)
class Case:
    """A command, and the file or folder that it writes."""

    name: str
    arguments: tuple[str, ...]
    output: str
    code: str = COMMAND

    def start(self, folder: Path, env: dict[str, str]) -> subprocess.Popen[str]:
        """Start it in a folder."""
        # of Earth Engine what was computed is kept, so each folder has a cache of its own
        earth = {"GEE_POLYGONS_CACHE": str(folder / "cache"), "GEE_POLYGONS_SOURCE": "earthengine"}
        own = {**env, **(earth if self.code == ON_EARTH_ENGINE else {})}
        command = [sys.executable, "-c", self.code, *self.arguments]
        return subprocess.Popen(
            command, cwd=folder, env=own, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def run(self, folder: Path, env: dict[str, str]) -> str:
        """Run it to the end; return a digest of all that it wrote."""
        process = self.start(folder, env)
        message = process.communicate(timeout=300)[1]
        if process.returncode:
            raise RuntimeError(f"{self.name}: exit {process.returncode}: {message.strip()}")
        return self.digest(folder)

    def digest(self, folder: Path) -> str:
        """Return a digest of all that it wrote."""
        digest, place = hashlib.sha256(), folder / self.output
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
        return digest.hexdigest()


@contextmanager
def servers(work: Path) -> Iterator[dict[str, str]]:
    """Start the range server and the local Earth Engine; yield the environment of the commands."""
    from earthengine.server import EarthEngineServer
    from earthengine.synthetic import standard_tiles
    from rangeserver import serve

    from gee_polygons.sources.sample import build_sample_archive, write_sample_sites

    build_sample_archive(work / "sample", years=range(2020, 2024))
    write_sample_sites(work / "sites.geojson")
    (work / "ee").mkdir()
    with serve(work / "sample", latency_s=0.03) as files, EarthEngineServer(standard_tiles(work / "ee")) as earth:
        earth.faults.latency_s = 0.3
        yield {
            **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "SOAK_FILES": files.url,
            "SOAK_EARTH_ENGINE": earth.url, "GEE_POLYGONS_CACHE": str(work / "cache"),
        }  # fmt: skip


def cases(work: Path, files: str) -> list[Case]:
    """Return the commands."""
    from earthengine.places import fields

    index, sites = f"{files}/v1/annual/aef_index.parquet", str(work / "sites.geojson")
    write = work / "ee_sites.geojson"
    fields(40, seed=1).to_geodataframe().to_file(write)
    years = ("--years", "2020-2023")
    write_fields(work / "fields.parquet")
    dataset = ("extract", str(work / "fields.parquet"), *years, "--source", str(work / "sample" / "v1" / "annual"),
               "--statistics", "mean,p90", "-o", "d")  # fmt: skip
    return [
        Case("extract", ("extract", sites, *years, "--source", index, "--statistics", "mean,p90", "-o", "t.parquet"),
             "t.parquet"),
        Case("download", ("download", sites, *years, "--source", index, "-o", "copy"), "copy"),
        Case("download --format tif",
             ("download", sites, *years, "--source", index, "--format", "tif", "-o", "copy"), "copy"),
        Case("index build", ("index", "build", "gee-polygons/sample", "--index", index, "-o", "i.parquet"),
             "i.parquet"),
        Case("dataset", (*dataset, "--max-workers", "1"), "d", IN_CHUNKS),
        Case("dataset in processes", (*dataset, "--max-workers", "2"), "d", IN_CHUNKS),
        Case("dataset, a worker", (*dataset, "--max-workers", "2"), "d", IN_CHUNKS),
        Case("earthengine", ("extract", str(write), "--years", "2019-2021", "-o", "t.csv"), "t.csv", ON_EARTH_ENGINE),
    ]  # fmt: skip


def write_fields(path: Path) -> None:
    """Write some hundred fields over the tiles of the sample archive, many of them across blocks."""
    import geopandas
    import numpy as np
    import shapely

    from gee_polygons.sources.sample import sample_sites

    west, south, east, north = sample_sites().total_bounds
    rng = np.random.default_rng(0)
    places = shapely.points(rng.uniform(west, east, 600), rng.uniform(south, north, 600))
    shapes = shapely.buffer(places, rng.choice([0.001, 0.004], 600))
    geopandas.GeoDataFrame({"site_id": np.arange(600)}, geometry=shapes, crs=4326).to_parquet(path)


def victim_of(process: subprocess.Popen[str], case: Case, chance: random.Random) -> psutil.Process:
    """Return the process that is stopped: the command, or one of its workers if the case says so."""
    own = psutil.Process(process.pid)
    workers = own.children() if case.name.endswith("a worker") else []
    return chance.choice(workers) if workers else own


def temporary(folder: Path) -> list[Path]:
    """List what looks like a temporary file."""
    return [path for path in folder.rglob(".*") if path.suffixes and "cache" not in path.parts]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=40, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signals", default="KILL,TERM,INT")
    parser.add_argument("--only", default="", help="names of commands, comma-separated")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    chance, faults, counts = random.Random(asked.seed), [], Counter[str]()
    signals = [signal.Signals[f"SIG{name}"] for name in asked.signals.split(",")]
    work = Path(tempfile.mkdtemp(prefix="gee-polygons-soak-"))
    with servers(work) as env:
        chosen = [c for c in cases(work, env["SOAK_FILES"]) if not asked.only or c.name in asked.only.split(",")]
        truth, seconds = {}, {}
        for case in chosen:
            for name in ("warm", "whole"):
                (folder := work / f"{case.name} {name}").mkdir()
                began = time.monotonic()
                truth[case.name] = case.run(folder, env)
                seconds[case.name] = time.monotonic() - began
        for number in range(asked.kills):
            case, sent = chosen[number % len(chosen)], signals[number // len(chosen) % len(signals)]
            (folder := work / f"kill {number}").mkdir()
            after = chance.uniform(0.0, 1.05) * seconds[case.name]
            process = case.start(folder, env)
            time.sleep(after)
            with suppress(psutil.NoSuchProcess):
                victim_of(process, case, chance).send_signal(sent)
            began = time.monotonic()
            what = f"{number}: {case.name}, {sent.name} after {after:.2f} of {seconds[case.name]:.2f} s"
            try:
                message = process.communicate(timeout=ENDS_WITHIN_S * (6 if case.name.endswith("a worker") else 1))[1]
            except subprocess.TimeoutExpired:
                process.kill()
                message = process.communicate()[1]
                faults.append(f"{what}: still there after {ENDS_WITHIN_S:.0f} s: {message.strip()}")
            took = time.monotonic() - began
            status = "finished" if process.returncode == 0 else "stopped"
            if status == "finished" and not case.name.endswith("a worker") and took > SWALLOWED_AFTER_S:
                faults.append(f"{what}: went on for {took:.1f} s and finished: {message.strip()}")
            elif "Traceback" in message and "gee_polygons/cli" in message and "import" not in message:
                faults.append(f"{what}: a traceback: {message.strip()}")
            left = len(temporary(folder))
            counts[f"{case.name}, {sent.name}: {status}{', temporary file left' if left else ''}"] += 1
            try:
                if (folder / case.output).is_file() and case.output.startswith("t."):
                    # it had written its output, which must be whole, and isn't overwritten
                    if case.digest(folder) != truth[case.name]:
                        faults.append(f"{what}: left an output that isn't whole")
                    for written in folder.glob(f"{case.output}*"):
                        written.unlink()
                found = case.run(folder, env)
            except RuntimeError as error:
                faults.append(f"{what}: run again: {error}")
                continue
            if found != truth[case.name]:
                faults.append(f"{what}: run again, it gave other bytes")
            if still := temporary(folder):
                faults.append(f"{what}: run again, a temporary file is still there: {still[0].name}")
            shutil.rmtree(folder)
    shutil.rmtree(work, ignore_errors=True)
    for line, n in sorted(counts.items()):
        sys.stdout.write(f"{n:4}  {line}\n")
    for fault in faults:
        sys.stdout.write(f"WRONG  {fault}\n")
    sys.stdout.write(f"{asked.kills} interruptions, {len(faults)} wrong (seed {asked.seed})\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

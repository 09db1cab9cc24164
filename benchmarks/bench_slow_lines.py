"""Extraction over slow and shaky lines: the table and the share of the line's rate that is used.

python benchmarks/bench_slow_lines.py [--mb-s 0.1,0.5,1,4,50] [--latency-ms 20,800] [--loss 0.05] [--seconds 90]

10,000 fields lie on as many blocks as take about `--seconds` at the rate. A server of its own process,
tests/rangeserver.py on 127.0.0.1, shares its rate among all connections, answers each request after the latency, and
drops or silences a share of the requests. A tile has blocks of 1024 px (64 ranges of about 0.66 MB each) at the fastest
rate, of 256 px and 0.04 MB at the slow ones, where one large block alone takes ten minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyproj
import shapely

from benchmarks.tile import make_benchmark_tile
from gee_polygons.extract import extract_embeddings
from gee_polygons.network.request import Network
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog.index_file import index_row, write_index

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "bench_slow_lines"
WEST, SOUTH = 500_000.0, 7_500_000.0
SIZE = 4096
YEARS = list(range(2017, 2025))
N_FIELDS = 10_000


def archive(block: int) -> Path:
    """Make a tile (0.17 GB) and its index once."""
    folder = FOLDER / str(block)
    folder.mkdir(parents=True, exist_ok=True)
    tile, index = folder / "t.tiff", folder / "aef_index.parquet"
    if not tile.exists():
        make_benchmark_tile(tile, size=SIZE, block=block)
    if not index.exists():
        side = SIZE * 10.0
        bounds = (WEST, SOUTH, WEST + side, SOUTH + side)
        wgs84 = pyproj.Transformer.from_crs(32722, 4326, always_xy=True).transform_bounds(*bounds)
        for year in YEARS[1:]:  # the same bytes, requested for each year
            os.link(tile, folder / f"t{year}.tiff")
        names = ["t.tiff", *(f"t{year}.tiff" for year in YEARS[1:])]
        rows = [index_row("EPSG:32722", year, bounds, wgs84, name) for year, name in zip(YEARS, names, strict=True)]
        write_index(index, rows, {})
    return index


def fields(block: int, n_blocks: int) -> geopandas.GeoDataFrame:
    """10,000 fields of 15 ha in the first blocks, row by row."""
    chance = np.random.default_rng(0)
    across, side = SIZE // block, block * 10.0
    number = np.arange(N_FIELDS) * n_blocks // N_FIELDS
    x, y = (
        start + (index + 0.5) * side + chance.uniform(-0.5, 0.5, N_FIELDS) * (side - 500)
        for start, index in ((WEST, number % across), (SOUTH, number // across))
    )
    inverse = pyproj.Transformer.from_crs(32722, 4326, always_xy=True)
    circles = shapely.buffer(shapely.points(x, y), 218)
    circles = shapely.transform(circles, lambda xy: np.column_stack(inverse.transform(xy[:, 0], xy[:, 1])))
    return geopandas.GeoDataFrame({"site_id": range(N_FIELDS)}, geometry=circles, crs=4326)


class Server:
    """The range server in its own process."""

    def __init__(self, folder: Path, mb_s: float, latency_s: float, loss: float) -> None:
        command = [sys.executable, str(ROOT / "tests" / "rangeserver.py"), str(folder), "--latency", str(latency_s)]
        command += ["--rate", str(mb_s * 1e6), "--loss", str(loss)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def say(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def sent(self) -> int:
        """Bytes sent since the last call."""
        self.say()
        assert self._process.stdout is not None
        return int(self._process.stdout.readline().split()[2])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def run(mb_s: float, latency_s: float, loss: float, seconds: float, outage_s: float = 0.0) -> str:
    block = 1024 if mb_s >= 20 else 256
    index = archive(block)
    local = CogSource(str(index))
    total = (SIZE // block) ** 2
    ref = local.plan(fields(block, total).geometry[:1], YEARS[:1]).jobs[0].reads[0]
    size = sum(local._tiles[ref.tile, ref.year].ranges(ref, range(64)).lengths)
    wanted = max(2, round(mb_s * 1e6 * seconds / size))
    years = YEARS[: -(-wanted // total)]
    n_blocks = min(wanted // len(years), total)
    frame = fields(block, n_blocks)
    expected = extract_embeddings(frame, source=local, years=years)
    server = Server(index.parent, mb_s, latency_s, loss)
    try:
        source = CogSource(f"{server.url}/{index.name}", network=Network())
        source.plan(frame.geometry[:1], years)  # the index and the header
        requests, needed = source.cost_of(source.plan(frame.geometry, years))
        server.sent()
        if outage_s:
            threading.Timer(seconds / 3, lambda: server.say(f"outage {outage_s}")).start()
        began, cpu = time.perf_counter(), time.process_time()
        try:
            table = extract_embeddings(frame, source=source, years=years)
            pd.testing.assert_frame_equal(table, expected, check_exact=True)
            same = "same table"
        except Exception as error:
            same = f"FAILED: {error}"
        took = time.perf_counter() - began
        share = needed / took / (mb_s * 1e6)
        return (
            f"{mb_s:5g} MB/s {latency_s * 1e3:4.0f} ms {loss:4.0%} lost, outage {outage_s:2.0f} s: "
            f"{n_blocks * len(years):3d} blocks, {requests:5d} requests, {needed / 1e6:7.1f} MB "
            f"in {took:6.1f} s = {share:4.0%} of the line, {time.process_time() - cpu:.1f} s of CPU, "
            f"{server.sent() / needed:.2f} x the bytes, load average {os.getloadavg()[0]:.1f}; {same}"
        )
    finally:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb-s", default="0.1,0.5,1,4,50")
    parser.add_argument("--latency-ms", default="20,800")
    parser.add_argument("--loss", type=float, default=0.05)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--outages-s", default="3,10,60")
    options = parser.parse_args()
    for mb_s in map(float, options.mb_s.split(",")):
        for latency in map(float, options.latency_ms.split(",")):
            print(run(mb_s, latency / 1e3, options.loss, options.seconds), flush=True)
    for outage in map(float, filter(None, options.outages_s.split(","))):
        print(run(4.0, 0.02, options.loss, options.seconds, outage), flush=True)


if __name__ == "__main__":
    main()

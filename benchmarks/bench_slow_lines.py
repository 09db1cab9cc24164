"""Extraction over slow and shaky lines: the table and the share of the line's rate that is used.

python benchmarks/bench_slow_lines.py [--mb-s 0.1,0.5,1,4,50] [--latency-ms 20,800] [--loss 0.05] [--seconds 30]

A server of its own process, tests/rangeserver.py on 127.0.0.1, shares its rate among all connections, answers each
request after the latency, and drops or silences a share of the requests. It serves as many blocks as take about
`--seconds` at the rate, of one tile with blocks of 1024 px (64 ranges of about 0.66 MB each at the fastest rate, blocks
of 256 px and 0.04 MB at the slow ones, where one large block alone takes ten minutes).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyproj
import shapely

from gee_polygons.extract import extract_embeddings
from gee_polygons.network.request import Network
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog.index_file import index_row, write_index
from gee_polygons.sources.sample import make_benchmark_tile

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "bench_slow_lines"
WEST, SOUTH = 500_000.0, 7_500_000.0
SIZE = 4096
YEARS = (2022, 2023, 2024)


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


def fields(block: int, n_blocks: int, per_block: int) -> Any:
    """Fields of 15 ha in the middle of the first blocks, row by row."""
    chance = np.random.default_rng(0)
    across, side = SIZE // block, block * 10.0
    number = np.repeat(np.arange(n_blocks), per_block)
    x, y = (
        start + (index + 0.5) * side + chance.uniform(-0.4, 0.4, len(number)) * max(side - 500, 0)
        for start, index in ((WEST, number % across), (SOUTH, number // across))
    )
    inverse = pyproj.Transformer.from_crs(32722, 4326, always_xy=True)
    circles = shapely.buffer(shapely.points(x, y), 218)
    return shapely.transform(circles, lambda xy: np.column_stack(inverse.transform(xy[:, 0], xy[:, 1])))


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
    per_block = 1 if block == 256 else 10
    everything = fields(block, (SIZE // block) ** 2, per_block)
    ref = local.plan(everything[:1], YEARS[:1]).jobs[0].reads[0]
    size = sum(local._tiles[ref.tile, ref.year].ranges(ref, range(64)).lengths)
    n_blocks = min(max(2, int(mb_s * 1e6 * seconds / size)), (SIZE // block) ** 2)
    chosen = everything[: n_blocks * per_block]
    years = YEARS[: max(1, round(mb_s * 1e6 * seconds / size / n_blocks))]
    frame = geopandas.GeoDataFrame({"site_id": range(len(chosen))}, geometry=chosen, crs=4326)
    expected = extract_embeddings(frame, source=local, years=list(years))
    server = Server(index.parent, mb_s, latency_s, loss)
    try:
        source = CogSource(f"{server.url}/{index.name}", network=Network())
        source.plan(chosen[:1], list(years))  # the index and the header
        requests, needed = source.cost_of(source.plan(chosen, list(years)))
        server.sent()
        if outage_s:
            threading.Timer(seconds / 3, lambda: server.say(f"outage {outage_s}")).start()
        began, cpu = time.perf_counter(), time.process_time()
        try:
            table = extract_embeddings(frame, source=source, years=list(years))
            pd.testing.assert_frame_equal(table, expected, check_exact=True)
            same = "same table"
        except Exception as error:
            same = f"FAILED: {error}"
        took = time.perf_counter() - began
        share = needed / took / (mb_s * 1e6)
        return (
            f"{mb_s:5g} MB/s {latency_s * 1e3:4.0f} ms {loss:4.0%} lost, outage {outage_s:2.0f} s: {len(chosen):5d} "
            f"fields, {n_blocks * len(years):3d} blocks, {requests:5d} requests, {needed / 1e6:7.1f} MB "
            f"in {took:6.1f} s = {share:4.0%} of the line, {time.process_time() - cpu:.1f} s of CPU, "
            f"{server.sent() / needed:.2f} x the bytes; {same}"
        )
    finally:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb-s", default="0.1,0.5,1,4,50")
    parser.add_argument("--latency-ms", default="20,200,800")
    parser.add_argument("--loss", type=float, default=0.05)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--outages-s", default="3,10,60")
    options = parser.parse_args()
    for mb_s in map(float, options.mb_s.split(",")):
        for latency in map(float, options.latency_ms.split(",")):
            print(run(mb_s, latency / 1e3, options.loss, options.seconds), flush=True)
    for outage in map(float, filter(None, options.outages_s.split(","))):
        print(run(4.0, 0.02, options.loss, options.seconds, outage), flush=True)


if __name__ == "__main__":
    main()

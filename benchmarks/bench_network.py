"""Reading over HTTP with a latency per request, beside GDAL (with the settings its users recommend) and async-geotiff.

python benchmarks/bench_network.py [--latency 0.04] [--rounds 5]

The server is tests/rangeserver.py in a process of its own, on loopback; it shares the machine's cores with the
readers. Requests and bytes are counted by the server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyproj
import rasterio
import rasterio.windows
import shapely

from benchmarks.tile import make_benchmark_tile
from gee_polygons.collection import build_from_table
from gee_polygons.extract import extract_embeddings
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog.index_file import index_row, write_index

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "bench_network"
WEST, SOUTH, SIZE, BLOCK = 500_000.0, 7_500_000.0, 4096, 1024
TUNED: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": 98304,
    "GDAL_CACHEMAX": 512,
    "VSI_CACHE": True,
}
GDAL = "  GDAL, tuned, 8 threads, opened anew"
GROUPED = "  GDAL, the same, fields grouped by block"
ASYNC = "  async-geotiff, header kept"


def archive() -> Path:
    """Make the tile (0.17 GB) and its index once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    tile, index = FOLDER / "t.tiff", FOLDER / "aef_index.parquet"
    if not tile.exists():
        make_benchmark_tile(tile, size=SIZE, block=BLOCK)
    if not index.exists():
        side = SIZE * 10.0
        bounds = (WEST, SOUTH, WEST + side, SOUTH + side)
        wgs84 = pyproj.Transformer.from_crs(32722, 4326, always_xy=True).transform_bounds(*bounds)
        write_index(index, [index_row("EPSG:32722", 2024, bounds, wgs84, "t.tiff")], {})
    return index


class Server:
    """The range server in its own process."""

    def __init__(self, folder: Path, latency: float) -> None:
        command = [sys.executable, str(ROOT / "tests" / "rangeserver.py"), str(folder), "--latency", str(latency)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def counts(self) -> list[int]:
        """Return requests, data requests, bytes and most at once since the last call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [int(number) for number in self._process.stdout.readline().split()]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def to_degrees(geometry: Any) -> Any:
    inverse = pyproj.Transformer.from_crs(32722, 4326, always_xy=True)
    return shapely.transform(geometry, lambda xy: np.column_stack(inverse.transform(xy[:, 0], xy[:, 1])))


def fields() -> tuple[list[Any], geopandas.GeoDataFrame]:
    """50 fields of 3-20 ha in 8 blocks."""
    chance = np.random.default_rng(0)
    chosen = chance.choice(16, 8, replace=False)
    shapes = []
    for i in range(50):
        row, col = divmod(int(chosen[i * 8 // 50]), 4)  # block by block, so that readers with a cache profit
        x, y = WEST + col * 10_240 + chance.uniform(300, 9900), SOUTH + row * 10_240 + chance.uniform(300, 9900)
        shapes.append(shapely.Point(x, y).buffer(chance.uniform(100, 250)))
    frame = geopandas.GeoDataFrame({"site_id": range(50)}, geometry=[to_degrees(s) for s in shapes], crs=4326)
    return shapes, frame


def peak_mb(reset: bool = False) -> float:
    """Peak resident memory since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def process_mb() -> str:
    """Resident memory now: all, and what of it is private (the rest are the libraries' files)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    total, private = (int(lines[name].split()[0]) / 1e3 for name in ("VmRSS", "RssAnon"))
    return f"{total:.0f} MB, {private:.0f} MB of them private"


def gdal_window(url: str, boxes: list[tuple[float, float, float, float]], threads: int = 8) -> None:
    """Read windows with rasterio: bands dealt to threads, each with its own handle."""

    def some(part: int) -> None:
        with rasterio.Env(**TUNED), rasterio.open(f"/vsicurl/{url}") as data:
            for west, south, east, north in boxes:
                rows = int((south - SOUTH) // 10), int((north - SOUTH) // 10) + 1  # south-up
                cols = int((west - WEST) // 10), int((east - WEST) // 10) + 1
                window = rasterio.windows.Window(cols[0], rows[0], cols[1] - cols[0], rows[1] - rows[0])
                data.read(list(range(1 + part, 65, threads)), window=window)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(threads)))


def async_geotiff(folder_url: str) -> Callable[[list[tuple[float, float, float, float]]], None] | None:
    """Return a function that reads windows one after the other with async-geotiff; None where it isn't installed."""
    try:
        from async_geotiff import GeoTIFF, Window
    except ImportError:
        print("async-geotiff isn't installed: pip install async-geotiff")
        return None
    from obstore.store import HTTPStore

    store = HTTPStore(folder_url, client_options={"allow_http": True})
    tile = asyncio.run(GeoTIFF.open("t.tiff", store=store, prefetch=96 * 1024))

    async def read(boxes: list[tuple[float, float, float, float]]) -> None:
        for west, south, east, north in boxes:
            rows = int((south - SOUTH) // 10), int((north - SOUTH) // 10) + 1  # south-up
            cols = int((west - WEST) // 10), int((east - WEST) // 10) + 1
            window = Window(col_off=cols[0], row_off=rows[0], width=cols[1] - cols[0], height=rows[1] - rows[0])
            await tile.read(window=window)

    return lambda boxes: asyncio.run(read(boxes))


def by_block(shapes: list[Any]) -> list[tuple[float, float, float, float]]:
    """Bounds of the fields of each block: what somebody reads who groups fields by block."""
    groups: dict[tuple[int, int], list[Any]] = {}
    for shape in shapes:
        place = int((shape.centroid.x - WEST) // 10_240), int((shape.centroid.y - SOUTH) // 10_240)
        groups.setdefault(place, []).append(shape)
    return [shapely.union_all(group).bounds for group in groups.values()]


def measure(name: str, server: Server, rounds: int, work: Callable[[], Any]) -> None:
    times, counts = [], [0, 0, 0, 0]
    base = peak_mb(reset=True)
    for _ in range(rounds):
        server.counts()
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
        counts = server.counts()
    print(
        f"{name:<44} {statistics.median(times):6.3f} s (best {min(times):.3f})  {counts[0]:4d} requests "
        f"{counts[2] / 1e6:7.1f} MB  {counts[3]:3d} at once  +{peak_mb() - base:.0f} MB memory",
        flush=True,
    )


def hundred(server: Server, folder: Path) -> Callable[[], Any]:
    """A hundred tiles (links to one)."""
    names = []
    for i in range(100):
        name = folder / f"h{i}.tiff"
        if not name.exists():
            os.link(folder / "t.tiff", name)
        names.append(name.name)
    table = pa.table({"path": names, "year": [2024] * 100, "crs": ["EPSG:32722"] * 100,
                      "bbox": [[-51.0, -22.6, -50.6, -22.2]] * 100})  # fmt: skip
    return lambda: build_from_table(table, base=server.url, path=folder / "c.parquet", force=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.04)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    index = archive()
    server = Server(index.parent, options.latency)
    try:
        source = CogSource(f"{server.url}/{index.name}")
        shapes, frame = fields()
        one = shapely.box(WEST + 3000, SOUTH + 3000, WEST + 7000, SOUTH + 7000)
        four = shapely.box(WEST + 8240, SOUTH + 8240, WEST + 12_240, SOUTH + 12_240)
        extract_embeddings(frame[:5], source=source, years=2024)  # warm: headers, compiled kernels
        noise = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        print(f"the process before anything is measured: {process_mb()}")
        print(f"{noise}, latency {options.latency * 1e3:.0f} ms, blocks of 0.66 MB (published: 0.44)")
        url, rounds = f"{server.url}/t.tiff", options.rounds
        peer = async_geotiff(server.url)
        region = to_degrees(one)
        measure("400 x 400 px in one block, 64 bands", server, rounds, lambda: source.image(region, 2024))
        measure(GDAL, server, 2, lambda: gdal_window(url, [one.bounds]))
        if peer:
            measure(ASYNC, server, 2, lambda: peer([one.bounds]))
        across = to_degrees(four)
        measure("400 x 400 px over four blocks, 64 bands", server, rounds, lambda: source.image(across, 2024))
        measure(GDAL, server, 2, lambda: gdal_window(url, [four.bounds]))
        if peer:
            measure(ASYNC, server, 2, lambda: peer([four.bounds]))
        reduce = {"source": source, "years": 2024}
        measure("50 fields in 8 blocks", server, rounds, lambda: extract_embeddings(frame, **reduce))
        measure(GDAL, server, 1, lambda: gdal_window(url, [s.bounds for s in shapes]))
        measure(GROUPED, server, 2, lambda: gdal_window(url, by_block(shapes)))
        if peer:
            measure(ASYNC, server, 1, lambda: peer([s.bounds for s in shapes]))
            measure(ASYNC + ", grouped by block", server, 2, lambda: peer(by_block(shapes)))
        measure("a collection of 100 tiles", server, 3, hundred(server, index.parent))
    finally:
        server.close()
        for path in FOLDER.glob("h*.tiff"):
            path.unlink()


if __name__ == "__main__":
    main()

"""Runs over many fields: seconds a field, fixed cost, memory of all processes, share of `extract_embeddings` rate.

python benchmarks/bench_bulk.py --fields 10000,100000,1000000 [--tiles 1] [--workers 2] [--engine local]
python benchmarks/bench_bulk.py --fields 1170000 --tiles 24       # Iowa: 3.5 million field-years

Fields of 14 ha lie over tiles of 8192 x 8192 pixels, three years of each: hard links to one made tile, whose place and
header the index states. Needs psutil; memory is measured from outside, as PSS (RSS where the system has none).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.tile import make_benchmark_tile  # noqa: E402
from gee_polygons.sources.cog.header import header_of, open_tiles  # noqa: E402

FOLDER = ROOT / "build" / "bench_bulk"
YEARS = (2023, 2024, 2025)
CRS, WEST, NORTH = "EPSG:32615", 300_000.0, 4_700_000.0
AREA_M2 = 140_000
CALL = """
import json, sys, time
from gee_polygons import extract_embeddings, extract_to_parquet, load_sites
how = json.loads(sys.argv[1])
started = time.perf_counter()
if how.pop("whole"):
    rows = len(extract_embeddings(load_sites(how["sites"]), years=how["years"], source=how["source"], progress=False))
else:
    run = extract_to_parquet(how.pop("sites"), progress=False, **how)
    assert run.is_complete, run.failures[:3]
    rows = run.rows
print(json.dumps([rows, time.perf_counter() - started]))
"""


def make_archive(folder: Path, size: int, block: int, across: int, down: int) -> Path:
    """Link tiles to one made tile, and write an index with each one's place and header."""
    folder.mkdir(parents=True, exist_ok=True)
    made, index = folder / "made.tiff", folder / "index.parquet"
    if index.exists():
        return index
    make_benchmark_tile(made, size=size, block=block)
    header = header_of(open_tiles([(str(made), YEARS[0])])[0])
    degrees = pyproj.Transformer.from_crs(CRS, 4326, always_xy=True)
    rows = []
    for year in YEARS:
        for i, j in np.ndindex(across, down):
            west, north = WEST + i * size * 10, NORTH - j * size * 10
            box = (west, north - size * 10, west + size * 10, north)
            path = folder / f"{year}_{i}_{j}.tiff"
            path.unlink(missing_ok=True)
            os.link(made, path)
            corner = (-10.0, north) if header["transform"][4] < 0 else (10.0, box[1])
            rows.append(
                {"crs": CRS, "year": year, "path": str(path)}
                | dict(zip((f"utm_{side}" for side in ("west", "south", "east", "north")), box, strict=True))
                | dict(
                    zip(
                        (f"wgs84_{side}" for side in ("west", "south", "east", "north")),
                        degrees.transform_bounds(*box),
                        strict=True,
                    )
                )
                | {"header": {**header, "crs": CRS, "transform": (10.0, 0.0, west, 0.0, *corner)}}
            )
    pq.write_table(pa.Table.from_pylist(rows), index)
    return index


def make_fields(path: Path, n: int, width_m: float, height_m: float) -> Path:
    """Write n round fields in random order over the tiles, as GeoParquet."""
    if path.exists():
        return path
    rng = np.random.default_rng(1)
    degrees = pyproj.Transformer.from_crs(CRS, 4326, always_xy=True)
    across = round(np.sqrt(n * width_m / height_m))
    down = -(-n // across)
    place = rng.permutation(across * down)[:n]
    x = WEST + (place % across + 0.5 + rng.uniform(-0.2, 0.2, n)) * width_m / across
    y = NORTH - (place // across + 0.5 + rng.uniform(-0.2, 0.2, n)) * height_m / down
    radius = np.sqrt(AREA_M2 * rng.lognormal(-0.1, 0.4, n).clip(0.02, 3) / np.pi)
    angle = np.linspace(0, 2 * np.pi, 41)
    parts = []
    for first in range(0, n, 100_000):
        rows = slice(first, first + 100_000)
        lon, lat = degrees.transform(
            x[rows, None] + radius[rows, None] * np.cos(angle), y[rows, None] + radius[rows, None] * np.sin(angle)
        )
        parts.append(shapely.polygons(np.stack([lon, lat], axis=-1)))
    frame = geopandas.GeoDataFrame({"site_id": np.arange(n)}, geometry=np.concatenate(parts), crs=4326)
    frame.to_parquet(path)
    return path


def measured(**how: object) -> tuple[int, float, float]:
    """Make a call in another process; return rows, seconds and the peak memory of all its processes in MB."""
    import psutil

    process = subprocess.Popen(
        [sys.executable, "-c", CALL, json.dumps(how)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while not done.wait(0.2):
            total = 0
            try:
                for each in (root, *root.children(recursive=True)):
                    memory = each.memory_full_info()
                    total += getattr(memory, "pss", memory.rss)
            except psutil.Error:
                continue
            peak = max(peak, total / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"the call failed: {how}")
    rows, seconds = json.loads(said)
    return rows, seconds, peak


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fields", default="10000,100000,1000000")
    parser.add_argument("--tiles", type=int, default=1)
    parser.add_argument("--size", type=int, default=8192, help="pixels of a tile's side")
    parser.add_argument("--block", type=int, default=1024, help="pixels of a block's side")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--engine", default="local")
    asked = parser.parse_args()
    across = max(i for i in range(1, int(asked.tiles**0.5) + 1) if asked.tiles % i == 0)
    down = asked.tiles // across
    folder = FOLDER / f"{asked.tiles}_{asked.size}_{asked.block}"
    index = make_archive(folder, asked.size, asked.block, across, down)
    common = {"years": list(YEARS), "source": str(index)}
    print(f"{asked.tiles} tiles of {asked.size} px x {len(YEARS)} years, {asked.workers} workers, {asked.engine}\n")
    print("| fields | call | s | ms a field-year | MB, all processes |\n|---:|---|---:|---:|---:|")
    for n in [10, *map(int, asked.fields.split(","))]:
        sites = make_fields(folder / f"fields_{n}.parquet", n, across * asked.size * 10, down * asked.size * 10)
        for whole in (False, True) if n == 10_000 else (False,):
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            how = {} if whole else {"path": str(out), "engine": asked.engine, "max_workers": asked.workers}
            rows, seconds, peak = measured(sites=str(sites), whole=whole, **common, **how)
            call = "extract_embeddings" if whole else "extract_to_parquet"
            print(f"| {n:,} | {call} | {seconds:.1f} | {1e3 * seconds / rows:.3f} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()

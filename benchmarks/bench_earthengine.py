"""Earth Engine: how many requests, bytes and seconds an extraction takes, with a latency per request.

PYTHONPATH=.:tests python benchmarks/bench_earthengine.py [--latency 0.2] [--write benchmarks/EARTHENGINE_RESULTS.md]

The service is tests/earthengine in a process of its own, over the real `ee` client; it counts the requests. It shares
the machine's cores with the client, and its own computing is part of the seconds. Each line begins with an empty cache
unless it says otherwise.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import ee
import numpy as np
import pyproj
import shapely
from earthengine.client import connected
from earthengine.synthetic import write_aef_tile

from gee_polygons import extract_embeddings
from gee_polygons.alphaearth import ALPHA_EMBEDDINGS
from gee_polygons.datasets.alpha_embeddings import EMBEDDING_BANDS
from gee_polygons.site import Site, SiteCollection
from gee_polygons.sources.earthengine import EarthEngineSource

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "bench_earthengine"
YEARS = range(2018, 2025)
SIZE, NORTH = 256, 7_502_560.0
WEST = {32721: 700_000.0, 32722: 700_000.0, 32723: 300_000.0}


def archive() -> Path:
    """Write a tile of 2.56 km per zone and year, once."""
    tiles = FOLDER / "tiles"
    if not tiles.exists():
        for epsg, west in WEST.items():
            for year in YEARS:
                write_aef_tile(FOLDER / "making", year, epsg, west, NORTH, (SIZE, SIZE), block=64)
        (FOLDER / "making").rename(tiles)
    return tiles


def sites(n: int, vertices: int = 60) -> SiteCollection:
    """Sites of 1 to 20 ha, dealt to three zones."""
    chance = np.random.default_rng(n)
    found = []
    for i in range(n):
        epsg = list(WEST)[i % len(WEST)]
        radius = np.sqrt(np.exp(chance.uniform(np.log(1e4), np.log(2e5))) / np.pi)
        x, y = chance.uniform((WEST[epsg] + 300, NORTH - 2_260), (WEST[epsg] + 2_260, NORTH - 300))
        angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
        reach = radius * (1 + 0.1 * chance.standard_normal(vertices).clip(-2, 2))
        ring = np.column_stack([x + reach * np.cos(angle), y + reach * np.sin(angle)])
        to = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
        shape = shapely.make_valid(shapely.transform(shapely.Polygon(ring), to.transform, interleaved=False))
        found.append(Site(polygon=max(shapely.get_parts(shape), key=shapely.area), site_id=i))
    return SiteCollection(found)


class Server:
    """The local service in its own process."""

    def __init__(self, tiles: Path, latency: float) -> None:
        command = [sys.executable, "-m", "earthengine", "--tiles", str(tiles), "--latency", str(latency)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT / "tests")
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def tell(self, orders: dict[str, Any], path: str = "/control") -> None:
        request = Request(self.url + path, json.dumps(orders).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            answer.read()

    def log(self) -> list[dict[str, Any]]:
        """Return the requests since the last call."""
        with urlopen(self.url + "/control/log", timeout=30) as answer:
            found = [e for e in json.load(answer) if e["endpoint"] not in ("discovery", "algorithms")]
        self.tell({}, "/control/clear-log")
        return found

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def one_request_per_site(some: SiteCollection) -> None:
    """Reduce as is usual: a loop over sites and years, `reduceRegion(...).getInfo()` in each."""
    for site in some:
        for year in YEARS:
            image = ee.ImageCollection(ALPHA_EMBEDDINGS.collection_id).filterDate(f"{year}-01-01", f"{year + 1}-01-01")
            crs = f"EPSG:{list(WEST)[int(site.site_id) % len(WEST)]}"
            image.filterBounds(site.geometry).mosaic().reduceRegion(
                reducer=ee.Reducer.mean(), geometry=site.geometry, scale=10, crs=crs, maxPixels=1e9
            ).getInfo()


class Report:
    """Lines of a table, printed as they come."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lines = ["|  | seconds | requests | refused | MB sent | most at once |", "|---|---:|---:|---:|---:|---:|"]
        print("\n".join(self.lines))

    def measure(self, name: str, work: Callable[[], Any], *, fresh: bool = True) -> Any:
        if fresh:
            shutil.rmtree(os.environ["GEE_POLYGONS_CACHE"], ignore_errors=True)
        self.server.log()
        began = time.perf_counter()
        found = work()
        seconds = time.perf_counter() - began
        log = self.server.log()
        refused = sum(not 200 <= e["status"] < 300 for e in log)
        line = (
            f"| {name} | {seconds:.1f} | {len(log)} | {refused} | {sum(e['bytes_in'] for e in log) / 1e6:.2f} "
            f"| {max((e['at_once'] for e in log), default=0)} |"
        )
        print(line, flush=True)
        self.lines.append(line)
        return found


def run(server: Server) -> list[str]:
    report = Report(server)
    fifty, thousand = sites(50), sites(1_000)
    whole: dict[str, Any] = {"years": YEARS, "source": "earthengine"}
    extract_embeddings(fifty[:2], years=2020, source=EarthEngineSource(cache=False))  # warm
    table = report.measure("50 sites x 7 years, 3 zones", lambda: extract_embeddings(fifty, **whole))
    report.measure("the same again", lambda: extract_embeddings(fifty, **whole), fresh=False)
    report.measure("10 of them, a request per site and year", lambda: one_request_per_site(fifty[:10]))
    several = {**whole, "statistics": ["mean", "median", "p90"]}
    pixels = report.measure("50 x 7, mean, median and p90", lambda: extract_embeddings(fifty, **several))
    report.measure("1,000 sites x 7 years", lambda: extract_embeddings(thousand, **whole))
    report.measure("the same again", lambda: extract_embeddings(thousand, **whole), fresh=False)
    server.tell({"memory_limit": 66 * 40_000})
    report.measure("50 x 7, a memory limit of 40,000 pixel-years", lambda: extract_embeddings(fifty, **whole))
    server.tell({"memory_limit": None, "fail_randomly": {"rate": 0.2, "seed": 1}})
    shaky = report.measure("50 x 7, every fifth request failing", lambda: extract_embeddings(fifty, **whole))
    assert shaky.equals(table)
    means = pixels[[f"{band}_mean" for band in EMBEDDING_BANDS]].to_numpy()
    difference = np.abs(table[EMBEDDING_BANDS].to_numpy() - means).max()
    report.lines.append(f"\nLargest difference of a mean by the server from the exact one: {difference:.1e}.")
    print(report.lines[-1])
    return report.lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--write", type=Path, help="Markdown file to write.")
    options = parser.parse_args()
    os.environ["GEE_POLYGONS_CACHE"] = str(FOLDER / "cache")
    server = Server(archive(), options.latency)
    busy = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores when this began"
    said = f"{dt.date.today()}; {options.latency * 1e3:.0f} ms per request; {busy}; ee {ee.__version__}."
    print(said)
    try:
        with connected(server.url):
            lines = run(server)
    finally:
        server.close()
    if options.write:
        intro = " ".join(line.strip() for line in __doc__.split("\n\n")[2].splitlines())
        text = "\n".join(["# Earth Engine: requests and seconds", "", intro, "", said, "", *lines, ""])
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

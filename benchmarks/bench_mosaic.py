"""The mosaic beside the archive on the same ground: how far their means lie apart, and what each costs over HTTP.

python benchmarks/bench_mosaic.py [--sites 300]

The ground is the sample archive's; the mosaic is made of it as the published one was made of the tiles (nearest pixel,
codes averaged where tiles overlap). Both are served by tests/rangeserver.py, with 40 ms a request.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import shapely

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from rangeserver import serve  # noqa: E402
from resampled import write  # noqa: E402

from gee_polygons.alphaearth import BANDS  # noqa: E402
from gee_polygons.extract import extract_embeddings  # noqa: E402
from gee_polygons.sources.cog import CogSource  # noqa: E402
from gee_polygons.sources.mosaic import MosaicSource  # noqa: E402
from gee_polygons.sources.sample import build_sample_archive  # noqa: E402

FOLDER = ROOT / "build" / "bench_mosaic"
SIDES_M = (5, 10, 30, 100, 200, 400)  # of square sites
YEAR = 2024


def squares(side_m: float, n: int, rng: np.random.Generator) -> geopandas.GeoDataFrame:
    """Return turned squares at random places of the sample's ground, across its zones' boundary too."""
    lon, lat = rng.uniform(-48.040, -47.985, n), rng.uniform(-22.352, -22.336, n)
    turn = rng.uniform(0, np.pi / 2, n)[:, None] + np.pi / 2 * np.arange(4) + np.pi / 4
    x = lon[:, None] + side_m / np.sqrt(2) * np.cos(turn) / (111_320 * np.cos(np.radians(22.345)))
    y = lat[:, None] + side_m / np.sqrt(2) * np.sin(turn) / 110_740
    polygons = shapely.polygons(np.stack([x, y], axis=-1))
    return geopandas.GeoDataFrame({"site_id": np.arange(n)}, geometry=polygons, crs=4326)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=300, help="of each size")
    asked = parser.parse_args()
    index = build_sample_archive(FOLDER / "archive", years=[YEAR])
    store = FOLDER / "archive" / "mosaic.zarr"
    if not store.exists():
        write(store, index, years=(YEAR,))
    rng = np.random.default_rng(0)
    print("| side of a square site | sites | cosine: median | 5 % have less than | least |")
    print("|---:|---:|---:|---:|---:|")
    for side in SIDES_M:
        sites = squares(side, asked.sites, rng)
        tables = [extract_embeddings(sites, years=YEAR, source=source) for source in (str(index), str(store))]
        one, other = (table[list(BANDS)].to_numpy() for table in tables)
        cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        cosine = cosine[np.isfinite(cosine)]  # not in the reservoir
        shown = " | ".join(f"{v:.5f}" for v in (np.median(cosine), np.quantile(cosine, 0.05), cosine.min()))
        print(f"| {side} m | {len(cosine)} | {shown} |")

    print("\n| 50 sites of 4 ha, 40 ms a request | plan: requests | plan: MB | requests | MB | seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    sites = squares(200, 50, rng)
    with serve(index.parents[2], latency_s=0.04) as server:
        for name, source in (
            ("tiles", CogSource(f"{server.url}/v1/annual/aef_index.parquet")),
            ("mosaic", MosaicSource(f"{server.url}/mosaic.zarr")),
        ):
            plan = source.plan(sites.geometry.to_numpy(), [YEAR])
            server.reset()
            start = time.perf_counter()
            extract_embeddings(sites, years=YEAR, source=source)
            seconds = time.perf_counter() - start
            print(
                f"| {name} | {plan.requests} | {plan.bytes / 1e6:.1f} | {server.requests} | {server.sent / 1e6:.1f} "
                f"| {seconds:.2f} |"
            )


if __name__ == "__main__":
    main()

"""Writes one big synthetic tile with the statistics of real ones."""

from __future__ import annotations

from pathlib import Path

from gee_polygons.sources.sample import write_tile
from gee_polygons.sources.sample.archive import SYNTHETIC
from gee_polygons.sources.sample.landscape import PIXEL_M, Landscape
from gee_polygons.sources.sample.scene import outline
from gee_polygons.version import package_version
from gee_polygons.zonal.grid import Grid

CRS, WEST, SOUTH = "EPSG:32722", 500_000.0, 7_500_000.0
LON, LAT = -51.0, -22.6


def make_benchmark_tile(
    path: Path | str,
    size: int = 4096,
    block: int = 1024,
    seed: int = 0,
    *,
    year: int = 2024,
    south_up: bool = True,
    max_workers: int | None = None,
) -> Path:
    """Write one tile in EPSG:32722, its western and southern edges at 500,000 m E and 7,500,000 m N.

    Parameters
    ----------
    path : path
        Where to write; 4096 px are 0.7 GB, 8192 px 2.9 GB.
    size : int
        Width and height in pixels. Published tiles have 8192.
    block : int
        Width and height of a block in pixels. Published: 1024.
    seed : int
        Another seed is other land.
    year : int
        Another year is the same land a little changed.
    south_up : bool
        Row order: True as published.
    max_workers : int, optional
        Threads. Doesn't change a byte.
    """
    middle = size * PIXEL_M / 2
    # 1 % nodata, so that masks cost what they cost on real tiles
    lake = outline(middle, middle, 0.01 * (size * PIXEL_M) ** 2 / 10_000)
    land = Landscape(lon=LON, lat=LAT, seed=1000 + seed, masked=(lake,))
    step, north = (PIXEL_M, SOUTH) if south_up else (-PIXEL_M, SOUTH + size * PIXEL_M)
    grid = Grid(crs=CRS, transform=(PIXEL_M, 0.0, WEST, 0.0, step, north), shape=(size, size))
    return write_tile(
        path,
        grid,
        lambda window: land.codes(CRS, window, year),
        block=block,
        description=SYNTHETIC,
        metadata={"SYNTHETIC": "YES", "YEAR": str(year), "GENERATOR": f"gee_polygons {package_version()}"},
        max_workers=max_workers,
    )

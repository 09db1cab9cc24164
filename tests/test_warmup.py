"""`python -m gee_polygons.warmup`: after it, nothing is compiled any more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# what users do first, in a new process; the last line is how many functions it had to compile
FIRST_CALLS = """
import sys
import numpy as np
from benchmarks.tile import make_benchmark_tile
from gee_polygons import extract_embeddings, open_source
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.site import sites_from_geodataframe
from gee_polygons.sources.raster import RasterSource
from gee_polygons.sources.sample import sample_sites
from gee_polygons.warmup import _counts

sites = sites_from_geodataframe(sample_sites())
everything = ["mean", "std", "min", "max", "median", "p10", "p90", "count", "medoid"]
image = open_source("sample").image(sites[0].polygon.buffer(0.01), 2024)
rasters = [
    RasterSource(values, grid=image.grid, year=2024)
    for values in (image.codes, image.vectors, codes_to_vectors(image.codes, np.float64))
]
for some in (sites, sites[:1], sites[3:5]):
    extract_embeddings(some, years=[2023, 2024], source="sample", statistics=everything, max_workers=2)
    extract_embeddings(some, years=2024, source="sample", bands=["A03"], statistics=["std", "min", "p25"])
    extract_embeddings(some, years=2024, source="sample", bands=["A03", "A50"], statistics=["std", "min", "p25"])
    for raster in rasters:
        extract_embeddings(some, source=raster, statistics=["mean", "min", "max", "count"])
        extract_embeddings(some, source=raster, bands=["A63"], statistics=["max"])
    extract_embeddings(some, source=rasters[0], statistics=everything)
make_benchmark_tile(sys.argv[1], size=64, block=32)
compiled, found = _counts()
assert found > 20, found
print(compiled)
"""


def run(*arguments, **env) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def cached(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*.nb[ci]")}


def test_after_a_warm_up_nothing_is_left_to_compile(tmp_path):
    run("-m", "gee_polygons.warmup")
    assert re.fullmatch(r"everything was compiled already \(\d+\.\d s\)", run("-m", "gee_polygons.warmup"))
    assert run("-c", FIRST_CALLS, str(tmp_path / "tile.tiff")) == "0"


@pytest.mark.slow
def test_a_warm_up_from_nothing_leaves_nothing_to_write(tmp_path):
    kept = tmp_path / "numba"
    said = run("-m", "gee_polygons.warmup", NUMBA_CACHE_DIR=str(kept))
    assert re.fullmatch(r"\d\d functions compiled and kept \(\d+\.\d s\)", said)
    after = cached(kept)
    assert len(after) > 40
    assert run("-c", FIRST_CALLS, str(tmp_path / "tile.tiff"), NUMBA_CACHE_DIR=str(kept)) == "0"
    assert cached(kept) == after

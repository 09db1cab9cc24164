"""Compiles every numba function ahead of use, so that no extraction waits for it: `python -m gee_polygons.warmup`.

numba compiles a function for each combination of array types that it is called with, and caches the result on disk
(beside the package, or in the folder that ``NUMBA_CACHE_DIR`` names). Here every statistic is extracted from a tiny
tile, mosaic and rasters by the same calls that a user makes, so that exactly what a first extraction needs is compiled.
Run again, it compiles nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.alphaearth import BANDS, N_BANDS
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.reduction.pipeline import reduce_polygons
from gee_polygons.reduction.plan import PixelSource
from gee_polygons.sources.cog.source import CogSource
from gee_polygons.sources.mosaic.source import MosaicSource
from gee_polygons.sources.raster import RasterSource
from gee_polygons.sources.sample.archive import build_sample_archive
from gee_polygons.sources.sample.scene import sample_sites

__all__ = ["WarmUp", "warm_up"]

_YEAR: Final = 2024
_CODES: Final = ("mean", "std", "min", "max", "median", "p90", "count", "medoid")
_FLOATS: Final = ("mean", "min", "max", "count")  # the statistics of float vectors


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Result of a warm-up.

    Parameters
    ----------
    compiled : int
        Functions compiled, one for each combination of argument types.
    found : int
        Functions found in the cache.
    seconds : float
        Time taken.
    """

    compiled: int
    found: int
    seconds: float


def warm_up() -> WarmUp:
    """Compile the functions that aren't compiled yet.

    Returns
    -------
    WarmUp

    Examples
    --------
    >>> warm_up().seconds > 0
    True
    """
    start = time.perf_counter()
    before = _counts()
    with tempfile.TemporaryDirectory() as folder:
        archive = CogSource(build_sample_archive(Path(folder) / "sample", years=[_YEAR]))
        polygons = sample_sites().geometry.to_numpy()
        for source, names in _sources(archive, shapely.union_all(polygons[:2]), Path(folder)):
            # a column of an array with one column is contiguous, which numba compiles separately: one polygon, one band
            for some in (polygons, polygons[:1]):
                for bands in (BANDS, BANDS[:1]):
                    statistics = [name for name in names if name != "medoid" or len(bands) == N_BANDS]
                    reduce_polygons(source, some, [_YEAR], bands=bands, statistics=statistics)
    compiled, found = (after - first for after, first in zip(_counts(), before, strict=True))
    return WarmUp(compiled=compiled, found=found, seconds=time.perf_counter() - start)


def _sources(
    archive: CogSource, place: shapely.Geometry, folder: Path
) -> Iterator[tuple[PixelSource, tuple[str, ...]]]:
    """Yield the archive, a mosaic, and rasters of each type of pixel around a place, and their statistics."""
    image = archive.image(place, _YEAR)
    yield archive, _CODES
    yield _mosaic(folder, image.codes, place), _CODES
    yield RasterSource(image.codes, grid=image.grid, year=_YEAR), _CODES
    for dtype in (np.float32, np.float64):
        vectors: NDArray[Any] = codes_to_vectors(image.codes, dtype)
        yield RasterSource(vectors, grid=image.grid, year=_YEAR), _FLOATS


def _mosaic(folder: Path, codes: NDArray[np.int8], place: shapely.Geometry) -> MosaicSource:
    """Write some pixels as a mosaic around a place."""
    import zarr

    west, south, east, north = place.bounds
    _, height, width = codes.shape
    group = zarr.create_group(folder / "mosaic.zarr", zarr_format=3, attributes={
        "proj:code": "EPSG:4326", "years": [_YEAR],
        "spatial:transform": [(east - west) / width, 0.0, west, 0.0, (south - north) / height, north],
    })  # fmt: skip
    names = ["time", "band", "y", "x"]
    group.create_array(
        "embeddings", data=codes[None], chunks=(1, N_BANDS, 32, 32), dimension_names=names, fill_value=-128
    )
    return MosaicSource(folder / "mosaic.zarr")


def _counts() -> tuple[int, int]:
    """Return how many functions this process has compiled, and how many it has found in the cache."""
    from numba.core.dispatcher import Dispatcher

    modules = [module for name, module in sys.modules.items() if name.startswith("gee_polygons.")]
    functions = {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}
    stats = [function.stats for function in functions]
    return sum(sum(s.cache_misses.values()) for s in stats), sum(sum(s.cache_hits.values()) for s in stats)


def _main() -> None:
    import click

    done = warm_up()
    what = f"{done.compiled} functions compiled and kept" if done.compiled else "everything was compiled already"
    click.echo(f"{what} ({done.seconds:.1f} s)")


if __name__ == "__main__":
    _main()

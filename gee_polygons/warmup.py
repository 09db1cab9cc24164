"""Compile everything that numba compiles, once, so that no extraction waits for it: `python -m gee_polygons.warmup`.

numba compiles a function for each kind of array that it is called with, and keeps the result on disk (beside the
package, or in the folder that ``NUMBA_CACHE_DIR`` names). Here every statistic is extracted from a tiny tile and from
tiny rasters through the real way, so that exactly what a user's first call would compile is compiled. Done again, it
finds everything and compiles nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from gee_polygons.embeddings.quantization import BANDS, N_BANDS, codes_to_vectors
from gee_polygons.pipeline import reduce_polygons
from gee_polygons.sources import _landscape
from gee_polygons.sources.base import PixelSource
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.raster import RasterSource
from gee_polygons.sources.sample import build_sample_archive, sample_sites
from gee_polygons.zonal import coverage, kernels, statistics

__all__ = ["WarmUp", "warm_up"]

_YEAR: Final = 2024
_CODES: Final = ("mean", "std", "min", "max", "median", "p90", "count", "medoid")
_FLOATS: Final = ("mean", "min", "max", "count")  # what can be had of vectors that aren't on the 255 levels


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """What a warm-up did.

    Parameters
    ----------
    compiled : int
        Functions compiled, one for each kind of arguments.
    found : int
        Functions found compiled.
    seconds : float
        Time taken.
    """

    compiled: int
    found: int
    seconds: float


def warm_up() -> WarmUp:
    """Compile what isn't compiled yet.

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
        for source, names in _sources(archive, shapely.union_all(polygons[:2])):
            # numba tells apart one polygon or band from several: a column of one is contiguous
            for asked in (polygons, polygons[:1]):
                for bands in (BANDS, BANDS[:1]):
                    wanted = [name for name in names if name != "medoid" or len(bands) == N_BANDS]
                    reduce_polygons(source, asked, [_YEAR], bands=bands, statistics=wanted)
    compiled, found = (after - first for after, first in zip(_counts(), before, strict=True))
    return WarmUp(compiled=compiled, found=found, seconds=time.perf_counter() - start)


def _sources(archive: CogSource, place: shapely.Geometry) -> Iterator[tuple[PixelSource, tuple[str, ...]]]:
    """Yield the archive, and rasters of each type of pixel around a place, with the statistics that they can give."""
    image = archive.image(place, _YEAR)
    yield archive, _CODES
    yield RasterSource(image.codes, grid=image.grid, year=_YEAR), _CODES
    for dtype in (np.float32, np.float64):
        vectors: NDArray[Any] = codes_to_vectors(image.codes, dtype)
        yield RasterSource(vectors, grid=image.grid, year=_YEAR), _FLOATS


def _counts() -> tuple[int, int]:
    """Return how many functions this process has compiled, and how many it has found compiled."""
    from numba.core.dispatcher import Dispatcher

    modules = (coverage, kernels, statistics, _landscape)
    stats = [value.stats for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)]
    return sum(sum(s.cache_misses.values()) for s in stats), sum(sum(s.cache_hits.values()) for s in stats)


def _main() -> None:
    import click

    done = warm_up()
    what = f"{done.compiled} functions compiled and kept" if done.compiled else "everything was compiled already"
    click.echo(f"{what} ({done.seconds:.1f} s)")


if __name__ == "__main__":
    _main()
